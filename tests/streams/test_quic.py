"""Streams of QUIC connections over loopback: trio's conformance suite, ends, codes, windows."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from punchbridge.config import QuicLimits
from punchbridge.errors import (
    LimitExceeded,
    NegotiationFailed,
    StreamReset,
)
from punchbridge.tasks.memory import STREAM
from tests.support.built import NOT_BUILT

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

from punchbridge.transport.quic.state import FRAME, INBOX
from tests.support.quic_pairs import quic_pair
from tests.support.relay_lab import read_all
from tests.support.session_lab import until


async def test_two_nodes_prove_who_they_are() -> None:
    async with quic_pair() as pair:
        first, second = pair.first, pair.second
        assert (first.peer, second.peer) == (pair.nodes[1].identity.peer_id, pair.nodes[0].identity.peer_id)
        assert (first.role, second.role) == ("initiator", "responder")
        assert (first.inbound, second.inbound) == (False, True)
        assert (first.local, first.remote) == (second.remote, second.local)
        assert first.remote == pair.nodes[1].addr
        assert first.local == pair.nodes[0].addr, "the dial has left from the listening port"
        assert first.transport == "quic"
        assert await first.ping() > 0
        await first.heard.wait()
        await second.heard.wait()


async def test_conformance() -> None:
    limits = QuicLimits(stream_window=65536, window_first=262144, window=524288, unsent=65536)
    async with quic_pair(limits) as pair:

        async def clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            first, second = await pair.streams()
            for one in (first, second):
                with trio.move_on_after(0.3):
                    while True:
                        await one.send_all(bytes(65536))
            return first, second

        await trio.testing.check_half_closeable_stream(pair.streams, clogged)


async def write_for_ever(stream: Any) -> None:
    while True:
        await stream.send_all(bytes(65536))


async def test_bulk_both_ways() -> None:
    payload, got = bytes(range(256)) * 40_000, {}
    async with quic_pair() as pair:
        first, second = await pair.streams()

        async def send(stream: Any) -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        async def receive(name: str, stream: Any) -> None:
            got[name] = await read_all(stream)

        async with trio.open_nursery() as nursery:
            for name, stream in (("first", first), ("second", second)):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, name, stream)
        assert got == {"first": payload, "second": payload}
        assert pair.first.info().mtu == 1452
        assert pair.first.streams == pair.second.streams == 0


# --- ends of streams ----------------------------------------------------------------------------------------


async def test_what_was_written_before_a_close_arrives() -> None:
    """A close says that nothing more is read here; the peer reads all the same, and its own writes fail in order."""
    async with quic_pair() as pair:
        first, second = await pair.streams()
        payload = bytes(3 << 20)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await first.send_all(payload)
                await first.aclose()

            nursery.start_soon(send)
            assert await read_all(second) == payload
        with pytest.raises(trio.BrokenResourceError, match="reads no more"):
            await write_for_ever(second)
        await second.aclose()
        assert second.failure is None


async def test_a_reset_is_told_behind_nothing_and_never_as_an_end() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        await first.send_all(b"x")
        assert await second.receive_some() == b"x"
        first.reset()
        with pytest.raises(StreamReset):
            await second.receive_some()
        with pytest.raises(StreamReset):
            await second.send_all(b"y")
        with pytest.raises(trio.ClosedResourceError):
            await first.receive_some()
        assert pair.first.streams == 0
        await second.aclose()
        assert pair.second.streams == 0


async def test_half_a_stream_ends_and_the_other_goes_on() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        await first.send_eof()
        assert await second.receive_some() == b""
        for number in range(10):
            await second.send_all(bytes((number,)))
            assert await first.receive_some() == bytes((number,))
        await second.send_eof()
        assert await first.receive_some() == b""
        assert pair.first.streams == pair.second.streams == 0


async def test_a_protocol_that_nobody_has() -> None:
    async with quic_pair() as pair:
        with pytest.raises(NegotiationFailed):
            await pair.first.open_stream(["/nobody/1.0.0"])
        stream = await pair.first.open_stream(["/nobody/1.0.0"], lazy=True)
        with pytest.raises(NegotiationFailed):
            await stream.receive_some()


async def test_more_streams_than_are_allowed_wait_for_one_to_end() -> None:
    async with quic_pair(QuicLimits(streams=4)) as pair:
        streams = [await pair.streams() for _ in range(4)]
        with trio.move_on_after(0.3) as waited:
            await pair.first.open_stream(["/test/1.0.0"])
        assert waited.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.first.open_stream, ["/test/1.0.0"])
            await trio.testing.wait_all_tasks_blocked()
            for stream in streams[0]:
                await stream.aclose()
        assert pair.first.streams == 4


async def test_a_reader_that_is_called_gets_everything_however_little_it_takes() -> None:
    """`on_readable` takes what it likes, also later than when it was called; nobody waits in `receive_some`."""
    payload = bytes(range(256)) * 16384
    async with quic_pair() as pair:
        first, second = await pair.streams()
        got, arrived = bytearray(), trio.Event()

        def take() -> None:
            parts = second.receive_parts(70_000)
            for part in parts or ():
                got.extend(part)
            if len(got) == len(payload):
                arrived.set()

        second.on_readable = take
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.send_all, payload)
            while not arrived.is_set():
                with trio.move_on_after(0.05):
                    await arrived.wait()
                take()
        assert bytes(got) == payload


async def test_a_reader_that_is_called_and_takes_all_is_called_for_each_byte() -> None:
    payload = bytes(range(256)) * 16384
    async with quic_pair() as pair:
        first, second = await pair.streams()
        got, arrived = bytearray(), trio.Event()

        def take() -> None:
            while parts := second.receive_parts(1 << 20):
                for part in parts:
                    got.extend(part)
            if len(got) == len(payload):
                arrived.set()

        second.on_readable = take
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.send_all, payload)
            await arrived.wait()
        assert bytes(got) == payload


async def send_what_goes(stream: Any) -> int:
    """How many bytes were taken before the sender had to wait for ever, as it seems."""
    sent = 0
    while True:
        with trio.move_on_after(0.5) as patience:
            await stream.send_all(bytes(65536))
        if patience.cancelled_caught:
            return sent
        sent += 65536


async def test_unread_bytes_are_bounded_and_counted() -> None:
    """What nobody reads stops the sender, and is counted where the memory of all connections is."""
    async with quic_pair() as pair:
        first, second = await pair.streams()
        limits, account = QuicLimits(), pair.second.account
        sent = await send_what_goes(first)
        ahead = INBOX + limits.in_flight + limits.unsent + FRAME
        assert limits.window_first <= sent <= limits.stream_window + ahead
        assert second.waiting == INBOX
        assert second.state.stalled
        assert limits.window_first <= account.held <= limits.window + INBOX + STREAM
        assert account.held - account.granted <= limits.window_first + INBOX + STREAM
        second.reset()
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert account.unread == 0
        assert account.held <= STREAM
        assert account.granted < limits.stream_window


async def test_streams_that_nobody_reads_leave_the_others_room() -> None:
    limits = QuicLimits(window_first=1 << 18, stream_window=1 << 20, window=1 << 22)
    async with quic_pair(limits) as pair:
        stalled = [await pair.streams() for _ in range(3)]
        for first, _ in stalled:
            assert await send_what_goes(first) >= 1 << 18
        first, second = await pair.streams()
        payload = bytes(range(256)) * 20_000
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await first.send_all(payload)
                await first.send_eof()

            nursery.start_soon(send)
            assert await read_all(second) == payload
        assert pair.second.account.held <= limits.window + 4 * (INBOX + STREAM)
        for first, second in stalled:  # and nothing of them is lost
            first.reset()
            with pytest.raises(StreamReset):
                await read_all(second)


async def test_a_reset_is_told_to_whoever_does_not_read() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        await send_what_goes(first)
        assert second.state.stalled
        first.reset()
        await until(lambda: second.failure is not None, 30)
        assert len(second.receive_nowait(1 << 30) or b"") == INBOX, "what came before it can be read"
        with pytest.raises(StreamReset):
            second.receive_nowait()
        assert pair.second.streams == 0


async def test_a_window_grows_with_the_reader_and_by_what_the_memory_allows() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        window = pair.second._streams._window
        assert window.size == QuicLimits().window_first
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.send_all, bytes(64 << 20))
            total = 0
            while total < 64 << 20:
                total += len(await second.receive_some())
        assert window.size >= QuicLimits().window_first
        assert window.size == QuicLimits().window_first + pair.second.account.granted
        await pair.second.aclose()
        assert pair.second.account.granted == 0


async def test_a_stream_with_too_much_unread_is_reset() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        second.unread_most = 1000
        with pytest.raises(StreamReset):
            await write_for_ever(first)
        assert isinstance(second.failure, LimitExceeded)


async def test_the_largest_stream_that_does_not_move_is_given_up() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        await first.send_all(bytes(100_000))
        await until(lambda: second.waiting == 100_000, 30)
        assert pair.second.account.cut(trio.current_time())
        assert isinstance(second.failure, LimitExceeded)
        assert not pair.second.closed.is_set()
        with pytest.raises(StreamReset):
            await first.receive_some()
