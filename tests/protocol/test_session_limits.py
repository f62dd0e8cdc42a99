"""What a session machine is told to bound is what it bounds."""

from __future__ import annotations

import pytest

from punchbridge.config import SessionLimits
from punchbridge.sessions import Ended, Released
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import FrameReader, Kind, encode
from punchbridge.sessions.incoming import Incoming
from tests.support.session_wires import Wires, joined, write_all

KIB = 1024


def frames_of(wires: Wires, who: str) -> list[Kind]:
    out = b"".join(b"".join(write) for write in wires.end(who).output(1, 1 << 20, wires.now))
    return [kind for kind, _, _ in FrameReader().feed(out)]


def test_small_windows_and_replays_carry_everything() -> None:
    wires = joined(
        SessionLimits(
            window_least=16 * KIB, window_most=32 * KIB, ack_bytes=16 * KIB, replay_least=8 * KIB, replay_most=16 * KIB
        )
    )
    assert wires.dialler.write(bytes(64 * KIB), wires.now) == 8 * KIB
    write_all(wires, "dialler", b"more" * 100_000)
    assert wires.got["acceptor"] == bytes(8 * KIB) + b"more" * 100_000
    assert wires.acceptor.incoming.window <= 32 * KIB
    assert wires.dialler.outgoing.capacity <= 16 * KIB


def test_a_slow_reader_of_a_small_window_is_waited_for_and_no_longer() -> None:
    """The writer learns of the room that reading makes, however small the window is."""
    least = 4 * KIB
    wires = joined(SessionLimits(window_least=least, ack_bytes=least))
    wires.dialler.write(bytes(3 * least), wires.now)
    for _ in range(3):
        wires.flush("dialler", 1)
        wires.deliver("dialler", 1)
        assert len(wires.acceptor.read(least, wires.now)) > 0
        wires.now += 0.021
        wires.flush("acceptor", 1)
        wires.deliver("acceptor", 1)
    assert wires.acceptor.incoming.read_to == 3 * least


def test_the_budget_bounds_what_a_session_grows_by() -> None:
    wires = joined(SessionLimits(budget=1000))
    wires.dialler.outgoing._grow_to(1 << 22)
    floor = SessionLimits().floor
    taken = sum(end.outgoing.capacity + end.incoming.window - 2 * floor for end in (wires.dialler,))
    assert (taken, wires.dialler.outgoing.capacity >= floor) == (1000, True)


def test_writes_are_kept_one_by_one_up_to_the_bound() -> None:
    outgoing = joined(SessionLimits(pieces=3)).dialler.outgoing
    for _ in range(3):
        outgoing.write(b"x")
    assert len(outgoing._unsent) == 3
    outgoing.write(b"x")
    assert len(outgoing._unsent) == 1


def test_frames_ahead_of_their_turn_up_to_the_bound() -> None:
    wires = joined(SessionLimits(ahead=2))
    ahead = b"".join(encode(Kind.DATA, 2 * number + 1, b"x") for number in range(2))
    assert wires.acceptor.received(1, ahead, wires.now) == []
    events = wires.acceptor.received(1, encode(Kind.DATA, 9, b"x"), wires.now)
    assert any(isinstance(event, Released) and "more than 2 frames" in event.reason for event in events)


def test_carriers_up_to_the_bound() -> None:
    wires = joined(SessionLimits(carriers=2))
    assert not wires.dialler.crowded
    wires.attach()
    assert wires.dialler.crowded


def test_answers_that_wait_up_to_the_bound() -> None:
    wires = joined(SessionLimits(pongs=3))
    wires.acceptor.received(1, encode(Kind.PING, 1) * 10, wires.now)
    assert frames_of(wires, "acceptor") == [Kind.PONG] * 3


def test_a_session_without_a_carrier_waits_as_long_as_it_is_told() -> None:
    wires = joined(SessionLimits(resume_timeout=5.0))
    write_all(wires, "dialler", b"x")
    wires.cut(1)
    assert wires.acceptor.tick(wires.now + 4.9) == []
    assert wires.acceptor.tick(wires.now + 5.1) == [Ended("EXPIRED", "no carrier for 5 s")]


def test_an_accepted_session_that_carried_nothing_waits_a_shorter_time() -> None:
    wires = joined(SessionLimits(resume_timeout=30.0, mute_timeout=4.0))
    wires.cut(1)
    assert wires.acceptor.timer() == pytest.approx(wires.now + 4.0)
    assert wires.acceptor.tick(wires.now + 4.1) == [Ended("EXPIRED", "no carrier for 4 s")]
    assert wires.dialler.timer() == pytest.approx(wires.now + 30.0)


def test_a_session_in_which_nothing_moves_ends() -> None:
    """A peer that only keeps its carrier alive, by frames that answer nothing, holds no place for ever."""
    wires = joined(SessionLimits(progress_timeout=20.0, resume_timeout=5.0, keepalive=5.0))
    end, began = wires.acceptor, wires.now
    while end.over is None and wires.now < began + 45:
        # Any byte counts as a sign of life of a carrier, and these are no answer and no progress.
        end.received(1, encode(Kind.PONG, 77), wires.now)
        wires.now += 0.25
        end.tick(wires.now)
    assert end.over == Ended("STALLED", "nothing moved for 20 s")
    assert Kind.RESET in frames_of(wires, "acceptor")


