"""trio's own conformance suite, and what it does not ask: over TCP, over a connection, over a circuit."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
import trio.testing

from punchbridge.identity import Identity
from punchbridge.transport.link import Link
from punchbridge.transport.streams.stream import Stream
from tests.support.pairs import Side, connection_pair, tcp_pair, upgraded_pair

PROTOCOL = "/test/1.0.0"


async def stream_pair(first: Side, second: Side) -> tuple[Stream, Stream]:
    stream = await first.connection.open_stream([PROTOCOL])
    return stream, await second.accept()


async def clogged_pair(first: Side, second: Side) -> tuple[Stream, Stream]:
    stream, peer = await stream_pair(first, second)
    for one in (stream, peer):
        while one.send_nowait(bytes(65536)):
            pass
    return stream, peer


async def test_tcp_stream() -> None:
    async with AsyncExitStack() as stack:

        async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            return await stack.enter_async_context(tcp_pair())

        async def make_clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            left, right = await stack.enter_async_context(tcp_pair())
            for one in (left, right):
                # Fixed sizes: the kernel must not make room later by itself.
                one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
                one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            for one in (left, right):
                with trio.move_on_after(0.05):
                    while True:
                        await one.send_all(bytes(65536))
            return left, right

        await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_muxed_stream() -> None:
    async with connection_pair([PROTOCOL]) as (first, second):
        await trio.testing.check_half_closeable_stream(
            lambda: stream_pair(first, second), lambda: clogged_pair(first, second)
        )


@asynccontextmanager
async def circuit_pair() -> AsyncIterator[tuple[Side, Side]]:
    """A connection inside a stream of another connection, as over a relay."""
    async with connection_pair(["/circuit"]) as (outer, peer):
        left = await outer.connection.open_stream(["/circuit"])
        right = await peer.accept()
        link = Link(left, outer.connection.local, outer.connection.remote, "relay", False)
        peer_link = Link(right, peer.connection.local, peer.connection.remote, "relay", True)
        ours, theirs = Identity.generate(), Identity.generate()
        async with upgraded_pair(link, peer_link, ours, theirs, [PROTOCOL]) as sides:
            yield sides


async def test_muxed_stream_over_a_circuit() -> None:
    async with circuit_pair() as (first, second):
        await trio.testing.check_half_closeable_stream(
            lambda: stream_pair(first, second), lambda: clogged_pair(first, second)
        )


async def test_bulk_over_a_circuit() -> None:
    async with circuit_pair() as (first, second), trio.open_nursery() as nursery:
        stream, peer = await stream_pair(first, second)
        payload = bytes(range(256)) * 40_000

        async def send() -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        nursery.start_soon(send)
        received = bytearray()
        while data := await peer.receive_some():
            received += data
        assert bytes(received) == payload
        # A clean close of the inner connection must not reset the stream below before the peer has read it all.
        await first.connection.aclose()
        await second.connection.closed.wait()
        assert second.connection.close_reason == "CLOSED_BY_PEER"
