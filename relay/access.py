"""Who may use the relay: allow and deny rules by peer id and by IP network.

Deny wins. When at least one allow rule exists, a peer must match one of them. Pure: it is told a peer and an IP.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from punchbridge.addresses import address_group
from punchbridge.errors import AddressError, ConfigError
from punchbridge.identity import PeerId, parse_peer_id

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Rules:
    """A set of peers and networks."""

    peers: frozenset[PeerId] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Rules:
        """Reads peer ids (both forms), IP addresses and networks. Raises ConfigError that names the bad one."""
        peers: set[PeerId] = set()
        networks: list[Network] = []
        for text in texts:
            try:
                networks.append(ip_network(text.strip(), strict=False))
            except ValueError:
                try:
                    peers.add(parse_peer_id(text))
                except AddressError:
                    raise ConfigError(
                        f"{text!r} is neither a peer id nor an IP network; write 12D3KooW… or 203.0.113.0/24"
                    ) from None
        return cls(frozenset(peers), tuple(networks))

    def __bool__(self) -> bool:
        return bool(self.peers or self.networks)

    def match(self, peer: PeerId, ip: Address | None) -> bool:
        return peer in self.peers or (ip is not None and any(_inside(ip, network) for network in self.networks))


@dataclass(frozen=True)
class Access:
    """The rules in force; the default lets everybody in."""

    allow: Rules = Rules()
    deny: Rules = Rules()

    def permits(self, peer: PeerId, ip: Address | None) -> bool:
        """Whether the peer, seen at `ip` (None: unknown), may reserve or connect."""
        if self.deny.match(peer, ip):
            return False
        return not self.allow or self.allow.match(peer, ip)


def _inside(ip: Address, network: Network) -> bool:
    # An IPv4 peer on a dual-stack socket may be seen as an IPv4-mapped IPv6 address; the rule means the same peer.
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.version == network.version and ip in network


def address_key(ip: Address | None) -> str:
    """What counts as one address in limits; over a circuit none is seen."""
    return "unknown" if ip is None else address_group(str(ip))
