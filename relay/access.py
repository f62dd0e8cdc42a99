"""Who may use the relay, by lists of peer ids and IP networks.

Deny wins. When at least one allow rule exists, a peer must match one of them. Pure: it is told a peer and an IP.
"""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.access.lists import NO_RULES, Address, Rules
from punchbridge.identity import PeerId
from punchbridge.tasks.prefixes import Source, source

__all__ = ["Access", "Address", "Rules", "address_key", "network_key", "source_of"]


@dataclass(frozen=True)
class Access:
    """The rules in force; the default lets everybody in."""

    allow: Rules = NO_RULES
    deny: Rules = NO_RULES

    def permits(self, peer: PeerId, ip: Address | None) -> bool:
        """Whether the peer, seen at `ip` (None: unknown), may reserve or connect."""
        if self.deny.match(peer, ip):
            return False
        return not self.allow or self.allow.match(peer, ip)


def source_of(ip: Address | None) -> Source:
    """The prefixes that a request counts for; over a circuit no address is seen."""
    return source("unknown" if ip is None else str(ip))


def address_key(ip: Address | None) -> str:
    """What counts as one address in limits: an IPv4 address, or an IPv6 /64."""
    return source_of(ip)[0][1]


def network_key(ip: Address | None) -> str:
    """What may be one customer's: an IPv4 address, or an IPv6 /48."""
    where = source_of(ip)
    return where[-1][1] if where[-1][0] == "48" else where[0][1]
