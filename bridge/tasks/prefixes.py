"""Places that are handed out by source address: so many for each of a ladder of prefixes, and so many in all. Pure.

An address alone is no measure: whoever rents one machine has an IPv6 /56 with 256 nets of 2**64 addresses each. So a
place counts for its IPv4 address or IPv6 /64, and for the wider nets around it. Nothing here knows what is counted, or
does what it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, Generic, Literal, TypeVar

from punchbridge.iana import source_of
from punchbridge.tasks.rates import Buckets

__all__ = ["EVERYWHERE", "Full", "Places", "PrefixBounds", "PrefixRates", "Source", "Step", "network", "source"]

Step = Literal["all", "address", "24", "56", "48"]
"""What a bound is for: all places; an IPv4 address or an IPv6 /64; an IPv4 /24; an IPv6 /56; an IPv6 /48."""

Source = tuple[tuple[Step, str], ...]
"""The prefixes that one address counts for, the smallest first."""

_NARROW: Final[tuple[Step, ...]] = ("address", "24", "56", "48", "all")

EVERYWHERE: Final = ""
"""The prefix that every source is in."""

_REMEMBERED: Final = 4096
"""Sources whose prefixes are kept worked out; a flood comes from few of them."""


@lru_cache(maxsize=_REMEMBERED)
def source(host: str) -> Source:
    """The prefixes of a host, a zone left out. What a translator or tunnel shows as IPv6 counts as its IPv4 host.

    A text that is no IP address, such as the word for an unknown one, is a source of its own.
    """
    try:
        ip = source_of(ip_address(host.partition("%")[0]))
    except ValueError:
        return (("address", host),)
    number = int(ip)
    if ip.version == 4:
        return ("address", str(ip)), ("24", f"{ip_address(number >> 8 << 8)}/24")
    nets: tuple[tuple[Step, int], ...] = (("address", 64), ("56", 56), ("48", 48))
    return tuple((step, f"{IPv6Address(number >> 128 - bits << 128 - bits)}/{bits}") for step, bits in nets)


def network(where: Source) -> str:
    """Of the prefixes, the one that may be one customer's: an IPv4 address, or an IPv6 /48."""
    return where[-1][1] if where[-1][0] == "48" else where[0][1]


@dataclass(frozen=True, kw_only=True)
class PrefixBounds:
    """How many places there are for each step; 0 is unlimited.

    `ipv4_24` is soft: it holds only while `soft` places or more are taken in all. A /24 holds many customers of one
    provider, who have nothing else in common. A wider prefix has at least as many places as a narrower one in it,
    whatever is given for it, and has no bound when the narrower one has none.
    """

    all: int = 0
    address: int = 0
    ipv4_24: int = 0
    ipv6_56: int = 0
    ipv6_48: int = 0
    soft: int = 0


@dataclass(frozen=True)
class Full:
    """There is no room for one more: the step whose bound is reached, and the prefix that has reached it."""

    step: Step
    prefix: str

    def within(self, other: Full) -> bool:
        """Whether this prefix is as wide as the other one or narrower; both are around the same source."""
        return _NARROW.index(self.step) <= _NARROW.index(other.step)


T = TypeVar("T", bound=Hashable)


