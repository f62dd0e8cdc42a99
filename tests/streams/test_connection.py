"""Connections and their streams: loss, cancellation, bounds, closing; over loopback TCP."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bridge.errors import ConnectionLost, NegotiationFailed, ProtocolViolation, StreamReset
from bridge.identity import Identity
from bridge.limits.swarm import KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, NEGOTIATE_TIMEOUT
from bridge.limits.wire import INITIAL_WINDOW, MAX_UNACKED_STREAMS, RTT_SAMPLES, SEND_QUEUE
from bridge.protocol.multistream import HEADER, line
from bridge.protocol.yamux.frames import ACK, DATA, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, header
from bridge.swarm.connection import Connection
from bridge.swarm.link import Link
from bridge.swarm.stream import Stream
from bridge.swarm.upgrade import upgrade
from tests.support.pairs import Side, connection_pair, tcp_pair

PROTOCOL = "/test/1.0.0"


async def open_pair(first: Side, second: Side) -> tuple[Stream, Stream]:
    stream = await first.connection.open_stream([PROTOCOL])
    return stream, await second.accept()


async def read_to_end(stream: Stream) -> bytes:
    out = bytearray()
    while data := await stream.receive_some():
        out += data
    return bytes(out)


class Script:
    """A peer that was secured properly and then says exactly what a test wants. Takes over a connection's ciphers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.raw = connection.link.raw
        self._plain = b""

    async def say(self, *frames: bytes) -> None:
        await self.raw.send_all(self._connection._sender._seal(b"".join(frames)))

    async def hear(self, kind: int, flags: int) -> tuple[int, int]:
        """(stream id, length) of the next frame of that kind and flags; others are skipped."""
        while True:
            while (found := self._next_frame()) is not None:
                if found[:2] == (kind, flags):
                    return found[2:]
            self._plain += b"".join(self._connection._opener.receive(await self.raw.receive_some()))

    def _next_frame(self) -> tuple[int, int, int, int] | None:
        if len(self._plain) < 12:
            return None
        _, kind, flags, stream_id, length = struct.unpack_from(">BBHII", self._plain)
        size = 12 + (length if kind == DATA else 0)
        if len(self._plain) < size:
            return None
        self._plain = self._plain[size:]
        return kind, flags, stream_id, length


