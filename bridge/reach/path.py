"""Which connection should carry a session: decided from what is known of each, and a clock.

Direct is preferred, but a move never ends on a path slower than the one it leaves (about one punched path in ten is:
anchors of the field data), and a path that just failed is not taken again at once. Of two direct paths that are equal
TCP is preferred, which costs two thirds of QUIC's CPU, unless it has failed lately, loses packets, or carried clearly
less. A path whose end is foreseen is left before it. Pure: it opens nothing and measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

PathPolicy = Literal["any", "direct", "relay"]
"""any: direct where that is no slower, else relayed; direct: never relayed; relay: never direct."""

SLOWER_FACTOR: Final = 1.1
SLOWER_MARGIN: Final = 0.005
"""A direct path may be this much slower than the relay (factor, and seconds) and still count as equal: noise."""

FASTER_FACTOR: Final = 1.25
FASTER_MARGIN: Final = 0.010
"""TCP is left for QUIC when it is slower by this factor and so many seconds. That is more than what leads back to TCP,
so that two paths near the bound do not take turns."""

LOSS: Final = 0.01
"""TCP is left for QUIC when this share of its packets was lost. A controller that takes loss for congestion (cubic)
carries a tenth there of what QUIC's does (config/quic.py)."""

RATE_FACTOR: Final = 1.5
"""A direct path is left for one over the other transport that has carried so many times as much. Each has carried all
that it could. Of a relay that is not known: it is given back soon, and others use it too."""

RATE_KEPT: Final = 60.0
"""Seconds for which what a path has carried is believed."""

PROBE_AGAIN: Final = 30.0
"""Seconds until a path found slower is measured again."""

HOLD_FIRST: Final = 1.0
HOLD_MAX: Final = 60.0
HOLD_DOUBLINGS: Final = 6
"""Hold-down after a move away from a failed direct path; doubles with each failure within FLAP_WINDOW; more
doublings than these are beyond HOLD_MAX anyway."""

FLAP_WINDOW: Final = 120.0
"""Failures within so many seconds count together. A transport that failed, lost packets or carried less is the second
choice for as long, and for twice as long each time that it happens again before it has been good for as long as it was
the second choice."""

DOUBT_MAX: Final = 8 * FLAP_WINDOW

CAP_LEFT: Final = 0.4
"""A relayed connection with less than this share of its bytes or time left is replaced by a fresh one."""


