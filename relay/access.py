"""Who may use the relay, by lists of peer ids and IP networks.

Deny wins. When at least one allow rule exists, a peer must match one of them. Pure: it is told a peer and an IP.
"""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.access.lists import NO_RULES, Address, Rules
from punchbridge.addresses import address_group
from punchbridge.identity import PeerId

__all__ = ["Access", "Address", "Rules", "address_key"]


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


def address_key(ip: Address | None) -> str:
    """What counts as one address in limits; over a circuit none is seen."""
    return "unknown" if ip is None else address_group(str(ip))
