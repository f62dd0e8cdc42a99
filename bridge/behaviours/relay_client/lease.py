"""When to renew a reservation and how long to wait before asking again: pure arithmetic over clocks and dice.

`now` and `wall` are arguments, a die is a number from 0 to 1. Guards any expiry a relay may name (R14).
"""

from __future__ import annotations

from typing import Final

from punchbridge.config import RelayClientLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.wire.voucher import CLOCK_SKEW

_GROWTH: Final = 1.6
"""Each wait is so many times as long as the one before: what a relay was away for is overshot by little more than half
of it."""
_GROWTHS: Final = 64
"""More growths of a wait than these are beyond its maximum anyway."""


def lease_seconds(expire: int, wall: float, limits: RelayClientLimits) -> float:
    """Seconds that a reservation is good for. `expire`: UTC seconds as the relay wrote it, any u64.

    Clocks differ, so an expiry slightly in the past still gives `limits.lease_least`; far in the past it raises
    ProtocolViolation. What is longer than `limits.lease_most` is renewed as if it were that long.
    """
    if expire < wall - CLOCK_SKEW:
        raise ProtocolViolation("the reservation expired before it was given; check the clocks of both machines")
    return min(max(float(min(expire, 2**53)) - wall, limits.lease_least), limits.lease_most)


def renew_after(lease: float, die: float, limits: RelayClientLimits) -> float:
    """Seconds until the renewal; spread, so that the clients of a restarted relay do not come back all at once."""
    return lease * (limits.renew_earliest + (limits.renew_latest - limits.renew_earliest) * die)


class Grants:
    """The grants of one reservation, each a renewal of the one before. `until`: the end of the last, on any clock."""

    def __init__(self, limits: RelayClientLimits) -> None:
        self.until = 0.0
        self._limits = limits
        self._earlier: list[float] = []

    def add(self, until: float, now: float) -> None:
        """The relay has granted it until then."""
        self._earlier = [end for end in (*self._earlier, self.until) if end > now][-self._limits.renew_ends :]
        self.until = until

    def renew_after(self, now: float, die: float) -> float:
        """Seconds until the renewal, as `renew_after`, but no later than just past the end of an earlier grant.

        js-libp2p's relay (circuit-relay-v2 4.2.13) forgets the reservation there, however often it was renewed since:
        the timers of its renewals stay beside each other (retimeable-signal 1.0.1).
        """
        past = (end + self._limits.renew_past - now for end in self._earlier)
        return max(0.0, min((renew_after(self.until - now, die, self._limits), *past)))


class Backoff:
    """Waiting times that grow to a bound. The first is short: a relay that restarts is back soon."""

    def __init__(self, limits: RelayClientLimits) -> None:
        self._first = limits.backoff_first
        self._most = limits.backoff_most
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self, die: float, at_least: float = 0.0) -> float:
        """Seconds to wait after one more failure: between half and all of the grown value, at least `at_least`."""
        grown = min(self._first * _GROWTH ** min(self._failures, _GROWTHS), self._most)
        self._failures += 1
        return min(max(grown, at_least), self._most) * (0.5 + 0.5 * die)
