"""Addresses to punch with: what others observed of us, what we announce, and which of the peer's we dare to dial.

A candidate list from the network is an attacker's list until filtered: it must not aim our dials at loopback, at a
LAN, or at a third party's hosts (no known implementation filters it). Pure; opens no socket and resolves no name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
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
    MAX_OBSERVERS,
    STALE_OBSERVATION,
)
from punchbridge.reach.nat import MappingReport, Observation, classify, endpoint_key

__all__ = ["ObservedAddresses", "Refusal", "RemoteCandidates", "Scope", "filter_remote", "own_candidates"]

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


class ObservedAddresses:
    """What other peers see as the address of our listening port. One entry for each observer endpoint.

    Only observations from direct connections that use the listening port belong in here: the mapping of another
    port is worthless for punching. Bounded by MAX_OBSERVERS; not safe for use from several threads.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int, Endpoint], Observation] = {}

    def record(
        self,
        *,
        observer: str,
        observer_peer: PeerId,
        local: Multiaddr,
        observed: Multiaddr,
        now: float,
        observer_port: int = 0,
        inbound: bool = False,
    ) -> Observation | None:
        """Takes in one observation (`observer`: the remote IP as text, `now`: monotonic seconds).

        Returns it when it says something this observer had not said before, None when it is known already or
        unusable (not a numeric TCP address, unspecified, port 0, relayed).
        """
        here, seen = endpoint_key(local), endpoint_key(observed)
        if here is None or seen is None or is_relayed(observed) or seen.port == 0:
            return None
        if host_kind(seen.ip) in ("unspecified", "multicast", "link-local", "reserved") or seen.kind != here.kind:
            return None
        key = (observer, observer_port, here)
        before = self._entries.pop(key, None)
        entry = Observation(observer, observer_port, observer_peer, here, seen, now, inbound=inbound)
        self._entries[key] = entry
        if len(self._entries) > MAX_OBSERVERS:
            # Those who came by themselves go first: a crowd of them must not talk us out of our own address.
            del self._entries[
                next((one for one, seen in self._entries.items() if seen.inbound), next(iter(self._entries)))
            ]
        known = before is not None and before.observed == seen and before.stale_since is None
        return None if known else entry

    def forget(self, *, observer_peer: PeerId, now: float, observer: str | None = None) -> None:
        """Marks the observations of a peer (at one IP) as stale, because its direct connection ended."""
        for key, entry in list(self._entries.items()):
            if entry.observer_peer == observer_peer and observer in (None, entry.observer):
                self._entries[key] = replace(entry, stale_since=entry.stale_since or now)

    def clear(self) -> None:
        """Forgets everything: our network changed."""
        self._entries.clear()

    def current(self, now: float | None = None) -> tuple[Observation, ...]:
        """Live observations newest first, then those that became stale less than STALE_OBSERVATION s ago; of either,
        those of observers that we dialled first."""
        entries = reversed(self._entries.values())
        usable = [e for e in entries if e.stale_since is None or _recent(e.stale_since, now)]
        return tuple(sorted(usable, key=lambda entry: (entry.stale_since is not None, entry.inbound)))

    def addresses(self, now: float | None = None) -> tuple[Multiaddr, ...]:
        """The distinct observed addresses, the newest of a live connection first."""
        seen = dict.fromkeys(entry.observed for entry in self.current(now))
        return tuple(tcp_addr(endpoint.host, endpoint.port) for endpoint in seen)

    def report(self, version: int = 4) -> MappingReport:
        """The mapping behaviour of the NAT in front of us for one IP version (4 or 6)."""
        return classify(tuple(self._entries.values()), version)

    def mapping(self, version: int = 4) -> str:
        """The mapping in words, as events print it: unknown, none, endpoint-independent, address-dependent, ..."""
        return self.report(version).mapping.value


def _recent(stale_since: float, now: float | None) -> bool:
    return now is None or now - stale_since <= STALE_OBSERVATION


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
