"""The relays that our user named: to hold a reservation at, or as the way to a target. Others' word is not taken here.

What such a relay tells of its peers is believed (R16); a relay that a peer has told of is anybody.
"""

from __future__ import annotations

from collections.abc import Iterable

from punchbridge.addresses import Circuit, Multiaddr, circuit_of, peer_of, without_peer
from punchbridge.errors import AddressError
from punchbridge.identity import PeerId

__all__ = ["NamedRelays"]


class NamedRelays:
    """By peer id, or by address where it tells none; at most `most`, the latest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._named: dict[PeerId | Multiaddr, None] = {}

    def add(self, relays: Iterable[Multiaddr]) -> None:
        """The user named these relays, by their own addresses or as `<relay>/p2p-circuit`."""
        for addr in relays:
            try:
                circuit = circuit_of(addr)
            except AddressError:
                continue  # whoever dials it tells
            self._add(addr if circuit is None else circuit.relay)

    def add_targets(self, targets: Iterable[Multiaddr]) -> None:
        """The user named these targets. Through the relays of those that are circuits."""
        for addr in targets:
            try:
                circuit = circuit_of(addr)
            except AddressError:
                continue
            if circuit is not None:
                self._add(circuit.relay)

    def holds(self, circuit: Circuit) -> bool:
        """Whether the user named the relay of this circuit."""
        return _key(circuit.relay) in self._named

    def _add(self, relay: Multiaddr) -> None:
        key = _key(relay)
        self._named.pop(key, None)
        self._named[key] = None
        while len(self._named) > self._most:
            del self._named[next(iter(self._named))]


def _key(relay: Multiaddr) -> PeerId | Multiaddr:
    return peer_of(relay) or without_peer(relay)
