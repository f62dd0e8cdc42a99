"""When an end last heard its peer, carried data and got on; from these, when a carrier wants a ping or counts as dead.

Times only: it sends nothing, ends nothing, and knows no frame.
"""

from __future__ import annotations

from typing import Literal

from punchbridge.config import SessionLimits
from punchbridge.sessions.carrier import CarrierState


class Pulse:
    """All times in seconds of the session's clock."""

    def __init__(self, now: float, limits: SessionLimits) -> None:
        self._silence = limits.silence
        self._probe = limits.probe
        self._busy = limits.busy
        self._keepalive = limits.keepalive
        self._stall = limits.stall
        self.round_trip = 0.0
        """The largest of the last few measurements on the active carrier; 0 before the first."""
        self.traffic = now
        """Data was carried, in either direction."""
        self.heard = now
        """Anything came, on any carrier."""
        self.progress = now
        """The peer acknowledged something new, or nothing was waiting for that."""

    def measured(self, round_trip: float, *, fresh: bool = False) -> None:
        """Takes in a measurement; `fresh`: the first on a carrier, which says nothing of the one before."""
        # The largest counts, and fades: a queue that builds up must not look like a death.
        self.round_trip = round_trip if fresh else max(round_trip, 0.75 * self.round_trip)

    @property
    def silence(self) -> float:
        """Seconds of silence after which a carrier that should have spoken is dead."""
        return max(self._silence, 3 * self.round_trip)

    def due(self, carrier: CarrierState, now: float, *, active: bool, waiting: bool) -> Literal["dead", "ping"] | None:
        """What this carrier needs now; see `deadline`. None before that time."""
        at, what = self.deadline(carrier, active=active, waiting=waiting)
        if now < at:
            return None
        # Late: we stood still, not the peer.
        return "ping" if carrier.attached and now - at > self._stall else what

    def deadline(self, carrier: CarrierState, *, active: bool, waiting: bool) -> tuple[float, Literal["dead", "ping"]]:
        """When this carrier needs attention next, and what for. `waiting`: for an acknowledgement of what was sent."""
        if not carrier.attached:
            return carrier.since + 3 * self.silence, "dead"
        if carrier.asked_at is not None:
            return max(carrier.asked_at, carrier.heard) + self.silence * 2 / 3, "dead"
        if not active:
            return carrier.heard + self.silence / 3, "ping"
        busy = waiting or carrier.heard < self.traffic + self._busy
        quiet = carrier.heard + (self._probe + self.round_trip if busy else self._keepalive)
        if waiting:
            # What began to wait after the path had died must not put the question off.
            return min(quiet, max(carrier.heard, self.progress) + self.silence / 3), "ping"
        return quiet, "ping"
