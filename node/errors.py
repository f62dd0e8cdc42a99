"""The ways a node's peer, handshake or store can fail, as types. No I/O, no wire.

`HandshakeFailure` and `DisconnectReason` name outcomes; the exceptions carry them to the caller. Fault is in the name:
what the peer did is `PeerError`, what our side could not do is `LocalError`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class HandshakeFailure(enum.Enum):
    """Why a handshake did not complete. The value is the word used in events and texts."""

    BAD_NODE_ID = "BAD_NODE_ID"
    DUPLICATE = "DUPLICATE"
    LOOPBACK = "LOOPBACK"
    WRONG_NETWORK = "WRONG_NETWORK"
    USER_AGENT = "USER_AGENT"
    PROTOCOL_VERSION = "PROTOCOL_VERSION"
    POLICY = "POLICY"
    TOO_MANY_PEERS = "TOO_MANY_PEERS"
    VERSION_TIMEOUT = "VERSION_TIMEOUT"
    VERACK_TIMEOUT = "VERACK_TIMEOUT"
    READY_TIMEOUT = "READY_TIMEOUT"
    OUT_OF_ORDER = "OUT_OF_ORDER"
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    REJECTED_BY_PEER = "REJECTED_BY_PEER"
    CLOSED_BY_PEER = "CLOSED_BY_PEER"
    UNREACHABLE = "UNREACHABLE"
    CANCELLED = "CANCELLED"


class DisconnectReason(enum.Enum):
    """Why an established connection, or one in its handshake, ended."""

    LOCAL_CLOSE = "LOCAL_CLOSE"
    PEER_CLOSED = "PEER_CLOSED"
    PEER_REJECTED = "PEER_REJECTED"
    TRANSPORT = "TRANSPORT"
    HANDSHAKE = "HANDSHAKE"
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    NO_ROUTE = "NO_ROUTE"
    ROUTE_FULL = "ROUTE_FULL"
    OUTGOING_FULL = "OUTGOING_FULL"
    ANSWER_TIMEOUT = "ANSWER_TIMEOUT"
    REPLACED = "REPLACED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Ending:
    """How a connection ended. `reject`: the reason sent to the peer in a Reject first, or None for none."""

    reason: DisconnectReason
    detail: str = ""
    reject: str | None = None
    failure: HandshakeFailure | None = None


class NodeError(Exception):
    """Base of the node's exceptions."""


class PeerError(NodeError):
    """The peer's fault, or the path's."""


class LocalError(NodeError):
    """Our side could not do it."""


class HandshakeError(PeerError):
    """A connection did not come to Ready. `failure` names it, `reason` is the text for a person."""

    def __init__(self, failure: HandshakeFailure, reason: str) -> None:
        super().__init__(f"{failure.value}: {reason}")
        self.failure = failure
        self.reason = reason


class ProtocolViolation(PeerError):
    """The peer broke a rule of a flow. It is told so in a Reject, then disconnected."""


class AnswerTimeout(PeerError):
    """The peer did not answer in time. Told and disconnected likewise."""


class ConnectionOver(PeerError):
    """The connection ended while a flow used it. `ending` says how."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(f"{ending.reason.value}: {ending.detail}")
        self.ending = ending


class NodeClosed(LocalError):
    """The node is not running: it was not entered, or is closed."""


class PeerStoreError(LocalError):
    """The peer store failed; the node goes on without what was to be written. `code`: the word used in events."""

    code = "PEER_STORE"


class PeerStoreFull(PeerStoreError):
    """No room on the disk, or the file may not grow."""

    code = "PEER_STORE_FULL"


class PeerStoreCorrupt(PeerStoreError):
    """The file is no peer store of ours, or is damaged. Move it away; it is rebuilt from the network."""

    code = "PEER_STORE_CORRUPT"


class PeerStoreUnavailable(PeerStoreError):
    """The file cannot be opened, read or locked: permissions, a missing directory, another process."""

    code = "PEER_STORE_UNAVAILABLE"
