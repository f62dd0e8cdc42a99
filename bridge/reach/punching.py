"""When to punch a peer, when to wait, who gives way, and what follows from an attempt's end: from events and a clock.

`Punching` is what one peer's punches have come to. It is told what happened, it is asked after each change and at the
time that its last answer named, and it opens nothing: the service (`punchbridge.behaviours.dcutr`) performs what it
says. Seconds are monotonic; what is drawn at random is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from punchbridge.config import Punch, PunchLimits
from punchbridge.events import Role
from punchbridge.identity import PeerId
from punchbridge.tasks.rates import Window
from punchbridge.verdict import TABLE, Code, Verdict, new_run

__all__ = ["After", "Exchange", "PunchOutcome", "PunchRefusal", "Punching", "Run", "Standing", "Start", "Wait"]

_NO_FAULT_OF_THE_PUNCH: Final = frozenset({Code.RELAY_LOST, Code.CANCELLED})
"""Such a run is followed by the next one as soon as there is a circuit."""
_DOUBLINGS: Final = 32
"""More doublings of a pause than these are beyond its maximum anyway."""


@dataclass(frozen=True)
class PunchOutcome:
    """How an attempt with a peer ended. `verdict` is None after a success."""

    peer: PeerId
    verdict: Verdict | None
    attempt: int
    side: Role
    final: bool
    """It was the last attempt of its run."""
    elapsed: float
    """Seconds since CONNECT was sent or received."""
    ended: float
    """When it ended, monotonic seconds."""
    circuit: int | None = None
    """The newest relayed connection to the peer at that time."""
    how: Literal["connect", "accept", "dial"] | None = None
    connection: int | None = None
    """The direct connection, after a success."""

    @property
    def code(self) -> Code | None:
        """The word of the verdict; None after a success."""
        return None if self.verdict is None else self.verdict.code


@dataclass(frozen=True)
class Standing:
    """The connections with the peer at this moment."""

    inbound: int | None = None
    """The newest circuit that the peer opened to us and that takes a stream. Over such a one we open exchanges."""
    direct: bool = False


@dataclass(frozen=True)
class Start:
    """Begin a run as the opening side, over this circuit. `pause`: seconds until the next run, should it fail."""

    circuit: int
    pause: float


@dataclass(frozen=True)
class Wait:
    """Do nothing until something changes, or until the time `until`."""

    reason: Literal["NO_CIRCUIT", "BUSY", "DIRECT", "SETTLE", "HOLD"]
    until: float | None = None


@dataclass(eq=False)
class Run:
    """Attempts that belong together, on one side; an answered exchange has a `Run` of its own with the run's id."""

    id: int
    side: Role
    exchanging: bool = False
    """Our own exchange is on its way to the peer, or the dials that it arranged."""


class PunchRefusal:
    """The peer's exchange is not answered. `reason`: BUSY, when ours goes first; RATE, when the peer opens too many."""

    def __init__(self, reason: Literal["BUSY", "RATE"]) -> None:
        self.reason = reason


@dataclass(frozen=True)
class Exchange:
    """The peer's exchange is answered."""

    run: Run
    number: int
    """Among the exchanges of its circuit, from 1."""
    attempt: int
    """Within its run, from 1. The opener counts anew in each run; the number is not on the wire."""
    pause: float
    """Seconds that the opener, when it goes by our policy, waits after this run."""


@dataclass(frozen=True)
class After:
    """What an attempt's end leads to. `dials`: those in the air stay for the next attempt, or for the next run after
    `pause` seconds, or are closed. `fallback`: the flows stay on the relay, and that is to be told."""

    dials: Literal["stay", "for the next run", "close"]
    pause: float = 0.0
    fallback: bool = False


@dataclass
class _Exchanges:
    """The exchanges that the peer opened on one circuit."""

    minute: Window
    """What was answered within the last minute."""
    count: int = 0
    run: int = 0


