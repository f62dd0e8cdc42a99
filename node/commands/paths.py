"""Which path carries the application to each peer, and the `path.changed` event when it becomes another.

A table and nothing else: it is told what happened and emits only differences. It decides no move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

from punchbridge.events import Event, SessionSwitched
from punchbridge_node.events import HandshakeCompleted, PathChanged, PeerDisconnected

Path = Literal["none", "relay", "direct"]


class Paths:
    """The present path of each peer; a peer never heard of has the path `none`. Forgets peers without one."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._paths: dict[str, Path] = {}
        self.changes = 0

    def of(self, peer: str) -> Path:
        return self._paths.get(peer, "none")

    def note(self, peer: str, path: str, reason: str) -> None:
        """The peer's traffic now goes over `path` (`none`: over nothing). Emits when that is a change."""
        now = cast(Path, path if path in ("relay", "direct") else "none")
        before = self.of(peer)
        if now == before:
            return
        if now == "none":
            del self._paths[peer]
        else:
            self._paths[peer] = now
        self.changes += 1
        self._emit(PathChanged(peer=peer, from_=before, to=now, reason=reason))

    def follow(self, event: Event) -> None:
        """Takes the paths from what is told: a handshake, a session that moved, the end of a peer's last stream."""
        if isinstance(event, HandshakeCompleted):
            known = self.of(event.peer) != "none"
            self.note(event.peer, event.path, "the peer opened its stream anew" if known else "handshake")
        elif isinstance(event, SessionSwitched):
            if self.of(event.peer) != "none":
                self.note(event.peer, event.to, event.reason)
        elif isinstance(event, PeerDisconnected) and not event.remaining:
            self.note(event.peer, "none", event.reason)

    def best(self) -> str | None:
        """direct when any peer is reached directly, else relay when any is reached, else None: for the summary."""
        return "direct" if "direct" in self._paths.values() else "relay" if self._paths else None
