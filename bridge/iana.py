"""What an IP address is for: IANA's special-purpose registries as a table of our own, and the kind read off it.

Whoever asks where a dial may go asks here. The standard library's `is_global` and `is_private` answer differently from
one patch level of Python to the next (CVE-2024-4032), and they look into few of the IPv6 addresses that stand for an
IPv4 one; so they decide nothing here. This module knows no multiaddr, no port and no policy, and it does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Literal, get_args

__all__ = [
    "GLOBAL_UNICAST",
    "IP",
    "REGISTRY",
    "Entry",
    "Kind",
    "embedded",
    "entry_of",
    "is_broadcast",
    "kind_of",
    "source_of",
    "unmapped",
]

IP = IPv4Address | IPv6Address

Kind = Literal["public", "private", "shared", "loopback", "link-local", "multicast", "unspecified", "reserved"]
"""`private`: RFC 1918 and fc00::/7; `shared`: 100.64.0.0/10, behind a carrier's NAT; `reserved`: everything else that
no host has for its own address on the Internet."""


@dataclass(frozen=True)
class Entry:
    """One row: the block, the registry's name for it, the document that made it, and the kind of its addresses.

    The blocks that the registries call globally reachable are anycast addresses of services and identifiers that no
    router knows. None of them is a peer's own address, so their kind is `reserved` as well.
    """

    block: IPv4Network | IPv6Network
    name: str
    source: str
    kind: Kind


def _rows(text: str) -> tuple[Entry, ...]:
    """The lines `block | name | source | kind`, the longest prefixes first, so that the first match is the closest."""
    found = []
    for line in text.strip().splitlines():
        block, name, source, kind = (part.strip() for part in line.split("|"))
        found.append(Entry(ip_network(block), name, source, next(one for one in get_args(Kind) if one == kind)))
    return tuple(sorted(found, key=lambda entry: -entry.block.prefixlen))


REGISTRY: Final = _rows("""
0.0.0.0/8          | "This network"                      | RFC 791    | reserved
0.0.0.0/32         | "This host on this network"         | RFC 1122   | unspecified
10.0.0.0/8         | Private-Use                         | RFC 1918   | private
100.64.0.0/10      | Shared Address Space                | RFC 6598   | shared
127.0.0.0/8        | Loopback                            | RFC 1122   | loopback
169.254.0.0/16     | Link Local                          | RFC 3927   | link-local
172.16.0.0/12      | Private-Use                         | RFC 1918   | private
192.0.0.0/24       | IETF Protocol Assignments           | RFC 6890   | reserved
192.0.0.0/29       | IPv4 Service Continuity Prefix      | RFC 7335   | reserved
192.0.0.8/32       | IPv4 dummy address                  | RFC 7600   | reserved
192.0.0.9/32       | Port Control Protocol Anycast       | RFC 7723   | reserved
192.0.0.10/32      | Traversal Using Relays around NAT Anycast | RFC 8155 | reserved
192.0.0.170/32     | NAT64/DNS64 Discovery               | RFC 8880   | reserved
192.0.0.171/32     | NAT64/DNS64 Discovery               | RFC 8880   | reserved
192.0.2.0/24       | Documentation (TEST-NET-1)          | RFC 5737   | reserved
192.31.196.0/24    | AS112-v4                            | RFC 7535   | reserved
192.52.193.0/24    | AMT                                 | RFC 7450   | reserved
192.88.99.0/24     | Deprecated (6to4 Relay Anycast)     | RFC 7526   | reserved
192.88.99.2/32     | 6a44-relay anycast address          | RFC 6751   | reserved
192.168.0.0/16     | Private-Use                         | RFC 1918   | private
192.175.48.0/24    | Direct Delegation AS112 Service     | RFC 7534   | reserved
198.18.0.0/15      | Benchmarking                        | RFC 2544   | reserved
198.51.100.0/24    | Documentation (TEST-NET-2)          | RFC 5737   | reserved
203.0.113.0/24     | Documentation (TEST-NET-3)          | RFC 5737   | reserved
224.0.0.0/4        | Multicast                           | RFC 5771   | multicast
240.0.0.0/4        | Reserved                            | RFC 1112   | reserved
255.255.255.255/32 | Limited Broadcast                   | RFC 8190   | reserved
::1/128            | Loopback Address                    | RFC 4291   | loopback
::/128             | Unspecified Address                 | RFC 4291   | unspecified
::/96              | IPv4-Compatible Address (deprecated) | RFC 4291  | reserved
::ffff:0:0/96      | IPv4-mapped Address                 | RFC 4291   | reserved
::ffff:0:0:0/96    | IPv4-translated Address (SIIT)      | RFC 2765   | reserved
64:ff9b::/96       | IPv4-IPv6 Translat.                 | RFC 6052   | reserved
64:ff9b:1::/48     | IPv4-IPv6 Translat.                 | RFC 8215   | reserved
100::/64           | Discard-Only Address Block          | RFC 6666   | reserved
100:0:0:1::/64     | Dummy IPv6 Prefix                   | RFC 9780   | reserved
2001::/23          | IETF Protocol Assignments           | RFC 2928   | reserved
2001::/32          | TEREDO                              | RFC 4380   | reserved
2001:1::1/128      | Port Control Protocol Anycast       | RFC 7723   | reserved
2001:1::2/128      | Traversal Using Relays around NAT Anycast | RFC 8155 | reserved
2001:1::3/128      | DNS-SD Service Registration Protocol Anycast | RFC 9665 | reserved
2001:2::/48        | Benchmarking                        | RFC 5180   | reserved
2001:3::/32        | AMT                                 | RFC 7450   | reserved
2001:4:112::/48    | AS112-v6                            | RFC 7535   | reserved
2001:10::/28       | Deprecated (previously ORCHID)      | RFC 4843   | reserved
2001:20::/28       | ORCHIDv2                            | RFC 7343   | reserved
2001:30::/28       | Drone Remote ID Protocol Entity Tags (DETs) Prefix | RFC 9374 | reserved
2001:db8::/32      | Documentation                       | RFC 3849   | reserved
2002::/16          | 6to4                                | RFC 3056   | reserved
2620:4f:8000::/48  | Direct Delegation AS112 Service     | RFC 7534   | reserved
3fff::/20          | Documentation                       | RFC 9637   | reserved
5f00::/16          | Segment Routing (SRv6) SIDs         | RFC 9602   | reserved
fc00::/7           | Unique-Local                        | RFC 4193   | private
fe80::/10          | Link-Local Unicast                  | RFC 4291   | link-local
fec0::/10          | Site-Local Unicast (deprecated)     | RFC 3879   | reserved
ff00::/8           | Multicast                           | RFC 4291   | multicast
""")
"""The IANA IPv4 and IPv6 Special-Purpose Address Registries as of 2025, under their names, and five blocks beside them
that are no host's either: the multicast ones, IPv4-compatible, IPv4-translated and site-local addresses."""

GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that IANA hands out of IPv6 for hosts of the Internet (RFC 4291 section 2.4); the rest was never assigned."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_IN_LAST_BITS: Final = tuple(map(IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))
_6TO4: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
"""The first half of the interface identifier (RFC 5214 section 6.1), whatever the network is."""

_LOW32: Final = 0xFFFFFFFF


def entry_of(ip: IP) -> Entry | None:
    """The closest row of the table; None for an address without one. Embedded addresses are not looked into."""
    return next((entry for entry in REGISTRY if entry.block.version == ip.version and ip in entry.block), None)


def unmapped(ip: IP) -> IP:
    """The IPv4 address of an IPv4-mapped IPv6 one, which is what sockets call it; any other as it is."""
    return IPv4Address(int(ip) & _LOW32) if ip.version == 6 and ip in _MAPPED else ip


def _translated(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a translator or tunnel has put in; the network there decides it, not the host."""
    number = int(ip)
    if any(ip in block for block in _IN_LAST_BITS):
        return IPv4Address(number & _LOW32)
    if ip in _6TO4:
        return IPv4Address(number >> 80 & _LOW32)
    if ip in _TEREDO:  # the client's own address, each of its bits turned over (RFC 4380 section 4)
        return IPv4Address(~number & _LOW32)
    return None


def embedded(ip: IP) -> IPv4Address | None:
    """The IPv4 address to which a packet for this IPv6 one goes in the end; None when it embeds none.

    IPv4-mapped, IPv4-compatible, SIIT, NAT64 (the well-known prefix, and the local-use one with its last 32 bits),
    6to4, Teredo (its client) and ISATAP.
    """
    if not isinstance(ip, IPv6Address):
        return None
    if int(ip) >> 32 & _LOW32 in _ISATAP or (ip in _COMPATIBLE and int(ip) > 1):
        return IPv4Address(int(ip) & _LOW32)
    return _translated(ip)


def source_of(ip: IP) -> IP:
    """Whom a source address stands for: the IPv4 host behind a translator or tunnel, else the address itself.

    ISATAP addresses stay as they are: their owner picks any interface identifier, and would be many hosts. So do
    IPv4-compatible ones, which no translator makes.
    """
    return (_translated(ip) if isinstance(ip, IPv6Address) else None) or ip


def is_broadcast(ip: IP) -> bool:
    """Whether it is 255.255.255.255, the limited broadcast address, in any form."""
    return int(embedded(ip) or ip) == _LOW32


@lru_cache(maxsize=4096)
def kind_of(ip: IP) -> Kind:
    """The kind of an address. An IPv6 one is public only inside 2000::/3 and outside of the table.

    An IPv4-mapped address has the kind of its IPv4 one, which is what the system dials. Any other that embeds an IPv4
    address is never of a better kind than that: what is embedded is where its packets go.
    """
    plain = unmapped(ip)
    if plain is not ip:
        return kind_of(plain)
    entry = entry_of(ip)
    given_out = ip.version == 4 or ip in GLOBAL_UNICAST
    kind = entry.kind if entry is not None else "public" if given_out else "reserved"
    inner = embedded(ip)
    if inner is not None and kind in ("public", "private") and kind_of(inner) not in ("public", kind):
        return "reserved"
    return kind
