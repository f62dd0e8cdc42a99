"""Accepted sessions that have carried nothing yet, by where they come from and by peer: which of them goes first.

The place that has most of them gives one, and of it the peer that has most: a session that was opened a moment ago, and
whose first byte is on its way, is not what a crowd of mute ones drives out. It ends nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from punchbridge.identity import PeerId
from punchbridge.tasks.prefixes import Source

if TYPE_CHECKING:
    from punchbridge.session.live import LiveSession

__all__ = ["Unused", "is_unused"]


def is_unused(session: LiveSession) -> bool:
    """It has carried nothing, in neither direction."""
    return not session.machine.incoming.received and not session.machine.outgoing.acked


class Unused:
    """Those that were not seen to carry anything; they are looked at only when somebody has to go."""

    def __init__(self) -> None:
        self._sessions: dict[Source, dict[PeerId, dict[LiveSession, None]]] = {}
        self._counts: dict[Source, int] = {}

    def add(self, session: LiveSession, where: Source, peer: PeerId) -> None:
        self._sessions.setdefault(where, {}).setdefault(peer, {})[session] = None
        self._counts[where] = self._counts.get(where, 0) + 1

    def discard(self, session: LiveSession, where: Source, peer: PeerId) -> None:
        """One that is not here is ignored."""
        peers = self._sessions.get(where, {})
        if session not in peers.get(peer, ()):
            return
        del peers[peer][session]
        self._counts[where] -= 1
        if not peers[peer]:
            del peers[peer]
        if not peers:
            del self._sessions[where], self._counts[where]

    def first(self, inside: Callable[[Source], bool], mine: tuple[Source, PeerId]) -> LiveSession | None:
        """The oldest of whoever has most of them, of those that came from places `inside`; None when that is not more
        than the newcomer would have. mine: where the newcomer comes from, and who it is."""
        while True:
            where = max(filter(inside, self._counts), key=self._counts.__getitem__, default=None)
            if where is None:
                return None
            peers = self._sessions[where]
            peer = max(peers, key=lambda one: len(peers[one]))
            session = next(iter(peers[peer]))
            if not is_unused(session):
                self.discard(session, where, peer)
                continue
            elsewhere = where != mine[0] and self._counts[where] > self._counts.get(mine[0], 0) + 1
            return session if elsewhere or len(peers[peer]) > len(peers.get(mine[1], ())) + 1 else None
