"""Circuit v2 against stock py-libp2p hosts, each in every part: relay, listener behind it, dialer."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from libp2p.peer.peerinfo import PeerInfo
from libp2p.relay.circuit_v2.config import RelayRole
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID
from multiaddr import Multiaddr

from punchbridge.addresses import parse, without_peer
from punchbridge.errors import RelayRefused
from punchbridge.identity import Identity
from punchbridge.wire.circuit import CircuitLimit
from tests.support.relay_lab import ECHO, echo, network, read_all
from tests.support.stock_circuits import stock
from tests.support.stock_host import ours, theirs


async def exchange(stream: Any, payload: bytes) -> bytes:
    await stream.send_all(payload)
    answer = await read_all(stream, len(payload))
    await stream.aclose()
    return answer


async def test_a_stock_listener_behind_our_relay() -> None:
    async with network() as net, stock() as listener:
        relay, dialer = await net.relay(), await net.node()
        info = PeerInfo(theirs(relay.swarm.peer), [Multiaddr(str(without_peer(relay.addr)))])
        await listener.host.connect(info)
        stream = await listener.host.new_stream(theirs(relay.swarm.peer), [PROTOCOL_ID])
        assert await listener.transport._make_reservation(stream, theirs(relay.swarm.peer))
        assert relay.service.stats().reservations == 1
        target = parse(f"{relay.addr}/p2p-circuit/p2p/{listener.host.get_id()}")
        connection = await dialer.swarm.dial(target)
        assert connection.path == "relay"
        payload = bytes(range(256)) * 256
        assert await exchange(await connection.open_stream([ECHO]), payload) == payload


async def test_a_stock_dialer_through_our_relay() -> None:
    async with network() as net, stock(roles=RelayRole.CLIENT) as dialer:
        relay = await net.relay()
        listener = await net.node()
        await listener.swarm.handle(ECHO, echo, max_streams=4, max_per_peer=4)
        reservation = await listener.relays.reserve(relay.addr)
        raw = await dialer.transport.dial_peer_info(
            PeerInfo(theirs(listener.peer), [Multiaddr(str(reservation.addrs[0]))]),
            relay_info=PeerInfo(theirs(relay.swarm.peer), [Multiaddr(str(without_peer(relay.addr)))]),
        )
        await dialer.host.upgrade_outbound_connection(raw, theirs(listener.peer))
        stream = await dialer.host.new_stream(theirs(listener.peer), [ECHO])
        await stream.write(b"from a stock dialer")
        assert await stream.read(19) == b"from a stock dialer"
        (connection,) = listener.swarm.connections(ours(dialer.host.get_id()))
        assert (connection.path, connection.role) == ("relay", "responder")


async def test_both_of_ours_through_a_stock_relay() -> None:
    async with network() as net, stock(hop=True, roles=RelayRole.HOP) as relay:
        listener, dialer = await net.node(), await net.node()
        await listener.swarm.handle(ECHO, echo, max_streams=4, max_per_peer=4)
        reservation = await listener.relays.reserve(relay.addr)
        assert reservation.limit == CircuitLimit(60, 1 << 20)
        connection = await dialer.swarm.dial(reservation.addrs[0])
        payload = bytes(range(256)) * 64
        assert await exchange(await connection.open_stream([ECHO]), payload) == payload


async def test_a_stock_relay_knows_no_such_listener() -> None:
    async with network() as net, stock(hop=True, roles=RelayRole.HOP) as relay:
        dialer = await net.node()
        with pytest.raises(RelayRefused) as caught:
            with trio.fail_after(10):
                await dialer.swarm.dial(parse(f"{relay.addr}/p2p-circuit/p2p/{Identity.generate()}"))
        assert caught.value.status == "NO_RESERVATION"
