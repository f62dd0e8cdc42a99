"""DCUtR as a behaviour: starts punches on events, admits the peer's, keeps outcomes, tries again after a while.

Driven by the swarm's events, never by polling. It decides when to punch and when not; how is opener's, answerer's
and attempt's work. It never closes the relayed connection: what runs on it moves first, and that is not its business.
"""

from __future__ import annotations

import trio

from punchbridge.behaviours.dcutr.answerer import answer
from punchbridge.behaviours.dcutr.books import ActivePunch, Exchanges
from punchbridge.behaviours.dcutr.context import Facts, PunchContext, Won
from punchbridge.behaviours.dcutr.opener import OpenerRun
from punchbridge.behaviours.dcutr.policy import DcutrPolicy, PunchOutcome
from punchbridge.errors import DirectRequired
from punchbridge.events import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    Identified,
    ObservedAddress,
    P2pFallback,
    P2pUpgrade,
    Role,
)
from punchbridge.identity import PeerId, peer_text
from punchbridge.limits.punch import (
    DCUTR_HOLDS,
    DCUTR_MAX_STREAMS,
    DCUTR_MAX_STREAMS_PER_PEER,
    DCUTR_SETTLE,
    MAX_PUNCH_OUTCOMES,
)
from punchbridge.reach.verdict import judge
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection, Stream
from punchbridge.verdict import TABLE, Code, Verdict
from punchbridge.wire.dcutr import PROTOCOL

__all__ = ["Dcutr"]


