"""The session machine: two ends joined by carriers that die at any byte, are doubled, late, or hostile."""

from __future__ import annotations

import random
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchbridge.config import SessionLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.sessions import Attach, Attached, Ended, Outgoing, Refused, Released, SessionRefusal, Starved, Switched
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import MAX_PAYLOAD, FrameReader, Kind, encode, refuse
from tests.support.session_wires import ID, Wires, joined, write_all

LIMITS = SessionLimits()


def test_bytes_and_ends_arrive_both_ways() -> None:
    wires = joined()
    write_all(wires, "dialler", b"question" * 100_000)
    write_all(wires, "acceptor", b"answer")
    for who in ("dialler", "acceptor"):
        wires.end(who).finish()
    wires.settle()
    assert bytes(wires.got["acceptor"]) == b"question" * 100_000
    assert bytes(wires.got["dialler"]) == b"answer"
    assert wires.dialler.over == wires.acceptor.over == Ended("DONE")


def test_half_close_leaves_the_other_half_open() -> None:
    wires = joined()
    wires.dialler.finish()
    wires.settle()
    assert wires.acceptor.incoming.ended
    write_all(wires, "acceptor", b"late answer")
    assert bytes(wires.got["dialler"]) == b"late answer"
    assert wires.dialler.over is None


def test_planned_switch_replays_nothing_and_drains_the_old_carrier() -> None:
    wires = joined()
    write_all(wires, "dialler", b"a" * 1000)
    wires.dialler.write(b"b" * 1000, wires.now)
    wires.flush("dialler", 1)
    second = wires.attach()
    wires.settle()
    switches = [e for e in wires.events["dialler"] if isinstance(e, Switched)]
    assert switches[-1].from_ == 1
    assert switches[-1].to == second
    assert switches[-1].replayed == 0
    assert wires.dialler.outgoing.replayed == wires.acceptor.outgoing.replayed == 0
    for who in ("dialler", "acceptor"):
        assert Released(1, "DRAINED") in wires.events[who]
        assert wires.end(who).carriers == (second,)
    assert bytes(wires.got["acceptor"]) == b"a" * 1000 + b"b" * 1000


def test_dead_carrier_is_replaced_and_what_was_in_flight_is_sent_again() -> None:
    wires = joined()
    wires.dialler.write(b"lost on the way", wires.now)
    wires.flush("dialler", 1)
    wires.cut(1)
    assert Starved("CUT") in wires.events["dialler"]
    wires.attach()
    wires.settle()
    assert bytes(wires.got["acceptor"]) == b"lost on the way"
    assert wires.dialler.outgoing.replayed == 15


def test_old_carrier_that_dies_while_draining_loses_nothing() -> None:
    wires = joined()
    wires.dialler.write(b"on the old one, ", wires.now)
    wires.flush("dialler", 1)
    second = wires.attach()
    for _ in range(3):
        for who in ("dialler", "acceptor"):
            wires.flush(who, second)
            wires.deliver(who, second)
    wires.dialler.write(b"on the new one", wires.now)
    wires.flush("dialler", second)
    wires.deliver("dialler", second)
    assert wires.acceptor.incoming.gap
    wires.cut(1)
    wires.settle()
    assert bytes(wires.got["acceptor"]) == b"on the old one, on the new one"


def test_lost_last_acknowledgement_is_a_clean_end() -> None:
    wires = joined()
    wires.dialler.finish()
    wires.acceptor.finish()
    wires.flush("acceptor", 1)
    wires.deliver("acceptor", 1)
    wires.flush("dialler", 1)
    wires.deliver("dialler", 1)
    wires.acceptor.output(1, 1 << 20, wires.now)
    wires.cut(1)
    generation = wires.attach()
    wires.dialler.output(generation, 1 << 20, wires.now)
    wires.note("dialler", wires.dialler.received(generation, refuse(SessionRefusal.UNKNOWN_SESSION, "gone"), wires.now))
    assert wires.dialler.over == Ended("DONE")


@pytest.mark.parametrize(
    ("attach", "refusal"),
    [
        (Attach(ID, 1, 0, 100, False, False), SessionRefusal.STALE_GENERATION),
        (Attach(b"f" * 16, 2, 0, 100, False, False), SessionRefusal.UNKNOWN_SESSION),
        (Attach(ID, 2, 99, 100, False, False), SessionRefusal.BAD_OFFSET),
    ],
)
def test_wrong_attach_is_refused_and_changes_nothing(attach: Attach, refusal: SessionRefusal) -> None:
    wires = joined()
    assert wires.acceptor.attached_by(attach, wires.now) == (refusal, [])
    write_all(wires, "dialler", b"still there")
    assert bytes(wires.got["acceptor"]) == b"still there"


def test_offset_below_an_earlier_attach_is_refused() -> None:
    wires = joined()
    write_all(wires, "acceptor", b"x" * 50)
    wires.cut(1)
    wires.attach()
    wires.settle()
    assert wires.acceptor.attached_by(Attach(ID, 9, 49, 100, False, False), wires.now) == (
        SessionRefusal.BAD_OFFSET,
        [],
    )


