"""DCUtR as a behaviour: performs what `punchbridge.reach.punching` decides, and answers who waits for a direct path.

Driven by the swarm's news, never by polling. When to punch and when not is decided there; how is the work of opener,
answerer and the direct openers. This service never closes a relayed connection: what runs on it moves first, and that
is not its business.
"""

from __future__ import annotations

import random

import trio

from punchbridge.behaviours.dcutr.answerer import answer
from punchbridge.behaviours.dcutr.attempts import Attempt, Won, failed, succeeded
from punchbridge.behaviours.dcutr.both import BothOpeners
from punchbridge.behaviours.dcutr.budget import Budget
from punchbridge.behaviours.dcutr.candidates import Candidates
from punchbridge.behaviours.dcutr.exchange import Parts
from punchbridge.behaviours.dcutr.explain import note
from punchbridge.behaviours.dcutr.kept import KeptSockets
from punchbridge.behaviours.dcutr.opener import OpenerRun
from punchbridge.behaviours.dcutr.quic import QuicOpener
from punchbridge.behaviours.dcutr.record import Active, PeerPunch, Records
from punchbridge.behaviours.dcutr.tcp import TcpOpener
from punchbridge.behaviours.nat.observer import SecondObserver
from punchbridge.behaviours.nat.other import OtherTransport
from punchbridge.config import Punch
from punchbridge.errors import DirectRequired
from punchbridge.events import Event, Identified, ObservedAddress, P2pFallback, P2pUpgrade
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.nat import endpoint_key
from punchbridge.reach.punching import Punching, PunchOutcome, PunchRefusal, Standing, Start
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection, Stream
from punchbridge.verdict import Code, Verdict
from punchbridge.wire.dcutr import PROTOCOL

__all__ = ["Dcutr"]


