"""Streams of one connection: many at once, back-pressure, cancellation, resets; over loopback TCP."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from punchbridge.errors import StreamReset
from punchbridge.transport.streams.stream import Stream
from punchbridge.wire.multistream import HEADER, line
from punchbridge.yamux.frames import ACK, DATA, RST, SYN, WINDOW_UPDATE, header
from tests.support.pairs import Side, connection_pair
from tests.support.scripted import PROTOCOL, open_pair, read_to_end, scripted


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
