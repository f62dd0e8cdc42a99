"""How many unread bytes the peer may send on one QUIC connection: grown by the rate of reading, within the memory.

The engine's window of a stream is fixed, so one that nobody reads could use up the connection's. Therefore such a
stream gets room of its own on top, as long as there is some.
"""

from __future__ import annotations

from typing import Final

from punchbridge.config import QuicLimits
from punchbridge.tasks.memory import Account
from punchbridge.transport.quic.endpoint import Line

__all__ = ["Window"]

_SPAN: Final = 0.02
"""Seconds over which the rate is taken, at least. As with Yamux: a reader that had to wait for its turn on the
processor reads much at once, which says nothing about the path."""

_STALLED: Final = 3
"""Room for streams that nobody reads, for each byte of room for the others. The engine tells the peer of credit when it
is an eighth of the window, so the part that moves must stay well above that."""

_RTT_LEAST: Final = 0.002
"""Shorter round trips count as this, as with Yamux: below it the turns on the processor decide."""


class Window:
    """`size`: bytes that the peer may have sent and nobody has read from the engine."""

    def __init__(self, line: Line, limits: QuicLimits, account: Account, now: float) -> None:
        self._line = line
        self._account = account
        self._most, self._stream = limits.window, limits.stream_window
        self._moving = limits.window_first
        self._stalled = self._stalls = self._frames = 0
        self._read, self._epoch = 0, now

    @property
    def size(self) -> int:
        return self._moving + self._stalled

    def read(self, count: int, now: float) -> None:
        """Bytes were read from the engine. The window doubles when half of it is read in two round trips."""
        self._read += count
        span = now - self._epoch
        if span < _SPAN:
            return
        read, self._read, self._epoch = self._read, 0, now
        rtt = max(self._line.engine.info(self._line.number).rtt_least, _RTT_LEAST)
        if read * 4 * rtt > self._moving * span:
            growth = self._granted(self._moving)
            self._moving += growth
            self._tell(growth)

    def stalls(self) -> int:
        """A stream is not read: the others get what it may hold on top. How much that is, to be given back."""
        if not self._stalls:
            self._frames = self._line.engine.info(self._line.number).stream_frames
        self._stalls += 1
        before = self.size
        growth = self._granted(min(self._stream, self._most * _STALLED // (_STALLED + 1) - self._stalled))
        self._moving += self._granted((self._stalled + growth) // _STALLED - self._moving)
        beyond = max(0, self._stalled + growth - self._moving * _STALLED)
        if beyond:
            beyond = min(beyond, growth)
            self._account.shrink(beyond)
            growth -= beyond
        self._stalled += growth
        self._tell(self.size - before)
        return growth

    def moves(self, growth: int) -> None:
        """It is read again, or gone."""
        self._stalls -= 1
        if growth:
            self._stalled -= growth
            self._account.shrink(growth)
            self._tell(-growth)

    def held(self) -> int:
        """Unread bytes that the engine keeps, at most: those of all frames since it kept none, or the window."""
        if not self._stalls or self._line.gone:
            return 0
        info = self._line.engine.info(self._line.number)
        return min(self.size, (info.stream_frames - self._frames) * info.mtu)

    def _granted(self, wanted: int) -> int:
        return self._account.grow(max(0, min(wanted, self._most - self.size)))

    def _tell(self, growth: int) -> None:
        if growth and not self._line.gone:
            self._line.engine.set_window(self._line.number, self.size)
            self._line.flush()