class Punching:
    """The punches with one peer.

    `gives_way`: our peer id is the smaller one of the two, so of two exchanges that meet ours is given up.
    """

    def __init__(
        self,
        punch: Punch,
        limits: PunchLimits,
        *,
        gives_way: bool,
        number_run: Callable[[], int] = new_run,
    ) -> None:
        self.run: Run | None = None
        """What is under way, on either side: one at most with each peer (D14)."""
        self.last: PunchOutcome | None = None
        self._punch = punch
        self._limits = limits
        self._gives_way = gives_way
        self._number_run = number_run
        self._hold_until = 0.0
        self._pause = punch.retry
        self._settle_until = 0.0
        self._direct = False
        self._exchanges: dict[int, _Exchanges] = {}

    # --- the opening side ---------------------------------------------------------------------------------

    def decide(self, standing: Standing, now: float, jitter: float) -> Start | Wait:
        """Whether to begin a run: at once, after failures, after losses. `jitter`: seconds, drawn at random.

        The pause after a failed run belongs to the peer: a fresh circuit (sessions take many) does not shorten it.
        """
        if standing.direct:
            self._direct = True
        elif self._direct:
            # Time for the rest of the peer's connections to end too, and for its own punch to come first.
            self._direct = False
            self.release()
            self._settle_until = now + self._limits.settle + jitter
        if standing.inbound is None:
            return Wait("NO_CIRCUIT")
        if self.run is not None:
            return Wait("BUSY")
        if standing.direct:
            return Wait("DIRECT")
        if now < self._settle_until:
            return Wait("SETTLE", self._settle_until)
        if now < self._hold_until:
            return Wait("HOLD", self._hold_until)
        return Start(standing.inbound, self._pause)

    def begin(self) -> Run:
        """A run of ours begins, as `decide` said."""
        self.run = Run(self._number_run(), "initiator")
        return self.run

    def release(self) -> None:
        """Ends the pause after failures: the next one begins small again."""
        self._hold_until, self._pause = 0.0, self._punch.retry

    def supported(self) -> None:
        """The peer tells that it speaks DCUtR. That ends the pause of a peer that refused: go's handler comes with its
        first public address, up to 5 s after the circuit."""
        if self.last is not None and self.last.code is Code.PEER_UNSUPPORTED:
            self.release()

    def holds(self, now: float) -> bool:
        """True while a pause after a failed run is not over."""
        return now < self._hold_until

    # --- the answering side -------------------------------------------------------------------------------

    def admit(self, circuit: int, now: float) -> Exchange | PunchRefusal:
        """The peer opens an exchange on a circuit that we dialled. What was under way ends when it is answered.

        An exchange of the peer overtakes the one before: the peer begins another only when the last is over for it.
        When both sides have dialled the other over a relay, two exchanges can meet; then the one of the side with the
        smaller id is given up. Ours goes first only when it is on its way: a run of ours that waits (for identify, or
        between two attempts) would refuse the peer and have nothing to offer in the place of its exchange.
        """
        run = self.run
        if run is not None and run.side == "initiator" and run.exchanging and not self._gives_way:
            return PunchRefusal("BUSY")
        counted = self._exchanges.get(circuit)
        if counted is None:
            counted = self._exchanges[circuit] = _Exchanges(Window(self._limits.exchanges_per_minute, 60.0))
        if not counted.minute.take(now):
            return PunchRefusal("RATE")
        counted.count += 1
        runs_before, attempt = divmod(counted.count - 1, self._punch.attempts)
        if attempt == 0:
            counted.run = self._number_run()
        self.run = Run(counted.run, "responder")
        pause = min(self._punch.retry * 2.0 ** min(runs_before, _DOUBLINGS), self._punch.retry_most)
        return Exchange(self.run, counted.count, attempt + 1, pause)

    def yields(self, *, dialled: bool) -> bool:
        """The peer refused our exchange: True when its own exchange is on its way, and takes the place of ours.
        `dialled`: a circuit stands that we dialled, so that the peer can open one."""
        return self._gives_way and dialled

    def circuit_closed(self, circuit: int) -> None:
        """Forgets what was counted on a circuit."""
        self._exchanges.pop(circuit, None)

    # --- how it ended -------------------------------------------------------------------------------------

    def end(
        self,
        run: Run,
        outcome: PunchOutcome | None,
        pause: float,
        now: float,
        jitter: float,
        *,
        overtaken: bool,
        direct: bool,
    ) -> After:
        """A run of ours, or one answered exchange, is over. `outcome` is None when it ended before its first attempt;
        `pause`: seconds until the next run; `overtaken`: the peer's exchange takes its place; `direct`: a direct
        connection stands."""
        if self.run is run:
            self.run = None
        if outcome is not None:
            self.last = outcome
        code = None if outcome is None else outcome.code
        if outcome is not None and code is None:
            self.release()
        if code is None or run.side == "responder":
            self._settle_until = now + self._limits.settle + jitter
        elif code not in _NO_FAULT_OF_THE_PUNCH:
            self._hold_until = now + (pause if TABLE[code].retry else self._punch.retry_most)
            self._pause = min(2 * pause, self._punch.retry_most)
        if outcome is not None and code is not None and outcome.final:
            return After("for the next run", pause, fallback=not direct)
        over = outcome is None or outcome.final or code is Code.CANCELLED
        return After("close" if over and not overtaken else "stay")

    def answer(self, before: PunchOutcome | None, circuit: int | None, deadline: float) -> Verdict | None:
        """What there is to say to somebody who waits for a direct connection; None while a run may still succeed.

        `before`: the last outcome when the waiting began; `circuit`: the newest relayed connection; `deadline`: when
        the waiting ends. A run answers that was under way when the waiting began or began after it. An earlier one
        answers only while its verdict says all there is to say: over the same circuit, with no run before the deadline.
        """
        last = self.last
        if last is None or last.verdict is None or not last.final or self.run is not None:
            return None
        if last is not before:
            return last.verdict
        pause = last.verdict.retry_in
        if last.verdict.code is Code.RELAY_LOST or last.circuit is None or last.circuit != circuit:
            return None  # a fresh circuit begins a run at once
        return None if pause is not None and last.ended + pause < deadline else last.verdict
