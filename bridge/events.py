"""What happened in the library, as values: one frozen dataclass for each event.

The class's `name` and its fields are stable API: `--json`, metrics and the docs are made from them. Peer ids and
addresses are text here. Events know nothing of who reads them, and this module knows no application: the programs
have events of their own in `punchbridge.cli.events`, `punchbridge_relay.events` and `punchbridge_node.events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from punchbridge.errors import BridgeError
from punchbridge.verdict import VERDICT_KEYS, Failure, Verdict

Path = Literal["relay", "direct"]
Role = Literal["initiator", "responder"]
TransportName = Literal["tcp", "quic", "circuit", "libp2p"]
"""What carries a connection; `libp2p` is whatever an application's own py-libp2p host uses. The path says less: each
direct transport has the path `direct`."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. `public` ones are printed by `--json`; the others serve the rooms inside."""

    name: ClassVar[str]
    public: ClassVar[bool] = True

    def as_dict(self) -> dict[str, Any]:
        """The fields under their JSON names (a trailing underscore is dropped); a verdict becomes its VERDICT_KEYS."""
        out: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Verdict):
                out.update(value.as_dict())
            elif item.metadata.get("json", True):
                value = list(value) if isinstance(value, tuple) else value
                out[item.name.rstrip("_")] = dict(value) if isinstance(value, Mapping) else value
        return out

    @classmethod
    def json_keys(cls) -> tuple[str, ...]:
        """The JSON names of the fields, in the order of `as_dict`."""
        names: list[str] = []
        for item in (item for item in fields(cls) if item.metadata.get("json", True)):
            expanded = item.name == "verdict" and issubclass(cls, Failure)
            names += VERDICT_KEYS if expanded else (item.name.rstrip("_"),)
        return tuple(names)


@dataclass(frozen=True, kw_only=True)
class NodeStarted(Event):
    """The swarm listens. `listen`: the bound addresses."""

    name = "node.started"
    peer_id: str
    listen: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TransportAbsent(Event):
    """A transport that is switched on is not there, or cannot be listened on by a relay that was told no addresses, so
    everything runs over the others. Told once, at the start. `message` says why, and what to do."""

    name = "transport.absent"
    transport: Literal["quic"]
    message: str


@dataclass(frozen=True, kw_only=True)
class ReservationAccepted(Event):
    """A relay accepted (or renewed) our reservation. `addrs`: our circuit addresses; `expires`: UTC seconds."""

    name = "reservation.accepted"
    relay: str
    addrs: tuple[str, ...]
    expires: int
    renewed: bool = False
    limit_seconds: int = 0
    limit_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ReservationLost(Event):
    """The reservation ended: refused, expired, or the relay vanished. It is asked for again in `retry_in` s; with the
    code REPLACED_BY_SAME_KEY, whose `retry_in` is 0, it is not."""

    name = "reservation.lost"
    relay: str
    code: str
    message: str = ""
    retry_in: float = 0.0
    error: BridgeError | None = field(default=None, metadata={"json": False})
    """What was raised where the failure was seen; not in the JSON form."""


@dataclass(frozen=True, kw_only=True)
class KeyShared(Event):
    """A relay tells that another program runs with our key. `code`: REPLACED_BY_SAME_KEY when that one has the
    reservation there now, and this program keeps none until it is started again or its network changes;
    SAME_KEY_ELSEWHERE when this program has taken it over."""

    name = "key.shared"
    relay: str
    code: str


@dataclass(frozen=True, kw_only=True)
class ConnectionOpened(Event):
    """A connection is authenticated and muxed. `role`: our part in the handshake; `inbound`: the peer asked for it;
    `transport`: what carries it, tcp or quic, or circuit when it runs through a relay."""

    name = "connection.opened"
    connection: int
    peer: str
    path: Path
    local: str
    remote: str
    role: Role
    inbound: bool
    relay: str | None = None
    punched: bool = False
    transport: TransportName = "tcp"


