"""What an attacker's connection is made of: TCP from a chosen address, one Yamux stream by hand, and how they end."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Protocol

import trio

from punchbridge.wire.multistream import line
from punchbridge.yamux.frames import ACK, DATA, FIN, RST, WINDOW_UPDATE

if TYPE_CHECKING:
    from tests.attacks.attacker import Attacker

__all__ = ["EXPECTED", "MULTISTREAM", "NETWORK", "PIECE", "WINDOW", "Bytes", "Ended", "Stream", "reset", "tcp"]

MULTISTREAM = line("/multistream/1.0.0")
WINDOW = 262144
PIECE = 60_000  # bytes of Yamux frames in one Noise message

NETWORK = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""What ends an attacker's connection besides `Ended`."""


class Ended(Exception):
    """The other side ended the connection or the stream, or did not answer as asked."""


EXPECTED = (*NETWORK, Ended)


class Bytes(Protocol):
    """What a connection runs on: a TCP stream, or a stream of another connection (a circuit)."""

    async def send_all(self, data: bytes) -> None: ...
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...
    async def aclose(self) -> None: ...


class Stream:
    """One Yamux stream of an attacker's connection. `window`: what may still be sent; `total`: bytes received."""

    def __init__(self, connection: Attacker, number: int) -> None:
        self.connection, self.number = connection, number
        self.data = bytearray()
        self.ended = self.reset = False
        self.total = 0
        self.window = WINDOW
        self.changed = trio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def need(self, count: int) -> bytes:
        """Exactly so many bytes. Raises Ended."""
        while len(self.data) < count:
            if self.ended:
                raise Ended(f"the stream ended{' by reset' if self.reset else ''}: {bytes(self.data[:80])!r}")
            await self.changed.wait()
        out = bytes(self.data[:count])
        del self.data[:count]
        return out

    async def expect(self, words: bytes) -> None:
        got = await self.need(len(words))
        if got != words:
            raise Ended(f"asked for {words!r}, got {got!r}")

    async def message(self) -> bytes:
        """One message behind a varint of its length."""
        size = shift = 0
        while True:
            byte = (await self.need(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return await self.need(size)

    async def line(self) -> str:
        """One multistream line, without its newline."""
        return (await self.message()).decode().rstrip("\n")

    async def frame(self, kind: int, flags: int, length: int, payload: bytes = b"") -> None:
        await self.connection.frame(kind, flags, self.number, length, payload)

    async def send(self, data: bytes, *, force: bool = False) -> None:
        """Sends as the window allows; `force` ignores the window. Raises Ended."""
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            while not force and self.window < len(piece):
                if self.ended:
                    raise Ended("the stream ended")
                await self.changed.wait()
            self.window -= len(piece)
            await self.frame(DATA, 0, len(piece), piece)

    async def abort(self) -> None:
        await self.frame(WINDOW_UPDATE, RST, 0)

    async def agree(self, protocol: str) -> None:
        """Reads the answer to a proposal; raises Ended when it is another one."""
        await self.expect(MULTISTREAM)
        answer = await self.line()
        if answer != protocol:
            raise Ended(f"{protocol}: {answer}")

    async def accept(self, *protocols: str) -> str:
        """Answers the proposal of an incoming stream; resets it and raises Ended when it asks for another protocol."""
        await self.expect(MULTISTREAM)
        wanted = await self.line()
        if wanted not in protocols:
            await self.abort()
            raise Ended(f"the peer asks for {wanted}")
        words = MULTISTREAM + line(wanted)
        await self.frame(DATA, ACK, len(words), words)
        return wanted

    # A stream is what the connection inside a circuit runs on.

    async def send_all(self, data: bytes) -> None:
        await self.send(bytes(data))

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        while not self.data:
            if self.ended:
                return b""
            await self.changed.wait()
        out = bytes(self.data)
        self.data.clear()
        return out

    async def aclose(self) -> None:
        await self.frame(DATA, FIN, 0)


async def tcp(ip: str, port: int, *, source: str | None = None, receive: int | None = None) -> trio.SocketStream:
    """A TCP connection from the address `source`. Raises OSError."""
    sock = trio.socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    try:
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        if source:
            await sock.bind((source, 0))
        await sock.connect((ip, port))
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


def reset(stream: trio.SocketStream) -> None:
    """Ends a TCP connection with RST."""
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except EXPECTED:
        pass
    stream.socket.close()
