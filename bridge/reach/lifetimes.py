"""How long direct paths to a peer last, learned from those that died in silence.

Some carriers' NATs forget a mapping after a fixed time whatever it carries, others after a short silence. A path that
has died twice at the same age is expected to do so again: its session leaves it before. One that has died after a
silence is kept busy from then on. Pure: ages and silences are arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["Lifetimes"]

YOUNGEST: Final = 20.0
"""Seconds: a path that died younger was cut by something else. No NAT is known that forgets UDP sooner."""

OLDEST: Final = 3600.0
"""Seconds: what dies after a longer time costs less than leaving it does."""

ALIKE_FACTOR: Final = 0.15
ALIKE_MARGIN: Final = 3.0
"""Two ages that differ by no more than this share and so many seconds count as the same one: a death is noticed up to
a few seconds late."""

LEAD_FACTOR: Final = 0.1
LEAD_LEAST: Final = 3.0
"""A path is left this share of its lifetime, and so many seconds, before its end."""

DISPROVED: Final = 1.5
"""A path that lives this many lifetimes has none."""

SILENT: Final = 4.0
"""Seconds without a packet before a death, from which the silence may be its cause."""

REFRESH_LEAST: Final = 2.0

K = TypeVar("K", bound=Hashable)


@dataclass
class _Known:
    age: float | None = None
    """At which the last path died."""
    lifetime: float | None = None
    refresh: float | None = None


class Lifetimes(Generic[K]):
    """By peer and transport, or whatever the key is; those heard of least lately are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[K, _Known] = OrderedDict()

    def died(self, key: K, age: float, quiet: float) -> None:
        """A path has died in silence at this age, `quiet` seconds after the last packet that got through was followed
        by another one."""
        known = self._known.pop(key, None) or _Known()
        self._known[key] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        if quiet >= SILENT:
            known.refresh = max(REFRESH_LEAST, quiet / 2)
        if not YOUNGEST <= age <= OLDEST:
            return
        before, known.age = known.age, age
        if before is not None and abs(before - age) <= max(ALIKE_MARGIN, ALIKE_FACTOR * max(before, age)):
            known.lifetime = min(before, age)

    def leave_after(self, key: K, age: float) -> float | None:
        """The age at which a path is to be left; None where no end is foreseen. `age`: that of the path now, which is
        known to live."""
        known = self._known.get(key)
        if known is None or known.lifetime is None:
            return None
        if age > DISPROVED * known.lifetime:
            known.age = known.lifetime = None
            return None
        return known.lifetime - max(LEAD_LEAST, LEAD_FACTOR * known.lifetime)

    def refresh(self, key: K) -> float | None:
        """Seconds of silence after which a path is to be kept alive by a packet; None where nothing is known."""
        known = self._known.get(key)
        return None if known is None else known.refresh
