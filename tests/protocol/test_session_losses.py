"""Frames that are lost with a carrier that drains: what they said must be said again, or one end waits for ever."""

from __future__ import annotations

from punchbridge.config import SessionLimits
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import FrameReader, Kind, encode
from punchbridge.sessions.incoming import Incoming
from tests.support.session_wires import Wires, joined

LIMITS = SessionLimits()

MIB = 1 << 20


def pass_time(wires: Wires, seconds: float) -> None:
    """Lets both ends live on, with all that they send delivered."""
    end = wires.now + seconds
    while wires.now < end:
        wires.now += 0.3
        for who in ("dialler", "acceptor"):
            wires.note(who, wires.end(who).tick(wires.now))
        wires.settle()


def cut(wires: Wires, generation: int) -> dict[str, list[Kind]]:
    """The carrier dies; what was in flight to each end is lost, and returned."""
    queue = wires.queues.pop(generation)
    lost = {who: [kind for kind, _, _ in FrameReader().feed(bytes(data))] for who, data in queue.items()}
    for who in ("dialler", "acceptor"):
        wires.note(who, wires.end(who).lost(generation, "CUT", wires.now))
    return lost


def test_an_acknowledgement_that_is_lost_with_a_drained_carrier_is_repeated() -> None:
    wires = joined()
    assert wires.acceptor.write(bytes(MIB), wires.now) > 0
    wires.attach()  # its ATTACH says that nothing has come yet
    wires.flush("acceptor", 1)
    wires.deliver("acceptor", 1)
    wires.read("dialler")
    wires.now += 0.03
    wires.flush("dialler", 1)  # the acknowledgement, in flight on the old carrier
    wires.flush("dialler", 2)
    wires.deliver("dialler", 2)
    wires.flush("acceptor", 2)
    wires.flush("acceptor", 1)
    wires.deliver("acceptor", 1)
    wires.deliver("acceptor", 2)
    wires.flush("dialler", 1)
    assert any(Kind.ACK in kinds for kinds in cut(wires, 1).values())
    wires.settle()
    pass_time(wires, 3)
    assert wires.acceptor.write(b"x", wires.now) == 1


def test_a_resume_that_is_lost_with_a_drained_carrier_is_repeated() -> None:
    wires = joined()
    wires.dialler.write(b"X" * 10, wires.now)
    wires.flush("dialler", 1)  # in flight on the first carrier
    wires.attach()
    for who in ("dialler", "acceptor"):
        wires.flush(who, 2)
        wires.deliver(who, 2)
    wires.flush("acceptor", 1)
    wires.deliver("acceptor", 1)
    wires.flush("dialler", 1)
    wires.dialler.write(b"Y" * 10, wires.now)
    wires.flush("dialler", 2)
    wires.deliver("dialler", 2)
    cut(wires, 1)
    wires.flush("acceptor", 2)  # RESUME, in flight on the second carrier
    wires.attach()
    for who in ("dialler", "acceptor"):
        wires.flush(who, 3)
        wires.deliver(who, 3)
    wires.flush("dialler", 2)
    wires.deliver("dialler", 2)
    wires.flush("acceptor", 2)
    wires.deliver("dialler", 2)
    assert any(Kind.RESUME in kinds for kinds in cut(wires, 2).values())
    wires.settle()
    pass_time(wires, 3)
    assert bytes(wires.got["acceptor"]) == b"X" * 10 + b"Y" * 10


def test_without_a_carrier_no_acknowledgement_is_due() -> None:
    wires = joined()
    wires.dialler.write(b"x", wires.now)
    wires.flush("dialler", 1)
    wires.deliver("dialler", 1)
    wires.cut(1)
    wires.now += 5
    wires.acceptor.tick(wires.now)
    due = wires.acceptor.timer()
    assert due is not None
    assert due > wires.now


def test_an_overdue_acknowledgement_does_not_wake_while_the_carrier_takes_nothing() -> None:
    wires = joined()
    wires.dialler.write(b"x", wires.now)
    wires.flush("dialler", 1)
    wires.deliver("dialler", 1)
    due = wires.acceptor.incoming.ack_due
    assert due is not None
    assert wires.acceptor.timer(blocked_at=due - 0.001) == due  # it may take bytes again before that
    blocked = wires.acceptor.timer(blocked_at=due)
    assert blocked is not None
    assert blocked > due


def test_any_number_of_small_frames_one_after_another_may_come_ahead_of_their_turn() -> None:
    incoming = Incoming(Budget(LIMITS.budget), LIMITS)
    for offset in range(1, 2 * LIMITS.ahead):
        incoming.data(offset, memoryview(b"%d" % (offset % 10)))
    incoming.data(0, memoryview(b"0"))
    assert b"".join(incoming.read(MIB)) == b"".join(b"%d" % (at % 10) for at in range(2 * LIMITS.ahead))


def test_a_pong_of_a_draining_carrier_says_nothing_about_the_active_path() -> None:
    wires = joined()
    wires.attach()
    for who in ("dialler", "acceptor"):
        wires.flush(who, 2)
        wires.deliver(who, 2)
    assert wires.dialler.active == 2
    before = wires.dialler.round_trip
    wires.now += LIMITS.keepalive
    wires.dialler.tick(wires.now)
    wires.now += 0.7
    wires.dialler.received(1, encode(Kind.PONG, 1), wires.now)
    assert wires.dialler.round_trip == before


def test_a_pong_that_answers_no_ping_of_the_carrier_is_ignored() -> None:
    wires = joined()
    before = wires.dialler.round_trip
    wires.now += LIMITS.keepalive
    wires.dialler.tick(wires.now)
    wires.now += 0.7
    wires.dialler.received(1, encode(Kind.PONG, 99), wires.now)
    assert wires.dialler.round_trip == before
    wires.dialler.received(1, encode(Kind.PONG, 1), wires.now)
    assert wires.dialler.round_trip > before


def turn_to(wires: Wires, generation: int) -> None:
    """The new carrier is attached, and the acceptor's END on the older ones comes."""
    wires.flush("dialler", generation)
    wires.deliver("dialler", generation)
    wires.flush("acceptor", generation)
    wires.deliver("acceptor", generation)
    for old in [one for one in wires.queues if one < generation]:
        wires.flush("acceptor", old)
        wires.deliver("acceptor", old)


def test_resume_is_repeated_although_an_older_carrier_has_brought_more() -> None:
    wires = joined()
    wires.dialler.write(b"one, ", wires.now)
    wires.flush("dialler", 1)
    second = wires.attach()
    turn_to(wires, second)
    wires.dialler.write(b"two, ", wires.now)
    wires.flush("dialler", second)
    third = wires.attach()
    turn_to(wires, third)
    cut(wires, second)
    wires.flush("acceptor", third)
    assert [kind for kind, _, _ in FrameReader().feed(bytes(wires.queues[third]["acceptor"]))][-1] is Kind.RESUME
    wires.deliver("dialler", 1)  # "one, ", which has nothing to do with what the RESUME asked for
    fourth = wires.attach()
    wires.flush("dialler", fourth)
    wires.deliver("dialler", fourth)
    wires.flush("acceptor", fourth)
    wires.deliver("acceptor", fourth)
    wires.flush("dialler", third)
    wires.deliver("dialler", third)
    cut(wires, third)
    wires.settle()
    assert bytes(wires.got["acceptor"]) == b"one, two, "