@dataclass(frozen=True, kw_only=True)
class ConnectionClosed(Event):
    """A connection ended. `reason` is a word of `punchbridge.errors`, `NORMAL`, or a phrase."""

    name = "connection.closed"
    connection: int
    peer: str
    path: Path
    local: str
    remote: str
    role: Role
    reason: str
    bytes_sent: int = 0
    bytes_received: int = 0
    transport: TransportName = "tcp"


@dataclass(frozen=True, kw_only=True)
class ConnectionMoved(Event):
    """The peer is reached at another address than `before`, over the same connection: a NAT on the way lost its state,
    or its network has changed."""

    name = "connection.moved"
    connection: int
    peer: str
    before: str
    remote: str
    transport: TransportName


@dataclass(frozen=True, kw_only=True)
class Identified(Event):
    """Identify (or a push) arrived on a connection. `observed`: our address as the peer sees it, or None."""

    name = "peer.identified"
    public = False
    connection: int
    peer: str
    agent: str
    protocols: tuple[str, ...]
    listen: tuple[str, ...]
    observed: str | None
    push: bool = False


@dataclass(frozen=True, kw_only=True)
class ObservedAddress(Event):
    """Another peer told us the address it sees for our listening port. `mapping`: what is known of the NAT."""

    name = "address.observed"
    addr: str
    observer: str
    mapping: str


@dataclass(frozen=True, kw_only=True)
class PunchStarted(Event):
    """An attempt began. `side`: initiator sent the CONNECT (was dialled over the relay), responder answered it."""

    name = "punch.started"
    peer: str
    attempt: int
    side: Role
    local_candidates: tuple[str, ...]
    remote_candidates: tuple[str, ...]
    relay_rtt_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class PunchSucceeded(Event):
    """A round trip was made on the direct connection. `elapsed_ms`: since CONNECT was sent (or received); `attempt` 0:
    a plain dial was enough, no CONNECT was sent. `transports`: each that was tried, with DIRECT, PENDING, or the code
    by which it failed."""

    name = "punch.succeeded"
    peer: str
    attempt: int
    elapsed_ms: float
    local: str
    remote: str
    side: Role
    how: Literal["connect", "accept", "dial"]
    dials: int = 1
    direct_rtt_ms: float | None = None
    relay_rtt_ms: float | None = None
    transport: TransportName = "tcp"
    transports: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PunchFailed(Failure, Event):
    """An attempt failed. `code`: from the verdict table; `seen`: errno names and outcomes in order; `final`: the last
    attempt of its run; `retry_in`: seconds until the next run, null when none follows by itself or this run goes on;
    `run`: counts the runs of this process; `transports`: each that was tried, with its code."""

    name = "punch.failed"
    peer: str
    attempt: int
    verdict: Verdict
    side: Role
    elapsed_ms: float
    final: bool
    transports: Mapping[str, str] = field(default_factory=dict)
    local_candidates: tuple[str, ...] = ()
    remote_candidates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How a session changed its path, as in SessionSwitched; all None in news of the peer's connections alone."""

    session: str | None = None
    from_: Path | None = None
    to: Path | None = None
    reason: str | None = None
    gap_ms: float | None = None
    replayed: int | None = None
    rtt_before_ms: float | None = None
    rtt_after_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class P2pUpgrade(Moved, Event):
    """The peer is now reached directly (`attempt`: of the punch, 0 when dialled); then one for each session that has
    moved there."""

    name = "p2p_upgrade"
    peer: str
    local: str
    remote: str
    attempt: int | None = None
    transport: TransportName = "tcp"


