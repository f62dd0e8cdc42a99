"""The session machine against a peer, or a user, that would make it keep, forget or change what it must not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from punchbridge.config import SessionLimits
from punchbridge.sessions import Attach, Outgoing, Released, Session, SessionRefusal
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import AttachedFrame, Kind, encode
from tests.support.session_wires import ID, joined, write_all

LIMITS = SessionLimits()


def test_a_peer_that_ends_no_carrier_gets_no_more_of_them() -> None:
    wires = joined()
    write_all(wires, "acceptor", b"x" * 40)
    for generation in range(2, 40):
        alive = generation - 1
        refusal, events = wires.acceptor.attached_by(Attach(ID, generation, 40, 1 << 20, False, alive), wires.now)
        assert refusal is None
        assert len(wires.acceptor.carriers) <= LIMITS.carriers
        if generation > LIMITS.carriers:
            assert Released(generation - LIMITS.carriers, "CROWDED_OUT") in events
        assert wires.acceptor.active == generation


def test_a_refused_attach_leaves_the_window_as_it_was() -> None:
    wires = joined()
    before = wires.acceptor.outgoing.edge
    assert wires.acceptor.attached_by(Attach(ID, 2, 99, 1 << 40, False, 1), wires.now) == (
        SessionRefusal.BAD_OFFSET,
        [],
    )
    assert wires.acceptor.outgoing.edge == before


@pytest.mark.parametrize("sent", [False, True], ids=["waiting", "sent"])
def test_tiny_writes_are_not_kept_one_by_one(sent: bool) -> None:
    outgoing = Outgoing(Budget(LIMITS.budget), LIMITS)
    outgoing.edge = 1 << 30
    while outgoing.write(b"tiny text"):
        if sent:
            outgoing.next_frame()
    assert outgoing.written == LIMITS.replay_least
    assert len(outgoing._sent) + len(outgoing._unsent) <= LIMITS.pieces + 1
    outgoing.rewind(0)
    again = b"".join(b"".join(frame[1:]) for frame in iter(outgoing.next_frame, None))
    assert again == (b"tiny text" * (len(again) // 9 + 1))[: LIMITS.replay_least]


class Besieged(RuleBasedStateMachine):
    """One honest end; all that its carriers bring is what a liar makes up, in the middle of moves and ends."""

    @initialize(dialling=st.booleans())
    def begin(self, dialling: bool) -> None:
        self.now = 100.0
        self.end = Session(ID, "echo", dialling=dialling, now=self.now)
        self.read = 0

    @rule(
        generation=st.integers(0, 12),
        received=st.integers(0, 3000),
        edge=st.sampled_from((0, 100, 1 << 20, (1 << 64) - 1)),
        alive=st.integers(0, 12),
        fresh=st.booleans(),
    )
    def attach(self, generation: int, received: int, edge: int, alive: int, fresh: bool) -> None:
        if self.end.dialling:
            if not self.end.crowded and self.end.over is None:
                self.end.attach(self.now)
            return
        before = (self.end.carriers, self.end.outgoing.edge, self.end.active)
        refusal, events = self.end.attached_by(Attach(ID, generation, received, edge, fresh, alive), self.now)
        if refusal is not None:
            assert (self.end.carriers, self.end.outgoing.edge, self.end.active) == before
            assert not events

    @precondition(lambda self: self.end.carriers)
    @rule(
        which=st.integers(0, 3),
        frames=st.lists(
            st.tuples(
                st.sampled_from(Kind),
                st.integers(0, 3000) | st.sampled_from((LIMITS.window_least - 1, LIMITS.window_least, (1 << 64) - 1)),
                st.sampled_from((0, 1, 8, 13, 1000, 60_000)),
            ),
            max_size=6,
        ),
        answer=st.booleans(),
    )
    def say(self, which: int, frames: list[tuple[Kind, int, int]], answer: bool) -> None:
        generation = self.end.carriers[which % len(self.end.carriers)]
        said = b"".join(encode(kind, value, bytes(size)) for kind, value, size in frames)
        if answer:
            said = AttachedFrame(generation, 0, 1 << 20, which % 2 == 0).encode() + said
        self.end.received(generation, said, self.now)

    @rule(size=st.sampled_from((1, 700, 100_000)))
    def write(self, size: int) -> None:
        self.end.write(bytes(size), self.now)

    @rule(most=st.sampled_from((1, 700, 1 << 20)))
    def take(self, most: int) -> None:
        self.read += sum(map(len, self.end.read(most, self.now)))

    @rule(seconds=st.sampled_from((0.01, 0.5, 3.0)))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.end.tick(self.now)

    @precondition(lambda self: self.end.carriers)
    @rule(which=st.integers(0, 3), flush=st.booleans(), room=st.sampled_from((None, 0, 5)))
    def flush_or_lose(self, which: int, flush: bool, room: int | None) -> None:
        generation = self.end.carriers[which % len(self.end.carriers)]
        if flush:
            self.end.output(generation, 1 << 18, self.now, room=room)
            self.end.after_output(generation)
        else:
            self.end.lost(generation, "CUT", self.now)

    @rule()
    def finish(self) -> None:
        self.end.finish()

    @invariant()
    def keeps_to_its_bounds(self) -> None:
        if not hasattr(self, "end"):
            return
        end, outgoing, incoming = self.end, self.end.outgoing, self.end.incoming
        assert len(end.carriers) <= LIMITS.carriers
        assert end.active is None or end.active in end.carriers or end.over is not None
        assert outgoing.acked <= outgoing.cursor <= outgoing.written
        assert sum(map(len, outgoing._sent)) == outgoing.cursor - outgoing.acked
        assert sum(map(len, outgoing._unsent)) == outgoing.written - outgoing.cursor
        assert self.read == incoming.read_to <= incoming.received <= incoming.edge
        assert sum(map(len, incoming._ahead.values())) <= 2 * incoming.window
        assert all(len(one.control) <= LIMITS.pongs + LIMITS.carriers for one in end._carriers.values())
        assert end.over is not None or end.active is not None or end.timer() is not None


TestBesieged = Besieged.TestCase
TestBesieged.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
