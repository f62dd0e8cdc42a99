"""The pump: carries bytes between one local socket and one stream, both ways, until both ways have ended.

It moves bytes and ends, nothing else: it knows no gRPC, no peer, no path and no name of a socket. A clean end on one
side becomes a half-close on the other, a reset on one side an abrupt close on the other, so that a truncated
transfer never looks complete.
"""

from __future__ import annotations

import math
import select
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from punchbridge.config import LocalLimits
from punchbridge.errors import BridgeError
from punchbridge.local.coalesce import Coalescer
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.signal import Signal

if TYPE_CHECKING:
    from punchbridge.transport.raw import Buffer, InboxStream

__all__ = ["PumpEnd", "Pumped", "pump"]


_PIECES: Final = 32
"""Received pieces that go to the local socket as they are; IOV_MAX is 1024."""

_SCRATCH: Final = trio.lowlevel.RunVar[memoryview]("scratch")
"""Where the pumps of a thread read into, one after another: nothing stays in it while a task waits."""

_COALESCER: Final = trio.lowlevel.RunVar[Coalescer]("coalescer")
"""One for all pumps of a thread, made by the first of them with its bounds."""


class PumpEnd(Enum):
    """How a pump ended."""

    CLOSED = "closed"
    """Both directions ended cleanly."""
    LOCAL = "local"
    """The local socket broke, or its program went away while the remote side still sent."""
    REMOTE = "remote"
    """The stream was reset, or its connection died."""


@dataclass
class Pumped:
    """The outcome: how it ended, why in words, the payload bytes of each direction, and the stream's own error."""

    end: PumpEnd = PumpEnd.CLOSED
    detail: str = ""
    sent: int = 0
    received: int = 0
    problem: BridgeError | None = field(default=None, compare=False)


async def pump(
    local: socket.socket,
    stream: InboxStream,
    limits: LocalLimits,
    *,
    before_close: Callable[[Pumped], None] | None = None,
    outcome: Pumped | None = None,
) -> Pumped:
    """Carries bytes between a connected, non-blocking socket and a stream until both directions have ended.

    Owns both from the start: whatever happens, cancellation included, both are closed when it returns or raises
    (the stream by reset unless both directions ended cleanly). Transport failures are not raised but returned;
    `before_close` is told of them before the program behind the local socket can notice. `outcome`: what is returned,
    for whoever looks at its counts meanwhile.
    """
    outcome = Pumped() if outcome is None else outcome
    state = _State(local, stream, limits, outcome)
    finished = False
    try:
        async with trio.open_nursery() as nursery:
            state.scope = nursery.cancel_scope
            nursery.start_soon(state.outbound)
            nursery.start_soon(state.inbound)
        finished = outcome.end is PumpEnd.CLOSED
        if finished:
            with trio.move_on_after(limits.linger):
                await stream.aclose()
    except NETWORK_FAILURES as problem:
        outcome.detail = str(problem)
    finally:
        stream.abort()
        if before_close is not None and outcome.end is not PumpEnd.CLOSED:
            before_close(outcome)
        _close(local, abruptly=not finished)
    return outcome


