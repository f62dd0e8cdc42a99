"""The one table of punch outcomes: each code, what was seen, and what the user can do about it.

The event, the log line, the exit text and docs/troubleshooting.md are made from this table. `judge` turns the evidence
of one attempt into a code; it opens no socket and knows no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from punchbridge.reach.nat import Mapping

__all__ = ["TABLE", "Code", "Evidence", "Verdict", "judge", "message"]


class Code(StrEnum):
    """Why a peer stays on the relay. Stable API."""

    NO_RELAY = "NO_RELAY"
    RELAY_LOST = "RELAY_LOST"
    DISABLED = "DISABLED"
    NO_CANDIDATES = "NO_CANDIDATES"
    NO_REMOTE_CANDIDATES = "NO_REMOTE_CANDIDATES"
    PEER_UNSUPPORTED = "PEER_UNSUPPORTED"
    PEER_REFUSED = "PEER_REFUSED"
    PEER_SILENT = "PEER_SILENT"
    PROTOCOL = "PROTOCOL"
    MAPPING_DEPENDENT = "MAPPING_DEPENDENT"
    SYN_FILTERED = "SYN_FILTERED"
    RESET_BY_NAT = "RESET_BY_NAT"
    UNREACHABLE_BY_NAT = "UNREACHABLE_BY_NAT"
    NO_ROUTE = "NO_ROUTE"
    BLACK_HOLED = "BLACK_HOLED"
    ROLE_CLASH = "ROLE_CLASH"
    WRONG_PEER = "WRONG_PEER"
    LOCAL_FIREWALL = "LOCAL_FIREWALL"
    PORT_BUSY = "PORT_BUSY"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    DIRECT_LOST = "DIRECT_LOST"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Verdict:
    """One row: `seen` is what happened, `advice` what to do, `retry` whether trying again by itself can help."""

    code: Code
    seen: str
    advice: str
    retry: bool = True


_ROWS = (
    Verdict(
        Code.NO_RELAY,
        "There is no relayed connection to the peer, and a punch is arranged over one.",
        "Check that the relay runs, that --relay names it with its /p2p/ID, and that both sides reach it.",
    ),
    Verdict(
        Code.RELAY_LOST,
        "The relayed connection ended before the two sides had arranged the punch.",
        "Look at the relay's log: a limit on time or bytes of a circuit, or a restart. A fresh relayed connection "
        "starts the punch again.",
    ),
    Verdict(
        Code.DISABLED,
        "Punching is switched off on this side (--no-p2p), so no DCUtR message is sent or answered.",
        "Start without --no-p2p.",
        retry=False,
    ),
    Verdict(
        Code.NO_CANDIDATES,
        "Nobody has told us the public address of our listening port yet, so there is nothing to offer.",
        "Listen on TCP (--listen /ip4/0.0.0.0/tcp/0) and connect to a relay outside your own network; on a LAN "
        "or in a test without public addresses allow private ones (--lan).",
    ),
    Verdict(
        Code.NO_REMOTE_CANDIDATES,
        "The peer offered no address that may be dialled (none at all, or only relayed, private or malformed ones).",
        "On the peer: see NO_CANDIDATES. If both sides share a LAN, start both with --lan.",
    ),
    Verdict(
        Code.PEER_UNSUPPORTED,
        "The peer does not speak /libp2p/dcutr.",
        "Start the peer without --no-p2p; go-libp2p peers register the protocol only once they know a public "
        "address of their own, so a later try may succeed.",
    ),
    Verdict(
        Code.PEER_REFUSED,
        "The peer reset the exchange: it is busy with another punch, or accepts none on this connection.",
        "Nothing; the next try follows by itself. If it persists, read the peer's log.",
    ),
    Verdict(
        Code.PEER_SILENT,
        "The peer did not answer CONNECT (or send SYNC) in time, although the relayed connection stands.",
        "Check the load of the peer and of the relay, and the round trip time over the relay.",
    ),
    Verdict(
        Code.PROTOCOL,
        "The peer's DCUtR messages break the protocol (wrong type, too long, malformed).",
        "Update the peer; report its agent version with this code.",
    ),
    Verdict(
        Code.MAPPING_DEPENDENT,
        "One side's NAT gives a different external port for each destination (symmetric NAT), so the observed "
        "address is not the one the peer needs, and the other side's NAT filters by port.",
        "Forward a TCP port on the other side, or use a router with endpoint-independent mapping (RFC 4787), or "
        "IPv6; until then the flows stay on the relay.",
    ),
    Verdict(
        Code.SYN_FILTERED,
        "Our connection requests got no answer at all: a firewall or NAT dropped them on the whole attempt, or "
        "the peer did not dial at the same time.",
        "Check that both sides listen and dial on one port, and that no firewall blocks outgoing TCP to high "
        "ports; when the peer's NAT is symmetric the peer's own verdict says MAPPING_DEPENDENT.",
    ),
    Verdict(
        Code.RESET_BY_NAT,
        "Our connection requests were refused (RST) each time: the NAT in front of the peer answers before the "
        "peer's own request has opened it, or the peer does not listen there.",
        "Let the router drop unsolicited packets instead of rejecting them; check that the peer's observed "
        "address is right.",
    ),
    Verdict(
        Code.UNREACHABLE_BY_NAT,
        "Our connection requests were answered by ICMP (host, network or port unreachable, or prohibited).",
        "Let the router or firewall in front of the peer drop unsolicited packets instead of rejecting them.",
    ),
    Verdict(
        Code.NO_ROUTE,
        "This machine has no route to any of the peer's addresses (often: no IPv6, or the network is down).",
        "Check the network, and let both sides listen on an IP version they share.",
    ),
    Verdict(
        Code.BLACK_HOLED,
        "A TCP connection stood, or half of one, but no byte of the security handshake came back on it.",
        "A NAT or firewall lost track of the connection; a stateful box with strict TCP window checks is the "
        "usual reason. The next try uses a fresh one.",
    ),
    Verdict(
        Code.ROLE_CLASH,
        "A TCP connection stood and both sides took the same role in the security handshake.",
        "The peer follows the socket instead of DCUtR for its role (old go-libp2p, py-libp2p): update it.",
    ),
    Verdict(
        Code.WRONG_PEER,
        "Somebody else answered at the peer's address: the identity proved is not the one expected.",
        "Two hosts share the address, or the address is out of date. Nothing was sent to the stranger.",
    ),
    Verdict(
        Code.LOCAL_FIREWALL,
        "The operating system of this machine refused to send our connection requests (EACCES or EPERM).",
        "Allow outgoing TCP from the listening port in the local firewall or sandbox.",
    ),
    Verdict(
        Code.PORT_BUSY,
        "The listening port could not be shared for dialling (EADDRINUSE).",
        "Another program, or another user, holds this port: choose another --listen port.",
    ),
    Verdict(
        Code.TIMEOUT,
        "The attempt's deadline passed and nothing more precise was seen.",
        "Compare with the peer's verdict for the same attempt.",
    ),
    Verdict(
        Code.CANCELLED,
        "The attempt was ended from outside: the program stops, or the connection was closed on purpose.",
        "Nothing.",
        retry=False,
    ),
    Verdict(
        Code.DIRECT_LOST,
        "The direct connection stood and then ended or fell silent; the relay carries the flows again.",
        "Nothing; the punch is tried again by itself. If it happens at fixed intervals, a NAT's mapping or a "
        "firewall's session times out.",
    ),
    Verdict(
        Code.UNKNOWN,
        "Something else went wrong; the message and the list of what was seen say more.",
        "Report it with the event's line.",
    ),
)


TABLE: dict[Code, Verdict] = {row.code: row for row in _ROWS}

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


def judge(evidence: Evidence) -> Code:
    """The code of an attempt that ended without a direct connection; the most telling sign wins."""
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


def message(code: Code | str, seen: Sequence[str] = ()) -> str:
    """One line for the user: what was seen and what to do."""
    row = TABLE[Code(code)]
    detail = f" Seen: {', '.join(seen)}." if seen else ""
    return f"{row.seen}{detail} {row.advice}"
