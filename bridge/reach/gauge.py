"""What a connection carries and loses, from counters that are read now and then.

Of the direction that leads away from here: what comes in is counted at the other end. Pure: the counters and the clock
are arguments.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

__all__ = ["Gauge", "PathCounts"]

LEAST_PACKETS: Final = 500
"""Packets of which a share of lost ones is told: five of them are the hundredth that counts as loss."""

LONGEST: Final = 60.0
"""Seconds; what is older says nothing of now."""

INTERVALS: Final = 3
"""Intervals in a row, with data waiting at both ends of each, after which a rate is told: the largest of theirs."""


@dataclass(frozen=True)
class PathCounts:
    """Counters of one connection since it began. `packets`: those sent with data; `lost`: those of them that did not
    arrive; `delivered`: bytes that the peer has acknowledged."""

    packets: int
    lost: int
    delivered: int


class Gauge:
    """One connection. `loss` and `rate` are None as long as too little is known."""

    def __init__(self) -> None:
        self.loss: float | None = None
        """The share of packets that was lost lately."""
        self.rate: float | None = None
        """Bytes a second that arrived while more was waiting."""
        self._readings: deque[tuple[float, PathCounts]] = deque()
        self._rates: deque[float] = deque(maxlen=INTERVALS)
        self._full = False

    @property
    def read_at(self) -> float | None:
        """When the counters were read last."""
        return self._readings[-1][0] if self._readings else None

    def read(self, counts: PathCounts, now: float, *, full: bool) -> None:
        """Takes in the counters. `full`: data waits that the path has not taken yet."""
        readings = self._readings
        if readings and now > readings[-1][0]:
            before, last = readings[-1]
            if full and self._full:
                self._rates.append((counts.delivered - last.delivered) / (now - before))
            else:
                self._rates.clear()
        self._full = full
        self.rate = max(self._rates) if len(self._rates) == INTERVALS else None
        readings.append((now, counts))
        while len(readings) > 2 and (
            counts.packets - readings[1][1].packets >= LEAST_PACKETS or now - readings[0][0] > LONGEST
        ):
            readings.popleft()
        first = readings[0][1]
        packets = counts.packets - first.packets
        self.loss = max(0, counts.lost - first.lost) / packets if packets >= LEAST_PACKETS else None
