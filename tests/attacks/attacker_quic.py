"""An attacker whose connection is QUIC: the engine's packets, and streams whose every byte is the attacker's choice.

It has a socket of its own and a loop of its own, so that an attack decides when datagrams leave and what is never
read. Whoever imports it has made sure that the engine is built.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime
from typing import Final

import punchbridge_quic as quic
import trio

from punchbridge.addresses import Endpoint
from punchbridge.config import QuicLimits
from punchbridge.identity import Identity
from punchbridge.transport.quic.sockets import Packet, UdpSocket
from punchbridge.transport.quic.transport import QuicTransport
from punchbridge.wire.multistream import line
from punchbridge.wire.tls_identity import verify_certificate
from punchbridge.yamux.frames import DATA, FIN, RST, WINDOW_UPDATE
from tests.attacks.attacker import Attacker
from tests.attacks.wire import MULTISTREAM, WINDOW, Ended, Stream

__all__ = ["QuicAttacker"]

_BUFFERS: Final = 4 * 2**20
_PATIENCE: Final = 20.0
"""Seconds of a handshake, also beside a faked round trip."""


class QuicAttacker(Attacker):
    """As `Attacker`, over QUIC. `late`: seconds for which each datagram is held back, which fakes a round trip.

    `credit`: read what comes, which allows the other side more; while it is False nothing is read at all. Frames of
    Yamux that a stream sends become what they stand for: bytes, an end, a reset.
    """

    def __init__(self, source: str, identity: Identity | None = None, late: float = 0.0) -> None:
        """From the address `source`. Raises OSError."""
        super().__init__(identity)
        self.late = late
        self._udp = UdpSocket(Endpoint("ip4", source, 0, "udp"), _BUFFERS)
        self._engine = QuicTransport(self.identity, limits=QuicLimits())._engine()
        self._held: deque[tuple[float, Packet]] = deque()
        self._pending: dict[int, bytearray] = {}
        self._ending: set[int] = set()
        self._alarm = trio.CancelScope()
        self._more = trio.Event()

    async def reach(self, ip: str, port: int) -> QuicAttacker:
        """Shakes hands. Raises OSError, Ended and trio's errors; the socket is closed then."""
        try:
            self._number = self._engine.connect(ip, port, trio.current_time())
            self._settle()
            with trio.fail_after(_PATIENCE):
                while self.peer is None:
                    await self._turn()
        except BaseException:
            self._udp.close()
            raise
        return self

    # --- the loop -------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receives until the connection ends; `dead` says why then. The socket is closed with it."""
        task_status.started()
        try:
            while self.dead is None:
                await self._turn()
        except (Ended, OSError, trio.ClosedResourceError) as problem:
            self.dead = self.dead or repr(problem)
        finally:
            self._udp.close()
            for stream in self.streams.values():
                stream.ended = True
                stream.wake()

    async def _turn(self) -> None:
        """Waits for a datagram or a timer, and does what follows from it."""
        with trio.CancelScope(deadline=self._due()) as self._alarm:
            await trio.lowlevel.wait_readable(self._udp.raw)
        now = trio.current_time()
        for _ in range(64):
            got = self._udp.receive()
            if got is None:
                break
            self._engine.receive(got.data, got.segment, got.host, got.port, got.local, got.ecn, now)
        timer = self._engine.timer(self._number)
        if timer is not None and timer <= now:
            self._engine.on_timer(self._number, now)
        self._settle()

    def _due(self) -> float:
        timer = self._engine.timer(self._number)
        return min(math.inf if timer is None else timer, self._held[0][0] if self._held else math.inf)

    def _settle(self) -> None:
        """Takes the events, and sends what is to be sent. Raises Ended when the connection is over."""
        for event in self._engine.events(self._number):
            self._happened(event)
        now = trio.current_time()
        while (packet := self._engine.transmit(self._number, self._udp.segments, now)) is not None:
            self.sent += len(packet[0])
            self._held.append((now + self.late, packet))
        while self._held and self._held[0][0] <= now:
            self._udp.send(self._held.popleft()[1])  # what the socket does not take now is lost
        self._alarm.deadline = self._due()

    def _happened(self, event: quic.Event) -> None:
        kind, number, _, data = event
        if kind == quic.CONNECTED:
            self.peer = verify_certificate(data, datetime.now(UTC))
        elif kind in (quic.LOST, quic.GONE):
            self.dead = self.dead or f"lost: {number} {data!r}"
            raise Ended(self.dead)
        elif kind == quic.OPENED:
            self._offered(number)
        elif kind == quic.READABLE:
            self._readable(number)
        elif kind == quic.WRITABLE:
            self._write(number)
        elif kind == quic.STOPPED:
            self._ended(number, reset=True)
        elif kind == quic.AVAILABLE:
            self._more.set()

    # --- streams --------------------------------------------------------------------------------------------

    def _offered(self, number: int) -> None:
        stream = Stream(self, number)
        try:
            if self.inbound is None:
                raise trio.WouldBlock
            self.inbound.send_nowait(stream)
        except trio.WouldBlock:
            self._engine.stop(self._number, number, 0)
            self._engine.reset(self._number, number, 0)
            return
        self.streams[number] = stream
        self._readable(number)

    def _readable(self, number: int) -> None:
        stream = self.streams.get(number)
        if stream is None or not self.credit:
            return
        try:
            data, end, _ = self._engine.read(self._number, number, 1 << 30)
        except quic.QuicError:
            self._ended(number, reset=True)
            return
        stream.data += data
        stream.total += len(data)
        stream.ended = stream.ended or end
        stream.wake()

    def _ended(self, number: int, *, reset: bool) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            stream.ended, stream.reset = True, reset
            stream.wake()

    def _write(self, number: int) -> None:
        """Gives the engine what waits on a stream; no more than a window of Yamux ever does."""
        stream, waiting = self.streams.get(number), self._pending.get(number, bytearray())
        try:
            if waiting:
                del waiting[: self._engine.write(self._number, number, waiting)]
            if number in self._ending and not waiting:
                self._ending.discard(number)
                self._engine.finish(self._number, number)
        except quic.QuicError:
            waiting.clear()
            self._ended(number, reset=True)
        if stream is not None:
            stream.window = max(0, WINDOW - len(waiting))
            stream.wake()

    async def frame(self, kind: int, flags: int, stream: int, length: int, payload: bytes = b"") -> None:
        if self.dead is not None:
            raise Ended(self.dead)
        if flags & RST:
            self._drop(stream)
        elif kind == DATA:
            self._pending.setdefault(stream, bytearray()).extend(payload)
            if flags & FIN:
                self._ending.add(stream)
            self._write(stream)
        elif kind != WINDOW_UPDATE:
            raise NotImplementedError(f"QUIC has no frame of kind {kind}")
        self._settle()
        await trio.lowlevel.checkpoint()

    async def open(self, protocol: str, more: bytes = b"", *, wait: bool = True) -> Stream:
        while (number := self._engine.open(self._number)) is None:
            if self.dead is not None:
                raise Ended(self.dead)
            self._more = trio.Event()
            await self._more.wait()
        stream = self.streams[number] = Stream(self, number)
        await stream.frame(DATA, 0, 0, MULTISTREAM + line(protocol) + more)
        if wait:
            await stream.agree(protocol)
        return stream

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        self._drop(stream.number)

    def _drop(self, number: int) -> None:
        self._pending.pop(number, None)
        self._ending.discard(number)
        for half in (self._engine.reset, self._engine.stop):
            try:
                half(self._number, number, 0)
            except quic.QuicError:  # that half has ended already
                pass

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Ends the connection with CONNECTION_CLOSE."""
        if self.dead is None:
            self.dead = "aborted"
            self._engine.close(self._number, 0, b"", trio.current_time())
            self.late = 0.0
            try:
                self._settle()
            except (Ended, OSError):
                pass
        self._udp.close()