@asynccontextmanager
async def scripted() -> AsyncIterator[tuple[Side, Script]]:
    """A running connection (initiator) and the script that plays its peer."""
    async with tcp_pair() as (dialled, accepted):
        made: list[Connection] = []

        async def respond() -> None:
            link = Link(accepted, accepted.local, accepted.remote, "direct", True)
            made.append(await upgrade(link, role="responder", identity=Identity.generate(), expected=None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            link = Link(dialled, dialled.local, dialled.remote, "direct", False)
            identity = Identity.generate()
            connection = await upgrade(link, role="initiator", identity=identity, expected=None)
        side = Side(connection, identity, {PROTOCOL})
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run, side.on_stream, side.supported)
            yield side, Script(made[0])
            connection.abort("TEST_OVER")
        side.close()


# --- streams ------------------------------------------------------------------------------------------------


async def test_many_streams_at_once_in_both_directions() -> None:
    async with connection_pair() as (first, second), trio.open_nursery() as nursery:

        async def echo(side: Side) -> None:
            for _ in range(20):
                nursery.start_soon(answer, await side.accept())

        async def answer(stream: Stream) -> None:
            async with stream:
                while data := await stream.receive_some(10_000):
                    await stream.send_all(data)

        async def ask(side: Side, size: int) -> None:
            stream = await side.connection.open_stream([PROTOCOL])
            payload = os.urandom(size)
            async with trio.open_nursery() as both:

                async def send() -> None:
                    await stream.send_all(payload)
                    await stream.send_eof()

                both.start_soon(send)
                assert await read_to_end(stream) == payload
            await stream.aclose()

        async with trio.open_nursery() as asking:
            for side in (first, second):
                nursery.start_soon(echo, side)
                for index in range(20):
                    asking.start_soon(ask, side, index * 40_000)
        await trio.testing.wait_all_tasks_blocked()
        assert (first.connection.streams, second.connection.streams) == (0, 0)


async def test_a_reader_that_stops_holds_up_only_its_own_stream() -> None:
    async with connection_pair() as (first, second):
        clogged, _ = await open_pair(first, second)
        while clogged.send_nowait(bytes(65536)):
            pass
        stream, peer = await open_pair(first, second)
        await stream.send_all(b"still")
        assert await peer.receive_some() == b"still"
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
            await clogged.send_all(b"x")


async def test_a_cancelled_sender_leaves_a_usable_stream() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        with trio.move_on_after(0.05) as scope:
            await stream.send_all(bytes(4 << 20))
        assert scope.cancelled_caught
        await stream.send_eof()
        assert set(await read_to_end(peer)) == {0}
        assert first.connection._mux.blocked == {}


async def test_a_cancelled_reader_loses_nothing() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        with trio.move_on_after(0.01):
            await peer.receive_some()
        await stream.send_all(b"kept")
        assert await peer.receive_some() == b"kept"


async def test_a_reset_wakes_reader_and_writer_on_the_other_side() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        while stream.send_nowait(bytes(65536)):
            pass

        async def read() -> None:
            with pytest.raises(StreamReset):
                await stream.receive_some()

        async def write() -> None:
            with pytest.raises(StreamReset):
                await stream.send_all(b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            peer.reset()
        assert (first.connection.streams, second.connection.streams) == (0, 0)


async def test_what_came_before_a_reset_is_read_before_it_is_told() -> None:
    """rust-libp2p drops its DCUtR stream behind SYNC: on a fast relay both come in one piece."""
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        await peer.send_all(b"last words")
        peer.reset()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StreamReset):
            await stream.send_all(b"x")
        assert await stream.receive_some() == b"last words"
        for _ in range(2):
            with pytest.raises(StreamReset):
                await stream.receive_some()
        assert (first.connection.streams, second.connection.streams) == (0, 0)


async def test_a_stream_that_is_proposed_and_reset_in_one_piece_reaches_nobody() -> None:
    async with scripted() as (side, peer):
        proposal = HEADER + line(PROTOCOL)
        await peer.say(header(DATA, SYN, 2, len(proposal)), proposal, header(WINDOW_UPDATE, RST, 2, 0))
        await peer.say(header(DATA, SYN, 4, len(proposal)), proposal)
        assert (await side.accept()).id == 4
        assert await peer.hear(DATA, ACK) == (4, len(proposal))


async def test_an_answer_survives_a_close_with_unread_data() -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        await stream.send_all(b"a long request nobody reads")
        await peer.send_all(b"refused")
        await peer.aclose()
        assert await read_to_end(stream) == b"refused"


# --- negotiation --------------------------------------------------------------------------------------------


async def test_the_first_supported_protocol_is_taken() -> None:
    async with connection_pair(["/b", "/c"]) as (first, second):
        stream = await first.connection.open_stream(["/a", "/c", "/b"])
        assert stream.protocol == (await second.accept()).protocol == "/c"


async def test_none_supported() -> None:
    async with connection_pair() as (first, second):
        with pytest.raises(NegotiationFailed, match="/a, /b"):
            await first.connection.open_stream(["/a", "/b"])
        await trio.testing.wait_all_tasks_blocked()
        assert (first.connection.streams, second.connection.streams) == (0, 0)


async def test_a_lazily_opened_stream_sends_before_it_is_answered() -> None:
    async with connection_pair() as (first, second):
        stream = await first.connection.open_stream([PROTOCOL], lazy=True)
        await stream.send_all(b"first flight")
        peer = await second.accept()
        assert await peer.receive_some() == b"first flight"
        await peer.send_all(b"answer")
        assert await stream.receive_some() == b"answer"


async def test_a_refused_lazily_opened_stream_says_so_on_the_first_read() -> None:
    async with connection_pair() as (first, _):
        stream = await first.connection.open_stream(["/a"], lazy=True)
        with pytest.raises(NegotiationFailed, match="/a"):
            await stream.receive_some()


async def test_a_cancelled_open_leaves_no_stream_behind() -> None:
    async with scripted() as (side, peer):
        with trio.move_on_after(0.05) as scope:
            await side.connection.open_stream([PROTOCOL])
        assert scope.cancelled_caught
        assert side.connection.streams == 0
        assert await peer.hear(WINDOW_UPDATE, RST) == (1, 0)


async def test_nobody_answers_a_proposal(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted() as (side, _):
        start = trio.current_time()
        with pytest.raises(NegotiationFailed, match="within"):
            await side.connection.open_stream([PROTOCOL])
        assert trio.current_time() - start == pytest.approx(NEGOTIATE_TIMEOUT)
        assert side.connection.streams == 0


async def test_nobody_proposes_on_an_inbound_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted() as (side, peer):
        await peer.say(header(DATA, SYN, 2, len(HEADER)), HEADER)
        assert await peer.hear(WINDOW_UPDATE, RST) == (2, 0)
        assert side.connection.streams == 0


async def test_an_end_instead_of_an_answer() -> None:
    async with scripted() as (side, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            await peer.hear(DATA, SYN)
            await peer.say(header(WINDOW_UPDATE, ACK, 1, 0), header(DATA, 4, 1, 0))

        nursery.start_soon(answer)
        with pytest.raises(NegotiationFailed, match="ended"):
            await side.connection.open_stream([PROTOCOL])


async def test_a_malformed_answer_is_a_violation() -> None:
    async with scripted() as (side, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            await peer.hear(DATA, SYN)
            await peer.say(header(DATA, ACK, 1, 4), b"what")

        nursery.start_soon(answer)
        with pytest.raises(ProtocolViolation):
            await side.connection.open_stream([PROTOCOL])
        assert await peer.hear(WINDOW_UPDATE, RST) == (1, 0)


async def test_early_data_behind_the_answer_stays_within_the_window() -> None:
    async with scripted() as (side, peer), trio.open_nursery() as nursery:
        answer = HEADER + line(PROTOCOL)

        async def answer_at_length() -> None:
            await peer.hear(DATA, SYN)
            await peer.say(header(DATA, ACK, 1, len(answer)), answer, header(DATA, 0, 1, 60_000), bytes(60_000))

        nursery.start_soon(answer_at_length)
        state = (await side.connection.open_stream([PROTOCOL])).state
        assert state.buffered == 60_000
        assert state.buffered + state.receive_window <= INITIAL_WINDOW


async def test_opening_waits_while_256_streams_are_unacknowledged() -> None:
    async with scripted() as (side, peer), trio.open_nursery() as nursery:
        streams = [await side.connection.open_stream([PROTOCOL], lazy=True) for _ in range(MAX_UNACKED_STREAMS)]
        opened = trio.Event()

        async def one_more() -> None:
            await side.connection.open_stream([PROTOCOL], lazy=True)
            opened.set()

        nursery.start_soon(one_more)
        await trio.testing.wait_all_tasks_blocked()
        assert not opened.is_set()
        await peer.say(header(WINDOW_UPDATE, ACK, streams[9].id, 0))
        await opened.wait()


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
        assert connection.link.raw.socket.fileno() == -1  # type: ignore[attr-defined]
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
        first.connection._sender.send(first.connection._mux.session.go_away(0))  # type: ignore[arg-type]
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
    async with scripted() as (side, _):
        start = trio.current_time()
        await side.connection.closed.wait()
        assert side.connection.close_reason == "KEEPALIVE_TIMEOUT"
        assert trio.current_time() - start == pytest.approx(KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT)


async def test_ping_measures_the_round_trip() -> None:
    async with connection_pair() as (first, second):
        for side in (first, second):
            for _ in range(RTT_SAMPLES):  # the connection's own measurements are over then
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


async def test_senders_wait_when_the_peer_does_not_read() -> None:
    async with scripted() as (side, peer):
        connection = side.connection
        stream = await connection.open_stream([PROTOCOL], lazy=True)
        await peer.say(header(WINDOW_UPDATE, ACK, 1, 1 << 28))
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0.5):
            while True:
                await stream.send_all(bytes(1 << 20))
        assert SEND_QUEUE <= connection._sender.queued < 2 * SEND_QUEUE
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
        assert side.connection._sender.queued < 2 * SEND_QUEUE


async def test_inbound_streams_beyond_the_backlog_are_reset() -> None:
    async with scripted() as (side, peer):
        await peer.say(*[header(DATA, SYN, 2 * index, 0) for index in range(1, 300)])
        assert await peer.hear(WINDOW_UPDATE, RST) == (2 * 257, 0)
        await peer.say(header(DATA, 0, 2, len(HEADER + line(PROTOCOL))), HEADER, line(PROTOCOL))
        assert (await side.accept()).id == 2
