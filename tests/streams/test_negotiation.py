"""How a stream's protocol is agreed on, at once and lazily, and what an ill-behaved peer can do about it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from punchbridge.config import MuxedLimits, YamuxLimits
from punchbridge.errors import NegotiationFailed, ProtocolViolation
from punchbridge.wire.multistream import HEADER, line
from punchbridge.yamux import StreamState
from punchbridge.yamux.frames import ACK, DATA, INITIAL_WINDOW, RST, SYN, WINDOW_UPDATE, header
from tests.support.pairs import connection_pair
from tests.support.scripted import PROTOCOL, scripted


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
    async with scripted(MuxedLimits(negotiate_timeout=3.0)) as (side, _):
        start = trio.current_time()
        with pytest.raises(NegotiationFailed, match="within 3 s"):
            await side.connection.open_stream([PROTOCOL])
        assert trio.current_time() - start == pytest.approx(3.0)
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
        assert isinstance(state, StreamState)
        assert state.buffered == 60_000
        assert state.buffered + state.receive_window <= INITIAL_WINDOW


async def test_opening_waits_while_many_streams_are_unacknowledged() -> None:
    async with scripted(yamux=YamuxLimits(unacked=8)) as (side, peer), trio.open_nursery() as nursery:
        streams = [await side.connection.open_stream([PROTOCOL], lazy=True) for _ in range(8)]
        opened = trio.Event()

        async def one_more() -> None:
            await side.connection.open_stream([PROTOCOL], lazy=True)
            opened.set()

        nursery.start_soon(one_more)
        await trio.testing.wait_all_tasks_blocked()
        assert not opened.is_set()
        await peer.say(header(WINDOW_UPDATE, ACK, streams[3].id, 0))
        await opened.wait()
