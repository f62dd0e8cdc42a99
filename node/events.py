"""What happened at a peer, beside the events that every program prints: rejections and disconnections.

Plain values; they know nothing of who reads them. Not printed by `--json`, hence not `public`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from punchbridge.events import ErrorEvent, Event, FlowStats, HandshakeCompleted

__all__ = ["ErrorEvent", "Event", "FlowStats", "HandshakeCompleted", "HandshakeRefused", "PeerDisconnected"]


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
