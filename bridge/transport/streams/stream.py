"""One muxed stream as its user sees it: a trio stream, and a `RawStream` that can carry a circuit.

Waits and wakes; the bytes and windows are the engine's, what carries them is the connection's. Negotiation of the
protocol is done by the connection; here it only delays the first read. Knows no peer and no address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from punchbridge.errors import BridgeError, NegotiationFailed, ProtocolViolation
from punchbridge.tasks.supervise import report
from punchbridge.transport.base import Connection
from punchbridge.transport.raw import BrokenConnection, BrokenStream, Buffer
from punchbridge.transport.streams.engine import StreamState
from punchbridge.transport.turn import Turn
from punchbridge.wire.multistream import Initiator, Responder

if TYPE_CHECKING:
    from punchbridge.transport.streams.mux import Mux

_ANY: Final = 1 << 62


class Stream(trio.abc.HalfCloseableStream):
    """An ordered byte stream inside a connection.

    Reads raise BrokenStream (a StreamReset) after a reset, BrokenConnection (a ConnectionLost) when the connection is
    gone, each behind what came before it, and return b"" only after the peer's FIN. One task may read and one may write
    at a time.
    """

    keeps = False

    def __init__(
        self, connection: Connection, mux: Mux, state: StreamState, negotiation: Initiator | Responder
    ) -> None:
        self.connection = connection
        self.protocol = ""
        self.id = state.id
        self.inbound = state.inbound
        self.state = state
        self.negotiation: Initiator | Responder | None = negotiation
        self._mux, self._engine, self._queue = mux, mux.engine, mux.engine.queue
        self._frame, self._burst, self._full = mux.engine.frame, mux.burst, mux.engine.queue.full
        self.unread_most = _ANY
        """See `base.Stream`."""
        self._closed = False
        self.failure: BridgeError | None = None
        """Why the stream ended, if it was not closed here or by FIN."""
        self.unwanted: BridgeError | None = None
        """Why the peer takes no more, when that ended our half; what it sends may still be read."""
        self._sending = Turn("another task is sending on this stream")
        self._receiving = Turn("another task is reading this stream")
        self.on_readable: Callable[[], None] | None = None
        """Called where a waiting reader would be woken; what it calls here must not block. For whoever passes the bytes
        on at once, which spares a task switch."""
        self._reader: Task | None = None
        self._writer: Task | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.protocol or 'negotiating'} of connection {self.connection.id}>"

    # --- reading ----------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = 262144) -> bytes:
        """At most `max_bytes` as soon as some are there; b"" after the peer's FIN.

        Raises BrokenStream, BrokenConnection, NegotiationFailed (a lazily opened stream was refused),
        trio.ClosedResourceError after a close here, trio.BusyResourceError while another task reads. Cancelling loses
        nothing.
        """
        size = 262144 if max_bytes is None else index(max_bytes)
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self.receive_nowait(size)
        if data is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        with self._receiving:
            while data is None:
                self._reader = current_task()
                await wait_task_rescheduled(self._abandon_read)
                data = self.receive_nowait(size)
        return data

    def receive_nowait(self, max_bytes: int = 262144) -> bytes | None:
        """What is there now, b"" at the end, None when a read would wait. Raises as `receive_some`."""
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        state = self.state
        if self.negotiation is None:
            if state.buffered:
                data = state.take(max_bytes)
                self._engine.consumed(state)
                return data
            if state.fin_received:
                return b""
        if self.failure is not None:
            raise fresh(self.failure)
        return None

    def receive_parts(self, max_bytes: int) -> list[Buffer] | None:
        """As `receive_nowait`, in the pieces that arrived, not copied; [] at the end."""
        state = self.state
        if self._closed or self.negotiation is not None or not state.buffered:
            return None if self.receive_nowait(1) is None else []
        pieces = state.take_pieces(max_bytes)
        self._engine.consumed(state)
        return pieces

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not taken."""
        return self.state.buffered

    def push_back(self, data: bytes) -> None:
        """Puts bytes back in front: they were read, but belong to what follows."""
        if not self._closed:
            self.state.put_back(data)

    def _abandon_read(self, _: object) -> Abort:
        self._reader = None
        return Abort.SUCCEEDED

    # --- writing ----------------------------------------------------------------------------------------

    def send_nowait(self, data: Buffer) -> int:
        """Sends what window and queue take now, at most `send_burst`; 0: it would block. Raises as `send_all`."""
        self._check_writable()
        engine, queue, state, frame, full = self._engine, self._queue, self.state, self._frame, self._full
        view = memoryview(data)
        end, sent = min(len(view), self._burst), 0
        while sent < end and queue.queued < full:
            size = min(end - sent, state.send_window, frame)
            if size <= 0:
                break
            engine.data(state, view[sent : sent + size])
            sent += size
        return sent

    @property
    def room(self) -> int:
        """Bytes that `send_nowait` takes now, about; 0 when it would block."""
        free = self._full - self._queue.queued
        return min(max(free, self._frame), self.state.send_window, self._burst) if free > 0 else 0

    def send_parts(self, parts: Sequence[Buffer], size: int) -> int:
        """As `send_nowait`, for `size` bytes in parts; what fits one frame is joined there."""
        if size > min(self.state.send_window, self._frame) or self._queue.queued >= self._full:
            return self.send_nowait(b"".join(parts))
        self._check_writable()
        self._engine.data(self.state, *parts)
        return size

    async def send_all(self, data: Buffer) -> None:
        """Sends everything; waits for the peer's window and the socket.

        Raises BrokenStream, BrokenConnection, trio.ClosedResourceError after a close or `send_eof` here,
        trio.BusyResourceError while another task sends. Cancelling leaves an unknown part sent.
        """
        with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_writable()
            sent = self.send_nowait(data) if data else 0
            if sent == len(data):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            view = memoryview(data)
            while sent < len(view):
                if self._would_block():
                    await self._wait_writable()
                else:
                    await trio.lowlevel.checkpoint()
                sent += self.send_nowait(view[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """Returns once the stream takes more bytes. Raises as `send_all`."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_writable()
            while self._would_block():
                await self._wait_writable()
                self._check_writable()

    async def send_eof(self) -> None:
        """Ends our half (FIN). Raises as `send_all`."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self.state.fin_sent and not self._closed:
                return
            self._check_writable()
            self._mux.finish(self.state)

    def _check_writable(self) -> None:
        if self._closed or (self.state.fin_sent and self.failure is None):
            if self.unwanted is not None and not self._closed:
                raise fresh(self.unwanted)
            raise trio.ClosedResourceError("this stream was closed here")
        if self.failure is not None:
            raise fresh(self.failure)

    def _would_block(self) -> bool:
        return self.failure is None and (self.state.send_window <= 0 or self._queue.queued >= self._full)

    async def _wait_writable(self) -> None:
        self._writer = current_task()
        self._mux.blocked[self.id] = self
        await wait_task_rescheduled(self._abandon_write)

    def _abandon_write(self, _: object) -> Abort:
        self._writer = None
        self._mux.blocked.pop(self.id, None)
        return Abort.SUCCEEDED

    # --- ending -----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Ends both halves: FIN to the peer, nothing more is read. Waits for nothing, so cancelling changes nothing."""
        if not self._closed:
            self._closed = True
            self._mux.close(self.state)
            self._wake_all()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Resets the stream (RST) at once; repeated calls do nothing."""
        if not self._closed:
            self._closed = True
            self._mux.reset(self.state)
            self._wake_all()

    reset = abort

    # --- as the carrier of a circuit --------------------------------------------------------------------

    reads_to_end = False
    discard = abort
    counts = None

    def notify(self, arrived: Callable[[], None] | None) -> bool:
        """See RawStream."""
        self.on_readable = arrived
        return True

    def prove(self) -> None:
        """See RawStream. A stream's end leaves nothing behind in any case."""

    def fail(self, failure: BridgeError) -> None:
        """The connection says how the stream ended; the first reason stays."""
        if self.failure is None:
            self.failure = failure
        self._wake_all()

    # --- waking, by the connection ----------------------------------------------------------------------

    def wake_reader(self) -> None:
        """More bytes, or the end, are there."""
        if self.on_readable is not None:
            try:
                self.on_readable()
            except Exception as problem:  # noqa: BLE001 - the named supervisor: it costs this stream, not the connection
                report("what takes a stream's bytes", problem)
                self.abort()
            return
        task, self._reader = self._reader, None
        if task is not None:
            reschedule(task)

    def wake_writer(self) -> None:
        """Window or queue have room."""
        task, self._writer = self._writer, None
        if task is not None:
            self._mux.blocked.pop(self.id, None)
            reschedule(task)

    def _wake_all(self) -> None:
        self.wake_reader()
        self.wake_writer()


def fresh(failure: BridgeError | None) -> BridgeError:
    """A fresh exception for each raise: tracebacks must not pile up on a shared one."""
    if isinstance(failure, BrokenConnection | BrokenStream | NegotiationFailed | ProtocolViolation):
        return type(failure)(str(failure))
    return BrokenStream(str(failure))
