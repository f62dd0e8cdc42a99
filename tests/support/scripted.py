"""A pair of streams, and a peer that was secured properly and then says exactly what a test wants."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from punchbridge.config import MuxedLimits, YamuxLimits
from punchbridge.identity import Identity
from punchbridge.tasks.fair import FairQueue
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.connection import MuxedConnection
from punchbridge.transport.muxed.upgrade import upgrade
from punchbridge.transport.streams.stream import Stream
from punchbridge.yamux.frames import DATA
from tests.support.pairs import Side, tcp_pair

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

    def __init__(self, connection: MuxedConnection) -> None:
        self._connection = connection
        self.raw = connection._raw
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
async def scripted(
    limits: MuxedLimits = MuxedLimits(), yamux: YamuxLimits = YamuxLimits(), turns: FairQueue[str] | None = None
) -> AsyncIterator[tuple[Side, Script]]:
    """A running connection (initiator) with these limits, and the script that plays its peer. `turns`: a queue that
    runs, which the connection shares with others."""
    async with tcp_pair() as (dialled, accepted):
        made: list[MuxedConnection] = []

        async def respond() -> None:
            link = Link(accepted, accepted.local, accepted.remote, "direct", True)
            made.append(await upgrade(link, role="responder", identity=Identity.generate(), expected=None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            link = Link(dialled, dialled.local, dialled.remote, "direct", False)
            identity = Identity.generate()
            connection = await upgrade(
                link, role="initiator", identity=identity, expected=None, limits=limits, yamux=yamux, turns=turns
            )
        side = Side(connection, identity, {PROTOCOL})
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run, side.on_stream, side.supported)
            yield side, Script(made[0])
            connection.abort("TEST_OVER")
        side.close()