def test_an_idle_session_whose_peer_answers_pings_lives() -> None:
    wires = joined(SessionLimits(progress_timeout=20.0, resume_timeout=5.0, keepalive=5.0))
    for _ in range(40):
        wires.now += 5.0
        for who in ("dialler", "acceptor"):
            wires.note(who, wires.end(who).tick(wires.now))
        wires.settle()
    assert (wires.dialler.over, wires.acceptor.over) == (None, None)


def test_answers_are_no_progress_while_sent_bytes_wait_for_an_acknowledgement() -> None:
    wires = joined(SessionLimits(progress_timeout=20.0, resume_timeout=5.0, keepalive=5.0))
    end, began = wires.acceptor, wires.now
    end.write(b"x", wires.now)
    while end.over is None and wires.now < began + 45:
        wires.now = max(end.timer() or 0.0, wires.now + 0.001)
        end.tick(wires.now)
        kinds = frames_of(wires, "acceptor")
        if Kind.PING in kinds:
            end.received(1, encode(Kind.PONG, 1), wires.now)
    assert end.over == Ended("STALLED", "nothing moved for 20 s")


def test_a_look_that_comes_late_ends_nothing() -> None:
    wires = joined(SessionLimits(progress_timeout=20.0, resume_timeout=5.0, keepalive=5.0))
    wires.acceptor.tick(wires.now + 3600)
    assert wires.acceptor.over is None


def test_sessions_of_one_share_of_the_budget_begin_smaller_and_leave_the_rest_to_others() -> None:
    limits = SessionLimits()
    whole = Budget(limits.budget)
    share = Budget(limits.budget_per_origin, whole)
    windows = [Incoming(share, limits).window for _ in range(1000)]
    assert windows[0] == limits.window_least
    assert limits.floor <= windows[-1] < 2 * limits.floor
    assert sorted(windows, reverse=True) == windows
    assert whole.left >= limits.budget - limits.budget_per_origin
    assert Incoming(Budget(limits.budget_per_origin, whole), limits).window == limits.window_least


def test_a_window_that_could_only_be_small_is_read_on() -> None:
    """The writer learns of the room that reading makes, however small the window began."""
    limits = SessionLimits(budget=1)
    wires = joined(limits)
    write_all(wires, "dialler", bytes(20 * limits.floor))
    assert wires.got["acceptor"] == bytes(20 * limits.floor)
    assert wires.acceptor.incoming.window == limits.floor


@pytest.mark.parametrize(
    ("limits", "busy", "asked", "dead"),
    [
        # An idle carrier is asked after the keepalive, a busy one after the probe; two thirds of the silence to answer.
        (SessionLimits(keepalive=4.0, busy=0.0, silence=6.0, progress_timeout=600.0), False, 4.0, 8.0),
        (SessionLimits(probe=0.5, silence=3.0, progress_timeout=600.0), True, 0.5, 2.5),
        (SessionLimits(probe=0.5, busy=0.0, keepalive=7.0, progress_timeout=600.0), True, 7.0, 7.0 + 2 / 3),
    ],
)
def test_a_quiet_carrier_is_asked_and_given_up_as_told(
    limits: SessionLimits, busy: bool, asked: float, dead: float
) -> None:
    wires = joined(limits)
    end, start = wires.acceptor, wires.now + 60
    end.pulse.heard = end._carriers[1].heard = start
    end.pulse.traffic = start if busy else 0.0
    end.pulse.round_trip = 0.0
    assert end.timer() == pytest.approx(start + asked)
    end.tick(start + asked)
    assert end.timer() == pytest.approx(start + dead)


@pytest.mark.parametrize(("stall", "asks_again"), [(0.3, True), (2.0, False)])
def test_a_tick_that_comes_late_asks_again_beyond_the_stall(stall: float, asks_again: bool) -> None:
    wires = joined(SessionLimits(stall=stall))
    end = wires.acceptor
    start = end.timer()
    assert start is not None
    end.tick(start)
    give_up = end.timer()
    assert give_up is not None
    silent = [event for event in end.tick(give_up + 1.0) if isinstance(event, Released)]
    assert (silent == []) is asks_again


@pytest.mark.parametrize("delay", [0.02, 0.5])
def test_an_acknowledgement_is_put_off_as_long_as_told(delay: float) -> None:
    wires = joined(SessionLimits(ack_delay=delay))
    wires.acceptor.received(1, encode(Kind.DATA, 0, b"x"), wires.now)
    start, wires.now = wires.now, wires.now + delay - 0.001
    assert frames_of(wires, "acceptor") == []
    wires.now = start + delay + 0.001
    assert frames_of(wires, "acceptor") == [Kind.ACK]
