"""The handshake as a machine: Version and Verack both ways at once, the checks, then Ready both ways.

Pure: takes messages and a clock value, gives actions. It opens nothing, waits for nothing, and does not know which
transport carries it. Source: rusty-kaspa's handshake; its order of checks is what makes the right Reject come out.

    EXCHANGING --Version+Verack, checks pass--> NEGOTIATED --flows_subscribed()--> READYING --Ready--> DONE
        any state --failed check, timeout, message twice--> FAILED
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from . import fixed, wire
from .addressbook import NetworkAddress
from .config import HandshakeTimes, NodeConfig
from .errors import HandshakeFailure


@dataclass(frozen=True)
class HandshakeRefusal:
    """A check that did not pass. `reject` is the reason the peer is told."""

    failure: HandshakeFailure
    reject: str


@dataclass(frozen=True)
class Send:
    """Send this message now."""

    message: pb.KaspadMessage


@dataclass(frozen=True)
class Negotiated:
    """All checks passed. The caller subscribes its flows, then calls `flows_subscribed`."""

    version: pb.VersionMessage


@dataclass(frozen=True)
class Completed:
    """Both sides are ready. Flows may run; the handshake's routes are dropped."""


@dataclass(frozen=True)
class Failed:
    """The handshake is over. `reject`: what to tell the peer first."""

    failure: HandshakeFailure
    reject: str


Action = Send | Negotiated | Completed | Failed
Check = Callable[[pb.VersionMessage], HandshakeRefusal | None]


class State(enum.Enum):
    """Where the handshake stands; see the diagram above."""

    EXCHANGING = "exchanging"
    NEGOTIATED = "negotiated"
    READYING = "readying"
    DONE = "done"
    FAILED = "failed"


class Handshake:
    """One handshake. Each method returns the actions to take, in order; none raises for what a peer sends."""

    def __init__(self, own: pb.VersionMessage, times: HandshakeTimes, check: Check) -> None:
        self.state = State.EXCHANGING
        self.peer_version: pb.VersionMessage | None = None
        self._own = own
        self._times = times
        self._check = check
        self._seen: set[wire.PayloadType] = set()
        self._deadlines: dict[wire.PayloadType, float] = {}

    def start(self, now: float) -> list[Action]:
        """Send Version at once: the peer may wait for it, and on a server it also sends the response headers."""
        self._deadlines = {wire.VERSION: now + self._times.version, wire.VERACK: now + self._times.verack}
        return [Send(wire.message(wire.VERSION, self._own))]

    def receive(self, msg: pb.KaspadMessage, now: float) -> list[Action]:
        """Take a Version, Verack or Ready. Any of them a second time is a protocol error, also after DONE."""
        kind = wire.payload_type(msg)
        if self.state is State.FAILED:
            return []
        if kind not in wire.HANDSHAKE or kind in self._seen or self.state is State.DONE:
            return self._fail(HandshakeFailure.OUT_OF_ORDER, f"unexpected {kind} in the handshake")
        self._seen.add(kind)
        self._deadlines.pop(kind, None)
        actions: list[Action] = []
        if kind == wire.VERSION:
            self.peer_version = msg.version
            actions.append(Send(wire.message(wire.VERACK, pb.VerackMessage())))
        if self.state is State.EXCHANGING and {wire.VERSION, wire.VERACK} <= self._seen:
            actions += self._judge()
        elif self.state is State.READYING and kind == wire.READY:
            actions += self._complete()
        return actions

    def flows_subscribed(self, now: float) -> list[Action]:
        """The caller's routes are in place: say Ready. Raises RuntimeError in any state but NEGOTIATED."""
        if self.state is not State.NEGOTIATED:
            raise RuntimeError(f"flows_subscribed in state {self.state.value}")
        self.state = State.READYING
        actions: list[Action] = [Send(wire.message(wire.READY, pb.ReadyMessage()))]
        if wire.READY in self._seen:
            return actions + self._complete()
        self._deadlines = {wire.READY: now + self._times.ready}
        return actions

    def next_timer(self) -> float | None:
        """The clock value at which `handle_timer` must be called, or None."""
        return min(self._deadlines.values(), default=None)

    def handle_timer(self, now: float) -> list[Action]:
        """Fail when a deadline has passed; otherwise nothing."""
        for kind, failure in (
            (wire.VERSION, HandshakeFailure.VERSION_TIMEOUT),
            (wire.VERACK, HandshakeFailure.VERACK_TIMEOUT),
            (wire.READY, HandshakeFailure.READY_TIMEOUT),
        ):
            if kind in self._deadlines and now >= self._deadlines[kind]:
                return self._fail(failure, f"no {kind} in time")
        return []

    def _judge(self) -> list[Action]:
        assert self.peer_version is not None
        refusal = self._check(self.peer_version)
        if refusal is not None:
            return self._fail(refusal.failure, refusal.reject)
        self.state = State.NEGOTIATED
        return [Negotiated(self.peer_version)]

    def _complete(self) -> list[Action]:
        self.state = State.DONE
        self._deadlines = {}
        return [Completed()]

    def _fail(self, failure: HandshakeFailure, reject: str) -> list[Action]:
        self.state = State.FAILED
        self._deadlines = {}
        return [Failed(failure, reject)]


