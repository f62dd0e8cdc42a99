"""How often anything may be done to one host, whoever asks. Pure: the clock is an argument, memory is bounded."""

from __future__ import annotations

from collections.abc import Hashable


class HostBudget:
    """`most` at once for each host, then as many in each `window` (s). At most `hosts` are remembered; beyond that a
    host that is not known is refused until another one has its whole budget back. A host is named by any one value."""

    def __init__(self, most: int, window: float, hosts: int) -> None:
        self._most = most
        self._interval = window / most
        self._hosts = hosts
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, host: Hashable, now: float) -> bool:
        """Takes one at `now` (seconds of any steady clock). False: there was none, and nothing was taken."""
        if host not in self._full_at and len(self._full_at) >= self._hosts:
            self._full_at = {one: at for one, at in self._full_at.items() if at > now}
            if len(self._full_at) >= self._hosts:
                return False
        full_at = max(self._full_at.get(host, now), now) + self._interval
        if full_at - now > self._most * self._interval:
            return False
        self._full_at[host] = full_at
        return True
