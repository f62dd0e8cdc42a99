"""What the paths of a host's sessions have shown: what each carries and loses, and how long paths to a peer last.

Shared by all sessions of a host, since those to one peer run over the same connections. It reads counters and keeps
what was learned; what follows from that is decided in `reach.path`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakSet

from punchbridge.identity import PeerId
from punchbridge.reach.gauge import Gauge
from punchbridge.reach.lifetimes import Lifetimes
from punchbridge.reach.path import Candidate
from punchbridge.session.carrier import cap_left

if TYPE_CHECKING:
    from punchbridge.config import Limits
    from punchbridge.transport.base import Connection

__all__ = ["KnownPaths"]

_RECENT: Final = 5.0
"""Intervals after which a reading says nothing of now."""


class KnownPaths:
    """Used from the trio thread, by the keepers of sessions."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits.paths
        self._silence = limits.sessions.silence
        self._gauges: WeakKeyDictionary[Connection, Gauge] = WeakKeyDictionary()
        self._died: WeakSet[Connection] = WeakSet()
        self._lifetimes: Lifetimes[tuple[PeerId, str]] = Lifetimes(limits.paths.silent_peers)

    def read(self, connection: Connection, now: float, *, full: bool) -> None:
        """Reads the counters of a connection in use; one that was read less than half an interval ago is let be, since
        several sessions may use it. `full`: as `Gauge.read`."""
        gauge = self._gauges.get(connection)
        if gauge is None:
            gauge = self._gauges[connection] = Gauge()
        if gauge.read_at is not None and now - gauge.read_at < self._limits.sample / 2:
            return
        counts = connection.counts
        if counts is not None:
            gauge.read(counts, now, full=full)

    def candidate(self, connection: Connection, trip: float | None, now: float) -> Candidate:
        """The connection as the decision sees it. `trip`: its round trip."""
        gauge, leave_at = self._gauges.get(connection), None
        if gauge is None or gauge.read_at is None or now - gauge.read_at > _RECENT * self._limits.sample:
            gauge = None
        if connection.path == "direct":
            age = now - connection.opened_at
            after = self._lifetimes.leave_after((connection.peer, connection.transport), age)
            leave_at = None if after is None else connection.opened_at + after
        return Candidate(
            connection.id,
            connection.path,
            trip,
            cap_left(connection, now),
            connection.rtt_least,
            connection.transport,
            None if gauge is None else gauge.loss,
            None if gauge is None else gauge.rate,
            leave_at,
        )

    def died(self, connection: Connection, heard: float, now: float) -> None:
        """A session found the connection silent; the first one counts. `heard`: when it had heard something there
        last."""
        if connection.path == "direct" and connection not in self._died:
            self._died.add(connection)
            quiet = max(0.0, now - heard - self._silence)
            self._lifetimes.died((connection.peer, connection.transport), heard - connection.opened_at, quiet)

    def refresh(self, connection: Connection) -> float | None:
        """Seconds of silence after which the connection needs a packet to live on; None where that is not known."""
        if connection.path == "relay":
            return None
        return self._lifetimes.refresh((connection.peer, connection.transport))
