"""When to renew a reservation and how long to wait before asking again: pure arithmetic over clocks and dice.

`now` and `wall` are arguments, a die is a number from 0 to 1. Guards any expiry a relay may name (R14).
"""

from __future__ import annotations

from punchbridge.errors import ProtocolViolation
from punchbridge.limits.circuit import (
    MAX_LEASE,
    MIN_LEASE,
    RENEW_ENDS,
    RENEW_PAST,
    RESERVE_BACKOFF_FACTOR,
    RESERVE_BACKOFF_FIRST,
    RESERVE_BACKOFF_MAX,
)
from punchbridge.wire.voucher import CLOCK_SKEW

EARLIEST, LATEST = 0.50, 0.75
"""Share of the lease after which it is renewed: go checks with slack, rust renews at 0.75."""


def lease_seconds(expire: int, wall: float) -> float:
    """Seconds that a reservation is good for. `expire`: UTC seconds as the relay wrote it, any u64.

    Clocks differ, so an expiry slightly in the past still gives MIN_LEASE; far in the past it raises
    ProtocolViolation. What is longer than MAX_LEASE is renewed as if it were MAX_LEASE.
    """
    if expire < wall - CLOCK_SKEW:
        raise ProtocolViolation("the reservation expired before it was given; check the clocks of both machines")
    return min(max(float(min(expire, 2**53)) - wall, MIN_LEASE), MAX_LEASE)


def renew_after(lease: float, die: float) -> float:
    """Seconds until the renewal; spread, so that the clients of a restarted relay do not come back all at once."""
    return lease * (EARLIEST + (LATEST - EARLIEST) * die)


class Grants:
    """The grants of one reservation, each a renewal of the one before. `until`: the end of the last, on any clock."""

    def __init__(self) -> None:
        self.until = 0.0
        self._earlier: list[float] = []

    def add(self, until: float, now: float) -> None:
        """The relay has granted it until then."""
        self._earlier = [end for end in (*self._earlier, self.until) if end > now][-RENEW_ENDS:]
        self.until = until

    def renew_after(self, now: float, die: float) -> float:
        """Seconds until the renewal, as `renew_after`, but no later than just past the end of an earlier grant.

        js-libp2p's relay (circuit-relay-v2 4.2.13) forgets the reservation there, however often it was renewed since:
        the timers of its renewals stay beside each other (retimeable-signal 1.0.1).
        """
        past = (end + RENEW_PAST - now for end in self._earlier)
        return max(0.0, min((renew_after(self.until - now, die), *past)))


class Backoff:
    """Waiting times that grow to a bound. The first is short: a relay that restarts is back soon."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self, die: float, at_least: float = 0.0) -> float:
        """Seconds to wait after one more failure: between half and all of the grown value, at least `at_least`."""
        grown = min(RESERVE_BACKOFF_FIRST * RESERVE_BACKOFF_FACTOR ** min(self._failures, 64), RESERVE_BACKOFF_MAX)
        self._failures += 1
        return min(max(grown, at_least), RESERVE_BACKOFF_MAX) * (0.5 + 0.5 * die)
