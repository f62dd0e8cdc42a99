"""Multiaddrs: parsing, and questions by protocol code.

Addresses stay `Multiaddr` until printed. They are taken apart by their protocol codes, never as text. An address whose
transport is not known here has no endpoint, so that nobody takes it for plain TCP. What kind of IP stands in one says
`punchbridge.iana`. Nothing here resolves names or opens sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from punchbridge.errors import AddressError
from punchbridge.iana import kind_of, source_of, unmapped
from punchbridge.identity import PeerId, parse_peer_id, peer_text

__all__ = [
    "Circuit",
    "Endpoint",
    "Multiaddr",
    "Proto",
    "addr_of",
    "address_group",
    "circuit_of",
    "decode",
    "endpoint_of",
    "is_public",
    "is_relayed",
    "is_spoken",
    "parse",
    "peer_of",
    "spoken_endpoint",
    "tcp_addr",
    "transport_of",
    "with_host",
    "with_peer",
    "with_port",
    "without_peer",
]

MAX_TEXT: Final = 1024
"""Characters of an address that are read. A circuit to a peer, at a relay with the longest name, has less than 500;
reading costs the square of the length."""

MAX_BYTES: Final = 512
"""The same of a binary address."""

P_IP4, P_TCP, P_IP6, P_DNS, P_DNS4, P_DNS6 = 0x04, 0x06, 0x29, 0x35, 0x36, 0x37
P_P2P, P_CIRCUIT = 0x01A5, 0x0122
P_UDP, P_QUIC_V1 = 0x0111, 0x01CD
_HOSTS: Final = {P_IP4: "ip4", P_IP6: "ip6", P_DNS: "dns", P_DNS4: "dns4", P_DNS6: "dns6"}

Proto = Literal["tcp", "udp"]
"""What a port number belongs to: the same number is another port in TCP than in UDP."""

_TRANSPORTS: Final[dict[tuple[int, ...], tuple[str, Proto]]] = {
    (P_TCP,): ("tcp", "tcp"),
    (P_UDP, P_QUIC_V1): ("quic-v1", "udp"),
}
"""The transports whose addresses are understood: the protocol codes behind the host, and nothing else."""
_ENDS: Final = frozenset(
    {(), (P_P2P,), (P_CIRCUIT,), (P_P2P, P_CIRCUIT), (P_CIRCUIT, P_P2P), (P_P2P, P_CIRCUIT, P_P2P)}
)
"""What may follow a transport: the peer there, a circuit through it, and the circuit's target."""


@dataclass(frozen=True)
class Endpoint:
    """Where an address leads first. `kind` is ip4, ip6, dns, dns4 or dns6; `port` is 0 to 65535, a port of `proto`."""

    kind: str
    host: str
    port: int
    proto: Proto

    @property
    def place(self) -> tuple[Proto, str]:
        """The host as one transport sees it: what is counted or awaited there says nothing about the other one."""
        return self.proto, self.host

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The IP address; raises AddressError for a name that was not resolved yet."""
        if self.kind not in ("ip4", "ip6"):
            raise AddressError(f"{self.host} is a name, not an IP address")
        return ip_address(self.host)

    @property
    def on_loopback(self) -> bool:
        """Whether it is an IP of this machine's loopback; a name is not asked."""
        return self.kind in ("ip4", "ip6") and kind_of(self.ip) == "loopback"


@dataclass(frozen=True)
class Circuit:
    """`<relay>/p2p-circuit[/p2p/<target>]`: `relay` ends in /p2p/ID when the relay's id is known."""

    relay: Multiaddr
    relay_peer: PeerId | None
    target: PeerId | None


def parse(text: str) -> Multiaddr:
    """Reads a multiaddr from text. Raises AddressError that names the text and shows a right one."""
    if len(text) > MAX_TEXT and not text.lstrip().startswith("pbticket_"):
        raise AddressError(f"malformed multiaddr {text[:80]!r}… ({len(text)} characters, at most {MAX_TEXT} are read)")
    try:
        if len(text) > MAX_TEXT:
            raise ValueError("it is too long")
        addr = Multiaddr(text)
        if not list(addr.items()):
            raise ValueError("it is empty")
        return addr
    except (MultiaddrError, ValueError, TypeError, KeyError, IndexError) as problem:
        if text.lstrip().startswith("pbticket_"):  # a secret, which no text repeats
            raise AddressError("this is a ticket; here an address is wanted, such as /ip4/…/tcp/…") from None
        hint = "a multiaddr looks like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…"
        raise AddressError(f"malformed multiaddr {text!r} ({problem}); {hint}") from None


def decode(raw: bytes) -> Multiaddr | None:
    """Reads a binary multiaddr from the wire; None when it is malformed or too long (skipped, as go and rust do).

    What comes back can be asked anything: every /p2p part of it is a peer id.
    """
    if len(raw) > MAX_BYTES:
        return None
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


def transport_of(addr: Multiaddr) -> str | None:
    """The transport to where the address leads first: tcp or quic-v1.

    None when it begins with no IP or name, and when anything but a peer or a circuit stands behind a known transport.
    """
    found = _transport(addr)
    return None if found is None else found[0]


def _transport(addr: Multiaddr) -> tuple[str, Proto] | None:
    codes = tuple(_codes(addr))
    if not codes or codes[0] not in _HOSTS:
        return None
    end = next((place for place, code in enumerate(codes) if code in (P_P2P, P_CIRCUIT)), len(codes))
    return _TRANSPORTS.get(codes[1:end]) if codes[end:] in _ENDS else None