def test_refusal_ends_the_dialling_end_with_its_name() -> None:
    wires = Wires()
    generation = wires.attach()
    events = wires.dialler.received(generation, refuse(SessionRefusal.UNKNOWN_SERVICE, "no echo here"), wires.now)
    assert events == [
        Refused(generation, SessionRefusal.UNKNOWN_SERVICE, "no echo here"),
        Ended("UNKNOWN_SERVICE", "no echo here"),
    ]


@pytest.mark.parametrize(
    "frames",
    [
        b"\x63" + b"\x00" * 12,
        encode(Kind.DATA, LIMITS.window_least, b"x"),
        b"\x04" + (MAX_PAYLOAD + 1).to_bytes(4, "big") + b"\x00" * 8,
        encode(Kind.ACK, 5, pack(">Q", 10)),
        encode(Kind.ACK, 0, b"short"),
        encode(Kind.RESUME, 1),
        encode(Kind.FIN, LIMITS.window_least + 1),
        encode(Kind.FIN, 4) + encode(Kind.DATA, 4, b"x"),
        encode(Kind.FIN, 4) + encode(Kind.FIN, 5),
        encode(Kind.ATTACH, 0, b"x" * 30),
        encode(Kind.ATTACHED, 0, b"x" * 13),
        b"".join(encode(Kind.DATA, 2 * i + 1, b"x") for i in range(LIMITS.ahead + 1)),
        # Each within the window, each a little further on: what is kept must not be their sum.
        b"".join(
            encode(Kind.DATA, i + 1, bytes(MAX_PAYLOAD)) for i in range(2 * LIMITS.window_least // MAX_PAYLOAD + 1)
        ),
    ],
)
def test_carrier_that_breaks_a_rule_is_released_and_the_session_goes_on(frames: bytes) -> None:
    wires = joined()
    events = wires.acceptor.received(1, frames, wires.now)
    assert any(isinstance(event, Released) and event.reason.startswith("PROTOCOL") for event in events)
    assert any(isinstance(event, Starved) for event in events)
    assert wires.acceptor.over is None


def test_peer_that_pings_and_does_not_read_makes_no_pile_of_answers() -> None:
    wires = joined()
    wires.acceptor.received(1, b"".join(encode(Kind.PING, number) for number in range(10_000)), wires.now)
    waiting = b"".join(b"".join(write) for write in wires.acceptor.output(1, 1 << 20, wires.now))
    assert [value for kind, value, _ in FrameReader().feed(waiting) if kind is Kind.PONG] == list(range(LIMITS.pongs))
    wires.acceptor.received(1, encode(Kind.PING, 7), wires.now)
    assert wires.acceptor.wants_output(1, wires.now)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_leave_a_session_or_a_released_carrier(data: bytes, attached: bool) -> None:
    wires = joined() if attached else Wires()
    if not attached:
        wires.attach()
    wires.dialler.received(1, data, wires.now)
    assert wires.dialler.incoming.received <= LIMITS.window_least


def test_nothing_is_taken_beyond_the_replay_bound() -> None:
    wires = joined()
    assert wires.dialler.write(b"x" * (LIMITS.replay_least + 5), wires.now) == LIMITS.replay_least
    assert wires.dialler.write(b"x", wires.now) == 0


def test_reader_that_stops_stops_the_writer() -> None:
    wires = joined()
    taken = 0
    for _ in range(200):
        taken += wires.dialler.write(b"x" * 65536, wires.now)
        wires.flush("dialler", 1)
        wires.deliver("dialler", 1)
        wires.now += 0.03
        wires.flush("acceptor", 1)
        wires.deliver("acceptor", 1)
    assert wires.acceptor.incoming.received == LIMITS.window_least
    assert taken <= LIMITS.window_least + wires.dialler.outgoing.capacity


@pytest.mark.parametrize("late", [0.0, 0.2])  # seconds after the last sign of life
def test_silent_carrier_with_traffic_waiting_is_dead_within_a_second(late: float) -> None:
    wires = joined()
    start = wires.now
    wires.now += late
    wires.dialler.write(b"into the dark", wires.now)
    wires.flush("dialler", 1)
    while wires.dialler.active is not None:
        timer = wires.dialler.timer()
        assert timer is not None
        wires.now = max(timer, wires.now)
        wires.note("dialler", wires.dialler.tick(wires.now))
    assert 0.5 < wires.now - start <= 1.0
    assert Released(1, "SILENT") in wires.events["dialler"]


def test_an_end_that_stood_still_itself_takes_nobody_for_silent() -> None:
    wires = joined()
    wires.dialler.write(b"is anybody there", wires.now)
    wires.flush("dialler", 1)
    while b"\x09" not in [bytes(write[0][:1]) for write in wires.dialler.output(1, 1 << 20, wires.now)]:
        wires.now = max(wires.dialler.timer() or 0.0, wires.now)
        wires.dialler.tick(wires.now)
    wires.now += 30.0  # the process was held up with the answer unread
    assert wires.dialler.tick(wires.now) == []
    assert wires.dialler.active == 1
    deadline = wires.dialler.timer()
    assert deadline is not None
    assert Released(1, "SILENT") in wires.dialler.tick(deadline), "asked again, and again no answer"


def test_idle_carrier_is_found_dead_within_the_keepalive_interval() -> None:
    wires = joined(SessionLimits(progress_timeout=600.0))
    wires.now += 60
    wires.dialler.pulse.heard = wires.dialler._carriers[1].heard = wires.now
    start = wires.now
    while wires.dialler.active is not None:
        wires.now = max(wires.dialler.timer() or 0.0, wires.now)
        wires.note("dialler", wires.dialler.tick(wires.now))
    assert LIMITS.keepalive <= wires.now - start <= 15.0


def test_session_without_a_carrier_expires() -> None:
    wires = joined()
    write_all(wires, "dialler", b"x")
    wires.cut(1)
    wires.now += LIMITS.resume_timeout - 0.1
    assert wires.acceptor.tick(wires.now) == []
    wires.now += 0.2
    (ended,) = wires.acceptor.tick(wires.now)
    assert isinstance(ended, Ended)
    assert ended.code == "EXPIRED"


def test_reset_reaches_the_peer_with_its_reason() -> None:
    wires = joined()
    wires.note("dialler", wires.dialler.reset("cancelled"))
    wires.settle()
    assert wires.acceptor.over == Ended("RESET", "cancelled")


def test_attached_tells_the_round_trip() -> None:
    wires = Wires()
    wires.attach()
    wires.flush("dialler", 1)
    wires.now += 0.08
    wires.deliver("dialler", 1)
    wires.flush("acceptor", 1)
    wires.deliver("acceptor", 1)
    (attached,) = [event for event in wires.events["dialler"] if isinstance(event, Attached)]
    assert attached.round_trip == pytest.approx(0.08)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 400))
