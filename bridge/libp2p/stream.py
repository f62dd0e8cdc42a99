"""A stream of a py-libp2p host as the rest of the house uses streams.

py-libp2p reads and writes by waiting; a session wants to be called when bytes are there, and to hand over bytes without
waiting. Two tasks of each stream join the two, with a bounded buffer for each direction. py-libp2p 0.8 reports the
peer's reset as an end of stream; a session tells the two apart by its own frames, a plain stream cannot.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio
from libp2p.io.exceptions import IOException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError

from punchbridge.errors import BridgeError
from punchbridge.libp2p.writes import for_the_bridge
from punchbridge.tasks.supervise import report
from punchbridge.transport.raw import BrokenStream, Buffer

if TYPE_CHECKING:
    from punchbridge.libp2p.connection import HostConnection

__all__ = ["FAILURES", "HostStream"]

FAILURES: Final = (IOException, MuxedStreamError, MuxedConnError, OSError, trio.BrokenResourceError, ValueError)
"""How a stream of py-libp2p ends in the ordinary course of a network's life; QUIC's are ValueErrors there."""

_READ: Final = 65536
"""Bytes asked for in one read, and handed over in one write."""
_INBOX: Final = 1 << 20
"""Bytes read ahead of whoever takes them; beyond it the peer's window closes."""
_OUTBOX: Final = 256 * 1024
"""Bytes taken from whoever sends, ahead of py-libp2p; beyond it writing waits."""
_RESET_TIMEOUT: Final = 1.0
"""Seconds for telling the peer of a reset; on a dead connection py-libp2p would wait longer."""

_ids = itertools.count(1)


