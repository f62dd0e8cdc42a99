"""A QUIC punch on both its sides: the pace of the datagrams that open a NAT, and where the dialler aims when it hears
one.

The side that does not dial sends datagrams of random bytes; they open its NAT for the dialler (specs/relay/DCUtR.md).
One that arrives has another source than the address being dialled when the sender's NAT maps each destination to a
port of its own. Pure: whoever performs a punch hands in the clock and the random numbers, and sends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from punchbridge.addresses import Endpoint
from punchbridge.config import PunchLimits

__all__ = ["Aims", "pause_after"]

_GROWTH: Final = 0.010
"""The first pauses are short: the two sides begin within some milliseconds of each other (go-libp2p does the same)."""


def pause_after(sent: int, draw: float, limits: PunchLimits) -> float:
    """Seconds from the datagram number `sent` (from 1) to one address to the next. `draw`: a random number, 0 to 1."""
    least, most = limits.datagram_least, limits.datagram_most
    longest = min(most, least + _GROWTH * sent * sent)
    return least + draw * (longest - least)


class Aims:
    """What the dialler of one attempt aims at: each candidate once, and again where datagrams come from.

    `hosts` are the IPs whose datagrams are heeded; `trip` is the longest time (s) in which an answer to a dial is
    still on its way. The source of a datagram can be forged, so what it leads to is bounded by `limits.aims`.
    """

    def __init__(self, hosts: Collection[str], trip: float, limits: PunchLimits) -> None:
        self._hosts = frozenset(hosts)
        self._trip = trip
        self._left = limits.aims
        self._dialled: dict[Endpoint, float] = {}
        self._again: set[Endpoint] = set()
        self.moved: set[Endpoint] = set()
        """Sources that are no candidates: the peer's NAT has another port for us than for those who told us of it."""

    def hears(self, host: str) -> bool:
        """Whether a datagram from this IP matters."""
        return host in self._hosts

    def dialled(self, endpoint: Endpoint, now: float) -> None:
        """A dial to it begins."""
        self._dialled[endpoint] = now

    def heard(self, source: Endpoint, now: float) -> float | None:
        """When to dial the source of a datagram; None when it is to be left alone.

        A candidate is dialled a second time only, once an answer to the first dial would be here: the peer's NAT let
        nothing in when that dial arrived there. Any other source is dialled at once, and once.
        """
        if not self.hears(source.host) or self._left <= 0 or source in self._again:
            return None
        began = self._dialled.get(source)
        if began is None:
            self.moved.add(source)
        self._again.add(source)
        self._left -= 1
        return now if began is None else max(now, began + self._trip)
