"""The failure vocabulary: why a peer is not reached on a direct path, as one code, one table and one value.

`Code` names each reason, `TABLE` says for each code what it means and what the user can do. A `Verdict` is the reason
of one attempt: it is made once, by whoever saw the failure, and the same value reaches the event, the error, the
status of an RPC and the exit text. docs/troubleshooting.md is made from the table. This module knows no protocol, no
socket and no clock, and imports no other module of ours.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["TABLE", "VERDICT_KEYS", "Code", "Failure", "Row", "Verdict", "new_run"]

VERDICT_KEYS = ("code", "message", "seen", "retry_in", "run")
"""What a verdict is in JSON: the code's word, one line for the user, what was seen, and so on."""


class Code(StrEnum):
    """Why a peer is not reached on a direct path. Stable API."""

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
    UDP_BLOCKED = "UDP_BLOCKED"
    ROLE_CLASH = "ROLE_CLASH"
    WRONG_PEER = "WRONG_PEER"
    LOCAL_FIREWALL = "LOCAL_FIREWALL"
    PORT_BUSY = "PORT_BUSY"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    DIRECT_LOST = "DIRECT_LOST"
    PATH_NOT_ALLOWED = "PATH_NOT_ALLOWED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Row:
    """One row of the table. `meaning`: what the code says; `advice`: what the user can do about it.

    `retry`: whether another try that follows by itself can help.
    """

    code: Code
    meaning: str
    advice: str
    retry: bool = True


_ROWS = (
    Row(
        Code.NO_RELAY,
        "There is no relayed connection to the peer, and a punch is arranged over one.",
        "Check that the relay runs, that --relay names it with its /p2p/ID, and that both sides reach it.",
    ),
    Row(
        Code.RELAY_LOST,
        "The relayed connection ended before the two sides had arranged the punch.",
        "Look at the relay's log: a limit on time or bytes of a circuit, or a restart. A fresh relayed connection "
        "starts the punch again.",
    ),
    Row(
        Code.DISABLED,
        "Punching is switched off on this side (--no-p2p), so no DCUtR message is sent or answered.",
        "Start without --no-p2p.",
        retry=False,
    ),
    Row(
        Code.NO_CANDIDATES,
        "Nobody has told us the public address of our listening port yet, so there is nothing to offer.",
        "Listen on TCP (--listen /ip4/0.0.0.0/tcp/0) and connect to a relay outside your own network; on a LAN "
        "or in a test without public addresses allow private ones (--lan).",
    ),
    Row(
        Code.NO_REMOTE_CANDIDATES,
        "The peer offered no address that may be dialled (none at all, or only relayed, private or malformed ones).",
        "On the peer: see NO_CANDIDATES. If both sides share a LAN, start both with --lan.",
    ),
    Row(
        Code.PEER_UNSUPPORTED,
        "The peer does not speak /libp2p/dcutr.",
        "Start the peer without --no-p2p; go-libp2p peers register the protocol only once they know a public "
        "address of their own, so a later try may succeed.",
    ),
    Row(
        Code.PEER_REFUSED,
        "The peer reset the exchange: it is busy with another punch, or accepts none on this connection.",
        "Nothing; the next try follows by itself. If it persists, read the peer's log.",
    ),
    Row(
        Code.PEER_SILENT,
        "The peer did not answer CONNECT (or send SYNC) in time, although the relayed connection stands.",
        "Check the load of the peer and of the relay, and the round trip time over the relay.",
    ),
    Row(
        Code.PROTOCOL,
        "The peer's DCUtR messages break the protocol (wrong type, too long, malformed).",
        "Update the peer; report its agent version with this code.",
    ),
    Row(
        Code.MAPPING_DEPENDENT,
        "One side's NAT gives a different external port for each destination (symmetric NAT), so the observed "
        "address is not the one the peer needs, and the other side's NAT filters by port.",
        "Forward a TCP port on the other side, or use a router with endpoint-independent mapping (RFC 4787), or "
        "IPv6; until then the flows stay on the relay.",
    ),
    Row(
        Code.SYN_FILTERED,
        "Our connection requests got no answer at all: a firewall or NAT dropped them on the whole attempt, or "
        "the peer did not dial at the same time.",
        "Check that both sides listen and dial on one port, and that no firewall blocks outgoing TCP to high "
        "ports; when the peer's NAT is symmetric the peer's own verdict says MAPPING_DEPENDENT.",
    ),
    Row(
        Code.RESET_BY_NAT,
        "Our connection requests were refused (RST) each time: the NAT in front of the peer answers before the "
        "peer's own request has opened it, or the peer does not listen there.",
        "Let the router drop unsolicited packets instead of rejecting them; check that the peer's observed "
        "address is right.",
    ),
    Row(
        Code.UNREACHABLE_BY_NAT,
        "Our connection requests were answered by ICMP (host, network or port unreachable, or prohibited).",
        "Let the router or firewall in front of the peer drop unsolicited packets instead of rejecting them.",
    ),
    Row(
        Code.NO_ROUTE,
        "This machine has no route to any of the peer's addresses (often: no IPv6, or the network is down).",
        "Check the network, and let both sides listen on an IP version they share.",
    ),
    Row(
        Code.BLACK_HOLED,
        "A connection stood, or half of one, or datagrams of the peer came in, but no byte of the security handshake "
        "came back.",
        "A NAT or firewall lost track of the connection; a stateful box with strict TCP window checks is the "
        "usual reason. The next try uses a fresh one.",
    ),
    Row(
        Code.UDP_BLOCKED,
        "Not one datagram of the peer came in during the whole attempt: a network on the way lets no UDP through, or "
        "a firewall or NAT dropped all of it.",
        "Nothing when the peer is reached over TCP. Otherwise allow outgoing UDP from the listening port on both "
        "sides; --no-quic spares the tries.",
    ),
    Row(
        Code.ROLE_CLASH,
        "A TCP connection stood and both sides took the same role in the security handshake.",
        "The peer follows the socket instead of DCUtR for its role (old go-libp2p, py-libp2p): update it.",
    ),
    Row(
        Code.WRONG_PEER,
        "Somebody else answered at the peer's address: the identity proved is not the one expected.",
        "Two hosts share the address, or the address is out of date. Nothing was sent to the stranger.",
    ),
    Row(
        Code.LOCAL_FIREWALL,
        "The operating system of this machine refused to send our connection requests (EACCES or EPERM).",
        "Allow outgoing TCP from the listening port in the local firewall or sandbox.",
    ),
    Row(
        Code.PORT_BUSY,
        "The listening port could not be shared for dialling (EADDRINUSE).",
        "Another program, or another user, holds this port: choose another --listen port.",
    ),
    Row(
        Code.TIMEOUT,
        "The attempt's deadline passed and nothing more precise was seen.",
        "Compare with the peer's verdict for the same attempt.",
    ),
    Row(
        Code.CANCELLED,
        "The attempt was ended from outside: the program stops, or the connection was closed on purpose.",
        "Nothing.",
        retry=False,
    ),
    Row(
        Code.DIRECT_LOST,
        "The direct connection stood and then ended or fell silent; the relay carries the flows again.",
        "Nothing; the punch is tried again by itself. If it happens at fixed intervals, a NAT's mapping or a "
        "firewall's session times out.",
    ),
    Row(
        Code.PATH_NOT_ALLOWED,
        "The peer's server takes this protocol on other paths only, and the session came on one that it refuses.",
        'Wait for the direct path (`wait_direct`, `path="direct"`), or let the server take both paths.',
    ),
    Row(
        Code.UNKNOWN,
        "Something else went wrong; the message and the list of what was seen say more.",
        "Report it with the event's line.",
    ),
)