class Dcutr:
    """The puncher of a node: start `run` once; ask `last_outcome` and `wait_direct`."""

    def __init__(self, swarm: Swarm, policy: DcutrPolicy | None = None) -> None:
        self._context = PunchContext(swarm, policy or DcutrPolicy())
        self._swarm = swarm
        self._active: dict[PeerId, ActivePunch] = {}
        self._keepers: set[PeerId] = set()
        self._holds: dict[PeerId, tuple[float, float]] = {}
        """When the next run with a peer may begin, and the pause after it."""
        self._exchanges: dict[int, Exchanges] = {}
        self._outcomes: dict[PeerId, PunchOutcome] = {}
        self._direct: dict[PeerId, int] = {}
        self._news = trio.Event()
        self._stopped = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; then every punch, socket and handler of it has ended."""
        async with trio.open_nursery() as nursery:
            self._context.nursery = self._context.observer.nursery = self._context.grounds.nursery = nursery
            await self._swarm.handle(
                PROTOCOL, self._serve, max_streams=DCUTR_MAX_STREAMS, max_per_peer=DCUTR_MAX_STREAMS_PER_PEER
            )
            unsubscribe = self._swarm.events.subscribe(self._on_event)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._stopped = True
                unsubscribe()
                self._context.grounds.stop()
                # Those that answer run in the swarm's tasks, and start tasks in this nursery until they have ended.
                active = tuple(self._active.values())
                for punch in active:
                    punch.scope.cancel()
                with trio.CancelScope(shield=True):
                    for punch in active:
                        await punch.done.wait()

    # --- questions ----------------------------------------------------------------------------------------

    def last_outcome(self, peer: PeerId) -> PunchOutcome | None:
        """How the last attempt with a peer ended; None when there was none."""
        return self._outcomes.get(peer)

    def verdict(self, peer: PeerId, since: PunchOutcome | None = None) -> Verdict:
        """Why no direct connection to the peer stands: the verdict of the last attempt; TIMEOUT when none has ended.

        since: an outcome from `last_outcome`; the attempts up to that one do not count.
        """
        outcome = self._outcomes.get(peer)
        if outcome is None or outcome.verdict is None or outcome is since:
            return Verdict(Code.TIMEOUT)
        return outcome.verdict

    def active(self, peer: PeerId) -> bool:
        """True while a punch with the peer is under way."""
        return peer in self._active

    async def wait_direct(self, peer: PeerId) -> Connection:
        """Waits for a direct connection to the peer.

        Raises DirectRequired, with the verdict, once a whole run of attempts has failed that was under way at the call
        or began after it. A run that had failed before answers only when its verdict is still true: the circuit is the
        one that the run had, and the next run begins after the caller's deadline. The caller sets the deadline;
        cancelling leaves nothing behind.
        """
        before = self._outcomes.get(peer)
        while True:
            best = self._swarm.best(peer)
            if best is not None and best.path == "direct":
                return best
            outcome = self._outcomes.get(peer)
            if (
                outcome is not None
                and outcome.final
                and outcome.verdict is not None
                and not self.active(peer)
                and (outcome is not before or self._stands(outcome))
            ):
                raise DirectRequired(f"no direct connection to {peer_text(peer)}", outcome.verdict)
            await self._news.wait()

    def _stands(self, outcome: PunchOutcome) -> bool:
        """True when the failure of an earlier run says all there is to say until the caller's deadline."""
        assert outcome.verdict is not None
        pause = outcome.verdict.retry_in
        if outcome.verdict.code is Code.RELAY_LOST:  # a fresh circuit begins a run at once
            return False
        if pause is not None and outcome.ended + pause < trio.current_effective_deadline():
            return False
        return outcome.circuit is not None and outcome.circuit == self._context.circuit(outcome.peer)

    # --- events -------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ConnectionOpened):
            connection = self._swarm.connection(event.connection)
            if connection is None:
                return
            if connection.path == "relay":
                self._relayed_opened(connection)
            elif not self._context.is_mine(event):
                self._direct_opened(connection)
        elif isinstance(event, ConnectionClosed):
            self._closed(event)
        elif isinstance(event, Identified):
            self._identified(event)
        elif isinstance(event, ObservedAddress):
            self._context.observed_news.set()
            self._context.observed_news = trio.Event()

    def _relayed_opened(self, connection: Connection) -> None:
        if connection.inbound and connection.peer not in self._keepers:
            self._keepers.add(connection.peer)
            self._context.nursery.start_soon(self._keep, connection.peer)

    def _direct_opened(self, connection: Connection) -> None:
        punch = self._active.get(connection.peer)
        if punch is not None:
            punch.direct = connection
            punch.scope.cancel()
            return
        self._context.grounds.forget(connection.peer)
        if self._relayed_to(connection.peer) is not None:
            self._upgraded(connection, 0)
        self._tell()

    def _identified(self, event: Identified) -> None:
        """Ends the pause of a peer that refused and now tells that it can: go's handler comes with its first public
        address, up to 5 s after the circuit."""
        connection = self._swarm.connection(event.connection)
        if connection is None or connection.path != "relay" or PROTOCOL not in event.protocols:
            return
        last = self._outcomes.get(connection.peer)
        if last is not None and last.code is Code.PEER_UNSUPPORTED:
            self._holds.pop(connection.peer, None)
            self._tell()

    def _closed(self, event: ConnectionClosed) -> None:
        self._exchanges.pop(event.connection, None)
        peer = next((p for p, id_ in self._direct.items() if id_ == event.connection), None)
        if peer is not None:
            del self._direct[peer]
            other = self._direct_to(peer)
            if other is not None:
                self._direct[peer] = other.id
            else:
                self._context.nursery.start_soon(self._fall_back, peer)
        self._tell()

    async def _fall_back(self, peer: PeerId) -> None:
        """Tells that the relay carries the flows again; not when the peer went away altogether."""
        await trio.sleep(DCUTR_SETTLE)
        if self._direct_to(peer) is None and self._relayed_to(peer) is not None:
            self._swarm.events.emit(P2pFallback(peer=peer_text(peer), verdict=Verdict(Code.DIRECT_LOST)))

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _direct_to(self, peer: PeerId) -> Connection | None:
        return next((c for c in self._swarm.connections(peer) if c.path == "direct" and not c.closed.is_set()), None)

    def _inbound_from(self, peer: PeerId) -> Connection | None:
        """The newest circuit that the peer opened to us and that takes a stream: the one to punch over."""
        circuits = (c for c in self._swarm.connections(peer) if c.path == "relay" and c.inbound)
        return max((c for c in circuits if not c.closing), key=lambda c: c.id, default=None)

    def _relayed_to(self, peer: PeerId) -> Connection | None:
        return next((c for c in self._swarm.connections(peer) if c.path == "relay" and not c.closed.is_set()), None)

    # --- the opening side ---------------------------------------------------------------------------------

    async def _keep(self, peer: PeerId) -> None:
        """Punches while the peer has an inbound relayed connection here: at once, after failures, after losses.

        The pause after a failed run belongs to the peer: a fresh circuit (sessions take many) does not shorten it.
        """
        policy = self._context.policy
        try:
            while (relayed := self._inbound_from(peer)) is not None:
                if self._direct_to(peer) is None:
                    until, pause = self._holds.get(peer, (0.0, policy.retry_first))
                    if trio.current_time() < until:
                        await self._pause(peer, until - trio.current_time())
                        continue
                    outcome = await self._open(relayed, pause)
                    if outcome is not None and outcome.code is not None:
                        self._hold(peer, outcome.code, pause)
                        continue
                while self._direct_to(peer) is not None and self._inbound_from(peer) is not None:
                    await self._news.wait()
                self._holds.pop(peer, None)
                # Time for the rest of the peer's connections to end too, and for its own punch to come first.
                await trio.sleep(DCUTR_SETTLE + self._context.rng.uniform(*policy.backoff))
        finally:
            self._keepers.discard(peer)

    def _hold(self, peer: PeerId, code: Code, pause: float) -> None:
        """Remembers the pause after a failed run; a lost relay is no failure of the punch."""
        if code in (Code.RELAY_LOST, Code.CANCELLED):
            return
        most = self._context.policy.retry_max
        now = trio.current_time()
        self._holds = {one: hold for one, hold in self._holds.items() if hold[0] > now}
        if len(self._holds) < DCUTR_HOLDS:
            self._holds[peer] = (now + (pause if TABLE[code].retry else most), min(2 * pause, most))

    async def _pause(self, peer: PeerId, seconds: float) -> None:
        """Waits before the next run, until the hold goes, our observed address changes or the last circuit ends."""
        before = set(self._swarm.observed.addresses(chosen=True))
        with trio.move_on_after(seconds):
            while self._inbound_from(peer) is not None and self._direct_to(peer) is None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_first, self._news, nursery.cancel_scope)
                    nursery.start_soon(_first, self._context.observed_news, nursery.cancel_scope)
                if set(self._swarm.observed.addresses(chosen=True)) - before:
                    self._holds.pop(peer, None)
                if peer not in self._holds:
                    return

    async def _open(self, relayed: Connection, retry_in: float) -> PunchOutcome | None:
        """One run; None when another punch with the peer was, or came, in the way."""
        busy = self._active.get(relayed.peer)
        if busy is not None:
            await busy.done.wait()
            return None
        punch = self._enter(relayed.peer, "initiator")
        outcome: PunchOutcome | None = None
        began = trio.current_time()
        try:
            with punch.scope:
                outcome = await OpenerRun(self._context, relayed, retry_in, punch.note).run()
        finally:
            outcome = outcome or self._interrupted(relayed.peer, punch, began)
            self._leave(relayed.peer, punch)
            self._settle(punch, relayed.peer, outcome, retry_in)
        return outcome

    # --- the answering side -------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        relayed = stream.connection
        peer = relayed.peer
        if (
            self._stopped or relayed.path != "relay" or relayed.inbound
        ):  # D13: only on a relayed connection that we dialled
            stream.reset()
            return
        busy = self._active.get(peer)
        if busy is not None and busy.side == "initiator" and self._swarm.peer.to_bytes() > peer.to_bytes():
            stream.reset()  # both sides dialled the other over a relay: the one with the smaller id gives way
            return
        exchanges = self._exchanges.setdefault(relayed.id, Exchanges())
        if not exchanges.admit(trio.current_time(), self._context.policy):
            stream.reset()
            return
        punch = self._enter(peer, "responder")
        outcome: PunchOutcome | None = None
        began = trio.current_time()
        try:
            with punch.scope:
                if busy is not None:
                    busy.overtaken = True
                    busy.scope.cancel()
                    await busy.done.wait()
                outcome = await answer(self._context, stream, exchanges, punch.note)
        finally:
            if outcome is None:
                stream.reset()
                outcome = self._interrupted(peer, punch, began)
            self._leave(peer, punch)
            if relayed.closed.is_set():
                self._exchanges.pop(relayed.id, None)
            self._settle(punch, peer, outcome, exchanges.pause(self._context.policy))

    # --- bookkeeping --------------------------------------------------------------------------------------

    def _enter(self, peer: PeerId, side: Role) -> ActivePunch:
        punch = self._active[peer] = ActivePunch(side)
        return punch

    def _leave(self, peer: PeerId, punch: ActivePunch) -> None:
        if self._active.get(peer) is punch:
            del self._active[peer]
        punch.done.set()

    def _interrupted(self, peer: PeerId, punch: ActivePunch, began: float) -> PunchOutcome | None:
        """The outcome of a punch that was cancelled: a success when a direct connection stands all the same."""
        if punch.facts is not None and punch.facts.won is not None:
            return self._context.succeeded(punch.facts, punch.facts.won)
        if punch.direct is not None:
            facts = Facts(peer, punch.side, 0, began)
            return self._context.succeeded(facts, Won(punch.direct, "dial", punch.direct.rtt))
        if punch.facts is None:
            return None
        over = punch.overtaken and punch.side == "responder"
        code = judge(punch.facts.evidence).code if over else Code.CANCELLED
        return self._context.failure(punch.facts, code, final=False)

    def _settle(self, punch: ActivePunch, peer: PeerId, outcome: PunchOutcome | None, pause: float) -> None:
        """Remembers an outcome and tells the path events that follow from it. `pause`: until the next run, in s."""
        if outcome is not None and outcome.code is not None and outcome.final:
            self._context.grounds.outlast(peer, pause)
        elif not punch.overtaken and (outcome is None or outcome.final or outcome.code is Code.CANCELLED):
            self._context.grounds.forget(peer)
        if outcome is not None:
            self._outcomes.pop(outcome.peer, None)
            self._outcomes[outcome.peer] = outcome
            while len(self._outcomes) > MAX_PUNCH_OUTCOMES:
                del self._outcomes[next(iter(self._outcomes))]
            connection = self._swarm.connection(outcome.connection) if outcome.connection is not None else None
            if connection is not None:
                self._upgraded(connection, outcome.attempt)
            elif outcome.verdict is not None and outcome.final and self._direct_to(outcome.peer) is None:
                self._swarm.events.emit(P2pFallback(peer=peer_text(outcome.peer), verdict=outcome.verdict))
        self._tell()

    def _upgraded(self, connection: Connection, attempt: int) -> None:
        if connection.peer in self._direct or connection.closed.is_set():
            return
        self._direct[connection.peer] = connection.id
        self._swarm.events.emit(
            P2pUpgrade(
                peer=peer_text(connection.peer),
                local=str(connection.local),
                remote=str(connection.remote),
                attempt=attempt,
            )
        )


async def _first(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
