"""The sending side of one connection: encrypts and sends in the caller's task, queues only when the socket is full.

No lock and no task switch while the socket takes the bytes. The writer task `run` sleeps until something is queued;
then small frames share one Noise message. Knows no frame and no stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from punchbridge.config import KIB, MuxedLimits
from punchbridge.errors import LimitExceeded
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.transport.raw import RawStream
from punchbridge.wire.noise import MAX_NOISE_PLAINTEXT, Sealer

_SMALL: Final = KIB
_TAIL: Final = 32 * KIB
"""Queued frames below the first size are joined up to the second: an object for each would take more than its bytes."""


class Sender:
    """`lost` is called when the stream below fails, `room` when the queue has drained to half."""

    def __init__(
        self,
        raw: RawStream,
        sealer: Sealer,
        limits: MuxedLimits,
        *,
        lost: Callable[[BaseException], None],
        room: Callable[[], None],
    ) -> None:
        self.full = limits.send_queue
        self._most, self._room_below = limits.send_queue_most, limits.send_queue // 2
        self.queued = 0
        self.bytes_sent = 0
        self._send_nowait, self._send_all, self._seal = raw.send_nowait, raw.send_all, sealer.seal
        self._lost, self._room = lost, room
        self._timeout = limits.send_timeout
        self._queue: deque[bytes | bytearray] = deque()
        self.moved = 0.0
        """When queued bytes have left last, or were queued while there were none; by trio's clock."""
        self._waiting = 0
        self._unsent = memoryview(b"")
        self._work, self._idle = trio.Event(), trio.Event()
        self._stopped = False

    def send(self, frames: bytes) -> None:
        """At most 65519 bytes of whole frames, in order behind all earlier ones. Never blocks, never raises."""
        if not frames or self._stopped:
            return
        if self.queued:
            if len(frames) >= _SMALL:
                self._queue.append(frames)
            elif self._queue and isinstance(tail := self._queue[-1], bytearray) and len(tail) < _TAIL:
                tail += frames
            else:
                self._queue.append(bytearray(frames))
            self._waiting += len(frames)
            self.queued += len(frames)
            if self.queued > self._most:
                self._lost(LimitExceeded("the peer does not read what it asked for"))
            return
        try:
            message = self._seal(frames)
            sent = self._send_nowait(message)
        except NETWORK_FAILURES as problem:
            self._lost(problem)
            return
        self.bytes_sent += sent
        if sent < len(message):
            self._unsent = memoryview(message)[sent:]
            self.queued = len(self._unsent)
            self.moved = trio.current_time()
            self._idle = trio.Event()
            self._work.set()

    async def flush(self) -> None:
        """Returns when nothing is queued and the writer task sends nothing, or the sender was stopped."""
        # Asked again after each wait: between the waking of this task and its turn more may have been queued.
        while self.queued and not self._stopped:
            await self._idle.wait()

    async def run(self) -> None:
        """Drains the queue until the connection ends. A peer that takes nothing for `send_timeout` has lost it."""
        try:
            # Stopping may come between the waking of this task and its turn; then there is nothing left to send.
            while not self._stopped:
                if not self.queued:
                    self._idle.set()
                    self._work = trio.Event()
                    await self._work.wait()
                    continue
                unsent = self._unsent or memoryview(self._seal(self._gather()))
                with trio.move_on_after(self._timeout) as patience:
                    await self._send_all(unsent)
                if patience.cancelled_caught:
                    self._lost(LimitExceeded("the peer takes nothing of what is sent"))
                    return
                self._unsent = memoryview(b"")
                self._sent(len(unsent))
                self._drain()
        except NETWORK_FAILURES as problem:
            self._lost(problem)

    def _drain(self) -> None:
        """Sends on without a task switch: a socket that has just taken a message takes the next ones too."""
        while self._queue and not self._stopped:
            message = self._seal(self._gather())
            sent = self._send_nowait(message)
            self._unsent = memoryview(message)[sent:]
            self._sent(sent)
            if self._unsent:
                return

    def _sent(self, count: int) -> None:
        self.bytes_sent += count
        self.moved = trio.current_time()
        self.queued = self._waiting + len(self._unsent)
        if self.queued <= self._room_below:
            self._room()

    def _gather(self) -> bytes:
        queue = self._queue
        frames = [queue.popleft()]
        size = len(frames[0])
        while queue and size + len(queue[0]) <= MAX_NOISE_PLAINTEXT:
            size += len(queue[0])
            frames.append(queue.popleft())
        self._waiting -= size
        return b"".join(frames)

    def stop(self) -> None:
        """Forgets what is queued; later sends do nothing."""
        self._stopped = True
        self.queued = 0
        self._waiting = 0
        self._queue.clear()
        self._unsent = memoryview(b"")
        self._idle.set()
