"""Multiaddrs: parsing, questions by protocol code, and what kind of IP address stands in one.

Addresses stay `Multiaddr` until printed. Whether one is relayed is asked of its protocol codes, never of its string.
Nothing here resolves names or opens sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from punchbridge.errors import AddressError
from punchbridge.identity import PeerId, parse_peer_id, peer_text

__all__ = [
    "Circuit",
    "Endpoint",
    "Multiaddr",
    "address_group",
    "circuit_of",
    "decode",
    "endpoint_of",
    "host_kind",
    "is_public",
    "is_relayed",
    "parse",
    "peer_of",
    "tcp_addr",
    "with_peer",
    "without_peer",
]

P_IP4, P_TCP, P_IP6, P_DNS, P_DNS4, P_DNS6 = 0x04, 0x06, 0x29, 0x35, 0x36, 0x37
P_P2P, P_CIRCUIT = 0x01A5, 0x0122
_HOSTS = {P_IP4: "ip4", P_IP6: "ip6", P_DNS: "dns", P_DNS4: "dns4", P_DNS6: "dns6"}


@dataclass(frozen=True)
class Endpoint:
    """The TCP part of an address. `kind` is ip4, ip6, dns, dns4 or dns6; `port` 0 to 65535."""

    kind: str
    host: str
    port: int

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The IP address; raises AddressError for a name that was not resolved yet."""
        if self.kind not in ("ip4", "ip6"):
            raise AddressError(f"{self.host} is a name, not an IP address")
        return ip_address(self.host)


@dataclass(frozen=True)
class Circuit:
    """`<relay>/p2p-circuit[/p2p/<target>]`: `relay` ends in /p2p/ID when the relay's id is known."""

    relay: Multiaddr
    relay_peer: PeerId | None
    target: PeerId | None


def parse(text: str) -> Multiaddr:
    """Reads a multiaddr from text. Raises AddressError that names the text and shows a right one."""
    try:
        addr = Multiaddr(text)
        if not list(addr.items()):
            raise ValueError("it is empty")
        return addr
    except (MultiaddrError, ValueError, TypeError, KeyError, IndexError) as problem:
        hint = "a multiaddr looks like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…"
        raise AddressError(f"malformed multiaddr {text!r} ({problem}); {hint}") from None


def decode(raw: bytes) -> Multiaddr | None:
    """Reads a binary multiaddr from the wire; None when it is malformed (skipped, as go and rust do).

    What comes back can be asked anything: every /p2p part of it is a peer id.
    """
    try:
        addr = Multiaddr(raw)
        # The parser pads truncated values; only what survives a round trip through text is well formed. And some text
        # (ip6zone's) it reads, but cannot take apart.
        if not raw or Multiaddr(str(addr)).to_bytes() != raw:
            return None
        for protocol, value in addr.items():
            if protocol.code == P_P2P:
                parse_peer_id(value or "")
        return addr
    except (MultiaddrError, AddressError, ValueError, TypeError, KeyError, IndexError):
        return None


def _codes(addr: Multiaddr) -> list[int]:
    return [protocol.code for protocol in addr.protocols()]


def is_relayed(addr: Multiaddr) -> bool:
    """True when the address goes through a circuit relay (protocol code 0x0122)."""
    return P_CIRCUIT in _codes(addr)


def endpoint_of(addr: Multiaddr) -> Endpoint | None:
    """The TCP endpoint at the front of the address; None when it does not begin with an IP or name and TCP."""
    parts = list(addr.items())
    if len(parts) < 2 or parts[0][0].code not in _HOSTS or parts[1][0].code != P_TCP:
        return None
    port = parts[1][1]
    return Endpoint(_HOSTS[parts[0][0].code], str(parts[0][1]), int(port or 0))


def peer_of(addr: Multiaddr) -> PeerId | None:
    """The peer that the address ends at: the last /p2p part, or None."""
    parts = list(addr.items())
    if not parts or parts[-1][0].code != P_P2P or parts[-1][1] is None:
        return None
    return parse_peer_id(parts[-1][1])


def circuit_of(addr: Multiaddr) -> Circuit | None:
    """Splits a circuit address at /p2p-circuit; None when the address is not relayed."""
    if not is_relayed(addr):
        return None
    relay_text, _, rest = str(addr).partition("/p2p-circuit")
    relay = Multiaddr(relay_text) if relay_text else Multiaddr("/")
    target = parse_peer_id(rest.removeprefix("/p2p/")) if rest.startswith("/p2p/") else None
    return Circuit(relay, peer_of(relay) if relay_text else None, target)


def tcp_addr(host: str, port: int) -> Multiaddr:
    """/ip4 or /ip6 plus /tcp for a numeric host; an IPv4-mapped IPv6 host becomes /ip4, a zone is dropped."""
    ip = ip_address(host.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Multiaddr(f"/ip{ip.version}/{ip}/tcp/{port}")


def with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr:
    """The address ending in /p2p/<peer>; unchanged when it already does."""
    return addr if peer_of(addr) == peer else Multiaddr(f"{addr}/p2p/{peer_text(peer)}")


def without_peer(addr: Multiaddr) -> Multiaddr:
    """The address without its last /p2p part."""
    peer = peer_of(addr)
    return addr if peer is None else addr.decapsulate(f"/p2p/{peer_text(peer)}")


@cache
def _is_global(host: str) -> bool:
    ip = ip_address(host)
    return ip.is_global and not ip.is_multicast


def is_public(addr: Multiaddr) -> bool:
    """True for a direct address with a globally routable unicast IP (names count as public)."""
    endpoint = endpoint_of(addr)
    if endpoint is None or is_relayed(addr) or endpoint.port == 0:
        return False
    return endpoint.kind.startswith("dns") or _is_global(endpoint.host)


def host_kind(ip: IPv4Address | IPv6Address) -> str:
    """One of public, private, shared (100.64/10), loopback, link-local, multicast, unspecified, reserved."""
    checks = (
        ("unspecified", ip.is_unspecified),
        ("loopback", ip.is_loopback),
        ("link-local", ip.is_link_local),
        ("multicast", ip.is_multicast),
        ("shared", ip.version == 4 and int(ip) >> 22 == 0x64400000 >> 22),
        ("public", ip.is_global),
        ("private", ip.is_private and not ip.is_reserved),
    )
    return next((name for name, holds in checks if holds), "reserved")


def address_group(host: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64 (the smallest net a provider hands out)."""
    ip = ip_address(host.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return f"{IPv6Address(int(ip) >> 64 << 64)}/64"
    return str(ip)