class Places(Generic[T]):
    """Who holds a place, by prefix and by age. An item holds at most one."""

    def __init__(self, bounds: PrefixBounds) -> None:
        net = _wider(bounds.address, bounds.ipv6_56)
        self._bounds: dict[Step, int] = {
            "address": bounds.address,
            "24": _wider(bounds.address, bounds.ipv4_24),
            "56": net,
            "48": _wider(net, bounds.ipv6_48),
        }
        self._all = bounds.all
        self._soft = bounds.soft
        self._held: dict[T, Source] = {}
        self._groups: dict[str, dict[T, None]] = {}
        self._inside: dict[str, dict[str, None]] = {EVERYWHERE: {}}
        """The smallest prefixes that have places, by the wider one that they are in."""

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, item: T) -> bool:
        return item in self._held

    def count(self, prefix: str) -> int:
        """How many places the sources inside of a prefix hold."""
        return len(self._held if prefix == EVERYWHERE else self._groups.get(prefix, ()))

    def full(self, where: Source, *, besides: T | None = None) -> Full | None:
        """The narrowest bound that leaves no room for one more from `where`; None when there is room.

        A place that is given back inside of that prefix makes room under the wider bounds as well. besides: an item
        whose place the newcomer would take over.
        """
        mine = self._held.get(besides, ()) if besides is not None else ()
        taken = len(self._held) - bool(mine)
        for step, prefix in where:
            held = self.count(prefix) - ((step, prefix) in mine)
            if 0 < self._bounds[step] <= held and (step != "24" or taken >= self._soft):
                return Full(step, prefix)
        return Full("all", EVERYWHERE) if 0 < self._all <= taken else None

    def half(self, where: Source) -> bool:
        """Whether half of the places, or more, are taken: in all, or under a bound around `where`."""
        taken = len(self._held)
        for step, prefix in where:
            bound = self._bounds[step]
            if 0 < bound <= 2 * self.count(prefix) and (step != "24" or taken >= self._soft):
                return True
        return 0 < self._all <= 2 * taken

    def add(self, item: T, where: Source) -> None:
        """Hands out a place, whatever the bounds; an item that had one gives it back."""
        self.discard(item)
        self._held[item] = where
        smallest = where[0][1]
        self._inside[EVERYWHERE][smallest] = None
        for step, prefix in where:
            self._groups.setdefault(prefix, {})[item] = None
            if step != "address":
                self._inside.setdefault(prefix, {})[smallest] = None

    def discard(self, item: T) -> None:
        """Takes a place back; an item without one is ignored."""
        where = self._held.pop(item, None)
        if where is None:
            return
        smallest = where[0][1]
        for _, prefix in where:
            group = self._groups[prefix]
            del group[item]
            if not group:
                del self._groups[prefix]
                self._inside.pop(prefix, None)
        if smallest not in self._groups:
            for prefix in (EVERYWHERE, *(prefix for _, prefix in where)):
                self._inside.get(prefix, {}).pop(smallest, None)

    def oldest(self, prefix: str, fits: Callable[[T], bool] = lambda _: True) -> T | None:
        """The item inside of a prefix that has had its place longest, of those that fit; None when none does."""
        return next(filter(fits, self.members(prefix)), None)

    def members(self, prefix: str) -> Collection[T]:
        """The items inside of a prefix, the oldest first. They change as places are handed out and taken back."""
        return (self._held if prefix == EVERYWHERE else self._groups.get(prefix, {})).keys()

    def fullest(self, prefix: str = EVERYWHERE) -> tuple[str, int]:
        """The IPv4 address or IPv6 /64 inside of a prefix that holds most places, and how many; ("", 0) for none."""
        inside = self._inside.get(prefix) or ((prefix,) if prefix in self._groups else ())
        return max(((one, self.count(one)) for one in inside), key=lambda found: found[1], default=("", 0))

    def clear(self) -> None:
        """Takes all places back."""
        self._held.clear()
        self._groups.clear()
        self._inside = {EVERYWHERE: {}}


_RATES: Final[dict[Step, int]] = {"address": 1, "56": 2, "48": 4, "24": 8}
"""How many times the rate of one address a wider net has: it may hold that many customers who are busy at once."""


class PrefixRates:
    """A token bucket for each prefix of a source: an address has `burst`, then one more each `interval` seconds.

    A wider net has several times that (an IPv6 /56 twice, a /48 four times, an IPv4 /24 eight times), whatever number
    of addresses it shows. `most`: buckets that are remembered for each step. 0 for `burst` or `interval` is no limit.
    """

    def __init__(self, burst: int, interval: float, most: int) -> None:
        self._buckets = {step: Buckets(burst * times, interval / times, most) for step, times in _RATES.items()}

    def take(self, where: Source, now: float) -> bool:
        """Takes one token for each prefix. False: one of them had none; those of narrower ones are spent."""
        return all(self._buckets[step].take(prefix, now) for step, prefix in where)

    def half(self, where: Source, now: float) -> bool:
        """Whether half of the tokens of one of the prefixes, or more, are gone."""
        return any(self._buckets[step].half(prefix, now) for step, prefix in where)


def _wider(narrow: int, wide: int) -> int:
    return max(narrow, wide) if narrow and wide else 0
