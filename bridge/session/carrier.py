"""One libp2p stream that carries a session for a while: reads it into the machine, writes what the machine gives.

Frames go out in the task that caused them as long as the stream takes them; only when it would block does a task of
the carrier's own go on. Knows one stream and one machine, no path and no policy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import trio

from punchbridge.errors import BridgeError
from punchbridge.sessions import MAX_FRAME, Session, SessionEvent, Write
from punchbridge.transport.raw import Buffer

if TYPE_CHECKING:
    from punchbridge.transport.base import Connection, Stream

__all__ = ["BROKEN", "READ", "Carrier", "cap_left"]

READ: Final = 4 * MAX_FRAME
"""Bytes of one read: several Noise messages, so that the cost of a call is shared. A read of whole frames of the
largest size leaves no half one behind, which would have to be copied."""

BURST: Final = 256 * 1024
"""Bytes of one batch of frames, for the same reason."""

BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, BridgeError)

Notice = Callable[[Sequence[SessionEvent], float | None], None]


_handed: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()
"""Bytes that sessions have given to each capped connection: they count against the cap before they leave."""


def _used(connection: Connection) -> int:
    # Some relays sum both directions (rust), so we do.
    return max(connection.bytes_sent, _handed.get(connection, 0)) + connection.bytes_received


def cap_left(connection: Connection, now: float) -> float:
    """The share (1.0 to 0.0) of a relay's bytes or seconds that this connection has left; 1.0 without a cap."""
    limit = connection.limit
    if limit is None:
        return 1.0
    left = 1.0
    if limit.bytes:
        left = min(left, 1.0 - _used(connection) / limit.bytes)
    if limit.seconds:
        left = min(left, 1.0 - (now - connection.opened_at) / limit.seconds)
    return max(0.0, left)


def _room(connection: Connection, reserve: float, now: float) -> int | None:
    """Bytes of data a session may still hand to the connection; None without a cap. `reserve`: the share of the cap
    that is left alone."""
    limit = connection.limit
    if limit is None or not (limit.bytes or limit.seconds):
        return None
    if cap_left(connection, now) < reserve:
        return 0
    return int(limit.bytes * (1 - reserve)) - _used(connection) if limit.bytes else BURST


class Carrier:
    """A stream under one generation of a session. `run` lives as long as the stream does."""

    def __init__(self, stream: Stream, machine: Session, generation: int, notice: Notice) -> None:
        self.stream = stream
        self.connection = stream.connection
        self.generation = generation
        self.heard_bytes = 0
        self.problem: BridgeError | None = None
        self._machine = machine
        self._notice = notice
        self._rest: deque[Write] = deque()
        self._wake = trio.Event()
        self._closing = False
        self._scope = trio.CancelScope()
        self._sent = trio.lowlevel.ParkingLot()

    @property
    def blocked(self) -> bool:
        """The stream takes no bytes now; what the machine gave waits."""
        return bool(self._rest)

    def flush(self, now: float) -> None:
        """Sends what the machine wants sent, without waiting. Never raises: a broken stream is told to the machine."""
        if self._rest or self._closing:
            return
        connection = self.connection
        capped, handed = connection.limit is not None, False
        try:
            while True:
                room = _room(connection, self._machine.limits.cap_reserve, now) if capped else None
                writes = self._machine.output(self.generation, BURST, now, room=room)
                if not writes:
                    break
                handed, size = True, sum(sum(map(len, parts)) for parts in writes)
                if capped:
                    _handed[connection] = _handed.get(connection, 0) + size
                self._rest.extend(writes)
                if not self._push():
                    self._wake.set()
                    return
                if size < BURST:
                    break
        except BROKEN as problem:
            self._broken(problem)
            return
        if handed and (events := self._machine.after_output(self.generation)):
            self._notice(events, now)

    def _push(self) -> bool:
        """Hands over what waits; False once the stream would block."""
        rest, stream = self._rest, self.stream
        while rest:
            parts = rest[0]
            size = sum(map(len, parts))
            taken = stream.send_parts(parts, size)
            if taken < size:
                if taken:
                    rest[0] = [memoryview(b"".join(parts))[taken:]]
                return False
            rest.popleft()
        return True

    def _broken(self, problem: BaseException) -> None:
        if not self._closing:
            self._closing = True
            if isinstance(problem, BridgeError):
                self.problem = problem
            reason = getattr(problem, "code", "CONNECTION_LOST")
            self._notice(self._machine.lost(self.generation, reason, trio.current_time()), None)
            self._wake.set()
            self._scope.cancel()
            self._sent.unpark_all()

    async def run(self, early: bytes = b"") -> None:
        """Reads and writes until the stream ends, by whichever side. Closes the stream; cancelling resets it."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._write)
                if early:
                    self._take([early])
                self.stream.on_readable = self._arrived
                self._arrived()
        finally:
            self.stream.on_readable = None
            self.stream.abort()

    def _arrived(self) -> None:
        """Takes all that has arrived, in the task that received it."""
        try:
            while not self._closing:
                pieces = self.stream.receive_parts(READ)
                if pieces is None:
                    return
                if not pieces:
                    break
                self._take(pieces)
        except BROKEN as problem:
            self._broken(problem)
        else:
            self._broken(EOFError())

    def _take(self, pieces: Sequence[Buffer]) -> None:
        self.heard_bytes = self.connection.bytes_received
        received, now, events = self._machine.received, trio.current_time(), []
        for piece in pieces:
            events += received(self.generation, piece, now)
        self._notice(events, now)

    async def _write(self) -> None:
        try:
            while not self._closing:
                await self._wake.wait()
                self._wake = trio.Event()
                while not self._closing and not self._push():
                    await self.stream.wait_send_all_might_not_block()
                self._sent.unpark_all()
                self.flush(trio.current_time())
        except BROKEN as problem:
            self._broken(problem)

    async def leave(self) -> None:
        """Ends the carrier cleanly once all it was given is with the stream; cancelling resets it."""
        while self._rest and not self._closing:
            await self._sent.park()
        self._closing = True
        self._wake.set()
        try:
            await self.stream.aclose()
        except BROKEN:
            self.stream.abort()

    def drop(self) -> None:
        """Resets the stream at once."""
        self._closing = True
        self.stream.abort()
        self._wake.set()
        self._sent.unpark_all()
