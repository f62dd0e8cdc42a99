"""How often something may happen: buckets that fill up again steadily, and windows that move. Pure.

The clock is an argument: seconds of any steady clock. Memory is bounded. Nothing here knows what is limited.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final

__all__ = ["Buckets", "Window"]

_EARLY: Final = 1e-6
"""A token is given by this share of an interval too early: sums of floats are not exact, and the last token of a burst
would otherwise now and then be withheld."""


class Buckets:
    """One token bucket for each key: `burst` tokens at once, then one more each `interval` seconds.

    At most `max_keys` are remembered; a full bucket says nothing and is forgotten. When more keys are known than that,
    the one that was used longest ago is forgotten, which gives its whole burst back; with `refuse_new` a key that is
    not known is refused instead. A `burst` or an `interval` of 0 switches the limit off.
    """

    def __init__(self, burst: int, interval: float, max_keys: int, *, refuse_new: bool = False) -> None:
        self._burst = burst
        self._interval = interval
        self._max_keys = max_keys
        self._refuse_new = refuse_new
        # Stored as the moment at which the bucket is full again: one float says tokens and time at once.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, now: float) -> bool:
        """Takes one token. False: there was none, and nothing was taken."""
        if not self._burst or not self._interval:
            return True
        if not self.has(key, now):
            return False
        self._spend(key, now)
        return True

    def has(self, key: Hashable, now: float) -> bool:
        """Whether there is a token to take."""
        if not self._burst or not self._interval:
            return True
        if self._refuse_new and key not in self._full_at and len(self._full_at) >= self._max_keys:
            self._full_at = OrderedDict((one, at) for one, at in self._full_at.items() if at > now)
            if len(self._full_at) >= self._max_keys:
                return False
        return max(self._full_at.get(key, now), now) - now <= (self._burst - 1 + _EARLY) * self._interval

    def half(self, key: Hashable, now: float) -> bool:
        """Whether half of the tokens, or more, are gone."""
        if not self._burst or not self._interval:
            return False
        return max(self._full_at.get(key, now), now) - now >= self._burst * self._interval / 2

    def due(self, key: Hashable, now: float) -> float:
        """Takes one token in any case and returns the moment at which there is one: `now`, or later than that."""
        return max(now, self._spend(key, now) - self._burst * self._interval)

    def forget(self, key: Hashable) -> None:
        """Drops a bucket: its key is gone for good. Unknown keys are ignored."""
        self._full_at.pop(key, None)

    def _spend(self, key: Hashable, now: float) -> float:
        full_at = self._full_at[key] = max(self._full_at.get(key, now), now) + self._interval
        self._full_at.move_to_end(key)
        while self._full_at:
            oldest, at = next(iter(self._full_at.items()))
            if at > now and len(self._full_at) <= self._max_keys:
                break
            del self._full_at[oldest]
        return full_at


class Window:
    """At most `most` within any `seconds`, and at most `per_key` of them for one key."""

    def __init__(self, most: int, seconds: float, *, per_key: int | None = None) -> None:
        self._most = most
        self._seconds = seconds
        self._per_key = most if per_key is None else per_key
        self._taken: deque[tuple[float, Hashable]] = deque()

    def take(self, now: float, key: Hashable = None) -> bool:
        """Counts one. False: the window is full, and nothing was counted."""
        taken = self._taken
        while taken and now - taken[0][0] >= self._seconds:
            taken.popleft()
        if len(taken) >= self._most or sum(other == key for _, other in taken) >= self._per_key:
            return False
        taken.append((now, key))
        return True
