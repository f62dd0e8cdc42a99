"""Relays over QUIC on loopback: reservations and circuits, each end over its own transport."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import endpoint_of, parse
from punchbridge.cli.relay import LISTEN, RelaySettings
from punchbridge.cli.relay import _program as made
from punchbridge.errors import PortInUse, RelayRefused
from punchbridge.eventhub import EventHub
from punchbridge.events import TransportAbsent
from punchbridge.identity import Identity
from punchbridge_relay.events import RelayListening
from punchbridge_relay.program import RelayConfig, run
from tests.support.built import NOT_BUILT
from tests.support.relay_lab import ECHO, Network, Node, Relay, echo, network, read_all
from tests.support.swarms import Recorder

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


# --- a port that another program holds ----------------------------------------------------------------------


@contextmanager
def taken() -> Iterator[int]:
    """A number whose UDP port another program holds, and whose TCP port is free."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        tcp.close()
        yield int(udp.getsockname()[1])


async def test_a_relay_does_without_the_udp_port_that_nobody_asked_for() -> None:
    with taken() as port:
        addrs = [parse(f"/ip4/127.0.0.1/{form}") for form in (f"tcp/{port}", f"udp/{port}/quic-v1")]
        hub = EventHub()
        record = Recorder(hub)
        config = partial(RelayConfig, identity=Identity.generate(), listen=tuple(addrs), allow_private=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(run, config(spared=(addrs[1],)), hub)
            (told,) = record.of(TransportAbsent)
            assert (told.transport, "another program holds this UDP port" in told.message) == ("quic", True)
            (listening,) = record.of(RelayListening)
            assert [addr.partition("/p2p/")[0] for addr in listening.addrs] == [str(addrs[0])]
            nursery.cancel_scope.cancel()
        with trio.fail_after(30), pytest.raises(PortInUse):
            await run(config(), EventHub())  # both were asked for


def test_only_the_default_is_done_without(tmp_path: Path) -> None:
    key = str(tmp_path / "key")
    assert [str(one) for one in made(RelaySettings(key=key, new_key=True)).spared] == [LISTEN[1]]
    assert made(RelaySettings(key=key, listen=(LISTEN[1], LISTEN[0]))).spared == ()
