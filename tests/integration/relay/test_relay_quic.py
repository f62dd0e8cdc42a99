"""Relays over QUIC on loopback: reservations and circuits, each end over its own transport."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import endpoint_of, parse
from punchbridge.errors import RelayRefused
from tests.support.built import NOT_BUILT
from tests.support.relay_lab import ECHO, Network, Node, Relay, echo, network, read_all

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

UDP = parse("/ip4/127.0.0.1/udp/0/quic-v1")
BOTH = ("tcp", "quic")


async def both(net: Network, access: Access = OPEN, **limits: Any) -> tuple[Relay, dict[str, str]]:
    """A relay that listens with both transports, and its address for each."""
    relay = await net.relay(access, **limits)
    (udp,) = await relay.swarm.listen(UDP)
    return relay, {"tcp": str(relay.addr), "quic": f"{udp}/p2p/{relay.swarm.identity}"}


async def reserved(net: Network, addr: str) -> Node:
    node = await net.node()
    await node.swarm.handle(ECHO, echo, max_streams=8, max_per_peer=8)
    await node.relays.reserve(parse(addr))
    return node


@pytest.mark.parametrize(("listening", "dialling"), list(itertools.product(BOTH, BOTH)))
async def test_a_circuit_joins_whatever_leads_to_the_relay(listening: str, dialling: str) -> None:
    async with network() as net:
        _, addrs = await both(net)
        listener, dialer = await reserved(net, addrs[listening]), await net.node()
        near = await dialer.swarm.dial(parse(f"{addrs[dialling]}/p2p-circuit/p2p/{listener.swarm.identity}"))
        (far,) = listener.swarm.connections(dialer.peer)
        assert (near.transport, far.transport) == ("circuit", "circuit")
        for node, over in ((dialer, dialling), (listener, listening)):
            assert [one.transport for one in node.swarm.connections() if one.path == "direct"] == [over]
        assert str(far.remote).startswith(addrs[listening])
        stream = await near.open_stream([ECHO])
        await stream.send_all(b"x" * 50_000)
        await stream.send_eof()
        assert await read_all(stream) == b"x" * 50_000


async def test_each_end_is_told_where_the_other_one_was_seen_over_quic() -> None:
    """So a network that is denied is denied over a relay as well, whatever transport its peers take there."""
    async with network() as net:
        _, addrs = await both(net)
        listener, dialer = await reserved(net, addrs["quic"]), await net.node()
        dialer.swarm.named_relays.add((parse(addrs["quic"]),))
        near = await dialer.swarm.dial(parse(f"{addrs['quic']}/p2p-circuit/p2p/{listener.swarm.identity}"))
        (far,) = listener.swarm.connections(dialer.peer)
        for one, other in ((near, listener), (far, dialer)):
            seen = None if one.attested is None else endpoint_of(one.attested)
            (leading,) = [x for x in other.swarm.connections() if x.path == "direct"]
            here = endpoint_of(leading.local)
            assert seen is not None
            assert here is not None
            assert (seen.host, seen.port, seen.proto) == ("127.0.0.1", here.port, "udp")


async def test_reservations_of_one_address_are_counted_over_both() -> None:
    async with network() as net:
        relay, addrs = await both(net, reservations_per_address=2)
        await reserved(net, addrs["tcp"])
        await reserved(net, addrs["quic"])
        third = await net.node()
        with pytest.raises(RelayRefused, match="RESERVATION_REFUSED"):
            await third.relays.reserve(parse(addrs["quic"]))
        assert relay.service.stats().reservations == 2


async def test_a_reservation_ends_with_the_quic_connection() -> None:
    async with network() as net:
        relay, addrs = await both(net)
        node = await reserved(net, addrs["quic"])
        assert relay.service.stats().reservations == 1
        (connection,) = relay.swarm.connections(node.peer)
        await node.swarm.close(relay.swarm.peer)
        await connection.closed.wait()
        assert relay.service.stats().reservations == 0
