"""Sessions over QUIC on real hosts: on a direct connection, on a circuit, and moved between the two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from punchbridge.addresses import parse, with_peer
from punchbridge.eventhub import EventHub
from punchbridge.events import Event, P2pUpgrade, SessionKept
from punchbridge.host.host import open_host
from punchbridge.session import SessionStream
from punchbridge.transport.base import Connection
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.service import HopService
from tests.support.built import NOT_BUILT
from tests.support.session_lab import SERVICE, Pair, Route, config, echo, pair, read_exactly, until

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

LISTEN = (parse("/ip4/127.0.0.1/udp/0/quic-v1"),)
UNLIMITED = RelayLimits(circuit_seconds=0, circuit_bytes=0)


@asynccontextmanager
async def quic_pair() -> AsyncIterator[Pair]:
    """Two hosts that listen with QUIC alone."""
    hub = EventHub()
    events: list[Event] = []
    hub.subscribe(events.append)
    mine, theirs = (replace(config(), listen=LISTEN) for _ in range(2))
    async with open_host(mine, hub) as dialler, open_host(theirs, EventHub()) as acceptor:
        acceptor.sessions.serve(SERVICE, echo)
        yield Pair(dialler, acceptor, events)


async def echoed(stream: SessionStream, data: bytes) -> None:
    await stream.send_all(data)
    assert await read_exactly(stream, len(data)) == data


async def test_a_session_survives_the_death_of_every_quic_connection() -> None:
    async with quic_pair() as both:
        stream = await both.open()
        for number in range(4):
            await echoed(stream, b"message %d" % number)
            (connection,) = [one for one in both.dialler.swarm.connections(both.peer) if not one.closing]
            assert (connection.transport, connection.path) == ("quic", "direct")
            connection.abort("CUT")
        await echoed(stream, bytes(300_000))
        assert sum(not event.planned for event in both.switches()) >= 4


async def test_a_session_moves_from_a_circuit_over_quic_to_a_direct_quic_connection() -> None:
    async with (
        quic_pair() as both,
        open_host(replace(config(), listen=LISTEN), EventHub()) as third,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(HopService(third.swarm, UNLIMITED).run)
        relay = with_peer(third.swarm.listen_addrs()[0], third.swarm.peer)
        await both.acceptor.swarm.reserve(relay)
        circuit = parse(f"{relay}/p2p-circuit/p2p/{both.peer}")
        first: Connection = await both.dialler.swarm.dial(circuit)
        stream = await both.dialler.sessions.open(first, SERVICE, route=Route(both.peer, circuit), policy="any")
        await echoed(stream, b"over the relay")
        direct = await both.dialler.swarm.dial(both.addr)
        assert direct.transport == "quic"
        await until(lambda: stream.path == "direct" or both.of(SessionKept), 20)
        if both.of(SessionKept):  # measured slower than the relay, on a busy machine: it moves when the circuit is gone
            first.abort("CUT")
            await until(lambda: stream.path == "direct", 20)
        else:
            (told,) = both.of(P2pUpgrade)
            assert (told.transport, told.remote) == ("quic", str(direct.remote))
        await echoed(stream, bytes(200_000))
        direct.abort("CUT")  # it goes on over the circuit, or over a new connection where the circuit was cut above
        await until(lambda: stream.live.active is not None and stream.live.active.connection is not direct, 20)
        await echoed(stream, b"and on")
        nursery.cancel_scope.cancel()


async def test_a_session_goes_on_over_the_other_transport() -> None:
    """TCP is lost, and the peer is found again over QUIC: the same stream, nothing lost."""
    async with pair() as both:
        (udp,) = await both.acceptor.swarm.listen(LISTEN[0])
        stream = await both.open()
        await echoed(stream, b"over TCP")
        second = await both.dialler.swarm.dial(with_peer(udp, both.peer), fresh=True)
        for connection in both.dialler.swarm.connections(both.peer):
            if connection is not second:
                connection.abort("CUT")
        await echoed(stream, bytes(100_000))
        assert second.bytes_sent > 100_000
