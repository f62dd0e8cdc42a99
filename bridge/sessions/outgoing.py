"""The sending half of a session's memory: bytes written and not yet received by the peer, and where sending stands.

    acked <= cursor <= written      cursor <= edge (the peer's window)

What lies between `acked` and `cursor` was sent and is kept for replay; from `cursor` on it waits to be sent.
"""

from __future__ import annotations

from collections import deque

from punchbridge.config import SessionLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import HEADER, MAX_FRAME, MAX_PAYLOAD, REPLAYED, Kind, encode

_DATA = int(Kind.DATA)


class Outgoing:
    """Holds every byte until the peer has it. Bounded by `capacity`, which grows with the measured rate while the
    budget that all sessions share lasts."""

    def __init__(self, budget: Budget, limits: SessionLimits) -> None:
        self._budget = budget
        self._floor = min(limits.floor, limits.replay_least)
        self._replay_most = limits.replay_most
        self._pieces = limits.pieces
        self._trip_least = limits.trip_least
        self.acked = 0
        self.cursor = 0
        self.written = 0
        self.edge = 0
        self.capacity = budget.first(self._floor, limits.replay_least)
        self.finished = False
        self.fin_sent = False
        self.fin_acked = False
        """The stream was ended and the peer has all of it, the end included."""
        self.replayed = 0
        self._highest = 0
        self._fin_once = False
        """As `_highest` for the end: a late acknowledgement may come after sending was rewound."""
        # Views of what was written: a large write is cut into frames without being copied again for each.
        self._sent: deque[memoryview] = deque()
        self._unsent: deque[memoryview] = deque()
        self._mark = (0, 0.0)

    @property
    def room(self) -> int:
        """Bytes that `write` would take now."""
        return 0 if self.finished else max(0, self.capacity - (self.written - self.acked))

    @property
    def waiting(self) -> bool:
        """Something was sent that the peer has not acknowledged."""
        return self.acked < self.cursor or (self.fin_sent and not self.fin_acked)

    @property
    def pending(self) -> bool:
        """Something could be sent now."""
        return self.written > self.cursor < self.edge or (self.finished and self._fin_pending)

    @property
    def unreceived(self) -> int:
        """Bytes that were sent before and will be sent again."""
        return self._highest - self.cursor

    @property
    def _fin_pending(self) -> bool:
        return self.finished and not self.fin_sent and self.cursor == self.written

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Takes what there is room for and returns how much that was."""
        taken = min(len(data), self.room)
        if taken:
            view = memoryview(data)[:taken]
            if isinstance(view.obj, bytes):
                self._unsent.append(view)
            elif taken <= MAX_PAYLOAD:
                self._unsent.append(memoryview(bytes(view)))
            else:
                # In pieces of a frame: the allocator gives them warm memory back, and no frame is cut out of two.
                self._unsent.extend(
                    memoryview(bytes(view[at : at + MAX_PAYLOAD])) for at in range(0, taken, MAX_PAYLOAD)
                )
            if len(self._unsent) > self._pieces:
                self._unsent = _joined(self._unsent)
            self.written += taken
        return taken

    @property
    def largest(self) -> int:
        """Bytes of a write: those of the largest frame that comes next."""
        return REPLAYED if self.cursor < self._highest else MAX_FRAME

    def next_frame(self, room: int = MAX_PAYLOAD) -> list[bytes | memoryview] | None:
        """The next DATA or FIN frame in parts, its header first; None when nothing may be sent now.

        A frame is filled from as many writes as there are. `room`: payload bytes at most; 0 for a carrier that has none
        left for data, and never more than MAX_PAYLOAD. What is sent again comes in small ones.
        """
        if self.cursor < self._highest and room > REPLAYED - HEADER.size:
            room = REPLAYED - HEADER.size
        size = (self.written if self.written < self.edge else self.edge) - self.cursor
        if size > room:
            size = room
        if size <= 0:
            if not self._fin_pending:
                return None
            self.fin_sent = self._fin_once = True
            return [encode(Kind.FIN, self.written)]
        pieces = self._take(size)
        frame: list[bytes | memoryview] = [HEADER.pack(_DATA, size, self.cursor), *pieces]
        self._sent += pieces
        if len(self._sent) > self._pieces:
            self._sent = _joined(self._sent)
        if self.cursor < self._highest:
            self.replayed += min(self.cursor + size, self._highest) - self.cursor
        self.cursor += size
        if self.cursor > self._highest:
            self._highest = self.cursor
        return frame

    def _take(self, size: int) -> list[memoryview]:
        unsent, pieces = self._unsent, []
        while size:
            piece = unsent.popleft()
            if len(piece) > size:
                unsent.appendleft(piece[size:])
                piece = piece[:size]
            pieces.append(piece)
            size -= len(piece)
        # Many small writes are kept for replay as one: each view costs more than it holds.
        return pieces if len(pieces) <= 2 else [memoryview(b"".join(pieces))]

    def acknowledge(self, received: int, edge: int, now: float, round_trip: float) -> None:
        """Forgets what the peer has; the end counts as one byte more. Old news is ignored.

        Raises ProtocolViolation for bytes never sent, before anything is changed.
        """
        received = self._without_end(received)
        self.edge = max(self.edge, edge)
        if received <= self.acked:
            return
        self._forget(received)
        # The peer acknowledges a quarter of its window at once; to wait for that would be to stand still.
        self._grow_to((self.edge - received) // 2)
        start, since = self._mark
        if self.acked - start >= self.capacity:
            # A whole capacity within four round trips: it was the limit.
            if now - since < 4 * max(round_trip, self._trip_least):
                self._grow_to(2 * self.capacity)
            self._mark = (self.acked, now)

    def _grow_to(self, size: int) -> None:
        more = min(size, self._replay_most) - self.capacity
        if more > 0:
            self.capacity += self._budget.take(more)

    def give_back(self) -> None:
        """What was taken of the budget; it grows no more. Repeated calls do nothing."""
        self._budget.give_back(self.capacity - self._floor)
        self._budget = Budget(0)

    def _without_end(self, received: int) -> int:
        if received == self.written + 1 and self._fin_once:
            self.fin_sent = self.fin_acked = True
            received = self.written
        if received > self._highest:
            raise ProtocolViolation(f"{received} bytes acknowledged, {self._highest} sent")
        return received

    def _forget(self, received: int) -> None:
        surplus = received - self.acked
        for queue in (self._sent, self._unsent):
            while surplus and queue:
                first = queue.popleft()
                if len(first) > surplus:
                    queue.appendleft(first[surplus:])
                surplus -= min(surplus, len(first))
        self.acked = received
        self.cursor = max(self.cursor, received)

    def rewind(self, received: int) -> None:
        """Sending starts again at `received`, or at `acked` where that is later (an acknowledgement came by faster).

        Raises ProtocolViolation for bytes never sent.
        """
        received = max(self._without_end(received), self.acked)
        while self._sent:
            self._unsent.appendleft(self._sent.pop())
        self.cursor = self.acked
        self._forget(received)
        self.fin_sent = self.fin_acked


def _joined(pieces: deque[memoryview]) -> deque[memoryview]:
    return deque((memoryview(b"".join(pieces)),))