class Dcutr:
    """The puncher of a node: start `run` once; ask `last_outcome` and `wait_direct`."""

    def __init__(self, swarm: Swarm, punch: Punch) -> None:
        self._swarm = swarm
        self._punch = punch
        self._limits = limits = swarm.config.limits.punch
        self._rng = random.Random()  # for pauses, not for secrets
        self._records = Records(self._punching, limits.records)
        self._nursery: trio.Nursery
        self._observer = SecondObserver(swarm)
        self._other = OtherTransport(swarm)
        self.candidates = Candidates(swarm)
        """What is offered to peers."""
        self.kept = KeptSockets(swarm)
        """What stays open between two attempts."""
        budget = Budget(self.candidates, limits, punch.attempt_timeout)
        self._tcp = TcpOpener(swarm, self.kept, self._records, budget, punch, self._rng)
        self._direct = BothOpeners(self._tcp, QuicOpener(swarm, self._records, budget, punch, self._rng))
        observers = self._observer, self._other
        self._parts = Parts(swarm, punch, limits, self.candidates, self._direct, *observers, self._rng)
        self._addresses = frozenset(swarm.observed.addresses(chosen=True))
        self._stopped = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; then every punch, socket and handler of it has ended."""
        async with trio.open_nursery() as nursery:
            self._nursery = self._observer.nursery = self._other.nursery = nursery
            self.kept.nursery = self._tcp.nursery = self._direct.nursery = nursery
            total, per_peer = self._limits.streams, self._limits.streams_per_peer
            await self._swarm.handle(PROTOCOL, self._serve, max_streams=total, max_per_peer=per_peer)
            leave = self._swarm.watchers.add(self)
            unsubscribe = self._swarm.events.subscribe(self._on_event)
            unfollow = self._swarm.gater.follow(self._access_changed)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._stopped = True
                leave()
                unsubscribe()
                unfollow()
                self.kept.stop()
                # Answers run in the swarm's tasks, and they start tasks in this nursery until they have ended.
                active = [record.active for record in self._records if record.active is not None]
                for one in active:
                    one.scope.cancel()
                with trio.CancelScope(shield=True):
                    for one in active:
                        await one.done.wait()

    def _punching(self, peer: PeerId) -> Punching:
        return Punching(self._punch, self._limits, gives_way=self._swarm.peer.to_bytes() < peer.to_bytes())

    # --- questions ----------------------------------------------------------------------------------------

    def last_outcome(self, peer: PeerId) -> PunchOutcome | None:
        """How the last attempt with a peer ended; None when there was none."""
        record = self._records.find(peer)
        return None if record is None else record.punching.last

    def active(self, peer: PeerId) -> bool:
        """True while a punch with the peer is under way."""
        record = self._records.find(peer)
        return record is not None and record.active is not None

    def watched(self, peer: PeerId) -> bool:
        """True while the peer has a circuit to us over which a punch may be opened, now or after a pause."""
        record = self._records.find(peer)
        return record is not None and record.driven

    def retry_now(self, peer: PeerId) -> None:
        """Ends the pause after a failed run with the peer: the next one begins at once if there is a circuit."""
        record = self._records.find(peer)
        if record is not None:
            record.punching.release()
            record.changed.notify()

    def network_changed(self) -> None:
        """The addresses of this machine are others: closes the dials that wait for a next attempt, and ends the pauses
        after failed runs, whose verdicts were about another place. An attempt under way goes on; the next one offers
        the new addresses."""
        self.kept.network_changed()
        self._addresses = frozenset()
        self._release_all()

    def cancel(self, peer: PeerId) -> None:
        """Cancels the punch with the peer that is under way, if there is one. It ends as CANCELLED, or as a success
        when its connection stands already."""
        record = self._records.find(peer)
        if record is not None and record.active is not None:
            record.active.scope.cancel()

    async def wait_idle(self, peer: PeerId) -> None:
        """Waits until no punch with the peer is under way."""
        record = self._records.find(peer)
        while record is not None and record.active is not None:
            await record.active.done.wait()

    def verdict(self, peer: PeerId, since: PunchOutcome | None = None) -> Verdict:
        """Why no direct connection to the peer stands: the verdict of the last attempt; TIMEOUT when none has ended.

        since: an outcome from `last_outcome`; the attempts up to that one do not count.
        """
        outcome = self.last_outcome(peer)
        if outcome is None or outcome.verdict is None or outcome is since:
            return Verdict(Code.TIMEOUT)
        return outcome.verdict

    async def wait_direct(self, peer: PeerId) -> Connection:
        """Waits for a direct connection to the peer.

        Raises DirectRequired, with the verdict, once a whole run of attempts has failed that was under way at the call
        or began after it. A run that had failed before answers only when its verdict is still true: the circuit is the
        one that the run had, and the next run begins after the caller's deadline. The caller sets the deadline;
        cancelling leaves nothing behind.
        """
        record = self._records.of(peer)
        before = record.punching.last
        record.waiting += 1
        try:
            while True:
                number = record.changed.number
                best = self._swarm.best(peer)
                if best is not None and best.path == "direct":
                    return best
                circuit = max((one.id for one in self._swarm.connections(peer) if one.path == "relay"), default=None)
                verdict = record.punching.answer(before, circuit, trio.current_effective_deadline())
                if verdict is not None:
                    raise DirectRequired(f"no direct connection to {peer_text(peer)}", verdict)
                await record.changed.beyond(number)
        finally:
            record.waiting -= 1

    # --- news ---------------------------------------------------------------------------------------------

    def on_connected(self, connection: Connection) -> None:
        """The swarm has a connection more."""
        if connection.path == "relay":
            record = self._records.of(connection.peer)
            record.circuits.add(connection.id)
            if connection.inbound:
                self._follow(record)
            return
        found = self._records.find(connection.peer)
        if found is not None:
            self._note_source(found, connection)
        if found is not None and not found.takes(connection):
            self._direct_opened(found, connection)

    def _note_source(self, record: PeerPunch, connection: Connection) -> None:
        endpoint = endpoint_key(connection.remote)
        if endpoint is not None and len(record.seen) < self._limits.seen_addresses:
            record.seen.add(endpoint.host)

    def _follow(self, record: PeerPunch) -> None:
        """Punching with a peer that has a circuit to us begins when it may; a stranger's circuit is left alone."""
        if not record.driven and self._standing(record.peer).inbound is not None:
            record.driven = True
            self._nursery.start_soon(self._drive, record)

    def _access_changed(self) -> None:
        """The lists are others: whoever is admitted now is punched to, whoever is not any more is let be."""
        for record in tuple(self._records):
            record.changed.notify()
            self._follow(record)

    def on_disconnected(self, connection: Connection) -> None:
        """The swarm has a connection less."""
        record = self._records.find(connection.peer)
        if record is None:
            return
        record.circuits.discard(connection.id)
        record.punching.circuit_closed(connection.id)
        if record.direct == connection.id:
            other = self._direct_to(record.peer)
            record.direct = None if other is None else other.id
            if other is None:
                self._nursery.start_soon(self._fall_back, record.peer)
        record.changed.notify()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Identified):
            connection = self._swarm.connection(event.connection)
            if connection is not None:
                self._other.identified(connection)
            if connection is not None and connection.path == "relay" and PROTOCOL in event.protocols:
                record = self._records.of(connection.peer)
                record.punching.supported()
                record.changed.notify()
        elif isinstance(event, ObservedAddress):
            self.candidates.observed.notify()
            self._observed()

    def _observed(self) -> None:
        """An address of ours that nobody had seen before makes another run worth while with every peer."""
        addresses = frozenset(self._swarm.observed.addresses(chosen=True))
        if addresses - self._addresses:
            self._release_all()
        self._addresses = addresses

    def _release_all(self) -> None:
        for record in self._records:
            record.punching.release()
            record.changed.notify()

    def _direct_opened(self, record: PeerPunch, connection: Connection) -> None:
        """A direct connection that no punch of ours has made."""
        if record.active is not None:
            record.active.direct = connection
            record.active.scope.cancel()
            return
        self.kept.close(record.peer)
        if any(one.path == "relay" and not one.closed.is_set() for one in self._swarm.connections(record.peer)):
            self._upgraded(record, connection, 0)
        record.changed.notify()

    async def _fall_back(self, peer: PeerId) -> None:
        """Tells that the relay carries the flows again; not when the peer went away altogether."""
        await trio.sleep(self._limits.settle)
        relayed = any(one.path == "relay" and not one.closed.is_set() for one in self._swarm.connections(peer))
        if relayed and self._direct_to(peer) is None:
            self._swarm.events.emit(P2pFallback(peer=peer_text(peer), verdict=Verdict(Code.DIRECT_LOST)))

    def _upgraded(self, record: PeerPunch, connection: Connection, attempt: int) -> None:
        if record.direct is not None or connection.closed.is_set():
            return
        record.direct = connection.id
        peer, local, remote = peer_text(connection.peer), str(connection.local), str(connection.remote)
        self._swarm.events.emit(
            P2pUpgrade(peer=peer, local=local, remote=remote, attempt=attempt, transport=connection.transport)
        )

    def _direct_to(self, peer: PeerId) -> Connection | None:
        return next((c for c in self._swarm.connections(peer) if c.path == "direct" and not c.closed.is_set()), None)

    def _standing(self, peer: PeerId) -> Standing:
        connections = self._swarm.connections(peer)
        known = self._swarm.gater.known
        circuits = (
            one.id for one in connections if one.path == "relay" and one.inbound and not one.closing and known(one)
        )
        return Standing(max(circuits, default=None), direct=self._direct_to(peer) is not None)

    def _jitter(self) -> float:
        return self._rng.uniform(self._punch.pause_least, self._punch.pause_most)

    # --- the opening side ---------------------------------------------------------------------------------

    async def _drive(self, record: PeerPunch) -> None:
        """Follows the decisions while the peer has a circuit to us."""
        try:
            while True:
                number = record.changed.number
                step = record.punching.decide(self._standing(record.peer), trio.current_time(), self._jitter())
                if isinstance(step, Start):
                    await self._open(record, step)
                    continue
                if step.reason == "NO_CIRCUIT":
                    return
                until = trio.current_time() + 3600.0 if step.until is None else step.until
                with trio.move_on_at(until):
                    await record.changed.beyond(number)
        finally:
            record.driven = False

    async def _open(self, record: PeerPunch, step: Start) -> None:
        """One run."""
        circuit = self._swarm.connection(step.circuit)
        assert circuit is not None  # it stood when the step was decided, and no task has run since
        run = record.punching.begin()
        active = record.active = Active(run, record.dials_of(run.id))
        outcome: PunchOutcome | None = None
        began = trio.current_time()
        try:
            with active.scope:
                outcome = await OpenerRun(self._parts, self._direct, record, circuit, step.pause).run()
        finally:
            self._ended(record, active, outcome or self._interrupted(record, active, began), step.pause)

    # --- the answering side -------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        circuit = stream.connection
        if self._stopped or circuit.path != "relay" or circuit.inbound:
            stream.reset()  # D13: only on a relayed connection that we dialled
            return
        record = self._records.of(circuit.peer)
        exchange = record.punching.admit(circuit.id, trio.current_time())
        if isinstance(exchange, PunchRefusal):
            stream.reset()
            return
        before, active = record.active, Active(exchange.run, record.dials_of(exchange.run.id))
        record.active = active
        outcome: PunchOutcome | None = None
        began = trio.current_time()
        try:
            with active.scope:
                if before is not None:
                    before.overtaken = True
                    before.scope.cancel()
                    await before.done.wait()
                outcome = await answer(self._parts, stream, exchange, active)
        finally:
            if outcome is None:
                stream.reset()
                outcome = self._interrupted(record, active, began)
            if circuit.closed.is_set():
                record.punching.circuit_closed(circuit.id)
            self._ended(record, active, outcome, exchange.pause)

    # --- how it ended -------------------------------------------------------------------------------------

    def _interrupted(self, record: PeerPunch, active: Active, began: float) -> PunchOutcome | None:
        """The outcome of a punch that was cancelled: a success when a direct connection stands all the same."""
        attempt, run = active.attempt, active.run
        if attempt is not None and attempt.won is not None:
            return succeeded(self._swarm, attempt, attempt.won)
        if active.direct is not None:
            plain = Attempt(record.peer, run.side, 0, began)
            return succeeded(self._swarm, plain, Won(active.direct, "dial", active.direct.rtt))
        gave_way = active.overtaken and run.side == "initiator"
        if attempt is None or (gave_way and not attempt.told):
            return None
        overtaken = active.overtaken and run.side == "responder"
        code = note(attempt) if overtaken else Code.CANCELLED
        return failed(self._swarm, attempt, code, final=False)

    def _ended(self, record: PeerPunch, active: Active, outcome: PunchOutcome | None, pause: float) -> None:
        """Remembers an outcome, and tells the path events that follow from it. `pause`: until the next run, in s."""
        if record.active is active:
            record.active = None
        active.done.set()
        after = record.punching.end(
            active.run,
            outcome,
            pause,
            trio.current_time(),
            self._jitter(),
            overtaken=active.overtaken,
            direct=self._direct_to(record.peer) is not None,
        )
        if after.dials == "for the next run":
            self.kept.keep_for_next_run(record.peer, after.pause)
        elif after.dials == "close":
            self.kept.close(record.peer)
        if outcome is not None:
            connection = self._swarm.connection(outcome.connection) if outcome.connection is not None else None
            if connection is not None:
                self._upgraded(record, connection, outcome.attempt)
            elif after.fallback and outcome.verdict is not None:
                self._swarm.events.emit(P2pFallback(peer=peer_text(record.peer), verdict=outcome.verdict))
        record.changed.notify()
