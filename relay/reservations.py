"""The reservation table: who may be reached through this relay, and until when (specs/relay/circuit-v2).

A reservation belongs to the peer that the connection authenticated, so a peer has at most one, and a refresh
replaces it. Pure: clocks are arguments (`now`: steady seconds, `wall`: UTC seconds); it sends and closes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from punchbridge.identity import PeerId
from punchbridge.tasks.prefixes import Places, PrefixBounds, Step
from punchbridge.tasks.rates import Buckets
from punchbridge.wire.circuit import Status
from punchbridge_relay.access import Address, RelayAccess, address_key, source_of
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.refusal import HopRefusal


@dataclass(frozen=True)
class Reservation:
    """`until`: steady seconds; `expire`: the same moment in UTC seconds, as the client is told."""

    peer: PeerId
    until: float
    expire: int


_FULL: Final[dict[Step, str]] = {
    "all": "reserve_full",
    "address": "reserve_full_address",
    "56": "reserve_full_56",
    "48": "reserve_full_48",
}


class ReservationTable:
    """All reservations in force, and the rules for one more."""

    def __init__(self, limits: RelayLimits, access: RelayAccess) -> None:
        self._limits = limits
        self._access = access
        self._table: dict[PeerId, Reservation] = {}
        self._places: Places[PeerId] = Places(
            PrefixBounds(
                all=limits.reservations,
                address=limits.reservations_per_address,
                ipv6_56=limits.reservations_per_56,
                ipv6_48=limits.reservations_per_48,
            )
        )
        self._peer_rate = Buckets(limits.peer_burst, limits.peer_interval, limits.hop.rate_keys)
        self._address_rate = Buckets(limits.address_burst, limits.address_interval, limits.hop.rate_keys)

    def __len__(self) -> int:
        return len(self._table)

    def reserve(self, peer: PeerId, ip: Address | None, now: float, wall: float) -> Reservation:
        """Grants or renews. Raises HopRefusal: PERMISSION_DENIED by access rule, RESERVATION_REFUSED else (R1)."""
        if not self._access.may_reserve(peer, ip):
            raise HopRefusal(Status.PERMISSION_DENIED, "reserve_denied")
        where = source_of(ip)
        if not self._peer_rate.take(peer, now):
            raise HopRefusal(Status.RESERVATION_REFUSED, "reserve_rate_peer")
        if not self._address_rate.take(address_key(ip), now):
            raise HopRefusal(Status.RESERVATION_REFUSED, "reserve_rate_address")
        self.expire(now)
        full = self._places.full(where, besides=peer)
        if full is not None:
            raise HopRefusal(Status.RESERVATION_REFUSED, _FULL[full.step])
        self.end(peer)
        limits = self._limits
        granted = Reservation(peer, now + limits.reservation_ttl, int(wall) + limits.reservation_ttl)
        self._table[peer] = granted
        self._places.add(peer, where)
        return granted

    def peers(self) -> tuple[PeerId, ...]:
        """Whose they are."""
        return tuple(self._table)

    def holds(self, peer: PeerId, now: float) -> bool:
        """Whether the peer can be reached through the relay at `now`."""
        held = self._table.get(peer)
        return held is not None and held.until > now

    def end(self, peer: PeerId) -> bool:
        """Ends the peer's reservation; False when it had none."""
        self._places.discard(peer)
        return self._table.pop(peer, None) is not None

    def expire(self, now: float) -> tuple[PeerId, ...]:
        """Ends what has run out and names whose it was. All have one TTL, so the oldest stand in front."""
        gone = []
        for peer, held in self._table.items():
            if held.until > now:
                break
            gone.append(peer)
        for peer in gone:
            self.end(peer)
        return tuple(gone)

    def clear(self) -> int:
        """Ends all of them; says how many there were."""
        count = len(self._table)
        self._table.clear()
        self._places.clear()
        return count
