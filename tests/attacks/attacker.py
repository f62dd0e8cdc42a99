"""An attacker's own libp2p peer: multistream and Yamux frames by hand, Noise by the project's codec.

It keeps no rule that it is not made to keep: an attack decides which pings it answers, how much credit it gives and
what it never reads. It judges nothing and knows no program.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from punchbridge.addresses import Multiaddr
from punchbridge.identity import Identity, PeerId
from punchbridge.wire import varint
from punchbridge.wire.identify import IDENTIFY, encode_info
from punchbridge.wire.multistream import Initiator, Responder, line
from punchbridge.wire.noise import Handshake
from punchbridge.yamux.frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, YAMUX, header
from tests.attacks.wire import EXPECTED, MULTISTREAM, PIECE, Bytes, Ended, Stream, reset, tcp

__all__ = ["Attacker"]

_HEADER = struct.Struct(">BBHII")


class Attacker:
    """One connection whose every frame is the attacker's choice. `run` has to run in a nursery to receive anything.

    `pongs`: answer the other side's Yamux pings at once. `credit`: give back window for what is received. `inbound`:
    where streams that the other side opens go; they are ignored without it. `dead` says why the connection ended.
    """

    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity or Identity.generate()
        self.streams: dict[int, Stream] = {}
        self.inbound: trio.MemorySendChannel[Stream] | None = None
        self.pongs = self.credit = True
        self.listen: tuple[Multiaddr, ...] = ()
        """What it says in identify that it listens on."""
        self.dead: str | None = None
        self.sent = 0
        self.peer: PeerId | None = None
        self._number = 1
        self._owed: list[tuple[float, int]] = []
        self._pinged: dict[int, trio.Event] = {}
        self._lock = trio.Lock()
        self._buffer = bytearray()
        self._read: dict[Stream, int] = {}
        self._bytes: Bytes
        self._handshake: Handshake

    @classmethod
    async def dial(
        cls,
        ip: str,
        port: int,
        *,
        source: str | None = None,
        identity: Identity | None = None,
        receive: int | None = None,
    ) -> Attacker:
        """TCP from `source`, then Noise and Yamux. `receive`: SO_RCVBUF. Raises OSError, Ended and trio's errors."""
        return await cls.over(await tcp(ip, port, source=source, receive=receive), identity)

    @classmethod
    async def over(cls, stream: Bytes, identity: Identity | None = None) -> Attacker:
        """The same over a stream that is there already, as its initiator; closes nothing when it fails."""
        self = cls(identity)
        self._bytes = stream
        try:
            await self._upgrade(initiator=True)
        except BaseException:
            if isinstance(stream, trio.SocketStream):
                stream.socket.close()
            raise
        return self

    @classmethod
    async def accepted(cls, stream: Bytes, identity: Identity) -> Attacker:
        """The same as the responder of a connection that was accepted: a hostile server."""
        self = cls(identity)
        self._bytes, self._number = stream, 2
        await self._upgrade(initiator=False)
        return self

    async def _upgrade(self, *, initiator: bool) -> None:
        noise = Initiator(["/noise"]) if initiator else Responder(lambda: ("/noise",))
        handshake = Handshake(self.identity, "initiator" if initiator else "responder", muxers=(YAMUX,))
        if isinstance(noise, Initiator):
            await self._bytes.send_all(noise.start() + handshake.start())
        while not noise.done:
            if out := noise.receive(await self._some()):
                await self._bytes.send_all(out)
        data = noise.leftover
        while handshake.secured is None:
            if out := handshake.receive(data or await self._some()):
                await self._bytes.send_all(out)
            data = b""
        self._sealer, self._opener = handshake.secured.sealer, handshake.secured.opener
        self.peer = handshake.secured.peer
        if handshake.secured.muxer is None:
            raise Ended("the peer did not agree on Yamux within Noise")

    async def _some(self) -> bytes:
        data = await self._bytes.receive_some(65536)
        if not data:
            raise Ended("closed within the handshake")
        return bytes(data)

    async def raw(self, frames: bytes) -> None:
        """Seals and sends bytes as they are."""
        async with self._lock:
            for start in range(0, len(frames), PIECE):
                await self._bytes.send_all(self._sealer.seal(frames[start : start + PIECE]))
        self.sent += len(frames)

    async def frame(self, kind: int, flags: int, stream: int, length: int, payload: bytes = b"") -> None:
        await self.raw(header(kind, flags, stream, length) + payload)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receives until the connection ends; `dead` says why then."""
        task_status.started()
        try:
            data = b""
            while True:
                for plain in self._opener.receive(data):
                    self._buffer += plain
                await self._frames()
                for stream, count in self._read.items():
                    await stream.frame(WINDOW_UPDATE, 0, count)
                self._read.clear()
                data = bytes(await self._bytes.receive_some(262144))
                if not data:
                    raise Ended("closed")
        except EXPECTED as problem:
            self.dead = self.dead or repr(problem)
            for stream in self.streams.values():
                stream.ended = True
                stream.wake()

    async def _frames(self) -> None:
        buffer = self._buffer
        while len(buffer) >= _HEADER.size:
            _, kind, flags, number, length = _HEADER.unpack_from(buffer)
            size = _HEADER.size + (length if kind == DATA else 0)
            if len(buffer) < size:
                return
            payload = bytes(buffer[_HEADER.size : size])
            del buffer[:size]
            if kind == PING:
                await self._ping(flags, length)
            elif kind == GO_AWAY:
                self.dead = f"GoAway {length}"
            else:
                await self._stream(kind, flags, number, length, payload)

    async def _ping(self, flags: int, value: int) -> None:
        if flags & ACK:
            if value in self._pinged:
                self._pinged.pop(value).set()
        elif self.pongs:
            await self.frame(PING, ACK, 0, value)
        else:
            self._owed.append((time.perf_counter(), value))

    async def _stream(self, kind: int, flags: int, number: int, length: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if stream is None and flags & SYN and self.inbound is not None:
            stream = self.streams[number] = Stream(self, number)
            try:
                self.inbound.send_nowait(stream)
            except trio.WouldBlock:
                del self.streams[number]
                return
        if stream is None:
            return
        if kind == WINDOW_UPDATE:
            stream.window += length
        if flags & RST:
            stream.reset = True
        if payload:
            stream.data += payload
            stream.total += len(payload)
            if self.credit:
                self._read[stream] = self._read.get(stream, 0) + len(payload)
        if flags & (FIN | RST):
            stream.ended = True
        stream.wake()

    async def late_pongs(self, delay: float) -> None:
        """Answers pings `delay` seconds late, which fakes a long round trip. Set `pongs` to False first."""
        while True:
            await trio.sleep(0.25)
            while self._owed and time.perf_counter() - self._owed[0][0] > delay:
                await self.frame(PING, ACK, 0, self._owed.pop(0)[1])

    async def ping(self, value: int) -> float:
        """The round trip of a Yamux ping in seconds."""
        answered = self._pinged[value] = trio.Event()
        began = time.perf_counter()
        await self.frame(PING, SYN, 0, value)
        await answered.wait()
        return time.perf_counter() - began

    async def open(self, protocol: str, more: bytes = b"", *, wait: bool = True) -> Stream:
        """Opens a stream and proposes the protocol, `more` right behind it. Raises Ended when it is refused."""
        stream = self.streams[self._number] = Stream(self, self._number)
        self._number += 2
        words = MULTISTREAM + line(protocol) + more
        stream.window -= len(words)
        await stream.frame(DATA, SYN, len(words), words)
        if wait:
            await stream.agree(protocol)
        return stream

    def forget(self, stream: Stream) -> None:
        """Nothing more is wanted of a stream that has ended."""
        self.streams.pop(stream.number, None)

    async def serve(self, protocols: Mapping[str, Callable[[Stream], Awaitable[Any]]], *, agent: str = "x") -> None:
        """Answers streams that the other side opens, each by the function of its protocol; identify is answered too.

        Runs until it is cancelled; `run` has to run beside it.
        """
        sender, receiver = trio.open_memory_channel[Stream](1000)
        self.inbound = sender

        async def one(stream: Stream) -> None:
            try:
                chosen = await stream.accept(*protocols, IDENTIFY)
                if chosen in protocols:
                    await protocols[chosen](stream)
                else:
                    await self.tell(stream, tuple(protocols), agent)
            except EXPECTED:
                pass

        async with trio.open_nursery() as nursery:
            async for stream in receiver:
                nursery.start_soon(one, stream)

    async def tell(self, stream: Stream, protocols: tuple[str, ...], agent: str = "x") -> None:
        """Answers identify with these protocols, and with the addresses in `listen`."""
        every = (*protocols, IDENTIFY)
        info = encode_info(self.identity, agent=agent, protocols=every, listen=self.listen, observed=None)
        words = varint.prefixed(info)
        await stream.frame(DATA, FIN, len(words), words)

    async def close(self) -> None:
        try:
            await self._bytes.aclose()
        except EXPECTED:
            pass

    def abort(self) -> None:
        """Ends the TCP connection by reset."""
        if isinstance(self._bytes, trio.SocketStream):
            reset(self._bytes)
