"""Addresses to punch with: which of our own we offer, and which of the peer's we dare to dial.

A candidate list from the network is an attacker's list until filtered: it must not aim our dials at loopback, at a
LAN, or at a third party's hosts (no known implementation filters it). Pure; opens no socket and resolves no name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from punchbridge.addresses import (
    Endpoint,
    Multiaddr,
    Proto,
    addr_of,
    decode,
    is_relayed,
    peer_of,
    transport_of,
)
from punchbridge.config import PunchLimits
from punchbridge.iana import IP, kind_of
from punchbridge.identity import PeerId
from punchbridge.reach.nat import endpoint_key

__all__ = [
    "RULES",
    "CandidateRefusal",
    "RemoteCandidates",
    "Rule",
    "Scope",
    "endpoints_of",
    "filter_remote",
    "own_candidates",
    "with_ports_of",
]


@dataclass(frozen=True)
class Rule:
    """How many candidates of one transport a remote list may have."""

    hosts: int
    ports: int
    """For each host."""


RULES: Final[Mapping[str, Callable[[PunchLimits], Rule]]] = {
    "tcp": lambda limits: Rule(limits.candidate_hosts, limits.candidate_ports),
    "quic-v1": lambda limits: Rule(limits.candidate_hosts, limits.candidate_ports),
}
"""The transports that are punched, by the name that `transport_of` gives, each with its rule. Candidates of others are
neither offered nor dialled."""


@dataclass(frozen=True)
class Scope:
    """Which kinds of IP may be used beyond public ones, of those that others name. Both need the operator's
    `allow_private`."""

    private: bool = False
    """RFC 1918, 100.64/10 and fc00::/7."""
    loopback: bool = False
    """Only when the relay itself is reached over loopback: then a peer on this machine is plausible."""

    @classmethod
    def chosen(cls, allow_private: bool, *, on_machine: bool) -> Scope:
        """What the operator allows; `on_machine`: whoever names the addresses is reached over loopback."""
        return cls(allow_private, allow_private and on_machine)

    def allows(self, ip: IP) -> bool:
        """Whether an address of this kind may be used."""
        kind = kind_of(ip)
        if kind in ("private", "shared"):
            return self.private
        return kind == "public" or (kind == "loopback" and self.loopback)


class CandidateRefusal(StrEnum):
    """Why a remote candidate is not dialled."""

    MALFORMED = "malformed"
    RELAYED = "relayed"
    TRANSPORT = "a transport that is not punched"
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
    refused: tuple[tuple[str, CandidateRefusal], ...] = ()


def endpoints_of(addrs: Iterable[Multiaddr], proto: Proto) -> tuple[Endpoint, ...]:
    """The distinct numeric endpoints of one protocol among addresses, in their order."""
    found = (endpoint_key(addr) for addr in addrs)
    return tuple(dict.fromkeys(one for one in found if one is not None and one.proto == proto))


def own_candidates(
    observed: Iterable[Multiaddr], listen: Iterable[Multiaddr], scope: Scope, most: int
) -> tuple[Multiaddr, ...]:
    """Our addresses for CONNECT, `most` of each transport: observed ones first, then listening ones that are reachable
    by their kind.

    Never a guess: a listening address counts only when its own IP is public (or of a kind the scope allows).
    """
    picked: dict[Endpoint, None] = {}
    for addr in (*observed, *listen):
        endpoint = None if is_relayed(addr) or transport_of(addr) not in RULES else endpoint_key(addr)
        if endpoint is not None and endpoint.port and scope.allows(endpoint.ip):
            picked.setdefault(endpoint)
    count = Counter[Proto]()
    chosen = []
    for endpoint in picked:
        count[endpoint.proto] += 1
        if count[endpoint.proto] <= most:
            chosen.append(addr_of(endpoint))
    return tuple(chosen)


def filter_remote(
    raw: Sequence[bytes], *, peer: PeerId | None, own: Collection[Multiaddr], scope: Scope, limits: PunchLimits
) -> RemoteCandidates:
    """Filters the ObsAddrs of a CONNECT (D10, D12; address policy: docs/troubleshooting.md).

    Accepted are unicast addresses of a transport in RULES and of an allowed kind that are not ours, at most
    `limits.candidates` of each transport, and as many IPs and ports as its rule says. We cannot see the peer's own IP
    through a relay; the low number of IPs and ports is what keeps a peer from scanning with our dials.
    """
    ours = {key for key in (endpoint_key(addr) for addr in own) if key is not None}
    accepted: dict[Endpoint, None] = {}
    refused: list[tuple[str, CandidateRefusal]] = []
    for item in raw:
        addr = decode(item)
        judged = CandidateRefusal.MALFORMED if addr is None else _judge(addr, peer, ours, accepted, scope, limits)
        if isinstance(judged, Endpoint):
            accepted[judged] = None
        elif len(refused) < limits.candidates:
            refused.append((item[:64].hex() if addr is None else str(addr), judged))
    return RemoteCandidates(tuple(map(addr_of, accepted)), tuple(refused))


def with_ports_of(raw: Sequence[bytes], hosts: Sequence[str], limits: PunchLimits) -> tuple[Multiaddr, ...]:
    """Addresses at these IPs with the ports of other addresses, which may be private, in their order."""
    ports: dict[tuple[Proto, int], None] = {}
    for item in raw[: limits.candidates]:
        addr = decode(item)
        if addr is None or is_relayed(addr) or transport_of(addr) not in RULES:
            continue
        endpoint = endpoint_key(addr)
        if endpoint is not None and endpoint.port:
            ports.setdefault((endpoint.proto, endpoint.port))
    of_each: dict[Proto, list[int]] = {}
    for proto, port in ports:
        of_each.setdefault(proto, []).append(port)
    return tuple(
        addr_of(Endpoint(f"ip{ip_address(host).version}", host, port, proto))
        for proto, found in of_each.items()
        for host in hosts[: limits.candidate_hosts]
        for port in found[: limits.candidate_ports]
    )


def _judge(
    addr: Multiaddr,
    peer: PeerId | None,
    ours: set[Endpoint],
    accepted: Collection[Endpoint],
    scope: Scope,
    limits: PunchLimits,
) -> Endpoint | CandidateRefusal:
    shape = _shape(addr, peer)
    if shape is not None:
        return shape
    endpoint = endpoint_key(addr)
    if endpoint is None:
        return CandidateRefusal.NAME
    if endpoint.port == 0:
        return CandidateRefusal.PORT_ZERO
    if not scope.allows(endpoint.ip):
        return CandidateRefusal.KIND
    if endpoint in ours:
        return CandidateRefusal.OWN
    refusal = _quota(endpoint, accepted, RULES[str(transport_of(addr))](limits))
    if refusal is None and sum(item.proto == endpoint.proto for item in accepted) >= limits.candidates:
        refusal = CandidateRefusal.COUNT
    return refusal or endpoint


def _shape(addr: Multiaddr, peer: PeerId | None) -> CandidateRefusal | None:
    """A host and a transport that is punched, with at most the peer's own /p2p behind."""
    if is_relayed(addr):
        return CandidateRefusal.RELAYED
    if transport_of(addr) not in RULES:
        return CandidateRefusal.TRANSPORT
    named = peer_of(addr)
    return None if named is None or peer is None or named == peer else CandidateRefusal.OTHER_PEER


def _quota(endpoint: Endpoint, accepted: Collection[Endpoint], rule: Rule) -> CandidateRefusal | None:
    if endpoint in accepted:
        return CandidateRefusal.DUPLICATE
    hosts = [item.host for item in accepted if item.proto == endpoint.proto]
    if endpoint.host not in hosts and len(set(hosts)) >= rule.hosts:
        return CandidateRefusal.HOSTS
    return CandidateRefusal.PORTS if hosts.count(endpoint.host) >= rule.ports else None
