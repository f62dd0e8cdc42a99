"""Which connection should carry a session: decided from what is known of each, and a clock.

Direct is preferred, but a move never ends on a path slower than the one it leaves (about one punched path in ten is:
anchors of the field data), and a path that just failed is not taken again at once. Of two direct paths that are equal
TCP is preferred, which costs two thirds of QUIC's CPU, unless it has failed lately. Pure: it opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

PathPolicy = Literal["any", "direct", "relay"]
"""any: direct where that is no slower, else relayed; direct: never relayed; relay: never direct."""

SLOWER_FACTOR: Final = 1.1
SLOWER_MARGIN: Final = 0.005
"""A direct path may be this much slower than the relay (factor, and seconds) and still count as equal: noise."""

PROBE_AGAIN: Final = 30.0
"""Seconds until a path found slower is measured again."""

HOLD_FIRST: Final = 1.0
HOLD_MAX: Final = 60.0
HOLD_DOUBLINGS: Final = 6
"""Hold-down after a move away from a failed direct path; doubles with each failure within FLAP_WINDOW; more
doublings than these are beyond HOLD_MAX anyway."""

FLAP_WINDOW: Final = 120.0

CAP_LEFT: Final = 0.4
"""A relayed connection with less than this share of its bytes or time left is replaced by a fresh one."""


@dataclass(frozen=True)
class Candidate:
    """A live connection to the peer. `round_trip`: seconds, None when not measured; `left`: share of a cap; `least`:
    the shortest round trip it ever had (None: `round_trip`). A single one measured on a busy machine says little."""

    id: int
    path: Literal["direct", "relay"]
    round_trip: float | None = None
    left: float = 1.0
    least: float | None = None
    transport: str = "tcp"


@dataclass(frozen=True)
class Decision:
    """`move_to`: the connection to move to, or None; `fresh_circuit`: one is needed first; `again`: in seconds.

    `instead`: the direct connection that is left alone for now (reasons SLOWER and HOLD_DOWN)."""

    move_to: int | None
    reason: str
    fresh_circuit: bool = False
    measure: tuple[int, ...] = ()
    again: float | None = None
    instead: int | None = None


@dataclass
class PathKeeper:
    """Remembers what failed and what was slow; `decide` is asked after every change and at `again`."""

    policy: PathPolicy = "any"
    _failures: list[float] = field(default_factory=list)
    _hold_until: float = 0.0
    _tcp_failed: float = -FLAP_WINDOW
    _slow: dict[int, float] = field(default_factory=dict)
    _asked: tuple[int, int] | None = None

    def failed(self, path: str, now: float, transport: str = "tcp") -> None:
        """The active carrier died on this path."""
        if path != "direct":
            return
        if transport == "tcp":
            self._tcp_failed = now
        recent = [at for at in self._failures if now - at < FLAP_WINDOW]
        self._failures = [*recent[-HOLD_DOUBLINGS:], now]
        self._hold_until = now + min(HOLD_FIRST * 2 ** (len(self._failures) - 1), HOLD_MAX)

    def allows(self, path: str) -> bool:
        """Whether the policy lets the session run on such a path."""
        return self.policy == "any" or self.policy == path

    def decide(self, active: Candidate | None, live: Sequence[Candidate], now: float) -> Decision:
        """Whether to move from `active` (None: the session has no carrier) to one of the live connections."""
        usable = [one for one in live if self.allows(one.path)]
        if active is None:
            return self._start(usable)
        if active.path == "relay" and self.policy != "relay":
            upgrade = self._upgrade(active, [one for one in usable if one.path == "direct"], now)
            if upgrade is not None and (upgrade.move_to is not None or upgrade.measure):
                return upgrade
        elif active.path == "direct" and active.transport == "quic" and not self._tcp_distrusted(now):
            upgrade = self._to_tcp(active, [one for one in usable if one.path == "direct"], now)
        else:
            upgrade = None
        if active.path == "relay" and active.left < CAP_LEFT:
            return self._renew(active, usable)
        return upgrade or Decision(None, "STAY")

    def _start(self, usable: Sequence[Candidate]) -> Decision:
        best = max(usable, key=lambda one: (one.path == "direct", one.left >= CAP_LEFT, one.id), default=None)
        return Decision(None, "NO_PATH") if best is None else Decision(best.id, "RESUME")

    def _upgrade(self, active: Candidate, direct: Sequence[Candidate], now: float) -> Decision | None:
        if not direct:
            return None
        trusted = "quic" if self._tcp_distrusted(now) else "tcp"
        best = max(direct, key=lambda one: (one.transport == trusted, one.id))
        if now < self._hold_until:
            return Decision(None, "HOLD_DOWN", again=self._hold_until - now, instead=best.id)
        held = self._slow.get(best.id, 0.0)
        if now < held:
            return Decision(None, "SLOWER", again=held - now, instead=best.id)
        least = active.round_trip if active.least is None else active.least
        if best.round_trip is not None and least is not None and best.round_trip <= least:
            self._asked = None
            return Decision(best.id, "DIRECT")
        return self._compared(active, best, "DIRECT", now)

    def _to_tcp(self, active: Candidate, direct: Sequence[Candidate], now: float) -> Decision | None:
        best = max((one for one in direct if one.transport == "tcp"), key=lambda one: one.id, default=None)
        if best is None:
            return None
        held = self._slow.get(best.id, 0.0)
        return Decision(None, "STAY", again=held - now) if now < held else self._compared(active, best, "TCP", now)

    def _tcp_distrusted(self, now: float) -> bool:
        return now - self._tcp_failed < FLAP_WINDOW

    def _compared(self, active: Candidate, best: Candidate, reason: str, now: float) -> Decision:
        """Moves for the reason once both are measured and the other one is not clearly slower."""
        pair, asked = (active.id, best.id), self._asked
        if asked != pair or active.round_trip is None or best.round_trip is None:
            # Not clearly faster: both are measured now, at the same time and several times.
            self._asked = pair
            return Decision(None, "MEASURE", measure=pair)
        self._asked = None
        if best.round_trip > active.round_trip * SLOWER_FACTOR + SLOWER_MARGIN:
            self._slow = {best.id: now + PROBE_AGAIN}
            return Decision(None, "SLOWER", again=PROBE_AGAIN, instead=best.id if active.path == "relay" else None)
        return Decision(best.id, reason)

    def _renew(self, active: Candidate, usable: Sequence[Candidate]) -> Decision:
        fresh = [one for one in usable if one.path == "relay" and one.id != active.id and one.left >= CAP_LEFT]
        if fresh:
            return Decision(max(fresh, key=lambda one: one.left).id, "RELAY_CAP")
        return Decision(None, "RELAY_CAP", fresh_circuit=True)
