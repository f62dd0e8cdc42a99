"""The session machine as a model: two ends, carriers that die on one side first, and a shell that only reacts.

After any history, once the network is whole again and the shell has done no more than `Starved`, `timer` and
`wants_output` ask for, every byte is at the other end, once and in order; after a reset, or a time without a carrier
that was too long, nothing but a beginning of it is, and both ends know that it is over.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from punchbridge.config import SessionLimits
from punchbridge.sessions import Attach, Ended, Refused, Released, Session, SessionRefusal
from punchbridge.sessions.frames import FrameReader, Kind, refuse

LIMITS = SessionLimits()

pytestmark = pytest.mark.timeout(300)
"""All examples together take 10 s of a processor, and a busy machine gives a small part of one."""

ID = b"0123456789abcdef"
ENDS = ("dialler", "acceptor")
SETTLE_SECONDS = 10.0
"""Enough for anything, once the network is whole."""
SLOW = 0.5
"""Seconds; after longer round trips a silence is noticed later than that, so the ends are told of it."""
OTHER = {"dialler": "acceptor", "acceptor": "dialler"}


class Wire:
    """One carrier: what is on its way in each direction, and which ends know that it is dead."""

    def __init__(self) -> None:
        self.way = {who: bytearray() for who in ENDS}
        self.closed = dict.fromkeys(ENDS, False)
        self.cut = False
        self.silent = False
        self.opening = bytearray()
        self.opened = False


class Sessions(RuleBasedStateMachine):
    """Rules do what applications, networks and hostile peers do; `whole` is the shell, and the proof."""

    @initialize()
    def begin(self) -> None:
        self.now = 100.0
        self.ends = {
            "dialler": Session(ID, "echo", dialling=True, now=self.now),
            # One that carried nothing yet would be given up sooner, with nothing lost that was ever there.
            "acceptor": Session(ID, "echo", dialling=False, now=self.now, limits=SessionLimits(mute_timeout=30.0)),
        }
        self.wires: dict[int, Wire] = {}
        self.sent = {who: bytearray() for who in ENDS}
        self.got = {who: bytearray() for who in ENDS}
        self.counter = 0
        self.failed = False
        """An application has reset the session, or it has expired."""
        self._attach()

    # --- the shell ------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        generation = self.ends["dialler"].attach(self.now)
        self.wires[generation] = Wire()

    def _note(self, who: str, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, Ended):
                self._ended(who, event)
            elif isinstance(event, Refused):
                self._close(who, event.generation)
                known = (
                    SessionRefusal.STALE_GENERATION
                    if self.ends["acceptor"].over is None
                    else SessionRefusal.UNKNOWN_SESSION
                )
                assert event.refusal in (known, SessionRefusal.STALE_GENERATION), event
            elif isinstance(event, Released):
                assert not event.reason.startswith("PROTOCOL"), event
                self._close(who, event.generation, kept=event.reason == "DRAINED")

    def _ended(self, who: str, event: Ended) -> None:
        other = self.ends[OTHER[who]].over
        if not self.failed and event.code != "DONE":
            # Its last acknowledgement was lost with a carrier, and the other end, which has everything, is gone.
            assert other == Ended("DONE"), event
            assert event.code == ("UNKNOWN_SESSION" if who == "dialler" else "EXPIRED"), event
        for generation in self.ends[who].carriers:
            self._flush(who, generation)
            self._close(who, generation, kept=event.code in ("DONE", "RESET"))

    def _close(self, who: str, generation: int, *, kept: bool = False) -> None:
        """One end lets a carrier go; the other learns of it behind what is still on its way (`kept`), or at once."""
        wire = self.wires[generation]
        wire.closed[who] = True
        if not kept:
            wire.cut = True

    def _learn(self, who: str, generation: int) -> None:
        """This end sees the carrier's end."""
        wire = self.wires[generation]
        if not wire.closed[who]:
            wire.closed[who] = True
            self._note(who, self.ends[who].lost(generation, "CUT", self.now))

    def _flush(self, who: str, generation: int, room: int | None = None) -> None:
        wire, end = self.wires[generation], self.ends[who]
        if wire.closed[who] or not end.wants_output(generation, self.now):
            return
        for write in end.output(generation, 1 << 18, self.now, room=room):
            if not wire.cut:
                wire.way[who] += b"".join(write)
        self._note(who, end.after_output(generation))

    def _deliver(self, sender: str, generation: int, most: int) -> bool:
        wire, receiver = self.wires[generation], OTHER[sender]
        queue = wire.way[sender]
        if wire.silent:
            return False
        if not queue:
            ended = (wire.cut or wire.closed[sender]) and not wire.closed[receiver]
            if ended:
                self._learn(receiver, generation)
            return ended
        data = bytes(queue[:most])
        del queue[:most]
        if wire.closed[receiver]:
            return True
        if receiver == "acceptor" and not wire.opened:
            data = self._open(wire, generation, data)
        if data:
            self._note(receiver, self.ends[receiver].received(generation, data, self.now))
        return True

    def _open(self, wire: Wire, generation: int, data: bytes) -> bytes:
        wire.opening += data
        frames = FrameReader().feed(bytes(wire.opening))
        if not frames:
            return b""
        kind, value, payload = frames[0]
        assert kind is Kind.ATTACH
        wire.opened = True
        refusal, events = self.ends["acceptor"].attached_by(Attach.decode(value, bytes(payload)), self.now)
        if refusal is not None:
            # A carrier that was overtaken by a later one; nothing else of a session that lives may be refused.
            assert refusal is SessionRefusal.STALE_GENERATION or self.ends["acceptor"].over is not None, refusal
            wire.way["acceptor"] += refuse(refusal, "late")
            wire.closed["acceptor"] = True
            return b""
        self._note("acceptor", events)
        return bytes(wire.opening[13 + len(payload) :])

    def _read(self, who: str) -> None:
        while pieces := self.ends[who].read(1 << 20, self.now):
            self.got[who] += b"".join(pieces)

    # --- rules ----------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from(ENDS), size=st.sampled_from((1, 9, 500, 30_000, 200_000)))
    def write(self, who: str, size: int) -> None:
        if self.ends[who].over is not None:
            return
        self.counter += 1
        data = self.counter.to_bytes(4, "big") * (size // 4 + 1)
        taken = self.ends[who].write(data, self.now)
        self.sent[who] += data[:taken]

    @rule(who=st.sampled_from(ENDS))
    def read(self, who: str) -> None:
        self._read(who)

    @precondition(lambda self: self.wires)
    @rule(
        data=st.data(),
        who=st.sampled_from(ENDS),
        most=st.sampled_from((1, 12, 14, 700, 1 << 20)),
        flush=st.booleans(),
        room=st.sampled_from((None, None, None, 0, 1, 700)),
    )
    def move(self, data: st.DataObject, who: str, most: int, flush: bool, room: int | None) -> None:
        """Any carrier's bytes go on for a while, whatever the other carriers do: delay and overtaking.

        room: what a relay's cap leaves.
        """
        generation = data.draw(st.sampled_from(sorted(self.wires)[-4:]))
        if flush:
            self._flush(who, generation, room)
        self._deliver(who, generation, most)

    @precondition(lambda self: self.wires)
    @rule(data=st.data(), turns=st.integers(1, 4))
    def carry(self, data: st.DataObject, turns: int) -> None:
        """One carrier is quick for a while: whole turns of it, while what the others hold is on its way."""
        generation = data.draw(st.sampled_from(sorted(self.wires)[-4:]))
        for _ in range(turns):
            for who in ENDS:
                self._flush(who, generation)
                self._deliver(who, generation, 1 << 20)

    @precondition(lambda self: not self.ends["dialler"].crowded and self.ends["dialler"].over is None)
    @rule(
        stuck=st.sampled_from(ENDS),
        wait=st.sampled_from((0.0, 0.03)),
        turns=st.integers(1, 2),
        writer=st.sampled_from(ENDS),
        rest=st.booleans(),
    )
    def overtake(self, stuck: str, wait: float, turns: int, writer: str, rest: bool) -> None:
        """A move during which nothing that one end sends on the old carrier arrives; then the old one dies."""
        if self.ends["dialler"].active is None:
            self._attach()
            for who in ENDS:
                self._flush(who, max(self.wires))
                self._deliver(who, max(self.wires), 1 << 20)
        if self.ends["dialler"].crowded or self.ends["dialler"].over is not None:
            return
        old = self.ends["dialler"].active
        self._attach()
        new = self.ends["dialler"].generation
        for turn in range(turns + 1):
            if turn == 0 or writer == stuck:
                self.write(writer, 9)
            if old is not None:
                for who in ENDS:
                    self._flush(who, old)
                self._deliver(OTHER[stuck], old, 1 << 20)
            for who in ENDS:
                self._read(who)
            self.now += wait
            if old is not None:
                self._flush(stuck, old)
            for who in ENDS if turn else ():
                self._flush(who, new)
                self._deliver(who, new, 1 << 20)
        if old is not None:
            self.wires[old].cut = True
            for who in ENDS:
                self.wires[old].way[who].clear()
                self._learn(who, old)
        for who in ENDS:
            self._flush(who, new)
        if rest:
            self._rest()

    @precondition(lambda self: self.wires)
    @rule(data=st.data(), first=st.sampled_from((None, *ENDS)), lose=st.sampled_from((0, 1, 13, 1 << 20)))
    def cut(self, data: st.DataObject, first: str | None, lose: int) -> None:
        """A carrier dies at any byte; one end may learn at once, the other when it has read what had come so far."""
        wire_id = data.draw(st.sampled_from(sorted(self.wires)[-4:]))
        wire = self.wires[wire_id]
        wire.cut = True
        for who in ENDS:
            keep = max(0, len(wire.way[who]) - lose)
            del wire.way[who][keep:]
        if first is not None:
            self._learn(first, wire_id)

    @precondition(lambda self: self.wires)
    @rule(data=st.data())
    def darken(self, data: st.DataObject) -> None:
        """A carrier goes silent: neither end is told."""
        self.wires[data.draw(st.sampled_from(sorted(self.wires)[-4:]))].silent = True

    @precondition(lambda self: not self.ends["dialler"].crowded and self.ends["dialler"].over is None)
    @rule()
    def attach(self) -> None:
        self._attach()

    @rule(who=st.sampled_from(ENDS))
    def finish(self, who: str) -> None:
        """Half-close, at any moment of a move; rarely, or there would be little to move."""
        if self.counter > 4:
            self.ends[who].finish()

    @precondition(lambda self: self.counter > 12)
    @rule(who=st.sampled_from(ENDS))
    def reset(self, who: str) -> None:
        self.failed = True
        self._note(who, self.ends[who].reset("given up"))

    @precondition(lambda self: self.counter > 12)
    @rule()
    def expire(self) -> None:
        """No path at all for too long."""
        self.failed = True
        for generation, wire in self.wires.items():
            wire.cut = True
            for who in ENDS:
                wire.way[who].clear()
                self._learn(who, generation)
        self.now += LIMITS.resume_timeout
        for who in ENDS:
            self._note(who, self.ends[who].tick(self.now))
            assert self.ends[who].over is not None

    @precondition(lambda self: self._patient())
    @rule(who=st.sampled_from(ENDS), seconds=st.sampled_from((0.001, 0.03, 0.4, 1.1)))
    def tick(self, who: str, seconds: float) -> None:
        self.now += seconds
        self._note(who, self.ends[who].tick(self.now))

    # --- what always holds ------------------------------------------------------------------------------------

    @invariant()
    def bounded_and_right(self) -> None:
        if not hasattr(self, "ends"):
            return
        for who in ENDS:
            end = self.ends[who]
            assert self.sent[OTHER[who]].startswith(self.got[who])
            assert end.outgoing.written - end.outgoing.acked <= LIMITS.replay_most
            assert end.incoming.received - end.incoming.read_to <= LIMITS.window_most
            assert len(end.incoming._ahead) <= LIMITS.ahead
            assert len(end.carriers) <= LIMITS.carriers

    def _rest(self) -> None:
        """Without an end of either direction, whose acknowledgement would repeat one that was lost."""
        self._settle(quiet=True)
        if any(end.over is not None for end in self.ends.values()):
            return
        for who in ENDS:
            self._read(who)
            assert self.got[who] == self.sent[OTHER[who]], f"{who} got {len(self.got[who])}"
            outgoing = self.ends[who].outgoing
            assert outgoing.acked == outgoing.written, f"{who} has {outgoing.acked} acknowledged"

    def teardown(self) -> None:
        if not hasattr(self, "ends"):
            return
        self._rest()
        for who in ENDS:
            self.ends[who].finish()
        self._settle()
        for who in ENDS:
            self._read(who)
            if not self.failed:
                assert self.got[who] == self.sent[OTHER[who]], f"{who} got {len(self.got[who])}"
        codes = {who: end.over.code for who, end in self.ends.items() if end.over is not None}
        if self.failed:
            # Told by the other end, or found out when nobody comes, or when nobody knows it any more.
            self.now += LIMITS.resume_timeout
            self._note("acceptor", self.ends["acceptor"].tick(self.now))
            assert all(end.over is not None for end in self.ends.values())
        else:
            assert codes["dialler"] in ("DONE", "UNKNOWN_SESSION")
            assert codes.get("acceptor", "DONE") in ("DONE", "EXPIRED")
            assert "DONE" in codes.values()

    def _patient(self) -> bool:
        """No end has been without a carrier for so long that it would expire, rightly, before `_settle` is over."""
        starved = (end._starved_at for end in self.ends.values() if end._starved_at is not None)
        return all(self.now - since < LIMITS.resume_timeout - 2 * SETTLE_SECONDS - 2 for since in starved)

    def _settle(self, *, quiet: bool = False) -> None:
        """The network is whole for new carriers; those cut or silent stay so. quiet: until nothing is owed, too."""
        until = self.now + SETTLE_SECONDS
        dialler = self.ends["dialler"]
        if max(end.round_trip for end in self.ends.values()) > SLOW:
            for generation in [one for one, wire in self.wires.items() if wire.silent]:
                for who in ENDS:
                    self._learn(who, generation)
        while self.now < until and any(end.over is None for end in self.ends.values()):
            moved = False
            for who in ENDS:
                for generation in list(self.wires):
                    self._flush(who, generation)
                    moved |= self._deliver(who, generation, 1 << 20)
                if self.ends[who].over is None:
                    self._read(who)
            pending = any(g > (dialler.active or 0) for g in dialler.carriers)
            if dialler.over is None and dialler.active is None and not pending:
                self._attach()
                moved = True
            if not moved and quiet and not any(end.outgoing.written > end.outgoing.acked for end in self.ends.values()):
                return
            if not moved:
                self._pass_time()

    def _pass_time(self) -> None:
        """To the next moment that an end has named: what waits without one would wait for ever."""
        due = [at for end in self.ends.values() if (at := end.timer()) is not None]
        self.now = max(self.now, min(due, default=self.now)) + 0.001
        for who in ENDS:
            if self.ends[who].over is None:
                self._note(who, self.ends[who].tick(self.now))


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
