"""Who may use the relay: who may reserve, and who may open a circuit to a peer that has reserved.

A closed relay lets only the listed reserve. Anybody may open a circuit to them, since each peer decides for itself who
calls, unless connecting is closed too. Pure: it is told a peer and an IP, and asks for the lists in force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from punchbridge.access.lists import Address
from punchbridge.access.policy import OPEN, Access, Decision
from punchbridge.identity import PeerId
from punchbridge.tasks.prefixes import Source, network, source

__all__ = ["Address", "RelayAccess", "address_key", "network_key", "source_of"]


def _open() -> Access:
    return OPEN


@dataclass(frozen=True)
class RelayAccess:
    """lists: those in force, asked for each time. connect: who may open circuits beside those on the lists."""

    lists: Callable[[], Access] = _open
    connect: Access = OPEN

    def may_reserve(self, peer: PeerId, ip: Address | None) -> bool:
        """Whether the peer, seen at `ip` (None: unknown), may hold a reservation."""
        return self.lists().decide(peer, ip) is Decision.ALLOWED

    def may_connect(self, peer: PeerId, ip: Address | None) -> bool:
        """Whether the peer may ask for a circuit."""
        return (self.lists() | self.connect).decide(peer, ip) is Decision.ALLOWED


def source_of(ip: Address | None) -> Source:
    """The prefixes that a request counts for; over a circuit no address is seen."""
    return source("unknown" if ip is None else str(ip))


def address_key(ip: Address | None) -> str:
    """What counts as one address in limits: an IPv4 address, or an IPv6 /64."""
    return source_of(ip)[0][1]


def network_key(ip: Address | None) -> str:
    """What may be one customer's: an IPv4 address, or an IPv6 /48."""
    return network(source_of(ip))