@dataclass(frozen=True)
class Candidate:
    """A live connection to the peer. `round_trip`: seconds, None when not measured; `left`: share of a cap; `least`:
    the shortest round trip it ever had (None: `round_trip`). A single one measured on a busy machine says little.

    `loss`: the share of its packets that was lost, and `rate`: bytes a second that it carried while more was waiting,
    both of the last seconds, in the direction that leads away from here, and None where too little was sent.
    `leave_at`: the clock value from which it is expected to die soon."""

    id: int
    path: Literal["direct", "relay"]
    round_trip: float | None = None
    left: float = 1.0
    least: float | None = None
    transport: str = "tcp"
    loss: float | None = None
    rate: float | None = None
    leave_at: float | None = None

    @property
    def kind(self) -> str:
        """`relay`, or the transport of a direct path: what is remembered is remembered of these."""
        return "relay" if self.path == "relay" else self.transport

    def ends(self, now: float) -> bool:
        """Whether it is expected to die soon."""
        return self.leave_at is not None and now >= self.leave_at


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
    _doubts: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Kinds of paths that are second choice: until when, and for how long in all."""
    _rates: dict[str, tuple[float, float]] = field(default_factory=dict)
    """What a kind has carried last while more was waiting, and when."""
    _slow: dict[int, float] = field(default_factory=dict)
    _asked: tuple[int, int] | None = None

    def failed(self, path: str, now: float, transport: str = "tcp") -> None:
        """The active carrier died on this path."""
        if path != "direct":
            return
        self._doubt(transport, now)
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
            return self._start(usable, now)
        if active.rate is not None:
            self._rates[active.kind] = (active.rate, now)
        lasting = [one for one in usable if one.id != active.id and not one.ends(now)]
        if active.ends(now):
            return self._before_the_end(lasting, now)
        better = self._better(active, lasting, now)
        waits = better is None or (better.move_to is None and not better.measure)
        if active.path == "relay" and active.left < CAP_LEFT and waits:
            return self._renew(lasting)
        better = better or Decision(None, "STAY")
        if active.leave_at is not None and waits:
            until = active.leave_at - now
            better = replace(better, again=min(until, HOLD_MAX if better.again is None else better.again))
        return better

    # --- which kind is trusted ------------------------------------------------------------------------------

    def _doubt(self, kind: str, now: float) -> None:
        """Paths of the kind are second choice for a while."""
        until, pause = self._doubts.get(kind, (now - DOUBT_MAX, 0.0))
        pause = min(2 * pause, DOUBT_MAX) if now - until < pause else FLAP_WINDOW
        self._doubts[kind] = (now + pause, pause)

    def _trusts(self, kind: str, now: float) -> bool:
        return now >= self._doubts.get(kind, (now, 0.0))[0]

    def _rank(self, one: Candidate, now: float) -> tuple[bool, bool, int]:
        """The higher the better, of direct paths that are equal otherwise."""
        return self._trusts(one.kind, now), one.kind == "tcp", one.id

    # --- what to do -----------------------------------------------------------------------------------------

    def _start(self, usable: Sequence[Candidate], now: float) -> Decision:
        best = max(
            usable,
            key=lambda one: (one.path == "direct", not one.ends(now), one.left >= CAP_LEFT, *self._rank(one, now)),
            default=None,
        )
        return Decision(None, "NO_PATH") if best is None else Decision(best.id, "RESUME")

    def _before_the_end(self, lasting: Sequence[Candidate], now: float) -> Decision:
        """Moves off a path that is expected to die; a circuit is made first where there is nothing to move to."""
        if lasting:
            return Decision(self._start(lasting, now).move_to, "LIFETIME")
        return Decision(None, "LIFETIME", fresh_circuit=self.allows("relay"), again=HOLD_FIRST)

    def _better(self, active: Candidate, lasting: Sequence[Candidate], now: float) -> Decision | None:
        direct = [one for one in lasting if one.path == "direct"]
        if active.path == "relay":
            return self._upgrade(active, direct, now) if self.policy != "relay" else None
        other = {"tcp": "quic", "quic": "tcp"}.get(active.kind)
        best = max((one for one in direct if one.kind == other), key=lambda one: one.id, default=None)
        if best is None:
            return None
        if self._carried_more(best.kind, active, now):
            self._doubt(active.kind, now)
            return Decision(best.id, "RATE")
        if not self._trusts(best.kind, now):
            return None
        held = self._slow.get(best.id, 0.0)
        if now < held:
            return Decision(None, "STAY", again=held - now)
        if best.kind == "tcp":
            return self._compared(active, best, "TCP", now)
        reason = self._why_quic(active, best, now)
        if reason is not None:
            return self._compared(active, best, reason, now)
        if self._asked == (active.id, best.id):  # measured together it was no more than a moment
            self._asked = None
            self._slow[best.id] = now + PROBE_AGAIN
        return None

    def _carried_more(self, kind: str, active: Candidate, now: float) -> bool:
        """Whether a path of the kind has carried clearly more than the one in use does."""
        rate, at = self._rates.get(kind, (0.0, now))
        return active.rate is not None and now - at <= RATE_KEPT and rate >= RATE_FACTOR * active.rate

    def _why_quic(self, active: Candidate, best: Candidate, now: float) -> str | None:
        """Why TCP is to be left for QUIC; None when it is not."""
        if active.loss is not None and active.loss >= LOSS:
            return "LOSS"
        if not self._trusts("tcp", now):
            return "TCP_FAILED"
        if active.round_trip is None or best.round_trip is None:
            return None
        return "FASTER" if active.round_trip > best.round_trip * FASTER_FACTOR + FASTER_MARGIN else None

    def _upgrade(self, active: Candidate, direct: Sequence[Candidate], now: float) -> Decision | None:
        if not direct:
            return None
        fresh = [one for one in direct if now >= self._slow.get(one.id, 0.0)]
        best = max(fresh or direct, key=lambda one: self._rank(one, now))
        if now < self._hold_until:
            return Decision(None, "HOLD_DOWN", again=self._hold_until - now, instead=best.id)
        if not fresh:
            again = min(HOLD_MAX, *(self._slow[one.id] - now for one in direct))
            return Decision(None, "SLOWER", again=again, instead=best.id)
        least = active.round_trip if active.least is None else active.least
        if best.round_trip is not None and least is not None and best.round_trip <= least:
            self._asked = None
            return Decision(best.id, "DIRECT")
        found = self._compared(active, best, "DIRECT", now)
        # One that is slower than the relay leaves the others to be measured.
        return self._upgrade(active, direct, now) if found.reason == "SLOWER" and len(fresh) > 1 else found

    def _compared(self, active: Candidate, best: Candidate, reason: str, now: float) -> Decision:
        """Moves for the reason once both are measured and the other one is not clearly slower."""
        pair, asked = (active.id, best.id), self._asked
        if asked != pair or active.round_trip is None or best.round_trip is None:
            # Not clearly faster: both are measured now, at the same time and several times.
            self._asked = pair
            return Decision(None, "MEASURE", measure=pair)
        self._asked = None
        self._slow = {one: until for one, until in self._slow.items() if until > now}
        if best.round_trip > active.round_trip * SLOWER_FACTOR + SLOWER_MARGIN:
            self._slow[best.id] = now + PROBE_AGAIN
            return Decision(None, "SLOWER", again=PROBE_AGAIN, instead=best.id if active.path == "relay" else None)
        if reason in ("LOSS", "FASTER"):
            self._doubt("tcp", now)
        return Decision(best.id, reason)

    def _renew(self, lasting: Sequence[Candidate]) -> Decision:
        fresh = [one for one in lasting if one.path == "relay" and one.left >= CAP_LEFT]
        if fresh:
            return Decision(max(fresh, key=lambda one: one.left).id, "RELAY_CAP")
        return Decision(None, "RELAY_CAP", fresh_circuit=True)
