"""The streams of one Yamux connection: their ids, what waits for an ACK or to be accepted, the windows granted.

Counts and bounds only; builds no frame, reads none, and knows no peer.
"""

from __future__ import annotations

from punchbridge.config import YamuxLimits
from punchbridge.errors import LimitExceeded
from punchbridge.tasks.memory import Account
from punchbridge.yamux.frames import ACK, INITIAL_WINDOW, MAX_ID, SYN
from punchbridge.yamux.stream import StreamState


class StreamTable:
    """`live`: the streams that have not ended on both sides, by id. `client`: our ids are the odd ones (Y1). `account`:
    the memory of this connection."""

    def __init__(self, limits: YamuxLimits, account: Account, *, client: bool) -> None:
        self._account = account
        self.live: dict[int, StreamState] = {}
        self._next_id = 1 if client else 2
        self._unacked = self._backlog = self._granted = 0
        self._lingering: dict[int, float] = {}
        self._most, self._unacked_most, self._backlog_most = limits.streams, limits.unacked, limits.backlog
        self._window_most, self._budget, self._linger = limits.window_most, limits.window_budget, limits.linger

    @property
    def can_open(self) -> bool:
        """False while as many own streams as may wait for their ACK (Y7), or the table is full."""
        return self._unacked < self._unacked_most and not self._full

    @property
    def can_accept(self) -> bool:
        """False while as many inbound streams as may wait for the shell, or the table is full."""
        return self._backlog < self._backlog_most and not self._full

    @property
    def _full(self) -> bool:
        return len(self.live) - len(self._lingering) >= self._most

    @property
    def in_the_way(self) -> StreamState | None:
        """The stream to be reset before one more comes in: the oldest that only lingers, when there is no room."""
        if len(self.live) < self._most or not self._lingering:
            return None
        return self.live[next(iter(self._lingering))]

    def open(self, now: float) -> StreamState:
        """A stream of ours. Raises LimitExceeded when the ids are used up, or when not `can_open`."""
        if self._next_id > MAX_ID:
            raise LimitExceeded("the stream ids of this connection are used up; open another connection")
        if not self.can_open:
            raise LimitExceeded("too many streams wait for the peer's acknowledgement")
        stream = StreamState(self._next_id, self._account, inbound=False, flags=SYN, now=now)
        self._next_id += 2
        self._unacked += 1
        self.live[stream.id] = stream
        return stream

    def accept(self, stream_id: int, now: float) -> StreamState:
        """A stream of the peer's, which waits in the backlog until it is taken."""
        stream = StreamState(stream_id, self._account, inbound=True, flags=ACK, now=now)
        self.live[stream_id] = stream
        self._backlog += 1
        return stream

    def acked(self, stream: StreamState) -> None:
        """The peer has acknowledged this stream of ours."""
        if not stream.acked:
            stream.acked = True
            self._unacked -= 1

    def take(self, stream: StreamState) -> None:
        """The shell has this inbound stream: it leaves the backlog."""
        if not stream.taken:
            stream.taken = True
            self._backlog -= 1

    def grow(self, stream: StreamState) -> int:
        """Doubles the stream's window, up to the largest and the budgets of the connection, of its address and of all;
        the bytes added."""
        wanted = max(0, min(stream.max_window, self._window_most - stream.max_window, self._budget - self._granted))
        growth = self._account.grow(wanted)
        stream.max_window += growth
        self._granted += growth
        return growth

    def linger(self, stream: StreamState, now: float) -> None:
        """Ended here, and the peer has `linger` seconds to end it too; nothing when it has."""
        if stream.id in self.live:
            self._lingering[stream.id] = now + self._linger

    def next_timer(self) -> float | None:
        """When the first lingering stream is `overdue`; None while none lingers."""
        return next(iter(self._lingering.values()), None)

    def overdue(self, now: float) -> list[StreamState]:
        """The streams that have lingered for long enough."""
        return [self.live[stream_id] for stream_id, until in self._lingering.items() if until <= now]

    def forget(self, stream: StreamState) -> bool:
        """Gives back all that the stream took up; False when it was forgotten already."""
        if self.live.pop(stream.id, None) is None:
            return False
        self._lingering.pop(stream.id, None)
        growth = stream.max_window - INITIAL_WINDOW
        self._granted -= growth
        self._account.shrink(growth)
        self.acked(stream)
        self.take(stream)
        return True