def test_random_switches_cuts_and_chunks_lose_nothing(seed: int, steps: int) -> None:
    chance = random.Random(seed)
    wires = Wires()
    wires.attach()
    sent = {"dialler": bytearray(), "acceptor": bytearray()}
    for _ in range(steps):
        who = chance.choice(("dialler", "acceptor"))
        action = chance.random()
        if action < 0.3:
            data = chance.randbytes(chance.choice((1, 7, 300, 70_000)))
            taken = wires.end(who).write(data, wires.now)
            sent[who] += data[:taken]
        elif action < 0.75 and wires.queues:
            generation = chance.choice(list(wires.queues))
            wires.flush(who, generation)
            wires.deliver(who, generation, chance.choice((1, 13, 500, 100_000)))
        elif action < 0.8 and wires.queues:
            wires.cut(chance.choice(list(wires.queues)))
        elif action < 0.86 and not wires.dialler.crowded:
            wires.attach()
        elif action < 0.95:
            wires.now += chance.choice((0.001, 0.03, 0.4))
            wires.note(who, wires.end(who).tick(wires.now))
        else:
            wires.read(who)
    for generation in list(wires.queues):
        wires.cut(generation)
    wires.attach()
    wires.settle()
    for who in ("dialler", "acceptor"):
        wires.end(who).finish()
    wires.settle()
    assert wires.got["acceptor"] == sent["dialler"]
    assert wires.got["dialler"] == sent["acceptor"]
    assert wires.dialler.over == wires.acceptor.over == Ended("DONE")


def test_frames_survive_any_chunking() -> None:
    whole = b"".join(encode(Kind.DATA, i, b"x" * i) for i in range(50))
    for size in (1, 5, 13, 64, 1000):
        reader, got = FrameReader(), []
        for at in range(0, len(whole), size):
            got += [(kind, value, bytes(body)) for kind, value, body in reader.feed(whole[at : at + size])]
        assert got == [(Kind.DATA, i, b"x" * i) for i in range(50)]


@pytest.mark.parametrize("body", [b"", b"\x02" + b"x" * 40, b"\x01" + b"x" * 400, b"\x01\x01" + b"x" * 32 + b"\xff"])
def test_malformed_attach_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Attach.decode(0, body)


def test_acknowledgement_of_the_end_that_comes_after_sending_was_rewound_is_good() -> None:
    """Half-close across a move: the end came by one carrier, its acknowledgement after the attach of the next."""
    outgoing = Outgoing(Budget(LIMITS.budget), LIMITS)
    outgoing.edge = 100
    outgoing.write(b"x")
    outgoing.finished = True
    assert [len(frame) for frame in iter(outgoing.next_frame, None)] == [2, 1]
    outgoing.rewind(0)
    outgoing.acknowledge(2, 100, 0.0, 0.0)
    assert outgoing.fin_acked
    assert not outgoing.pending
