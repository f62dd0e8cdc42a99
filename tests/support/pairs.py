"""Pairs of connected streams and connections over loopback, for the tests of every room."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from punchbridge.addresses import parse
from punchbridge.identity import Identity
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.connection import MuxedConnection
from punchbridge.transport.muxed.upgrade import upgrade
from punchbridge.transport.streams.stream import Stream
from punchbridge.transport.tcp.sockets import TcpStream, connect, listen_socket


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[TcpStream, TcpStream]]:
    """(dialled, accepted): a TCP connection over loopback."""
    with listen_socket(parse("/ip4/127.0.0.1/tcp/0")) as listener:
        port = listener.getsockname()[1]
        dialled = await connect(parse(f"/ip4/127.0.0.1/tcp/{port}"))
        accepted, _ = await listener.accept()
    inbound = TcpStream(accepted)
    try:
        yield dialled, inbound
    finally:
        dialled.abort()
        inbound.abort()


@asynccontextmanager
async def memory_pair() -> AsyncIterator[tuple[TcpStream, TcpStream]]:
    """Two RawStreams back to back; a loopback socket pair, so that everything behaves like the real thing."""
    async with tcp_pair() as pair:
        yield pair


@dataclass
class Side:
    """One end of a connection pair. Inbound streams arrive in `accepted`, in the order they were negotiated."""

    connection: MuxedConnection
    identity: Identity
    protocols: set[str]
    _streams: tuple[trio.MemorySendChannel[Stream], trio.MemoryReceiveChannel[Stream]] = field(
        default_factory=lambda: trio.open_memory_channel[Stream](1024)
    )

    @property
    def accepted(self) -> trio.MemoryReceiveChannel[Stream]:
        return self._streams[1]

    async def accept(self) -> Stream:
        """The next inbound stream."""
        return await self._streams[1].receive()

    def on_stream(self, stream: Stream, protocol: str) -> None:
        self._streams[0].send_nowait(stream)

    def supported(self) -> Collection[str]:
        return self.protocols

    def close(self) -> None:
        for channel in self._streams:
            channel.close()


@asynccontextmanager
async def connection_pair(
    protocols: Collection[str] = ("/test/1.0.0",),
    links: Callable[[TcpStream, TcpStream], tuple[Link, Link]] | None = None,
) -> AsyncIterator[tuple[Side, Side]]:
    """(initiator, responder): two upgraded, running connections over loopback TCP. Both support `protocols`."""
    async with tcp_pair() as (dialled, accepted):
        ours, theirs = Identity.generate(), Identity.generate()
        link = Link(dialled, dialled.local, dialled.remote, "direct", False)
        peer_link = Link(accepted, accepted.local, accepted.remote, "direct", True)
        if links is not None:
            link, peer_link = links(dialled, accepted)
        async with upgraded_pair(link, peer_link, ours, theirs, protocols) as sides:
            yield sides


@asynccontextmanager
async def upgraded_pair(
    link: Link, peer_link: Link, ours: Identity, theirs: Identity, protocols: Collection[str]
) -> AsyncIterator[tuple[Side, Side]]:
    """Upgrades the two ends of one link and runs both connections."""
    made: dict[str, MuxedConnection] = {}

    async def initiate() -> None:
        made["initiator"] = await upgrade(link, role="initiator", identity=ours, expected=theirs.peer_id)

    async def respond() -> None:
        made["responder"] = await upgrade(peer_link, role="responder", identity=theirs, expected=None)

    with trio.fail_after(5):
        async with trio.open_nursery() as both:
            both.start_soon(initiate)
            both.start_soon(respond)
    first = Side(made["initiator"], ours, set(protocols))
    second = Side(made["responder"], theirs, set(protocols))
    try:
        async with trio.open_nursery() as nursery:
            for side in (first, second):
                await nursery.start(side.connection.run, side.on_stream, side.supported)
            yield first, second
            first.connection.abort("TEST_OVER")
            second.connection.abort("TEST_OVER")
    finally:
        first.close()
        second.close()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
