"""What we tell others about ourselves: listening, circuit and confirmed external addresses, and its revision.

It filters by the announcement policy and never guesses an address. Who is told, and when, is identify's business.
"""

from __future__ import annotations

from collections.abc import Iterable

from punchbridge.addresses import Multiaddr, is_public, peer_of, without_peer
from punchbridge.identity import PeerId
from punchbridge.tasks.signal import Signal
from punchbridge.wire.identify import MAX_IDENTIFY_ADDRS

__all__ = ["Announcements"]


class Announcements:
    """The announced addresses of a swarm. `revision` moves when they, or the protocols, change."""

    def __init__(self, me: PeerId, allow_private: bool, always: tuple[Multiaddr, ...] = ()) -> None:
        self.revision = Signal()
        self._me = me
        self._allow_private = allow_private
        self._always = always
        self._circuits: dict[PeerId, tuple[Multiaddr, ...]] = {}
        self._external: dict[Multiaddr, bool] = {}

    def set_circuit_addrs(self, relay: PeerId, addrs: tuple[Multiaddr, ...]) -> None:
        """Our circuit addresses at one relay; empty removes them."""
        if self._circuits.get(relay, ()) == addrs:
            return
        if addrs:
            self._circuits[relay] = addrs
        else:
            self._circuits.pop(relay, None)
        self.revision.notify()

    def set_external(self, addr: Multiaddr, confirmed: bool) -> None:
        """An address that others reached us at (`confirmed`), or no longer do."""
        if self._external.get(addr, False) == confirmed:
            return
        if not confirmed:
            del self._external[addr]
        elif len(self._external) >= MAX_IDENTIFY_ADDRS:
            return
        else:
            self._external[addr] = True
        self.revision.notify()

    def network_changed(self) -> None:
        """Forgets the external addresses, which were those of another place; the listening ones are asked for anew."""
        self._external.clear()
        self.revision.notify()

    def addresses(self, listening: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
        """Those always told, confirmed external ones, listening, circuits, in this order; without our own /p2p part."""
        direct = [addr for addr in listening if self._allow_private or is_public(addr)]
        circuits = [addr for addrs in self._circuits.values() for addr in addrs]
        merged = dict.fromkeys(self._bare(addr) for addr in (*self._always, *self._external, *direct, *circuits))
        return tuple(merged)[:MAX_IDENTIFY_ADDRS]

    def _bare(self, addr: Multiaddr) -> Multiaddr:
        return without_peer(addr) if peer_of(addr) == self._me else addr
