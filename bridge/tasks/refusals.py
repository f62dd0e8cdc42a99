"""What was refused: how often for each reason, and whom most often. Pure, and bounded whatever strangers do.

It knows no limit and no clock; whoever refuses, tells it. Whoever reports, asks it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

__all__ = ["Refusals", "RefusedSource"]

_SOURCES = 256
"""Pairs of reason and prefix that are counted apart, a few hundred bytes each: many more than a report tells."""


@dataclass(frozen=True)
class RefusedSource:
    """One reason and one prefix. `peer`: the last peer id that was proven behind it, empty when none was."""

    reason: str
    prefix: str
    times: int
    peer: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As events tell it; the key `peer` is there when an id was proven."""
        told = {"reason": self.reason, "from": self.prefix, "times": self.times}
        return {**told, "peer": self.peer} if self.peer else told


class Refusals:
    """The counts since the start, and those since they were told last."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By reason, since the start."""
        self._untold: Counter[str] = Counter()
        self._sources: dict[tuple[str, str], RefusedSource] = {}
        self._fresh: dict[tuple[str, str], RefusedSource] = {}

    def add(self, reason: str, prefix: str, peer: str = "") -> None:
        """Counts one refusal. `prefix`: where it came from, empty when that is not known."""
        self.counts[reason] += 1
        self._untold[reason] += 1
        for table in (self._sources, self._fresh):
            _count(table, reason, prefix, peer)

    def most(self, number: int) -> tuple[RefusedSource, ...]:
        """Who was refused most often since the start; at most `number`."""
        return _most(self._sources, number)

    def untold(self, number: int) -> tuple[dict[str, int], tuple[RefusedSource, ...]]:
        """The counts since this was asked last, by reason, and who was refused most often since then."""
        counts, most = dict(self._untold), _most(self._fresh, number)
        self._untold.clear()
        self._fresh.clear()
        return counts, most


def _count(table: dict[tuple[str, str], RefusedSource], reason: str, prefix: str, peer: str) -> None:
    """Counts in a full table as well: a new pair takes the place, and the count, of the one that was counted least.

    So a count is never too low, and whoever is refused often is never missing (Metwally, Agrawal, El Abbadi:
    "Efficient computation of frequent and top-k elements in data streams", 2005).
    """
    key = (reason, prefix)
    old = table.get(key)
    if old is None and len(table) >= _SOURCES:
        old = table.pop(min(table, key=lambda one: table[one].times))
        old = RefusedSource(reason, prefix, old.times)
    times, seen = (0, "") if old is None else (old.times, old.peer)
    table[key] = RefusedSource(reason, prefix, times + 1, peer or seen)


def _most(table: dict[tuple[str, str], RefusedSource], number: int) -> tuple[RefusedSource, ...]:
    return tuple(sorted(table.values(), key=lambda one: -one.times)[:number])