TABLE: dict[Code, Row] = {row.code: row for row in _ROWS}

_runs = itertools.count(1)


def new_run() -> int:
    """The identity of a new run of punches: an int that counts from 1, unique within the process."""
    return next(_runs)


@dataclass(frozen=True)
class Verdict:
    """Why one attempt failed. A frozen value: whoever passes it on adds nothing and rebuilds nothing.

    `str(verdict)` is the code's word; `message` is the line for the user.
    """

    code: Code
    seen: tuple[str, ...] = ()
    """What the system reported during this attempt, in order: errno names of dials and codes of handshakes."""
    detail: str = ""
    """What is special about this attempt, in words: what the peer sent, which addresses were refused."""
    advice: str = ""
    """What the user can do. The advice of the table's row unless the maker knows better."""
    retry_in: float | None = None
    """Seconds from the failure until the next run of punches begins by itself; None when none follows, or when the
    attempts of the present run go on."""
    run: int = 0
    """The run of punches that the attempt belonged to, from `new_run`; 0 when the failure belongs to no run."""

    def __post_init__(self) -> None:
        row = TABLE[self.code]  # a code without a row is a defect of the maker
        if not self.advice:
            object.__setattr__(self, "advice", row.advice)

    def __str__(self) -> str:
        return self.code.value

    @property
    def row(self) -> Row:
        """The row of the code."""
        return TABLE[self.code]

    @property
    def message(self) -> str:
        """One line for the user: what happened, and what to do."""
        detail = f"{self.detail}: " if self.detail else ""
        return f"{detail}{self.row.meaning} {self.advice}"

    def as_dict(self) -> dict[str, Any]:
        """The keys of VERDICT_KEYS, as values that JSON knows."""
        return {
            "code": self.code.value,
            "message": self.message,
            "seen": list(self.seen),
            "retry_in": self.retry_in,
            "run": self.run,
        }


class Failure:
    """What carries a verdict, such as an event: each part of the verdict has a name of its own, here and in JSON."""

    verdict: Verdict

    @property
    def code(self) -> Code:
        """The word of the table."""
        return self.verdict.code

    @property
    def message(self) -> str:
        """One line for the user."""
        return self.verdict.message

    @property
    def seen(self) -> tuple[str, ...]:
        """What the system reported, in order."""
        return self.verdict.seen

    @property
    def retry_in(self) -> float | None:
        """Seconds until the next run of punches; None when none follows by itself, or the present run goes on."""
        return self.verdict.retry_in

    @property
    def run(self) -> int:
        """The identity of the run of punches; 0 when the failure belongs to no run."""
        return self.verdict.run