@dataclass(frozen=True, kw_only=True)
class P2pFallback(Failure, Moved, Event):
    """The peer stays (or is again) on the relay, and one for each session that went back there. `code`: why, from the
    verdict table; the rest as in punch.failed."""

    name = "p2p_fallback"
    peer: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class SessionSwitched(Event):
    """A session goes on over another carrier. `gap_ms`: time without one (0 for a planned move); `replayed`: bytes
    sent again; round trips and transports are those of the connections left and taken. `reason`: why the last carrier
    ended (SILENT and others), or of a planned move DIRECT, TCP, LOSS, FASTER, TCP_FAILED, RATE, LIFETIME or RELAY_CAP,
    as docs/architecture.md tells, and MOVED_BY_PEER where the other end decided."""

    name = "session.switched"
    session: str
    peer: str
    from_: Path | Literal["none"]
    to: Path
    reason: str
    planned: bool
    gap_ms: float = 0.0
    replayed: int = 0
    rtt_before_ms: float | None = None
    rtt_after_ms: float | None = None
    from_transport: TransportName | None = None
    to_transport: TransportName | None = None


@dataclass(frozen=True, kw_only=True)
class SessionKept(Event):
    """A session stays where it is although a direct path is there. `reason`: SLOWER (than the one in use, beyond
    noise) or HOLD_DOWN (a direct path failed a moment ago); it is looked at again after `again_s`."""

    name = "session.kept"
    session: str
    peer: str
    path: Path
    reason: str
    again_s: float
    rtt_ms: float | None = None
    rtt_direct_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class AutonatResult(Event):
    """What AutoNAT v2 found for one of our addresses. `reachability`: public, private or unknown. `status`: the
    server's DialStatus, or NO_ANSWER when it dropped the request after the time of a dial, and answers others."""

    name = "autonat.result"
    addr: str
    reachability: Literal["public", "private", "unknown"]
    server: str
    status: str
    confirmations: int = 0


@dataclass(frozen=True, kw_only=True)
class LocalListening(Event):
    """`forward` takes local clients. `bind`: where, with the port that the system has chosen for port 0."""

    name = "local.listening"
    bind: str


@dataclass(frozen=True, kw_only=True)
class LocalRefused(Event):
    """Another user of this machine connected to the port of `forward` and was turned away. `uid`: the last one;
    `refused`: all until now. Told at the first, then once a while at most."""

    name = "local.refused"
    bind: str
    uid: int
    refused: int


@dataclass(frozen=True, kw_only=True)
class Refused(Event):
    """Limits or lists turned others away within the last `seconds`, which is since the last such event. `refused`: how
    often, by limit, `denied` (on a list) or `not_allowed` (a caller on no list); `sources`: the prefixes they came from
    most often, each with its `reason`, `from`, `times` and the last `peer` that had proven its id."""

    name = "refused"
    seconds: float
    refused: Mapping[str, int]
    sources: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class AccessChanged(Event):
    """Other lists are in force than before. `allowed`, `denied`: entries on all of them together."""

    name = "access.changed"
    allowed: int
    denied: int


@dataclass(frozen=True, kw_only=True)
class AccessOpen(Event):
    """Whoever knows an address may call from now on, unless denied: somebody has asked for it (--open, ANYONE).
    `protocol`: the only one of which that holds; empty for all that is served."""

    name = "access.open"
    protocol: str = ""


@dataclass(frozen=True, kw_only=True)
class AccessRead(Event):
    """All lists were read again, as SIGHUP asks, or one can be read again that could not. `allowed`, `denied`: entries
    on all of them together; `problems`: files that cannot be read, each with an `error` event; what they said last
    stays in force."""

    name = "access.read"
    allowed: int
    denied: int
    problems: int


@dataclass(frozen=True, kw_only=True)
class InvitationShown(Event):
    """A peer has shown the secret of an invitation. `outcome`: GRANTED, USED_UP, EXPIRED, REVOKED or UNKNOWN."""

    name = "invitation.shown"
    peer: str
    outcome: str


@dataclass(frozen=True, kw_only=True)
class ErrorEvent(Event):
    """Something failed that the user should know. `message` says what to do; `verdict`: its code, with RELAYED."""

    name = "error"
    code: str
    message: str
    verdict: str | None = None
