"""Sessions between TCP and QUIC on real hosts: measured, moved for losses and before a foreseen end, and followed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from punchbridge.addresses import endpoint_of, parse, with_peer
from punchbridge.config import Limits, PathLimits
from punchbridge.events import SessionSwitched
from punchbridge.reach.gauge import PathCounts
from punchbridge.session import SessionStream
from punchbridge.session.known import KnownPaths
from punchbridge.transport.base import Connection
from punchbridge.transport.muxed.connection import MuxedConnection
from tests.support.built import NOT_BUILT
from tests.support.rebinding import Rebinding
from tests.support.session_lab import SERVICE, Pair, Route, pair, read_exactly, until

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

QUIC = parse("/ip4/127.0.0.1/udp/0/quic-v1")


async def echoed(stream: SessionStream, data: bytes) -> None:
    await stream.send_all(data)
    assert await read_exactly(stream, len(data)) == data


@asynccontextmanager
async def both_ways(limits: Limits | None = None) -> AsyncIterator[tuple[Pair, SessionStream, Connection]]:
    """A session over TCP, with a connection over QUIC beside it."""
    async with pair(limits) as both:
        (udp,) = await both.acceptor.swarm.listen(QUIC)
        stream = await both.open()
        await echoed(stream, b"over TCP")
        second = await both.dialler.swarm.dial(with_peer(udp, both.peer), fresh=True)
        assert second.transport == "quic"
        yield both, stream, second


def moves(both: Pair, stream: SessionStream) -> list[SessionSwitched]:
    """Those of the session since it was opened."""
    name = stream.live.machine.id.hex()[:8]
    return [event for event in both.switches() if event.session == name and event.reason != "OPENED"]


@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_a_connection_counts_what_it_sends(transport: str) -> None:
    async with both_ways() as (both, stream, second):
        if transport == "quic":
            await until(lambda: stream.live.active is not None)
            assert await both.dialler.sessions.move(stream.live, second, "TEST")
        active = stream.live.active
        assert active is not None
        connection = active.connection
        assert connection.transport == transport
        before = connection.counts
        assert before is not None
        await echoed(stream, bytes(300_000))

        def delivered() -> bool:
            after = connection.counts
            assert after is not None
            assert after.lost <= after.packets
            return after.packets > before.packets and after.delivered - before.delivered >= 300_000

        await until(delivered)
        connection.abort("CUT")
        assert connection.counts is None or connection.counts.delivered >= 300_000


async def test_tcp_that_loses_packets_is_left_for_quic(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ways(Limits(paths=PathLimits(sample=0.1))) as (both, stream, _second):
        steps = itertools.count()

        def lossy(connection: MuxedConnection) -> PathCounts:
            number = next(steps)
            return PathCounts(1000 * number, 30 * number, 0)

        monkeypatch.setattr(MuxedConnection, "counts", property(lossy))
        await until(lambda: moves(both, stream), 20)
        (moved,) = moves(both, stream)
        assert (moved.reason, moved.from_transport, moved.to_transport) == ("LOSS", "tcp", "quic")
        assert moved.planned
        await echoed(stream, b"over QUIC")


async def test_where_nothing_is_lost_the_session_stays_on_tcp() -> None:
    async with both_ways(Limits(paths=PathLimits(sample=0.05))) as (both, stream, _second):
        with trio.move_on_after(0.5):
            while True:
                await echoed(stream, bytes(50_000))
        assert not moves(both, stream)


async def test_a_path_is_left_before_it_is_expected_to_die() -> None:
    async with both_ways() as (both, stream, _second):
        known: KnownPaths = both.dialler.sessions._known
        first = stream.live.last
        assert first is not None
        first.opened_at -= 59.0
        known.died(first, first.opened_at + 60.0, first.opened_at + 61.0)
        known.died(first, first.opened_at + 60.0, first.opened_at + 61.0)  # another session's word on the same death
        assert known.candidate(first, None, trio.current_time()).leave_at is None
        known._lifetimes.died((first.peer, "tcp"), 59.0, 0.0)
        stream.live.on_change()
        await until(lambda: moves(both, stream), 20)
        (moved,) = moves(both, stream)
        assert (moved.reason, moved.to_transport, moved.planned, moved.gap_ms) == ("LIFETIME", "quic", True, 0.0)
        await echoed(stream, b"before the strike")
        assert not first.closed.is_set()


class Nat(Rebinding):
    """It also lets nothing through for a while."""

    down = False

    async def _out(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._inside)
            data, self._client = self._inside.recvfrom(65535)
            if not self.down:
                self._outside.sendto(data, self._target)

    async def outage(self, seconds: float) -> None:
        self.down = True
        await trio.sleep(seconds)
        self.down = False


@asynccontextmanager
async def behind_a_nat() -> AsyncIterator[tuple[Pair, SessionStream, Connection, Nat]]:
    """A session over QUIC through a NAT; no address that leads around it."""
    async with pair() as both, trio.open_nursery() as nursery:
        (udp,) = await both.acceptor.swarm.listen(QUIC)
        where = endpoint_of(udp)
        assert where is not None
        nat = Nat((where.host, where.port))
        nursery.start_soon(nat.run)
        addr = parse(f"/ip4/127.0.0.1/udp/{nat.port}/quic-v1/p2p/{both.addr.value_for_protocol('p2p')}")
        connection = await both.dialler.swarm.dial(addr, fresh=True)
        stream = await both.dialler.sessions.open(connection, SERVICE, route=Route(both.peer, None), policy="any")
        await echoed(stream, b"over QUIC")
        yield both, stream, connection, nat
        nursery.cancel_scope.cancel()


async def test_a_session_stays_on_a_quic_path_that_follows_its_nat() -> None:
    async with behind_a_nat() as (both, stream, connection, nat):
        for number in range(3):
            nat.rebind()
            await echoed(stream, b"after reboot %d" % number)
        assert not moves(both, stream)
        assert not connection.closed.is_set()


async def test_a_quic_path_that_was_silent_for_a_moment_is_not_torn_down() -> None:
    """The session counts its carrier as dead after a second, and goes on over the same connection."""
    async with behind_a_nat() as (both, stream, connection, nat):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nat.outage, 1.5)
            await trio.lowlevel.checkpoint()
            nat.rebind()
            with trio.fail_after(20):
                await echoed(stream, b"after a longer reboot")
        assert not connection.closed.is_set()
        assert stream.live.last is connection
        assert all(event.to_transport == "quic" for event in moves(both, stream))
