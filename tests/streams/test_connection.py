"""The end of connections: loss, goodbyes, violations, silence; and what is bounded; over loopback TCP."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
import trio
import trio.testing

from punchbridge.config import KIB, MuxedLimits, YamuxLimits
from punchbridge.errors import ConnectionLost
from punchbridge.tasks.fair import FairQueue
from punchbridge.wire.multistream import HEADER, line
from punchbridge.yamux.frames import ACK, DATA, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, header
from tests.support.pairs import connection_pair
from tests.support.scripted import PROTOCOL, open_pair, read_to_end, scripted

# --- the end of a connection --------------------------------------------------------------------------------


async def test_a_socket_killed_in_mid_frame_ends_everything_with_connection_lost() -> None:
    async with scripted() as (side, peer):
        connection = side.connection
        reading = await connection.open_stream([PROTOCOL], lazy=True)
        writing = await connection.open_stream([PROTOCOL], lazy=True)
        while writing.send_nowait(bytes(65536)):
            pass
        seen: list[str] = []

        async def expect(name: str, call: object) -> None:
            with pytest.raises(ConnectionLost):
                await call  # type: ignore[misc]
            seen.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, "read", reading.receive_some())
            nursery.start_soon(expect, "write", writing.send_all(b"x"))
            nursery.start_soon(expect, "open", connection.open_stream([PROTOCOL]))
            nursery.start_soon(expect, "ping", connection.ping())
            await trio.testing.wait_all_tasks_blocked(0.01)
            await peer.raw.send_all(peer._connection._sender._seal(bytes(1000))[:500])
            peer.raw.abort()
        assert sorted(seen) == ["open", "ping", "read", "write"]
        assert connection.close_reason == "CONNECTION_LOST"
        assert connection._raw.socket.fileno() == -1  # type: ignore[attr-defined]
        with pytest.raises(ConnectionLost):
            await connection.open_stream([PROTOCOL])
        with pytest.raises(ConnectionLost):
            await connection.ping()


async def test_aclose_says_goodbye_and_flushes() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        payload = os.urandom(200_000)
        await stream.send_all(payload)
        await stream.send_eof()
        await first.connection.aclose("SHUTDOWN")
        await second.connection.closed.wait()
        assert first.connection.close_reason == "SHUTDOWN"
        assert second.connection.close_reason == "CLOSED_BY_PEER"
        assert await read_to_end(peer) == payload
        with pytest.raises(ConnectionLost):
            await stream.receive_some()


@pytest.mark.parametrize("turn", range(30))
async def test_goodbye_loses_nothing_while_the_peer_still_talks(turn: int) -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        payload = os.urandom(800_000)

        async def talk() -> None:
            for value in range(200):
                second.connection._sender.send(header(PING, SYN, 0, 1000 + value))
                await trio.lowlevel.checkpoint()

        async def finish() -> None:
            await stream.send_all(payload)
            await stream.send_eof()
            nursery.start_soon(talk)
            await first.connection.aclose("SHUTDOWN")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(finish)
            assert await read_to_end(peer) == payload
        await second.connection.closed.wait()
        assert (first.connection.close_reason, second.connection.close_reason) == ("SHUTDOWN", "CLOSED_BY_PEER")


async def test_several_tasks_close_one_connection() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        payload = os.urandom(200_000)
        await stream.send_all(payload)
        await stream.send_eof()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(first.connection.aclose, "SHUTDOWN")
            assert await read_to_end(peer) == payload
        await second.connection.closed.wait()
        assert (first.connection.close_reason, second.connection.close_reason) == ("SHUTDOWN", "CLOSED_BY_PEER")


async def test_a_cancelled_close_cuts_what_another_task_is_closing() -> None:
    async with scripted() as (side, _peer):  # which does not answer the goodbye, and would be waited for
        connection = side.connection
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.aclose, "SHUTDOWN")
            await trio.testing.wait_all_tasks_blocked()
            assert not connection.closed.is_set()
            with trio.CancelScope() as scope:
                scope.cancel()
                await connection.aclose("NORMAL")
            assert connection.closed.is_set()
            assert connection.close_reason == "SHUTDOWN"


async def test_a_stream_cut_by_the_end_of_the_connection_is_no_clean_end() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        await stream.send_all(b"half of it")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await first.connection.aclose()
        assert await peer.receive_some() == b"half of it"
        with pytest.raises(ConnectionLost):
            await peer.receive_some()


async def test_goaway_of_the_peer_lets_streams_finish() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        first.connection._sender.send(first.connection._streams.session.go_away(0))  # type: ignore[arg-type]
        await stream.send_all(b"last words")
        assert await peer.receive_some() == b"last words"
        with pytest.raises(ConnectionLost, match="closing"):
            await second.connection.open_stream([PROTOCOL])


@pytest.mark.parametrize(
    "frames",
    [header(9, 0, 0, 0), header(DATA, SYN, 1, 0), header(DATA, SYN, 2, 1 << 20), header(PING, SYN, 3, 0)],
    ids=["type", "parity", "oversized", "ping on a stream"],
)
async def test_a_violation_is_answered_with_goaway_1_and_closes(frames: bytes) -> None:
    async with scripted() as (side, peer):
        await peer.say(frames)
        assert await peer.hear(GO_AWAY, 0) == (0, 1)
        await side.connection.closed.wait()
        assert side.connection.close_reason == "PROTOCOL"


async def test_a_tampered_message_closes() -> None:
    async with scripted() as (side, peer):
        await peer.raw.send_all(b"\x00\x20" + bytes(32))
        await side.connection.closed.wait()
        assert side.connection.close_reason == "AUTHENTICATION"


async def test_goaway_with_a_fault_closes() -> None:
    async with scripted() as (side, peer):
        await peer.say(header(GO_AWAY, 0, 0, 2))
        await side.connection.closed.wait()
        assert side.connection.close_reason == "CONNECTION_LOST"


async def test_a_silent_peer_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted(yamux=YamuxLimits(keepalive_interval=4.0, keepalive_timeout=3.0)) as (side, _):
        start = trio.current_time()
        await side.connection.closed.wait()
        assert side.connection.close_reason == "KEEPALIVE_TIMEOUT"
        assert trio.current_time() - start == pytest.approx(7.0)


async def test_closing_waits_for_a_peer_that_does_not_close(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted(MuxedLimits(close_timeout=5.0)) as (side, _):
        start = trio.current_time()
        await side.connection.aclose()
        assert trio.current_time() - start == pytest.approx(5.0)


async def test_ping_measures_the_round_trip() -> None:
    async with connection_pair() as (first, second):
        for side in (first, second):
            for _ in range(YamuxLimits().rtt_samples):  # the connection's own measurements are over then
                await side.connection.ping()
            rtt = await side.connection.ping()
            assert 0 < rtt < 5
            assert side.connection.rtt == rtt


async def test_cancelling_run_aborts_the_connection() -> None:
    async with connection_pair() as (first, second):
        assert first.connection._scope is not None
        first.connection._scope.cancel()
        await first.connection.closed.wait()
        await second.connection.closed.wait()
        assert first.connection.close_reason == "CANCELLED"


# --- queues -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [128 * KIB, 512 * KIB])
async def test_senders_wait_when_the_peer_does_not_read(queue: int) -> None:
    async with scripted(MuxedLimits(send_queue=queue)) as (side, peer):
        connection = side.connection
        stream = await connection.open_stream([PROTOCOL], lazy=True)
        await peer.say(header(WINDOW_UPDATE, ACK, 1, 1 << 28))
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0.5):
            while True:
                await stream.send_all(bytes(1 << 20))
        assert queue <= connection._sender.queued < 2 * queue
        assert not connection.closed.is_set()


async def test_a_peer_that_only_asks_is_cut_off_or_left_unanswered() -> None:
    async with scripted() as (side, peer):
        stream = await side.connection.open_stream([PROTOCOL], lazy=True)
        await peer.say(header(WINDOW_UPDATE, ACK, 1, 1 << 28))
        with trio.move_on_after(0.3):
            await stream.send_all(bytes(64 << 20))
        for _ in range(200):
            await peer.say(header(PING, SYN, 0, 7) * 1000)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert side.connection._sender.queued < 2 * MuxedLimits().send_queue


async def test_one_call_sends_a_burst_at_most() -> None:
    async with scripted(MuxedLimits(send_burst=10_000)) as (side, peer):
        stream = await side.connection.open_stream([PROTOCOL], lazy=True)
        assert stream.send_nowait(bytes(25_000)) == 10_000
        assert await peer.hear(DATA, 0) == (1, 10_000)


async def test_inbound_streams_beyond_the_backlog_are_reset() -> None:
    async with scripted(yamux=YamuxLimits(backlog=8)) as (side, peer):
        await peer.say(*[header(DATA, SYN, 2 * index, 0) for index in range(1, 12)])
        assert await peer.hear(WINDOW_UPDATE, RST) == (2 * 9, 0)
        await peer.say(header(DATA, 0, 2, len(HEADER + line(PROTOCOL))), HEADER, line(PROTOCOL))
        assert (await side.accept()).id == 2


# --- turns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [1, 50])
async def test_a_read_full_of_small_frames_leaves_the_others_their_turn(messages: int) -> None:
    """A thousand streams come with one read, each costs work: other tasks run in between."""
    async with scripted(MuxedLimits(turn_frames=64)) as (side, peer):
        hello = HEADER + line(PROTOCOL)
        frames = [header(DATA, SYN, 2 * number, len(hello)) + hello for number in range(1, 1001)]
        size = len(frames) // messages
        sealed = (peer._connection._sender._seal(b"".join(frames[at : at + size])) for at in range(0, 1000, size))
        turns = [0]

        async def others() -> None:
            while turns[-1] < 1000:
                turns.append(side.accepted.statistics().current_buffer_used)
                await trio.lowlevel.checkpoint()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                await peer.raw.send_all(b"".join(sealed))
                nursery.start_soon(others)
        steps = [after - before for before, after in pairwise(turns)]
        # A turn is 64 frames; one that opens a stream counts for 17. The order of two tasks changes from step to step.
        assert max(steps) <= 2 * 4


async def test_an_address_has_no_more_turns_for_having_more_connections() -> None:
    count, queue = 8, FairQueue[str](1)
    hello = HEADER + line(PROTOCOL)
    frames = b"".join(header(DATA, SYN, 2 * number, len(hello)) + hello for number in range(1, 101))
    limits = MuxedLimits(turn_frames=64)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        async with AsyncExitStack() as stack:
            pairs = [await stack.enter_async_context(scripted(limits, turns=queue)) for _ in range(count)]
            for _, peer in pairs:
                await peer.raw.send_all(peer._connection._sender._seal(frames))
            turns = [0]
            while turns[-1] < count * 100:
                turns.append(sum(side.accepted.statistics().current_buffer_used for side, _ in pairs))
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    # Each has one turn when its bytes come; the rest is one turn of one of them at a time.
    later = [number for number in turns if number > count * 5]
    assert max(after - before for before, after in pairwise(later)) <= 2 * 4
