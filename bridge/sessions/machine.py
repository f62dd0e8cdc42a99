"""One end of a session: which carrier it sends on, what it replays, when it needs another, when it is over.

The I/O shell feeds it bytes of carriers and clock values and takes bytes and events. Carriers are known by their
generation only. The dialling end attaches carriers, the accepting end is attached to (`sessions.frames` has the
exchange). It knows no stream, no peer, no path; whether and where to move is decided elsewhere (`reach.path`).
"""

from __future__ import annotations

import struct

from punchbridge.config import SessionLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.carrier import CarrierState
from punchbridge.sessions.events import Attached, Ended, Refused, Released, SessionEvent, Starved, Switched
from punchbridge.sessions.frames import MAX_PAYLOAD, MAX_REASON, Attach, AttachedFrame, Kind, SessionRefusal, encode
from punchbridge.sessions.incoming import Incoming
from punchbridge.sessions.outgoing import Outgoing
from punchbridge.sessions.progress import Progress
from punchbridge.sessions.pulse import Pulse
from punchbridge.sessions.writes import Write, Writes


class Session:
    """One end. Made by `dial` or `accept`; every method takes the clock in seconds."""

    def __init__(
        self,
        identifier: bytes,
        service: str,
        *,
        dialling: bool,
        now: float,
        limits: SessionLimits | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.id = identifier
        self.service = service
        self.dialling = dialling
        self.limits = limits = SessionLimits() if limits is None else limits
        budget = Budget(limits.budget) if budget is None else budget
        self.outgoing = Outgoing(budget, limits)
        self.incoming = Incoming(budget, limits)
        self.pulse = Pulse(now, limits)
        self._progress = Progress(self.incoming, self.outgoing, now, limits, dialling=dialling)
        self.generation = 0
        self.active: int | None = None
        self.over: Ended | None = None
        self._established = False
        self._carriers: dict[int, CarrierState] = {}
        self._starved_at: float | None = now
        self._floor = 0
        self._resume_on = 0
        """The carrier of the last RESUME until bytes in order, on it or a later one, prove that it arrived; else 0."""

    @property
    def round_trip(self) -> float:
        """Seconds; see `Pulse.round_trip`."""
        return self.pulse.round_trip

    # --- carriers ---------------------------------------------------------------------------------------

    def attach(self, now: float) -> int:
        """Dialling end: begins to attach a carrier and returns its generation. Its bytes wait in `output`."""
        self.generation += 1
        carrier = CarrierState(self.generation, now, now, asked_at=now, told=(self.incoming.have, self.incoming.edge))
        fresh, (have, edge) = not self._established, carrier.told
        service = self.service if fresh else ""
        carrier.control.append(
            Attach(self.id, carrier.generation, have, edge, fresh, self.active or 0, service).encode()
        )
        self._carriers[self.generation] = carrier
        return self.generation

    def attached_by(self, attach: Attach, now: float) -> tuple[SessionRefusal | None, list[SessionEvent]]:
        """Accepting end: a carrier came with this first frame. A refusal leaves everything as it was."""
        if attach.generation <= self.generation:
            return SessionRefusal.STALE_GENERATION, []
        if self.over is not None or attach.session != self.id:
            return SessionRefusal.UNKNOWN_SESSION, []
        if attach.received < self._floor:
            return SessionRefusal.BAD_OFFSET, []
        try:
            self.outgoing.acknowledge(attach.received, attach.edge, now, self.round_trip)
        except ProtocolViolation:
            return SessionRefusal.BAD_OFFSET, []
        self._floor = attach.received
        self.generation = attach.generation
        carrier = CarrierState(attach.generation, now, now, attached=True)
        self._carriers[attach.generation] = carrier
        # Both ends must mean the same one: after an attach whose answer was lost they do not, and all is sent again.
        alive = self.active is not None and self.active == attach.alive
        answer = AttachedFrame(attach.generation, self.incoming.have, self.incoming.edge, alive)
        carrier.control.append(answer.encode())
        self.incoming.acknowledged()
        events = self._activate(carrier, attach.received, alive, now)
        self._established = True
        return None, [Attached(carrier.generation, None), *events, *self._crowded_out(now)]

    def _crowded_out(self, now: float) -> list[SessionEvent]:
        """The oldest makes place: a peer that ends none of them, or has lost some that still look alive here."""
        if len(self._carriers) <= self.limits.carriers:
            return []
        oldest = min(self._carriers)
        return [Released(oldest, "CROWDED_OUT"), *self.lost(oldest, "CROWDED_OUT", now)]

    def lost(self, generation: int, reason: str, now: float) -> list[SessionEvent]:
        """The carrier is gone. Unknown generations are ignored."""
        carrier = self._carriers.pop(generation, None)
        if carrier is None or self.over is not None:
            return []
        if self.active == generation:
            self.active = None
            self._starved_at = now
            return [Starved(reason)]
        active = self._carriers.get(self.active or 0)
        if carrier.attached and not carrier.end_received and active is not None:
            self._ask_again(active)
        return self._left(active, now)

    def _ask_again(self, carrier: CarrierState) -> None:
        """RESUME: bytes were on their way on a carrier that is gone, and the peer takes them for delivered."""
        self._resume_on = carrier.generation
        carrier.control.append(encode(Kind.RESUME, self.incoming.have))

    def _left(self, active: CarrierState | None, now: float) -> list[SessionEvent]:
        """Dialling end: the peer has moved on to a carrier that died before its answer came; this one is of no use."""
        if active is None or not active.end_received or max(self._carriers) > active.generation:
            return []
        return [Released(active.generation, "LEFT"), *self.lost(active.generation, "LEFT", now)]

    def _activate(self, carrier: CarrierState, peer_received: int, alive: bool, now: float) -> list[SessionEvent]:
        events: list[SessionEvent] = []
        before = self.active
        if alive:
            for old in self._carriers.values():
                if old is not carrier and old.attached and not old.end_sent:
                    old.end(self.outgoing.cursor)
            if self._resume_on and not self.incoming.ended:
                # It went out on a carrier that drains now, and that may still die with it.
                self._ask_again(carrier)
        else:
            self._resume_on = 0  # the peer sends everything again that we have not acknowledged
            for generation in [one for one in self._carriers if one < carrier.generation]:
                del self._carriers[generation]
                events.append(Released(generation, "REPLACED"))
            self.outgoing.rewind(peer_received)
        self.active, self._starved_at = carrier.generation, None
        replay = 0 if alive else self.outgoing.unreceived
        events.append(Switched(before, carrier.generation, replay, now - self.pulse.heard))
        self.pulse.progress = self.pulse.heard = now
        return events

    # --- bytes of carriers ------------------------------------------------------------------------------

    def received(self, generation: int, data: bytes | bytearray | memoryview, now: float) -> list[SessionEvent]:
        """Takes bytes of a carrier. A carrier that breaks a rule is released and counts as lost; the session lives."""
        carrier = self._carriers.get(generation)
        if carrier is None or self.over is not None:
            return []
        carrier.heard = self.pulse.heard = now
        events: list[SessionEvent] = []
        try:
            for kind, value, payload in carrier.reader.feed(data):
                events += self._frame(carrier, kind, value, payload, now)
                if self.over is not None or generation not in self._carriers:
                    return events
        except (ProtocolViolation, struct.error) as problem:
            return [*events, Released(generation, f"PROTOCOL: {problem}"), *self.lost(generation, "PROTOCOL", now)]
        return events + self._finished()

    def _frame(self, carrier: CarrierState, kind: Kind, value: int, body: memoryview, now: float) -> list[SessionEvent]:
        if not carrier.attached:
            return self._answer(carrier, kind, value, bytes(body), now)
        if kind is Kind.DATA:
            self.incoming.data(value, body)
            if 0 < self._resume_on <= carrier.generation and value <= self.incoming.received:
                self._resume_on = 0  # a sender that has not gone back is ahead of all that older carriers took
            self.pulse.traffic = now
            if self.incoming.ack_due is None:
                self.incoming.ack_due = now + self.limits.ack_delay
        elif kind is Kind.ACK:
            (edge,) = struct.unpack(">Q", body)
            if value > self.outgoing.acked:
                self.pulse.progress = now
            self.outgoing.acknowledge(value, edge, now, self.round_trip)
        elif kind is Kind.PING:
            if len(carrier.control) < self.limits.pongs:  # a peer that asks on and never reads
                carrier.control.append(encode(Kind.PONG, value))
        elif kind is Kind.PONG:
            if carrier.asked_at is not None and value == carrier.generation:
                if carrier.generation == self.active:
                    self.pulse.measured(now - carrier.asked_at)
                carrier.asked_at = None
                if not self.outgoing.waiting:
                    self._progress.answers += 1
        elif kind is Kind.END:
            carrier.end_received = True
            return self._left(carrier, now) if carrier.generation == self.active else self._drained(carrier)
        elif kind is Kind.FIN:
            self.incoming.finish(value)
            self.incoming.ack_due = now
        elif kind is Kind.RESUME:
            self.outgoing.rewind(value)
        elif kind is Kind.RESET:
            return self._end("RESET", bytes(body[:MAX_REASON]).decode(errors="replace"))
        else:
            raise ProtocolViolation(f"{kind.name} on an attached carrier")
        return []

    def _answer(self, carrier: CarrierState, kind: Kind, value: int, body: bytes, now: float) -> list[SessionEvent]:
        if kind is Kind.REFUSED:
            del self._carriers[carrier.generation]
            return self._refused(carrier.generation, value, body[:MAX_REASON].decode(errors="replace"), now)
        if kind is not Kind.ATTACHED:
            raise ProtocolViolation(f"{kind.name} in answer to an attach")
        answer = AttachedFrame.decode(value, body)
        if answer.generation != carrier.generation:
            raise ProtocolViolation("the answer names another generation")
        if self.active is not None and carrier.generation < self.active:
            del self._carriers[carrier.generation]
            return [Released(carrier.generation, "OVERTAKEN")]
        round_trip = now - carrier.since
        self.pulse.measured(round_trip, fresh=True)
        carrier.attached, carrier.asked_at = True, None
        self._established = True
        self.outgoing.acknowledge(answer.received, answer.edge, now, self.round_trip)
        alive = answer.alive and self.active is not None
        events = self._activate(carrier, answer.received, alive, now)
        if answer.alive and not alive:
            # It died meanwhile, and the peer believes that it drains: what was on its way has to be asked for.
            self._ask_again(carrier)
        if carrier.told != (self.incoming.have, self.incoming.edge):
            # An acknowledgement since the ATTACH went out on a carrier that may die with it, and nothing repeats one.
            self.incoming.ack_due = now
        return [Attached(carrier.generation, round_trip), *events]

    def _refused(self, generation: int, value: int, text: str, now: float) -> list[SessionEvent]:
        told = SessionRefusal(value) if value in list(SessionRefusal) else SessionRefusal.UNKNOWN_SESSION
        events: list[SessionEvent] = [Refused(generation, told, text)]
        if told is SessionRefusal.STALE_GENERATION or (told is SessionRefusal.PATH_NOT_ALLOWED and self._established):
            return [*events, *self._left(self._carriers.get(self.active or 0), now)]
        if told is SessionRefusal.UNKNOWN_SESSION and self._nothing_owed:
            return [*events, *self._end("DONE")]
        # The peer learns it on the carrier that still works, else it would keep the session until it expires.
        self._tell_reset(told.name)
        return [*events, *self._end(told.name, text)]

    def _drained(self, carrier: CarrierState) -> list[SessionEvent]:
        if carrier.end_sent and carrier.end_received and not carrier.control:
            self._carriers.pop(carrier.generation, None)
            return [Released(carrier.generation, "DRAINED")]
        return []

    # --- the application's side -------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview, now: float) -> int:
        """Takes bytes to send; returns how many were taken (0: wait for an acknowledgement)."""
        if not self.outgoing.waiting:
            self.pulse.progress = now
        self.pulse.traffic = now
        return self.outgoing.write(data)

    def read(self, most: int, now: float) -> list[bytes | bytearray | memoryview]:
        """At most `most` bytes in order, in pieces; none when there are none now (`incoming.ended` tells an end)."""
        pieces = self.incoming.read(most)
        if pieces:
            self.incoming.grow(now, self.round_trip)
            if self.incoming.edge - self.incoming.edge_told >= self.incoming.step:
                self.incoming.ack_due = now
        return pieces

    def finish(self) -> None:
        """Half-close: nothing more will be written."""
        self.outgoing.finished = True

    def reset(self, text: str) -> list[SessionEvent]:
        """Ends the session at once; the peer is told on the active carrier, else on the one being attached."""
        self._tell_reset(text)
        return self._end("RESET", text) if self.over is None else []

    def _tell_reset(self, text: str) -> None:
        teller = self.active if self.active is not None else max(self._carriers, default=0)
        if teller in self._carriers:
            self._carriers[teller].control.append(encode(Kind.RESET, 0, text.encode()[:MAX_REASON]))

    def _finished(self) -> list[SessionEvent]:
        if self.outgoing.fin_acked and self.incoming.ended and self.incoming.acked == self.incoming.have:
            return self._end("DONE")
        return []

    @property
    def _nothing_owed(self) -> bool:
        """All bytes of both directions arrived; only the last acknowledgement was lost with its carrier."""
        outgoing = self.outgoing
        return self.incoming.ended and outgoing.finished and outgoing.acked == outgoing.written

    def _end(self, code: str, text: str = "") -> list[SessionEvent]:
        self.over = Ended(code, text)
        return [self.over]

    def give_back(self) -> None:
        """Nobody holds the session any more: what its buffers took of the budget is free. Repeated calls do nothing."""
        self.outgoing.give_back()
        self.incoming.give_back()

    # --- output and time --------------------------------------------------------------------------------

    def output(self, generation: int, most: int, now: float, *, room: int | None = None) -> list[Write]:
        """What to send on a carrier now, at least one frame if there is any, of about `most` bytes together.

        Each write is at most MAX_FRAME bytes in parts. `room`: bytes of data that the carrier may still take (a relay's
        cap); control frames go out all the same.
        """
        carrier = self._carriers.get(generation)
        if carrier is None:
            return []
        writes = Writes(self.outgoing.largest)
        if carrier.control:
            for control in carrier.control:
                writes.add(len(control), control)
            carrier.control = []
        if generation == self.active and self.over is None:
            outgoing, left = self.outgoing, MAX_PAYLOAD if room is None else room
            while writes.size < most and outgoing.pending:
                frame = outgoing.next_frame(left if left < MAX_PAYLOAD else MAX_PAYLOAD)
                if frame is None:
                    break
                size = sum(map(len, frame))
                writes.add(size, *frame)
                if room is not None:
                    left -= size
            if self.incoming.ack_wanted(now, sending=writes.size > 0):
                ack = encode(Kind.ACK, self.incoming.have, struct.pack(">Q", self.incoming.edge))
                writes.add(len(ack), ack)
                self.incoming.acknowledged()
        return writes.packed

    def wants_output(self, generation: int, now: float) -> bool:
        """Whether `output` would give anything."""
        carrier = self._carriers.get(generation)
        if carrier is None:
            return False
        if carrier.control:
            return True
        if generation != self.active or self.over is not None:
            return False
        return self.outgoing.pending or self.incoming.ack_wanted(now, sending=False)

    def after_output(self, generation: int) -> list[SessionEvent]:
        """To be called once what `output` gave was handed to the carrier: a drained one is released, an end noticed."""
        carrier = self._carriers.get(generation)
        events = self._drained(carrier) if carrier is not None and carrier.end_sent else []
        return events if self.over is not None else [*events, *self._finished()]

    def timer(self, *, blocked_at: float | None = None) -> float | None:
        """When `tick` should be called next. `blocked_at`: the clock, while the active carrier takes nothing: what is
        overdue then leaves as soon as it takes bytes again."""
        if self.over is not None:
            return None
        # Without a carrier there is nothing that an acknowledgement could leave on.
        due = None if self.active is None else self.incoming.ack_due
        times = [] if due is None or (blocked_at is not None and due <= blocked_at) else [due]
        times.append(self._progress.due)
        if self._starved_at is not None:
            times.append(self._starved_at + self._progress.patience)
        pulse, active, waiting = self.pulse, self.active, self.outgoing.waiting
        for one in self._carriers.values():
            times.append(pulse.deadline(one, active=one.generation == active, waiting=waiting)[0])
        return min(times)

    def tick(self, now: float) -> list[SessionEvent]:
        """Does what is due. Call it at `timer`, or at any other time."""
        if self.over is not None:
            return []
        if self._starved_at is not None and now >= self._starved_at + self._progress.patience:
            return self._end("EXPIRED", f"no carrier for {self._progress.patience:g} s")
        if now >= self._progress.due and self._progress.stalled(now):
            self._tell_reset("nothing moved")
            return self._end("STALLED", f"nothing moved for {self._progress.timeout:g} s")
        events: list[SessionEvent] = []
        for carrier in list(self._carriers.values()):
            active = carrier.generation == self.active
            due = self.pulse.due(carrier, now, active=active, waiting=self.outgoing.waiting)
            if due == "ping":
                carrier.ask(now)
            elif due == "dead":
                events += [Released(carrier.generation, "SILENT"), *self.lost(carrier.generation, "SILENT", now)]
        return events

    @property
    def carriers(self) -> tuple[int, ...]:
        """Generations of the carriers held now."""
        return tuple(self._carriers)

    @property
    def crowded(self) -> bool:
        """No further carrier may be attached now."""
        return len(self._carriers) >= self.limits.carriers
