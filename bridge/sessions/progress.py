"""Whether a session gets on: how long it may wait without a carrier, and whether anything moved since the last look.

It costs nothing for each frame: a session that stands still ends between one and two times `timeout` later. It knows
times and counts, no carrier and no frame.
"""

from __future__ import annotations

from punchbridge.config import SessionLimits
from punchbridge.sessions.incoming import Incoming
from punchbridge.sessions.outgoing import Outgoing


class Progress:
    """All times in seconds of the session's clock."""

    def __init__(
        self, incoming: Incoming, outgoing: Outgoing, now: float, limits: SessionLimits, *, dialling: bool
    ) -> None:
        self.timeout = max(limits.progress_timeout, limits.resume_timeout + 2 * limits.keepalive)
        """A session may be without a carrier for `resume_timeout`, and be asked for a sign of life only after that."""
        self.answers = 0
        """Pings that the peer answered while it owed no acknowledgement."""
        self._incoming, self._outgoing = incoming, outgoing
        self._resume_timeout = limits.resume_timeout
        self._mute_timeout = limits.resume_timeout if dialling else min(limits.mute_timeout, limits.resume_timeout)
        self._late = limits.stall
        self._looked = now
        self._moved = (0, 0, 0, 0)

    @property
    def patience(self) -> float:
        """How long the session waits without a carrier."""
        carried = self._incoming.received or self._outgoing.acked
        return self._resume_timeout if carried else self._mute_timeout

    @property
    def due(self) -> float:
        """When to look next."""
        return self._looked + self.timeout

    def stalled(self, now: float) -> bool:
        """Whether nothing has moved since the last look. One that comes late proves nothing: we stood still then."""
        moved = (self._incoming.received, self._incoming.read_to, self._outgoing.acked, self.answers)
        stalled = moved == self._moved and now - self.due <= self._late
        self._moved, self._looked = moved, now
        return stalled
