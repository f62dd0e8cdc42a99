"""Addresses to punch with: which of our own we offer, and which of the peer's we dare to dial.

A candidate list from the network is an attacker's list until filtered: it must not aim our dials at loopback, at a
LAN, or at a third party's hosts (no known implementation filters it). Pure; opens no socket and resolves no name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from punchbridge.addresses import (
    P_P2P,
    P_TCP,
    Endpoint,
    Multiaddr,
    decode,
    endpoint_of,
    host_kind,
    is_relayed,
    tcp_addr,
)
from punchbridge.errors import AddressError
from punchbridge.identity import PeerId, parse_peer_id
from punchbridge.limits.punch import (
    MAX_CANDIDATE_HOSTS,
    MAX_CANDIDATE_PORTS,
    MAX_CANDIDATES,
)
from punchbridge.reach.nat import endpoint_key

__all__ = ["Refusal", "RemoteCandidates", "Scope", "filter_remote", "own_candidates"]

_NAT64 = IPv6Address("64:ff9b::")


@dataclass(frozen=True)
class Scope:
    """Which kinds of IP a punch may use beyond public ones. Both need the operator's `allow_private`."""

    private: bool = False
    """RFC 1918, 100.64/10 and fc00::/7."""
    loopback: bool = False
    """Only when the relay itself is reached over loopback: then a peer on this machine is plausible."""

    def allows(self, ip: IPv4Address | IPv6Address) -> bool:
        kind = candidate_kind(ip)
        if kind in ("private", "shared"):
            return self.private
        return kind == "public" or (kind == "loopback" and self.loopback)


class Refusal(StrEnum):
    """Why a remote candidate is not dialled."""

    MALFORMED = "malformed"
    RELAYED = "relayed"
    NOT_TCP = "not plain TCP"
    NAME = "a name"
    PORT_ZERO = "port 0"
    KIND = "IP of a refused kind"
    OTHER_PEER = "another peer's id"
    OWN = "our own address"
    DUPLICATE = "listed twice"
    HOSTS = "too many IPs"
    PORTS = "too many ports of one IP"
    COUNT = "too many candidates"


@dataclass(frozen=True)
class RemoteCandidates:
    """The addresses to dial, in the peer's order, and what was refused with its reason."""

    accepted: tuple[Multiaddr, ...]
    refused: tuple[tuple[str, Refusal], ...] = ()


def candidate_kind(ip: IPv4Address | IPv6Address) -> str:
    """As `host_kind`; an IPv6 address that embeds an IPv4 one (mapped, 6to4, NAT64, Teredo) has that one's kind."""
    if isinstance(ip, IPv6Address):
        inner: IPv4Address | None = ip.ipv4_mapped or ip.sixtofour
        if ip.teredo is not None:
            return "reserved"
        if int(ip) >> 32 == int(_NAT64) >> 32:
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return host_kind(inner)
    return host_kind(ip)


def own_candidates(observed: Iterable[Multiaddr], listen: Iterable[Multiaddr], scope: Scope) -> tuple[Multiaddr, ...]:
    """Our addresses for CONNECT: observed ones first, then listening ones that are reachable by their kind.

    Never a guess: a listening address counts only when its own IP is public (or of a kind the scope allows).
    """
    picked: dict[Endpoint, None] = {}
    for addr in (*observed, *listen):
        endpoint = None if is_relayed(addr) else endpoint_key(addr)
        if endpoint is not None and endpoint.port and scope.allows(endpoint.ip):
            picked.setdefault(endpoint)
    return tuple(tcp_addr(endpoint.host, endpoint.port) for endpoint in list(picked)[:MAX_CANDIDATES])


def filter_remote(
    raw: Sequence[bytes], *, peer: PeerId | None, own: Collection[Multiaddr], scope: Scope
) -> RemoteCandidates:
    """Filters the ObsAddrs of a CONNECT (D10, D12; address policy: docs/troubleshooting.md).

    Accepted are unicast TCP addresses of an allowed kind that are not ours, at most MAX_CANDIDATES, on at most
    MAX_CANDIDATE_HOSTS IPs with at most MAX_CANDIDATE_PORTS ports each. We cannot see the peer's own IP through a
    relay; the low number of IPs and ports is what keeps a peer from scanning with our dials.
    """
    ours = {key for key in (endpoint_key(addr) for addr in own) if key is not None}
    accepted: dict[Endpoint, None] = {}
    refused: list[tuple[str, Refusal]] = []
    for item in raw:
        addr = decode(item)
        judged = Refusal.MALFORMED if addr is None else _judge(addr, peer, ours, accepted, scope)
        if isinstance(judged, Endpoint):
            accepted[judged] = None
        elif len(refused) < MAX_CANDIDATES:
            refused.append((item[:64].hex() if addr is None else str(addr), judged))
    return RemoteCandidates(tuple(tcp_addr(endpoint.host, endpoint.port) for endpoint in accepted), tuple(refused))


def _judge(
    addr: Multiaddr, peer: PeerId | None, ours: set[Endpoint], accepted: Collection[Endpoint], scope: Scope
) -> Endpoint | Refusal:
    shape = _shape(addr, peer)
    if shape is not None:
        return shape
    endpoint = endpoint_key(addr)
    if endpoint is None:
        return Refusal.NAME
    if endpoint.port == 0:
        return Refusal.PORT_ZERO
    if not scope.allows(ip_address(endpoint.host)) or not scope.allows(_raw_ip(addr)):
        return Refusal.KIND
    if endpoint in ours:
        return Refusal.OWN
    return _quota(endpoint, accepted) or endpoint


def _raw_ip(addr: Multiaddr) -> IPv4Address | IPv6Address:
    endpoint = endpoint_of(addr)
    if endpoint is None:
        raise AddressError(f"{addr} has no TCP endpoint")
    return endpoint.ip


def _shape(addr: Multiaddr, peer: PeerId | None) -> Refusal | None:
    """Exactly host and /tcp, with at most the peer's own /p2p behind."""
    if is_relayed(addr):
        return Refusal.RELAYED
    parts = list(addr.items())
    if endpoint_of(addr) is None or parts[1][0].code != P_TCP:
        return Refusal.NOT_TCP
    rest = parts[2:]
    if not rest:
        return None
    if len(rest) > 1 or rest[0][0].code != P_P2P:
        return Refusal.NOT_TCP
    try:
        named = parse_peer_id(str(rest[0][1]))
    except AddressError:
        return Refusal.MALFORMED
    return None if peer is None or named == peer else Refusal.OTHER_PEER


def _quota(endpoint: Endpoint, accepted: Collection[Endpoint]) -> Refusal | None:
    if endpoint in accepted:
        return Refusal.DUPLICATE
    hosts = {item.host for item in accepted}
    if endpoint.host not in hosts and len(hosts) >= MAX_CANDIDATE_HOSTS:
        return Refusal.HOSTS
    if sum(item.host == endpoint.host for item in accepted) >= MAX_CANDIDATE_PORTS:
        return Refusal.PORTS
    return Refusal.COUNT if len(accepted) >= MAX_CANDIDATES else None
