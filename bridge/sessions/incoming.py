"""The receiving half of a session's memory: bytes in order for the reader, and those that came ahead of their turn."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from punchbridge.config import SessionLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.sessions.budget import Budget

_SMALL = 16 * 1024


class Incoming:
    """Orders bytes by offset, whatever carrier brought them. Bounded by `window`, counted from what was read, which
    grows while the budget that all sessions share lasts."""

    def __init__(self, budget: Budget, limits: SessionLimits) -> None:
        self._budget = budget
        self._floor = min(limits.floor, limits.window_least)
        self._window_most = limits.window_most
        self._ack_bytes = limits.ack_bytes
        self._ack_early = limits.ack_delay / 2
        self._ahead_most = limits.ahead
        self._trip_least = limits.trip_least
        self.received = 0
        self.read_to = 0
        self.window = budget.first(self._floor, limits.window_least)
        self.step = 0
        """So many bytes are worth an acknowledgement; the peer goes on meanwhile (`Outgoing.acknowledge`)."""
        self.length: int | None = None
        self.acked = 0
        """What the last acknowledgement said."""
        self.edge_told = 0
        self.ack_due: float | None = None
        """When what came has to be acknowledged, at the latest."""
        self._ready: deque[bytes | bytearray | memoryview] = deque()
        self._ahead: dict[int, bytearray] = {}
        self._ahead_ends: dict[int, int] = {}
        """Where a piece ends: where it begins. What follows it directly is added to it."""
        self._ahead_order: list[int] = []
        self._ahead_bytes = 0
        self._mark = (0, 0.0)
        self._set_step()

    def _set_step(self) -> None:
        # More than half of the window would let the peer wait for room that it is not told of.
        self.step = min(max(self._ack_bytes, self.window // 4), max(1, self.window // 2))

    def ack_wanted(self, now: float, *, sending: bool) -> bool:
        """Whether an acknowledgement should leave now. `sending`: other bytes leave, which it rides along with."""
        if self.ack_due is None:
            return False
        # One with each small message would cost as much as the message: it rides along once half its time is over.
        due = self.ack_due - self._ack_early if sending else self.ack_due
        return now >= due or self.received - self.acked >= self.step

    def acknowledged(self) -> None:
        """The peer was told what we have, and how far it may send."""
        self.acked, self.edge_told, self.ack_due = self.have, self.edge, None

    @property
    def edge(self) -> int:
        """The offset up to which the peer may send."""
        return self.read_to + self.window

    @property
    def have(self) -> int:
        """What is acknowledged: bytes in order, and one more when the end came too."""
        return self.received + 1 if self.ended else self.received

    @property
    def gap(self) -> bool:
        """Bytes came ahead of their turn, so some before them are missing."""
        return bool(self._ahead)

    @property
    def ended(self) -> bool:
        """Everything came, and the peer ended the stream."""
        return self.length is not None and self.received == self.length

    @property
    def readable(self) -> bool:
        return bool(self._ready) or self.ended

    def data(self, offset: int, payload: memoryview) -> None:
        """Takes a piece. Raises ProtocolViolation beyond the window, beyond the end, or beyond the reorder bound."""
        end = offset + len(payload)
        if end > self.edge:
            raise ProtocolViolation(f"data up to {end}; the window ends at {self.edge}")
        if self.length is not None and end > self.length:
            raise ProtocolViolation(f"data up to {end} of a stream that ended at {self.length}")
        if end <= self.received:
            return
        if offset > self.received:
            self._keep(offset, payload)
            return
        self._append(payload[self.received - offset :])
        if self._ahead:
            self._join()

    def _keep(self, offset: int, payload: memoryview) -> None:
        known = self._ahead.get(offset, b"")
        more = len(payload) - len(known)
        if more <= 0:
            return
        before = None if known else self._ahead_ends.get(offset)
        if not known and before is None and len(self._ahead) >= self._ahead_most:
            raise ProtocolViolation(f"more than {self._ahead_most} frames ahead of their turn")
        # Two carriers may bring the same bytes cut differently, but nobody sends them a third time.
        if self._ahead_bytes + more > 2 * self.window:
            raise ProtocolViolation(f"more than twice the window of {self.window} bytes ahead of their turn")
        self._ahead_bytes += more
        if before is not None:
            # Small frames one after another are one piece: however many there are, they take one place.
            self._ahead[before] += payload
            del self._ahead_ends[offset]
            self._ahead_ends[offset + len(payload)] = before
            return
        if known:
            self._ahead_ends.pop(offset + len(known), None)
        else:
            heappush(self._ahead_order, offset)
        self._ahead[offset] = bytearray(payload)
        self._ahead_ends[offset + len(payload)] = offset

    def _append(self, piece: memoryview | bytes) -> None:
        self.received += len(piece)
        last = self._ready[-1] if self._ready else None
        if len(piece) >= _SMALL:
            self._ready.append(piece)
        elif isinstance(last, bytearray) and len(last) < _SMALL:
            last += piece
        else:
            # Small pieces are copied: a view would keep the whole received buffer alive.
            self._ready.append(bytearray(piece))

    def _join(self) -> None:
        order = self._ahead_order
        while order and order[0] <= self.received:
            offset = heappop(order)
            piece = self._ahead.pop(offset)
            self._ahead_ends.pop(offset + len(piece), None)
            self._ahead_bytes -= len(piece)
            if offset + len(piece) > self.received:
                self._append(memoryview(piece)[self.received - offset :])

    def finish(self, length: int) -> None:
        """The peer ended its stream at `length`. Raises ProtocolViolation when that contradicts what came."""
        if self.length not in (None, length) or length < self.received or length > self.edge:
            raise ProtocolViolation(f"the stream ends at {length}; {self.received} bytes came")
        if self.length is None and any(offset + len(piece) > length for offset, piece in self._ahead.items()):
            raise ProtocolViolation(f"the stream ends at {length}; bytes beyond it came")
        self.length = length

    def read(self, most: int) -> list[bytes | bytearray | memoryview]:
        """At most `most` bytes in order, in pieces that are not copied; none when there are none now."""
        ready, pieces, left = self._ready, [], most
        while ready and left > 0:
            piece = ready.popleft()
            if len(piece) > left:
                view = memoryview(piece)
                ready.appendleft(view[left:])
                piece = view[:left]
            pieces.append(piece)
            left -= len(piece)
        self.read_to += most - left
        return pieces

    def grow(self, now: float, round_trip: float) -> None:
        """Doubles the window when half of it was read within two round trips (the reader keeps up)."""
        start, since = self._mark
        if self.read_to - start < self.window // 2:
            return
        if now - since < 2 * max(round_trip, self._trip_least):
            self.window += self._budget.take(min(self.window, self._window_most - self.window))
            self._set_step()
        self._mark = (self.read_to, now)

    def give_back(self) -> None:
        """What was taken of the budget; the window grows no more. Repeated calls do nothing."""
        self._budget.give_back(self.window - self._floor)
        self._budget = Budget(0)
