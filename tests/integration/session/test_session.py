"""Sessions over real hosts on loopback: moving, dying and coming back of what is below, with nothing lost above."""

from __future__ import annotations

import gc
import hashlib
import random
from collections import Counter

import pytest
import trio

from punchbridge.config import SessionLimits
from punchbridge.errors import NegotiationFailed, StreamReset
from punchbridge.session import SESSION_PROTOCOL, SessionStream
from punchbridge.session.carrier import Carrier
from punchbridge.session.live import LiveSession
from punchbridge.sessions import Session
from punchbridge.sessions.carrier import CarrierState
from punchbridge.transport.muxed.connection import MuxedConnection
from punchbridge.transport.streams.mux import Mux
from punchbridge.transport.streams.stream import Stream
from punchbridge.yamux import StreamState, Yamux
from tests.support.session_lab import pair, read_exactly, until

LIMITS = SessionLimits()


async def test_echo_and_clean_end() -> None:
    async with pair() as both:
        stream = await both.open()
        await stream.send_all(b"hello")
        assert await read_exactly(stream, 5) == b"hello"
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await stream.aclose()
        await until(lambda: both.dialler.sessions.count == both.acceptor.sessions.count == 0)


async def test_known_by_identify() -> None:
    async with pair() as both:
        connection = await both.connect()
        assert await both.dialler.sessions.supported_by(connection)
        assert connection.identify is not None
        assert SESSION_PROTOCOL in connection.identify.protocols


async def test_session_survives_the_death_of_every_connection() -> None:
    async with pair() as both:
        stream = await both.open()
        for number in range(5):
            message = b"message %d" % number
            await stream.send_all(message)
            assert await read_exactly(stream, len(message)) == message
            for connection in both.dialler.swarm.connections(both.peer):
                connection.abort("CUT")
        await stream.send_all(b"last")
        assert await read_exactly(stream, 4) == b"last"
        assert both.switches()[0].reason == "OPENED"
        assert sum(not event.planned for event in both.switches()) >= 5


async def test_dead_acceptor_side_is_noticed_and_replaced() -> None:
    async with pair() as both:
        stream = await both.open()
        await stream.send_all(b"one")
        assert await read_exactly(stream, 3) == b"one"
        for connection in both.acceptor.swarm.connections():
            connection.abort("CUT")
        await stream.send_all(b"two")
        assert await read_exactly(stream, 3) == b"two"


async def test_unknown_service_is_a_typed_refusal() -> None:
    async with pair() as both:
        with pytest.raises(NegotiationFailed, match="/test/nothing"):
            await both.open("/test/nothing")


async def test_peer_without_sessions_is_a_typed_refusal() -> None:
    async with pair() as both:
        await both.acceptor.swarm.unhandle(SESSION_PROTOCOL)
        with pytest.raises(NegotiationFailed):
            await both.open()


async def test_reset_reaches_the_other_end() -> None:
    async with pair() as both:
        seen: list[BaseException] = []

        async def handler(stream: SessionStream) -> None:
            try:
                await stream.receive_some()
            except StreamReset as problem:
                seen.append(problem)
                raise

        both.acceptor.sessions.serve("/test/reset", handler)
        stream = await both.open("/test/reset")
        stream.abort()
        await until(lambda: bool(seen))
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_bulk_both_ways_while_connections_die() -> None:
    size, cuts = 24 * 1024 * 1024, 10
    chance = random.Random(7)
    data = chance.randbytes(size)
    async with pair() as both:
        stream = await both.open()
        got = hashlib.sha256()
        arrived = 0

        def cut() -> None:
            """By what has arrived, not by the clock: a quick machine has few moments, a busy one many in one outage."""
            for connection in chance.choice((both.dialler, both.acceptor)).swarm.connections():
                connection.abort("CUT")

        async def reader() -> None:
            nonlocal arrived
            while arrived < size:
                piece = await stream.receive_some()
                assert piece
                got.update(piece)
                before, arrived = arrived, arrived + len(piece)
                if before * cuts // size < arrived * cuts // size < cuts:
                    cut()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                await stream.send_all(data)
        assert got.digest() == hashlib.sha256(data).digest()
        # One cut may fall into the outage of the one before.
        assert sum(not event.planned for event in both.switches()) >= cuts // 2


async def test_what_sessions_grew_by_is_free_again_once_they_ended() -> None:
    async with pair() as both:
        services = (both.dialler.sessions, both.acceptor.sessions)
        whole = services[0].budget.left
        for ending in ("closed", "reset"):
            stream = await both.open()
            await stream.send_all(b"hello")
            assert await read_exactly(stream, 5) == b"hello"
            for service in services:
                (live,) = service.opened or service.accepted
                live.machine.outgoing._grow_to(LIMITS.replay_most)
                held = LIMITS.replay_most + live.machine.incoming.window - 2 * LIMITS.floor
                assert service.budget.left == whole - held
            if ending == "closed":
                await stream.send_eof()
                assert await stream.receive_some() == b""
                await stream.aclose()
            else:
                stream.abort()
            await until(lambda: not any(service.count for service in services))
            assert [service.budget.left for service in services] == [whole, whole]


def alive(*kinds: type) -> Counter[str]:
    """How many objects of these kinds there are."""
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in kinds)


async def test_moves_and_deaths_leave_nothing_behind() -> None:
    kinds = (Carrier, CarrierState, MuxedConnection, Stream, Mux, Yamux, StreamState, LiveSession, Session)
    chance = random.Random(5)
    async with pair() as both:
        stream = await both.open()
        for _ in range(3):
            for _ in range(25):
                active = stream.live.active
                if active is not None and chance.random() < 0.5:
                    active.connection.abort("CUT")
                else:
                    await both.dialler.sessions.move(stream.live, await both.connect(), "TRIED")
                await stream.send_all(b"ping")
                assert await read_exactly(stream, 4) == b"ping"
            for one in both.dialler.swarm.connections(both.peer):
                if stream.live.active is None or one is not stream.live.active.connection:
                    one.abort("UNUSED")
            await until(lambda: len(both.acceptor.swarm.connections()) == 1 and len(stream.live.carriers) == 1)
            # Both ends' own, and those that the last exceptions and events still name.
            found = alive(*kinds)
            assert all(count <= 12 for count in found.values()), found
            assert found["Session"] == found["LiveSession"] == 2
            assert set(found) == {kind.__name__ for kind in kinds}, "a kind that is not found is not counted"


async def test_stopping_the_hosts_leaves_no_task_waiting() -> None:
    with trio.fail_after(15):
        async with pair() as both:
            stream = await both.open()
            await stream.send_all(b"x" * 100)
        with pytest.raises((StreamReset, trio.ClosedResourceError)):
            await stream.receive_some()
