"""The judge of a punch: from the evidence of one attempt to its verdict.

Pure: it opens no socket and knows no clock. The codes, their table and the value stand in `punchbridge.verdict`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from punchbridge.reach.nat import Mapping
from punchbridge.verdict import Code, Verdict

__all__ = ["Evidence", "judge"]

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