class _State:
    """The two directions of one pump; each is a task, and the inbound one mostly sleeps."""

    def __init__(self, local: socket.socket, stream: InboxStream, limits: LocalLimits, outcome: Pumped) -> None:
        self.local = local
        self.stream = stream
        self._limits = limits
        self._read, self._turns, self._linger = limits.read, limits.turns, limits.linger
        self.outcome = outcome
        self.scope = trio.CancelScope()
        self.inbound_ended = trio.Event()
        self._delivering = False
        self._rest: list[Buffer] = []
        self._resting = trio.CancelScope()
        """Around all that goes to the local program. Has a deadline while that does not read and the stream broke."""
        self._handed_over = Signal()

    def fail(self, end: PumpEnd, detail: str, problem: BaseException | None = None) -> None:
        if self.outcome.end is PumpEnd.CLOSED:
            self.outcome.end, self.outcome.detail = end, detail
            self.outcome.problem = problem if isinstance(problem, BridgeError) else None
        self.scope.cancel()

    async def outbound(self) -> None:
        """Local socket to stream. Reads until the socket is empty and yields only every `turns` operations.

        Of a stream that keeps what it is given no more is read than it takes: it alone bounds what waits for a peer.
        """
        local, stream, outcome = self.local, self.stream, self.outcome
        read, bulk_least, most = self._read, self._limits.bulk, self._turns
        before_read = _coalescer(self._limits).before_read
        view, keeps = _scratch(read), stream.keeps
        turns = 0
        drained, bulk = True, False
        while True:
            if drained:
                turns = 0
                await trio.lowlevel.wait_readable(local)
                before_read()
            want = _whole(min(read, stream.room), bulk_least) if keeps else read
            if not want:
                try:
                    await stream.wait_send_all_might_not_block()
                except NETWORK_FAILURES as problem:
                    return self.fail(PumpEnd.REMOTE, str(problem), problem)
                turns, drained = 0, False
                continue
            try:
                # A stream that keeps what it is given copies it out of `view`; bulk is read into memory of its own.
                data = memoryview(local.recv(want)) if bulk else view[: local.recv_into(view, want)]
            except BlockingIOError:
                drained = True
                continue
            except OSError as problem:
                return self.fail(PumpEnd.LOCAL, f"local socket: {problem.strerror}")
            count = len(data)
            if count == 0:
                break
            bulk = keeps and count >= bulk_least
            # A short read emptied the socket: waiting first spares a system call that would fail.
            drained = count < want
            try:
                taken = stream.send_nowait(data)
                if taken < count:
                    turns = 0
                    await stream.send_all(data[taken:] if bulk else bytes(data[taken:]))
            except NETWORK_FAILURES as problem:
                return self.fail(PumpEnd.REMOTE, str(problem), problem)
            outcome.sent += count
            turns += 1
            if turns >= most:
                turns = 0
                await trio.lowlevel.checkpoint()
        try:
            await stream.send_eof()
        except NETWORK_FAILURES as problem:
            return self.fail(PumpEnd.REMOTE, str(problem), problem)
        if _hung_up(local):
            with trio.move_on_after(self._linger):
                await self.inbound_ended.wait()
            if not self.inbound_ended.is_set():
                self.fail(PumpEnd.LOCAL, "the local program is gone and the remote side did not end")

    async def inbound(self) -> None:
        """Stream to local socket: `_deliver` writes where the bytes arrive; this task goes on where it stops."""
        self.stream.on_readable = self._deliver
        seen = self._handed_over.number
        try:
            with self._resting:  # one for all waits: a scope for each would cost a tenth of an upload
                self._deliver()
                while not self.inbound_ended.is_set():
                    seen = await self._handed_over.beyond(seen)
                    self._look_for_failure()
                    self.outcome.received += await _send_rest(self.local, self._rest)
                    if self.stream.failure is not None:
                        self._resting.deadline = math.inf
                    self._rest = []
                    self._deliver()
            if self._resting.cancelled_caught:
                problem = self.stream.failure
                return self.fail(PumpEnd.REMOTE, f"{problem}; the local program does not read", problem)
        except OSError as problem:
            return self.fail(PumpEnd.LOCAL, f"local socket: {problem.strerror}")
        finally:
            self.stream.on_readable = None
        try:
            self.local.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The program closed first; its own direction tells the rest.

    def _look_for_failure(self) -> None:
        """A stream that broke while the local program does not read: it gets what came before for `linger` more."""
        if self.stream.failure is not None:
            self._resting.deadline = min(self._resting.deadline, trio.current_time() + self._linger)

    def _deliver(self) -> None:
        """Writes what has arrived, in the task that brought it: a task switch costs more than the write.

        Hands over to `inbound` when the socket is full, at the end, and after `turns` writes.
        """
        if self._rest:
            if self.stream.failure is not None:
                self._look_for_failure()
            return
        # Reading may send a window, and what that causes may call us again: the loop below goes on anyway.
        if self._delivering or self.inbound_ended.is_set():
            return
        self._delivering = True
        try:
            for _ in range(self._turns):
                pieces = self.stream.receive_parts(self._read)
                if pieces is None:
                    return
                if not pieces:
                    self.inbound_ended.set()
                    break
                sent = _send(self.local, pieces)
                self.outcome.received += sent
                self._rest = _left(pieces, sent)
                if self._rest:
                    break
            self._handed_over.notify()
        except OSError as problem:
            self.fail(PumpEnd.LOCAL, f"local socket: {problem.strerror}")
        except NETWORK_FAILURES as problem:
            self.fail(PumpEnd.REMOTE, str(problem), problem)
        finally:
            self._delivering = False


def _whole(size: int, frame: int) -> int:
    """Of much, whole frames: what is left over would travel in a small frame of its own."""
    return size - size % frame if size > frame else size


def _scratch(size: int) -> memoryview:
    """At least so many bytes to read into; the same for all pumps of a thread."""
    try:
        made = _SCRATCH.get()
    except LookupError:
        made = memoryview(b"")
    if len(made) < size:
        made = memoryview(bytearray(size))
        _SCRATCH.set(made)
    return made


def _coalescer(limits: LocalLimits) -> Coalescer:
    try:
        return _COALESCER.get()
    except LookupError:
        made = Coalescer(limits)
        _COALESCER.set(made)
        return made


def _send(local: socket.socket, pieces: Sequence[Buffer]) -> int:
    try:
        if len(pieces) == 1:
            return local.send(pieces[0])
        # Many small ones are joined: the kernel takes IOV_MAX at most, and each costs more than it holds.
        return local.sendmsg(pieces) if len(pieces) <= _PIECES else local.send(b"".join(pieces))
    except BlockingIOError:
        return 0


def _left(pieces: Sequence[Buffer], sent: int) -> list[Buffer]:
    for number, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[number + 1 :]]
        sent -= len(piece)
    return []


async def _send_rest(local: socket.socket, pieces: list[Buffer]) -> int:
    total = sum(map(len, pieces))
    while pieces:
        await trio.lowlevel.wait_writable(local)
        pieces = _left(pieces, _send(local, pieces))
    return total


def _hung_up(local: socket.socket) -> bool:
    """True when the program behind the socket closed it whole, rather than its sending direction alone."""
    poll = select.poll()
    poll.register(local, 0)
    return bool(poll.poll(0))


def _close(local: socket.socket, *, abruptly: bool) -> None:
    if abruptly and local.family in (socket.AF_INET, socket.AF_INET6):
        try:
            # Linger 0 makes close send RST: the other program must not read a truncated transfer as a whole one.
            local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    trio.lowlevel.notify_closing(local)
    local.close()
