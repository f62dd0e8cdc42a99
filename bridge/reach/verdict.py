"""The judge of a punch: from the evidence of one attempt to its verdict.

Pure: it opens no socket and knows no clock. The codes, their table and the value stand in `punchbridge.verdict`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from punchbridge.reach.nat import Mapping
from punchbridge.verdict import Code, Verdict

__all__ = ["Evidence", "UdpEvidence", "choose", "judge", "judge_udp"]

_RST = frozenset({"ECONNREFUSED", "ECONNRESET", "ECONNABORTED"})
_ICMP = frozenset({"EHOSTUNREACH", "EHOSTDOWN", "ENONET", "ENOPROTOOPT", "EPROTO"})
_ROUTE = frozenset({"ENETUNREACH", "ENETDOWN", "EADDRNOTAVAIL"})
_DENIED = frozenset({"EACCES", "EPERM"})


@dataclass
class Evidence:
    """What one attempt saw. Filled by the puncher, read by `judge`."""

    mapping: Mapping = Mapping.UNKNOWN
    """Ours, for the IP versions that were dialled."""
    remote_dependent: bool = False
    """The peer named several external ports of one IP: its observers disagree."""
    dials: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """errno names of dials, with their number."""
    local_errors: Counter[str] = field(default_factory=Counter)
    """errno names of dials that failed before a packet was sent (bind, no route, denied)."""
    taken: int = 0
    """Dials that found a connection with their 4-tuple: accepted by our listener, or half of one."""
    sockets: int = 0
    """TCP connections that stood."""
    upgrades: list[str] = field(default_factory=list)
    """Codes of upgrades that failed, in order; SILENT when not a byte came back."""

    def seen(self) -> tuple[str, ...]:
        """For the event: each thing once with its number, in order of first appearance."""
        parts = Counter(self.local_errors) + Counter(EADDRNOTAVAIL=self.taken) + self.errors + Counter(self.upgrades)
        return tuple(name if count == 1 else f"{name}x{count}" for name, count in parts.items())


def judge(evidence: Evidence) -> Verdict:
    """The verdict on an attempt that ended without a direct connection; the most telling sign wins."""
    return Verdict(_judge(evidence), evidence.seen())


@dataclass
class UdpEvidence:
    """What one attempt saw over UDP. Filled by the puncher, read by `judge_udp`."""

    mapping: Mapping = Mapping.UNKNOWN
    """Ours, for the IP versions that were dialled."""
    remote_dependent: bool = False
    """The peer named several external ports of one IP, or its datagrams came from a port that it had not named."""
    dials: int = 0
    """QUIC connections that were begun."""
    datagrams: int = 0
    """Datagrams of random bytes that were sent, to open our NAT."""
    heard: int = 0
    """Such datagrams of the peer that came in."""
    arrived: int = 0
    """Connections of the peer that stood."""
    failed: list[str] = field(default_factory=list)
    """Codes of connections that failed, in order; SILENT when no answer came."""
    no_route: bool = False
    """This machine cannot send to any of the addresses."""
    relays_silent: bool = False
    """A relay that answers over TCP did not answer over QUIC, though it says that it speaks it."""

    def seen(self) -> tuple[str, ...]:
        """For the event, as `Evidence.seen`; each begins with `udp`."""
        parts = Counter(one for one in self.failed)
        names = [f"udp:{name}" if count == 1 else f"udp:{name}x{count}" for name, count in parts.items()]
        told = [f"udp:heardx{self.heard}"] if self.heard else []
        return (*names, *told, *(["udp:relay-silent"] if self.relays_silent else []))


def judge_udp(evidence: UdpEvidence) -> Code:
    """Why an attempt over UDP ended without a direct connection; the most telling sign wins."""
    failed = set(evidence.failed) - {"SILENT"}
    if "WRONG_PEER" in failed:
        return Code.WRONG_PEER
    if evidence.relays_silent and not (evidence.heard or evidence.arrived or failed):
        return Code.UDP_BLOCKED
    if evidence.mapping.dependent or evidence.remote_dependent:
        return Code.MAPPING_DEPENDENT
    if failed:
        return Code.UNKNOWN
    if evidence.heard or evidence.arrived:
        return Code.BLACK_HOLED
    if evidence.no_route and not evidence.dials:
        return Code.NO_ROUTE
    return Code.UDP_BLOCKED if evidence.dials or evidence.datagrams else Code.TIMEOUT


def choose(tcp: Code | None, udp: Code | None) -> Code:
    """The one code for an attempt over both; None for a transport that was not tried.

    TCP's reason stands, since it says more about the way; UDP's does where TCP has none to give.
    """
    if tcp is None or (tcp in _VAGUE and udp not in (None, *_VAGUE)):
        return Code.TIMEOUT if udp is None else udp
    return Code.WRONG_PEER if udp is Code.WRONG_PEER else tcp


_VAGUE = frozenset({Code.TIMEOUT, Code.UNKNOWN})


def _judge(evidence: Evidence) -> Code:
    failed = set(evidence.upgrades)
    dependent = evidence.mapping.dependent or evidence.remote_dependent
    if "WRONG_PEER" in failed:
        return Code.WRONG_PEER
    if failed & {"PROTOCOL", "AUTHENTICATION", "UNSUPPORTED"}:
        return Code.ROLE_CLASH
    if evidence.local_errors and not (evidence.dials or evidence.sockets or evidence.taken):
        return _judge_local(set(evidence.local_errors))
    if dependent:
        return Code.MAPPING_DEPENDENT
    if "SILENT" in failed:
        return Code.BLACK_HOLED
    return _judge_errors(evidence)


def _judge_local(names: set[str]) -> Code:
    if names & _DENIED:
        return Code.LOCAL_FIREWALL
    if "EADDRINUSE" in names:
        return Code.PORT_BUSY
    return Code.NO_ROUTE if names & (_ROUTE | _ICMP) else Code.UNKNOWN


def _judge_errors(evidence: Evidence) -> Code:
    resets = sum(evidence.errors[name] for name in _RST)
    icmp = sum(evidence.errors[name] for name in _ICMP | {"ENETUNREACH"})
    if resets or icmp:
        return Code.RESET_BY_NAT if resets >= icmp else Code.UNREACHABLE_BY_NAT
    if evidence.upgrades or evidence.taken:
        return Code.BLACK_HOLED
    return Code.SYN_FILTERED if evidence.dials else Code.TIMEOUT
