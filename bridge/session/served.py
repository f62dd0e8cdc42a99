"""What is served in sessions: who handles one, who may open one, and those that live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from punchbridge.identity import PeerId
from punchbridge.reach.path import PathPolicy
from punchbridge.session.live import LiveSession
from punchbridge.session.stream import SessionStream
from punchbridge.swarm.gater import Audience

__all__ = ["Handler", "Served"]

Handler = Callable[[SessionStream], Awaitable[None]]


@dataclass(frozen=True)
class Served:
    """One service."""

    handler: Handler
    path: PathPolicy
    max_sessions: int
    max_per_peer: int
    audience: Audience
    active: dict[LiveSession, None] = field(default_factory=dict)
    """Oldest first."""
    peers: Counter[PeerId] = field(default_factory=Counter)

    def enter(self, session: LiveSession) -> None:
        self.active[session] = None
        self.peers[session.peer] += 1

    def leave(self, session: LiveSession) -> None:
        """A session that has left is ignored."""
        if session in self.active:
            del self.active[session]
            self.peers[session.peer] -= 1
            if not self.peers[session.peer]:
                del self.peers[session.peer]