class HostStream(trio.abc.HalfCloseableStream):
    """One negotiated stream. It works while `run` runs.

    Reads return b"" at the peer's end, and raise BrokenStream once the stream broke. One task may read, one may write.
    """

    keeps = True

    def __init__(self, connection: HostConnection, net: Any, protocol: str, *, inbound: bool) -> None:
        self.connection = connection
        self.protocol = protocol
        self.id = next(_ids)
        self.inbound = inbound
        self.on_readable: Callable[[], None] | None = None
        """Called whenever bytes, the end or a failure have come. It must neither block nor raise."""
        self.unread_most = _INBOX
        self._net = net
        self._inbox: deque[Buffer] = deque()
        self._buffered = 0
        self._ended = False
        self._outbox: deque[bytes] = deque()
        self._queued = 0
        self._finishing = False
        self._closed = False
        self._failure: BridgeError | None = None
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._reset = False
        self._written = False
        """Everything was handed to py-libp2p, our end included."""

    def __repr__(self) -> str:
        return f"<HostStream {self.id} {self.protocol} of {self.connection!r}>"

    async def run(self) -> None:
        """Carries bytes both ways until both have ended, or the stream was reset or broke. Cancelling resets it."""
        with for_the_bridge():
            await self._run()

    async def _run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read_loop)
                    nursery.start_soon(self._write_loop)
        finally:
            clean = self._failure is None and self._written and self._ended
            self._fail(BrokenStream("the stream has ended"))
            with trio.move_on_after(_RESET_TIMEOUT) as scope:
                scope.shield = True
                try:
                    await (self._net.close() if clean else self._net.reset())
                except FAILURES:
                    pass

    async def _read_loop(self) -> None:
        while not self._closed:
            try:
                data = await self._net.read(_READ)
            except StreamEOF:
                data = b""
            except FAILURES as problem:
                self._break(problem)
                return
            self.connection.bytes_received += len(data)
            if data:
                self._inbox.append(data)
                self._buffered += len(data)
            else:
                self._ended = True
            self._wake_reader()
            if self._ended:
                return
            while self._buffered >= _INBOX and not self._closed:
                await self._room.park()

    async def _write_loop(self) -> None:
        try:
            while True:
                while not self._outbox:
                    if self._finishing:
                        await self._net.close_write()
                        self._written = True
                        if self._closed:
                            self._scope.cancel()
                        return
                    await self._work.park()
                data = self._outbox[0] if len(self._outbox[0]) >= _READ else b"".join(self._outbox)
                if len(data) == len(self._outbox[0]):
                    self._outbox.popleft()
                else:
                    self._outbox.clear()
                await self._net.write(data)
                self._queued -= len(data)
                self.connection.bytes_sent += len(data)
                self._writers.unpark_all()
        except FAILURES as problem:
            self._break(problem)

    def _break(self, problem: BaseException) -> None:
        self._fail(BrokenStream(f"py-libp2p's stream broke: {type(problem).__name__}: {problem}"))
        self._scope.cancel()

    def _fail(self, failure: BridgeError) -> None:
        if self._failure is None:
            self._failure = failure
        self._wake_reader()
        self._writers.unpark_all()
        self._room.unpark_all()
        self._work.unpark_all()

    def _wake_reader(self) -> None:
        if self.on_readable is None:
            self._readers.unpark_all()
            return
        try:
            self.on_readable()
        except Exception as problem:  # noqa: BLE001 - the named supervisor: it costs this stream, not the host's task
            report("what takes a stream's bytes", problem)
            self.abort()

    # --- reading ----------------------------------------------------------------------------------------

    def receive_parts(self, max_bytes: int) -> list[Buffer] | None:
        """What is there, in the pieces that arrived; [] at the end, None when nothing has come yet. Raises as
        `receive_some`."""
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if not self._inbox:
            if self._ended:
                return []
            if self._failure is not None:
                raise BrokenStream(str(self._failure))
            return None
        parts: list[Buffer] = []
        while self._inbox and max_bytes > 0:
            piece = self._inbox.popleft()
            if len(piece) > max_bytes:
                self._inbox.appendleft(memoryview(piece)[max_bytes:])
                piece = memoryview(piece)[:max_bytes]
            max_bytes -= len(piece)
            self._buffered -= len(piece)
            parts.append(piece)
        if self._buffered < _INBOX:
            self._room.unpark_all()
        return parts

    async def receive_some(self, max_bytes: int | None = 262144) -> bytes:
        """At most `max_bytes` as soon as some are there; b"" at the end. Raises BrokenStream, ClosedResourceError after
        a close here. Cancelling loses nothing."""
        await trio.lowlevel.checkpoint()
        while (parts := self.receive_parts(max_bytes or _READ)) is None:
            await self._readers.park()
        return b"".join(parts)

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not taken."""
        return self._buffered

    def push_back(self, data: bytes) -> None:
        """Puts bytes back in front: they were read, but belong to what follows."""
        if data and not self._closed:
            self._inbox.appendleft(data)
            self._buffered += len(data)

    # --- writing ----------------------------------------------------------------------------------------

    def send_nowait(self, data: Buffer) -> int:
        """Takes what there is room for; 0 means it would block. Raises as `send_all`."""
        self._check_writable()
        size = min(len(data), max(0, _OUTBOX - self._queued))
        if size:
            self._outbox.append(bytes(memoryview(data)[:size]))
            self._queued += size
            self._work.unpark_all()
        return size

    @property
    def room(self) -> int:
        """Bytes that `send_nowait` takes now; 0 when it would block."""
        return max(0, _OUTBOX - self._queued)

    def send_parts(self, parts: Sequence[Buffer], size: int) -> int:
        """As `send_nowait`, for `size` bytes in parts."""
        return self.send_nowait(b"".join(parts)) if size else 0

    async def send_all(self, data: Buffer) -> None:
        """Hands everything over; waits for room. Raises BrokenStream, ClosedResourceError after a close or `send_eof`
        here. Cancelling leaves an unknown part sent."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            sent = self.send_nowait(view)
            view = view[sent:]
            if not sent:
                await self._writers.park()

    async def wait_send_all_might_not_block(self) -> None:
        """Returns once there is room for more bytes. Raises as `send_all`."""
        await trio.lowlevel.checkpoint()
        self._check_writable()
        while self._queued >= _OUTBOX:
            await self._writers.park()
            self._check_writable()

    async def send_eof(self) -> None:
        """Ends our half behind what was handed over. Raises as `send_all`."""
        await trio.lowlevel.checkpoint()
        if not self._finishing:
            self._check_writable()
            self._finishing = True
            self._work.unpark_all()

    def _check_writable(self) -> None:
        if self._closed or self._finishing:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._failure is not None:
            raise BrokenStream(str(self._failure))

    @property
    def failure(self) -> BridgeError | None:
        """Why the stream ended, if it was not closed here or by the peer's end."""
        return self._failure

    # --- ending -----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Ends both halves: what was handed over leaves, then the end; nothing more is read. Waits for nothing."""
        if not self._closed:
            self._closed = self._finishing = True
            self._ended = True
            self._readers.unpark_all()
            self._writers.unpark_all()
            self._room.unpark_all()
            self._work.unpark_all()
            if self._written:
                self._scope.cancel()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Resets the stream at once; repeated calls do nothing."""
        if not self._reset and not (self._closed and self._failure is not None):
            self._reset = self._closed = True
            self._fail(BrokenStream("this stream was reset here"))
            self._scope.cancel()

    reset = abort
