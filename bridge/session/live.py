"""A session at work: its machine, its timer, and the carriers it has now; tells the events of its moves.

It acts on what the machine says and wakes who waits. Where carriers come from is the service's and the keeper's
affair; reading and writing is the stream's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import trio

from punchbridge.eventhub import EventHub
from punchbridge.events import Moved, P2pFallback, P2pUpgrade, SessionSwitched
from punchbridge.identity import PeerId, peer_text
from punchbridge.session.carrier import Carrier
from punchbridge.session.silence import SilenceCheck
from punchbridge.sessions import Attached, Ended, Refused, Released, Session, SessionEvent, Starved, Switched
from punchbridge.verdict import Code, Verdict

if TYPE_CHECKING:
    from punchbridge.errors import BridgeError
    from punchbridge.reach.path import PathKeeper, PathPolicy
    from punchbridge.swarm.gater import Audience
    from punchbridge.transport.base import Connection, Stream

__all__ = ["LiveSession"]


class LiveSession:
    """One end of a session while it lives. `peer` is proven on every carrier."""

    def __init__(
        self, machine: Session, peer: PeerId, events: EventHub, nursery: trio.Nursery, silence: SilenceCheck
    ) -> None:
        self.machine = machine
        self.peer = peer
        self.carriers: dict[int, Carrier] = {}
        self.starved = trio.Event()
        """Set when no carrier is left; the keeper puts a fresh one in its place."""
        self.over = trio.Event()
        self.on_change: Callable[[], None] = _nothing
        self.last: Connection | None = None
        """The connection in use, or the last one."""
        self.switches = 0
        """Carriers that were attached so far, however soon they were lost."""
        self.paths: PathKeeper | None = None
        """Where the session may run; None at the accepting end."""
        self.allowed: PathPolicy = "any"
        """Which carriers the accepting end takes."""
        self.audience: Audience | None = None
        """At the accepting end, who may have such a session; the service that it was opened for may have ended."""
        self.changes = EventHub()
        """Gets the SessionSwitched events of this session alone."""
        self.problem: BridgeError | None = None
        """Why the last carrier could not be attached."""
        self.on_readable: Callable[[], None] | None = None
        """Called where a waiting reader would be woken; see InboxStream."""
        self.now = trio.current_time()
        """The clock when something last happened: near enough for what is read because of it."""
        self.reading = trio.lowlevel.ParkingLot()
        self.writing = trio.lowlevel.ParkingLot()
        self.closing = trio.lowlevel.ParkingLot()
        self._attaching = trio.lowlevel.ParkingLot()
        self._events = events
        self._nursery = nursery
        self._silence = silence
        self._probe = machine.limits.probe
        self._timer_slack = machine.limits.ack_delay
        """The timer is not re-armed for less than this: under traffic it runs anyway."""
        self._timer_wake = trio.Event()
        self._armed = 0.0
        self._reason = "MOVED_BY_PEER"
        self.lost: tuple[float, str] | None = None
        """When and why the last carrier was lost, until another one is there."""

    def __repr__(self) -> str:
        return f"<LiveSession {self.machine.id.hex()[:8]} {self.machine.service} {peer_text(self.peer)}>"

    # --- what carries it --------------------------------------------------------------------------------

    @property
    def active(self) -> Carrier | None:
        """The carrier in use, None while there is none."""
        return self.carriers.get(self.machine.active) if self.machine.active is not None else None

    # --- carriers ---------------------------------------------------------------------------------------

    def adopt(self, stream: Stream, generation: int) -> Carrier:
        """Takes a stream as a carrier; its `run` is to be called by whoever opened or accepted it."""
        carrier = self.carriers[generation] = Carrier(stream, self.machine, generation, self.handle)
        return carrier

    async def attached(self, carrier: Carrier, ended: trio.Event) -> bool:
        """Waits for the peer's answer to a carrier; False when it was refused, or ended first."""
        machine = self.machine
        while carrier.generation in self.carriers and machine.over is None and not ended.is_set():
            if machine.active is not None and machine.active >= carrier.generation:
                return True
            await self._attaching.park()
        if carrier.problem is not None:
            self.problem = carrier.problem
        return machine.active is not None and machine.active >= carrier.generation

    def handle(self, events: Sequence[SessionEvent], now: float | None = None) -> None:
        """Acts on what the machine says, wakes who waits, and sends what is to be sent. `now`: the clock, if known."""
        self.now = trio.current_time() if now is None else now
        for event in events:
            if isinstance(event, Switched):
                self._switched(event)
            elif isinstance(event, Released):
                self._released(event)
            elif isinstance(event, Refused):
                self._refused(event)
            elif isinstance(event, Starved):
                self.lost = (trio.current_time(), event.reason)
                self.starved.set()
                self.on_change()
            elif isinstance(event, Attached):
                self.on_change()
            elif isinstance(event, Ended):
                self._ended()
        self._wake()
        self.flush(self.now)

    def _switched(self, event: Switched) -> None:
        before, lost = self.last, self.lost
        self.switches += 1
        connection = self.last = self.carriers[event.to].connection
        reason = "OPENED" if before is None else self._reason if lost is None else lost[1]
        self.lost, self._reason = None, "MOVED_BY_PEER"
        switched = SessionSwitched(
            session=self.machine.id.hex()[:8],
            peer=peer_text(self.peer),
            from_="none" if before is None else before.path,
            to=connection.path,
            reason=reason,
            planned=lost is None,
            gap_ms=0.0 if lost is None else round(1000 * (trio.current_time() - lost[0]), 1),
            replayed=event.replayed,
            rtt_before_ms=None if before is None else milliseconds(before.rtt),
            rtt_after_ms=milliseconds(connection.rtt),
            from_transport=None if before is None else before.transport,
            to_transport=connection.transport,
        )
        self._events.emit(switched)
        self.changes.emit(switched)
        news = _path_news(switched, connection)
        if news is not None:
            self._events.emit(news)
        if lost is None and before is not None and (before.path, connection.path) == ("direct", "relay"):
            self._nursery.start_soon(self._silence.watch, before)

    def moving(self, reason: str) -> None:
        """Why the next switch is made, for its event."""
        self._reason = reason

    def _released(self, event: Released) -> None:
        carrier = self.carriers.pop(event.generation, None)
        if carrier is None:
            return
        if event.reason == "DRAINED":
            self._nursery.start_soon(self._leave, carrier)
            return
        carrier.drop()
        connection = carrier.connection
        if event.reason == "SILENT":
            if connection.bytes_received <= carrier.heard_bytes and not connection.follows:
                # Nothing came on the whole connection either: it is dead, and nobody may be sent over it again. One
                # that follows may be doing so now: it is closed if it does not answer the question below.
                connection.abort("SILENT")
            self._nursery.start_soon(self._silence.ask, self.peer)
        elif event.reason == "REPLACED":
            # The peer gave the connection up. If it is dead, it is closed now and not at the keepalive's leisure.
            self._nursery.start_soon(self._silence.verify, connection)

    def _refused(self, event: Refused) -> None:
        # Not left to the peer, which may never end the stream: an attach is being waited for.
        carrier = self.carriers.pop(event.generation, None)
        if carrier is not None:
            carrier.drop()

    async def _leave(self, carrier: Carrier) -> None:
        with trio.move_on_after(self.machine.limits.linger):
            await carrier.leave()
        carrier.drop()

    def forget(self, carrier: Carrier) -> None:
        """The carrier's stream has ended."""
        if self.carriers.get(carrier.generation) is carrier:
            del self.carriers[carrier.generation]
        self.handle(self.machine.lost(carrier.generation, "CLOSED", trio.current_time()))

    def _ended(self) -> None:
        over = self.machine.over
        for carrier in list(self.carriers.values()):
            carrier.flush(trio.current_time())
            if over is not None and over.code in ("DONE", "RESET", "STALLED"):
                self._nursery.start_soon(self._leave, carrier)
            else:
                carrier.drop()
        self.over.set()
        self.starved.set()
        self._timer_wake.set()
        self.on_change()

    # --- waking and time --------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Sends what is to be sent on all carriers, and brings the timer forward where needed."""
        wants = self.machine.wants_output
        for generation, carrier in tuple(self.carriers.items()):
            if wants(generation, now):
                carrier.flush(now)
        ahead = self._armed - now
        if ahead > self._timer_slack:
            # All of the machine's times while there is little traffic; an acknowledgement is what is due soonest.
            at = self._next(now) if ahead > self._probe else self.machine.incoming.ack_due
            if at is not None and at <= now and self._blocked:
                at = None  # the carrier could not send it just now, and sends it once it takes bytes again
            if at is not None and at < self._armed - self._timer_slack:
                self._timer_wake.set()

    def _wake(self) -> None:
        machine = self.machine
        for parked in (self._attaching, self.closing):
            if parked:
                parked.unpark_all()
        if machine.incoming.readable or machine.over is not None:
            if self.on_readable is not None:
                self.on_readable()
            elif self.reading:
                self.reading.unpark_all()
        if self.writing and (machine.outgoing.room or machine.over is not None):
            self.writing.unpark_all()

    @property
    def _blocked(self) -> bool:
        active = self.active
        return active is not None and active.blocked

    def _next(self, now: float) -> float | None:
        return self.machine.timer(blocked_at=now if self._blocked else None)

    async def run_timer(self) -> None:
        """The machine's clock; ends with the session."""
        while self.machine.over is None:
            now = trio.current_time()
            at = self._next(now)
            self._armed = now + 60.0 if at is None else max(at, now + 0.001)
            with trio.move_on_at(self._armed):
                await self._timer_wake.wait()
            self._timer_wake = trio.Event()
            if trio.current_time() > self._armed + self._timer_slack:
                # Held up: what has come meanwhile is read first, and not taken for silence.
                for _ in range(2):
                    await trio.lowlevel.checkpoint()
            self.handle(self.machine.tick(trio.current_time()))


def milliseconds(seconds: float | None) -> float | None:
    """As events tell times; None where nothing was measured."""
    return None if seconds is None else round(1000 * seconds, 1)


def _nothing() -> None:
    """Nobody listens yet."""


def _path_news(switched: SessionSwitched, connection: Connection) -> P2pUpgrade | P2pFallback | None:
    """The session's part in the peer's way to direct, or back to the relay; None when its path stays of one kind."""
    if switched.from_ not in ("relay", "direct") or switched.from_ == switched.to:
        return None
    moved = {item.name: getattr(switched, item.name) for item in fields(Moved)}
    if switched.to == "direct":
        local, remote = str(connection.local), str(connection.remote)
        return P2pUpgrade(peer=switched.peer, local=local, remote=remote, transport=connection.transport, **moved)
    return P2pFallback(peer=switched.peer, verdict=Verdict(Code.DIRECT_LOST), **moved)
