"""Token buckets: so many at once, then one more each interval. Pure; the clock is an argument, memory is bounded."""

from __future__ import annotations

from collections import OrderedDict


class TokenBuckets:
    """One bucket for each key. `burst` 0 switches the limit off; `interval`: seconds for one more token."""

    def __init__(self, burst: int, interval: float, max_keys: int) -> None:
        self._burst = burst
        self._interval = interval
        self._max_keys = max_keys
        # Stored as the moment at which the bucket is full again: one float says tokens and time at once.
        self._full_at: OrderedDict[object, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: object, now: float) -> bool:
        """Takes one token at `now` (seconds of any steady clock). False: there was none, and nothing was taken."""
        if not self._burst or not self._interval:
            return True
        full_at = max(self._full_at.get(key, now), now)
        if full_at - now > (self._burst - 1) * self._interval:
            return False
        self._full_at[key] = full_at + self._interval
        self._full_at.move_to_end(key)
        self._forget(now)
        return True

    def _forget(self, now: float) -> None:
        """Drops full buckets (they say nothing), and beyond the bound the longest unused one."""
        while self._full_at:
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= self._max_keys:
                return
            del self._full_at[key]
