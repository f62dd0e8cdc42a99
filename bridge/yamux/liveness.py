"""Pings of one Yamux connection: the round trip, the keepalive, and the answers we owe. Time is an argument."""

from __future__ import annotations

from punchbridge.config import YamuxLimits
from punchbridge.errors import LimitExceeded
from punchbridge.yamux.frames import ACK, MAX_CREDIT, PING, SYN, header


class Liveness:
    """`rtt` in seconds, None before the first answer; `floor` is the lowest so far, the path's own without our queues,
    and `believed` is that as far as windows grow by it; `last_received` is when any byte came last."""

    def __init__(self, limits: YamuxLimits, now: float) -> None:
        self.rtt: float | None = None
        self.floor: float | None = None
        self.believed: float | None = None
        self.last_received = now
        self.pings: dict[int, float] = {}
        self.owed = 0
        self._next = 1
        self._last_ping = now
        self._probe: float | None = None
        self._answers = 0
        self._pings_most, self._owed_most = limits.pings, limits.ping_answers
        self._idle, self._timeout = limits.keepalive_interval, limits.keepalive_timeout
        self._samples, self._interval = limits.rtt_samples, limits.rtt_interval
        self._believed_most = limits.rtt_most

    def received(self, now: float) -> None:
        """Any byte proves that the peer lives."""
        self.last_received = now
        self._probe = None

    def ping(self, now: float) -> tuple[int, bytes]:
        """An opaque value and the frame. Raises LimitExceeded when too many wait for their answer."""
        if len(self.pings) >= self._pings_most:
            raise LimitExceeded("too many pings wait for their answer")
        value, self._next = self._next, self._next % MAX_CREDIT + 1
        self.pings[value] = self._last_ping = now
        return value, header(PING, SYN, 0, value)

    def answer(self, value: int) -> bytes:
        """The answer to the peer's ping; nothing while too many wait for the socket."""
        if self.owed >= self._owed_most:
            return b""
        self.owed += 1
        return header(PING, ACK, 0, value)

    def answered(self, value: int, now: float) -> float | None:
        """The round trip of our ping; None when there was no such ping."""
        sent = self.pings.pop(value, None)
        if sent is None:
            return None
        self.rtt = now - sent
        self.floor = self.rtt if self.floor is None else min(self.floor, self.rtt)
        self.believed = min(self.floor, self._believed_most)
        self._answers += 1
        return self.rtt

    def sample(self, now: float) -> bytes:
        """One more ping after each of the first few answers: both ends are busy while they get to know each other,
        and a round trip measured then is several times the path's own."""
        if self._answers >= self._samples or len(self.pings) >= self._pings_most:
            return b""
        return self.ping(now)[1]

    def next_timer(self) -> float:
        """When a probe is due, or its time-out."""
        if self._probe is not None:
            return self._probe + self._timeout
        return min(self.last_received + self._idle, self._last_ping + self._interval)

    def dead(self, now: float) -> bool:
        """Nothing came since a probe that is as old as an answer may take."""
        return self._probe is not None and now >= self._probe + self._timeout

    def probe(self, now: float) -> bytes:
        """The ping that is due on an idle connection, or for the round trip of a busy one; nothing when none is."""
        if self._probe is not None or now < self.next_timer():
            return b""
        if len(self.pings) >= self._pings_most:
            self.pings.pop(next(iter(self.pings)))  # never answered although the peer lives
        self._probe = now
        return self.ping(now)[1]