def endpoint_of(addr: Multiaddr) -> Endpoint | None:
    """Where the address leads first; None when `transport_of` does not understand it."""
    transport = _transport(addr)
    if transport is None:
        return None
    (host, name), (_, port), *_ = addr.items()
    return Endpoint(_HOSTS[host.code], str(name), int(port or 0), transport[1])


def is_spoken(addr: Multiaddr) -> bool:
    """True when the address leads first to an IP or a name by a transport that is known here. Whether it is switched
    on, and its engine installed, says `punchbridge.transport.absent`."""
    return transport_of(addr) is not None


def spoken_endpoint(addr: Multiaddr) -> Endpoint:
    """As `endpoint_of`. Raises AddressError, which names the part at fault, unless `is_spoken`."""
    endpoint = endpoint_of(addr)
    if endpoint is not None:
        return endpoint
    raise AddressError(f"{addr}: {_fault(addr)}; expected an address such as /ip4/192.0.2.1/tcp/4001")


def _fault(addr: Multiaddr) -> str:
    names = [protocol.name for protocol in addr.protocols()]
    codes = tuple(_codes(addr))
    if not codes or codes[0] not in _HOSTS:
        return "it does not begin with an IP or a name"
    end = next((place for place, code in enumerate(codes) if code in (P_P2P, P_CIRCUIT)), len(codes))
    behind = next((1 + len(form) for form in _TRANSPORTS if codes[1 : 1 + len(form)] == form), 1)
    if end > behind:
        return f"/{'/'.join(names[behind:end])} is not spoken by this node"
    return f"/{'/'.join(names[end:])} behind the port is not understood" if end == behind > 1 else "it has no port"


def peer_of(addr: Multiaddr) -> PeerId | None:
    """The peer that the address ends at: the last /p2p part, or None."""
    parts = list(addr.items())
    if not parts or parts[-1][0].code != P_P2P or parts[-1][1] is None:
        return None
    return parse_peer_id(parts[-1][1])


def circuit_of(addr: Multiaddr) -> Circuit | None:
    """Splits a circuit address at /p2p-circuit; None when the address is not relayed.

    Raises AddressError when something else than a target follows, such as a second circuit.
    """
    codes = _codes(addr)
    if P_CIRCUIT not in codes:
        return None
    place, parts = codes.index(P_CIRCUIT), addr.split()
    relay, behind = Multiaddr.join(*parts[:place]), Multiaddr.join(*parts[place + 1 :])
    if codes[place + 1 :] not in ([], [P_P2P]):
        raise AddressError(f"{addr}: behind /p2p-circuit a target /p2p/ID may stand, and nothing else")
    return Circuit(relay, peer_of(relay), peer_of(behind))


def tcp_addr(host: str, port: int) -> Multiaddr:
    """/ip4 or /ip6 plus /tcp for a numeric host; an IPv4-mapped IPv6 host becomes /ip4, a zone is dropped.

    Made of bytes: each connection needs two of these, and reading them from text takes three times as long.
    """
    ip = unmapped(ip_address(host.partition("%")[0]))
    kind = P_IP4 if ip.version == 4 else P_IP6
    return Multiaddr(bytes((kind,)) + ip.packed + bytes((P_TCP,)) + port.to_bytes(2, "big"))


def addr_of(endpoint: Endpoint) -> Multiaddr:
    """The address of a numeric endpoint: /tcp, or /udp with /quic-v1. Raises AddressError for a name."""
    tail = f"tcp/{endpoint.port}" if endpoint.proto == "tcp" else f"udp/{endpoint.port}/quic-v1"
    return Multiaddr(f"{_host_addr(str(endpoint.ip))}/{tail}")


def with_port(addr: Multiaddr, port: int) -> Multiaddr:
    """The numeric address with another port, and nothing behind its transport. Raises AddressError for a name."""
    return addr_of(replace(spoken_endpoint(addr), port=port))


def with_host(addr: Multiaddr, host: str) -> Multiaddr:
    """The address with a numeric host, as `tcp_addr` takes it, in the place of its first part, such as a name."""
    return Multiaddr.join(_host_addr(host), *addr.split()[1:])


def _host_addr(host: str) -> str:
    ip = unmapped(ip_address(host.partition("%")[0]))
    return f"/ip{ip.version}/{ip}"


def with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr:
    """The address ending in /p2p/<peer>; unchanged when it already does."""
    return addr if peer_of(addr) == peer else Multiaddr.join(addr, f"/p2p/{peer_text(peer)}")


def without_peer(addr: Multiaddr) -> Multiaddr:
    """The address without its last /p2p part."""
    return addr if peer_of(addr) is None else Multiaddr.join(*addr.split()[:-1])


def is_public(addr: Multiaddr) -> bool:
    """True for a direct address with a public IP (see `punchbridge.iana`) and a port; names count as public."""
    endpoint = endpoint_of(addr)
    if endpoint is None or is_relayed(addr) or endpoint.port == 0:
        return False
    return endpoint.kind.startswith("dns") or kind_of(endpoint.ip) == "public"


def address_group(host: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64 (the smallest net a provider hands out).

    An IPv4 host that a translator or a tunnel shows as an IPv6 one counts as the IPv4 host that it is.
    """
    ip = source_of(ip_address(host.partition("%")[0]))
    return f"{IPv6Address(int(ip) >> 64 << 64)}/64" if ip.version == 6 else str(ip)
