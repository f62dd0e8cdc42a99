"""What happens between the node and its peers: handshakes, paths, counted messages, disconnections.

Plain values; they know nothing of who reads them. Those that are not `public` serve the rooms inside and are not
printed by `--json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from punchbridge.events import Event, Path


@dataclass(frozen=True, kw_only=True)
class HandshakeCompleted(Event):
    """The application's handshake with a peer ended well."""

    name = "handshake.completed"
    peer: str
    path: str
    user_agent: str


@dataclass(frozen=True, kw_only=True)
class FlowStats(Event):
    """Messages by type, sent to and received from a peer, since the program started; they never step back."""

    name = "flow.stats"
    peer: str
    path: str
    sent: Mapping[str, int] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PathChanged(Event):
    """The path that carries the application to this peer changed."""

    name = "path.changed"
    peer: str
    from_: Path | Literal["none"]
    to: Path | Literal["none"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class HandshakeRefused(Event):
    """A handshake did not complete. `failure`: a word of `errors.HandshakeFailure`; `by`: who ended it."""

    name = "handshake.refused"
    public = False
    peer: str
    path: str
    failure: str
    reason: str
    by: Literal["us", "peer"]


@dataclass(frozen=True, kw_only=True)
class PeerDisconnected(Event):
    """A connection past its handshake ended. `reason`: a word of `punchbridge_node.errors.DisconnectReason`."""

    name = "peer.disconnected"
    public = False
    peer: str
    path: str
    reason: str
    detail: str
    remaining: bool  # whether another stream of this peer goes on