def own_version(config: NodeConfig, now_ms: int) -> pb.VersionMessage:
    """The Version we send. `now_ms`: wall clock in milliseconds; the peer computes a time offset from it."""
    version = pb.VersionMessage(
        protocolVersion=config.protocol_version,
        timestamp=now_ms,
        id=config.node_id,
        userAgent=wire.cut_utf8(config.user_agent, fixed.USER_AGENT_BYTES),
        disableRelayTx=config.disable_relay_tx,
        network=config.network,
    )
    if config.advertise is not None:
        version.address.CopyFrom(NetworkAddress.parse(*config.advertise).to_wire())
    return version


def check_version(
    version: pb.VersionMessage,
    config: NodeConfig,
    *,
    duplicate: Callable[[bytes], bool],
    policy: Callable[[pb.VersionMessage], str | None] = lambda _: None,
) -> HandshakeRefusal | None:
    """The checks in the order of the wire; ours (policy) come last.

    `duplicate` says whether a peer with this node id is connected (the caller knows the address or peer id);
    `policy` returns a reason to refuse, or None.
    """
    if len(version.id) != fixed.NODE_ID_BYTES:
        reject = f"node id of {len(version.id)} bytes, want {fixed.NODE_ID_BYTES}"
        return HandshakeRefusal(HandshakeFailure.BAD_NODE_ID, reject)
    if duplicate(version.id):
        return HandshakeRefusal(HandshakeFailure.DUPLICATE, wire.REASON_DUPLICATE)
    if version.id == config.node_id:
        return HandshakeRefusal(HandshakeFailure.LOOPBACK, wire.REASON_LOOPBACK)
    if version.network != config.network:
        theirs = wire.cut_utf8(version.network, 64)
        return HandshakeRefusal(
            HandshakeFailure.WRONG_NETWORK, f"wrong network: expected {config.network}, got {theirs}"
        )
    agent = wire.cut_utf8(version.userAgent, fixed.USER_AGENT_BYTES)
    allow, deny = config.user_agent_allow, config.user_agent_deny
    if any(word in agent for word in deny) or (allow and not any(word in agent for word in allow)):
        return HandshakeRefusal(HandshakeFailure.USER_AGENT, f"user agent not accepted: {agent}")
    if version.protocolVersion < config.min_protocol_version:
        reject = f"protocol version too low: expected at least {config.min_protocol_version}, "
        return HandshakeRefusal(HandshakeFailure.PROTOCOL_VERSION, reject + f"got {version.protocolVersion}")
    refused = policy(version)
    return None if refused is None else HandshakeRefusal(HandshakeFailure.POLICY, refused)
