"""The path keeper: when a session moves, and why."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.reach.path import (
    CAP_LEFT,
    DOUBT_MAX,
    FASTER_FACTOR,
    FASTER_MARGIN,
    FLAP_WINDOW,
    HOLD_FIRST,
    HOLD_MAX,
    LOSS,
    PROBE_AGAIN,
    RATE_FACTOR,
    RATE_KEPT,
    Candidate,
    Decision,
    PathKeeper,
)

RELAY = Candidate(1, "relay", 0.120)
DIRECT = Candidate(2, "direct", 0.060)


def test_direct_is_taken_when_it_is_no_slower() -> None:
    assert PathKeeper().decide(RELAY, [RELAY, DIRECT], 0.0) == Decision(2, "DIRECT")


def test_what_is_not_clearly_faster_is_measured_first() -> None:
    keeper = PathKeeper()
    assert keeper.decide(RELAY, [RELAY, Candidate(2, "direct")], 0.0) == Decision(None, "MEASURE", measure=(1, 2))
    assert keeper.decide(RELAY, [RELAY, Candidate(2, "direct", 0.125)], 0.0) == Decision(2, "DIRECT")


def test_one_long_round_trip_of_the_relay_makes_no_direct_path_faster() -> None:
    keeper, busy = PathKeeper(), Candidate(1, "relay", 0.300, least=0.110)
    assert keeper.decide(busy, [busy, Candidate(2, "direct", 0.180)], 0.0).reason == "MEASURE"
    assert keeper.decide(RELAY, [RELAY, Candidate(2, "direct", 0.180)], 0.0).reason == "SLOWER"
    assert PathKeeper().decide(busy, [busy, DIRECT], 0.0).move_to == 2


def test_each_pair_is_measured_for_itself() -> None:
    keeper, slow, other = PathKeeper(), Candidate(2, "direct", 0.2), Candidate(3, "direct", 0.2)
    assert keeper.decide(RELAY, [RELAY, slow], 0.0).measure == (1, 2)
    assert keeper.decide(RELAY, [RELAY, slow, other], 0.0).measure == (1, 3)


def test_slower_direct_path_is_left_alone_and_measured_again_later() -> None:
    keeper = PathKeeper()
    slow = Candidate(2, "direct", 0.200)
    assert keeper.decide(RELAY, [RELAY, slow], 0.0) == Decision(None, "MEASURE", measure=(1, 2))
    assert keeper.decide(RELAY, [RELAY, slow], 0.0) == Decision(None, "SLOWER", again=PROBE_AGAIN, instead=2)
    assert keeper.decide(RELAY, [RELAY, DIRECT], 10.0) == Decision(None, "SLOWER", again=PROBE_AGAIN - 10, instead=2)
    later = PROBE_AGAIN + 1
    # What was measured then says nothing about now.
    assert keeper.decide(RELAY, [RELAY, slow], later) == Decision(None, "MEASURE", measure=(1, 2))
    assert keeper.decide(RELAY, [RELAY, DIRECT], later) == Decision(2, "DIRECT")


QUIC = Candidate(3, "direct", 0.060, transport="quic")


def test_of_two_equal_direct_paths_tcp_is_taken() -> None:
    assert PathKeeper().decide(RELAY, [RELAY, DIRECT, QUIC], 0.0) == Decision(2, "DIRECT")
    keeper, late = PathKeeper(), Candidate(4, "direct", 0.064)
    assert keeper.decide(QUIC, [QUIC, late], 0.0) == Decision(None, "MEASURE", measure=(3, 4))
    assert keeper.decide(QUIC, [QUIC, late], 0.0) == Decision(4, "TCP")
    assert PathKeeper().decide(late, [QUIC, late], 0.0).reason == "STAY"


def test_a_faster_quic_path_is_kept_and_measured_again_later() -> None:
    keeper, slow = PathKeeper(), Candidate(4, "direct", 0.100)
    assert keeper.decide(QUIC, [QUIC, slow], 0.0).reason == "MEASURE"
    assert keeper.decide(QUIC, [QUIC, slow], 0.0) == Decision(None, "SLOWER", again=PROBE_AGAIN)
    assert keeper.decide(QUIC, [QUIC, slow], 10.0) == Decision(None, "STAY", again=PROBE_AGAIN - 10)
    assert keeper.decide(QUIC, [QUIC, slow], PROBE_AGAIN + 1).reason == "MEASURE"


def test_quic_is_kept_while_tcp_has_failed_lately() -> None:
    keeper, again = PathKeeper(), Candidate(4, "direct", 0.050)
    keeper.failed("direct", 100.0)
    assert keeper.decide(QUIC, [QUIC, again], 101.0).reason == "STAY"
    assert keeper.decide(RELAY, [RELAY, again, QUIC], 100.0 + HOLD_FIRST).move_to == QUIC.id
    assert keeper.decide(QUIC, [QUIC, again], 101.0 + FLAP_WINDOW).reason == "MEASURE"
    other = PathKeeper()
    other.failed("direct", 100.0, "quic")
    assert other.decide(QUIC, [QUIC, again], 101.0).reason == "MEASURE"


def taken(keeper: PathKeeper, active: Candidate, live: list[Candidate], now: float) -> Decision:
    """What is decided once both were measured, if that was asked for."""
    found = keeper.decide(active, live, now)
    return keeper.decide(active, live, now) if found.reason == "MEASURE" else found


TCP = Candidate(2, "direct", 0.060)


def test_tcp_that_loses_packets_is_left_for_quic_and_tried_again_later() -> None:
    keeper, lossy = PathKeeper(), replace(TCP, loss=LOSS)
    assert keeper.decide(replace(TCP, loss=LOSS * 0.9), [TCP, QUIC], 0.0).reason == "STAY"
    assert keeper.decide(lossy, [lossy, QUIC], 0.0) == Decision(None, "MEASURE", measure=(2, 3))
    assert keeper.decide(lossy, [lossy, QUIC], 0.0) == Decision(QUIC.id, "LOSS")
    assert keeper.decide(QUIC, [TCP, QUIC], FLAP_WINDOW - 1).reason == "STAY"
    assert taken(keeper, QUIC, [TCP, QUIC], FLAP_WINDOW) == Decision(TCP.id, "TCP")
    assert taken(keeper, lossy, [lossy, QUIC], FLAP_WINDOW + 10) == Decision(QUIC.id, "LOSS")
    assert keeper.decide(QUIC, [TCP, QUIC], 3 * FLAP_WINDOW).reason == "STAY", "twice as long as the first time"


def test_tcp_that_loses_is_kept_where_quic_is_slower() -> None:
    keeper, lossy, slow = PathKeeper(), replace(TCP, loss=0.05), replace(QUIC, round_trip=0.200)
    assert taken(keeper, lossy, [lossy, slow], 0.0) == Decision(None, "SLOWER", again=PROBE_AGAIN)
    assert keeper.decide(lossy, [lossy, slow], 1.0) == Decision(None, "STAY", again=PROBE_AGAIN - 1)


def test_a_slower_tcp_is_left_for_quic_by_a_clear_margin_alone() -> None:
    bound = QUIC.round_trip * FASTER_FACTOR + FASTER_MARGIN  # type: ignore[operator]
    near, slow = replace(TCP, round_trip=bound * 0.99), replace(TCP, round_trip=bound * 1.01)
    assert PathKeeper().decide(near, [near, QUIC], 0.0).reason == "STAY"
    keeper = PathKeeper()
    assert keeper.decide(slow, [slow, QUIC], 0.0).reason == "MEASURE"
    assert keeper.decide(near, [near, QUIC], 0.0).move_to is None, "measured together it was a moment's delay"
    assert keeper.decide(slow, [slow, QUIC], 1.0).reason == "STAY"
    assert taken(PathKeeper(), slow, [slow, QUIC], 0.0) == Decision(QUIC.id, "FASTER")


def test_a_path_that_carries_less_than_another_one_did_is_left_for_that() -> None:
    keeper, full = PathKeeper(), replace(TCP, rate=3e6)
    assert keeper.decide(full, [full, QUIC], 0.0).reason == "STAY"
    enough, poor = replace(QUIC, rate=2.1e6), replace(QUIC, rate=3e6 / RATE_FACTOR)
    assert keeper.decide(enough, [TCP, enough], 1.0).reason == "MEASURE"
    assert not keeper._carried_more("tcp", poor, 1.0 + RATE_KEPT), "too long ago"
    assert keeper.decide(poor, [TCP, poor], 2.0) == Decision(TCP.id, "RATE")
    lossy = replace(TCP, loss=0.1)
    assert keeper.decide(lossy, [lossy, QUIC], 3.0).reason == "STAY", "what carried less is not gone back to at once"


def test_tcp_that_died_lately_is_left_once_quic_stands() -> None:
    keeper = PathKeeper()
    keeper.failed("direct", 0.0)
    assert keeper.decide(None, [TCP, RELAY], 1.0).move_to == TCP.id
    assert keeper.decide(None, [TCP, QUIC, RELAY], 1.0).move_to == QUIC.id
    assert taken(keeper, TCP, [TCP, QUIC], 2.0) == Decision(QUIC.id, "TCP_FAILED")


def test_where_both_have_failed_tcp_is_taken() -> None:
    keeper = PathKeeper()
    keeper.failed("direct", 0.0, "quic")
    keeper.failed("direct", 1.0, "tcp")
    assert keeper.decide(None, [TCP, QUIC], 2.0).move_to == TCP.id
    assert keeper.decide(TCP, [TCP, QUIC], 2.0).reason == "STAY"
    assert keeper.decide(QUIC, [TCP, QUIC], 2.0).reason == "STAY"


def test_of_several_direct_paths_one_that_is_slower_than_the_relay_hides_no_other() -> None:
    keeper, slow, later = PathKeeper(), replace(TCP, round_trip=0.300), replace(QUIC, round_trip=0.121)
    assert keeper.decide(RELAY, [RELAY, slow, later], 0.0).measure == (1, 2)
    assert keeper.decide(RELAY, [RELAY, slow, later], 0.0).measure == (1, 3)
    assert keeper.decide(RELAY, [RELAY, slow, later], 0.0) == Decision(3, "DIRECT")


def test_a_path_is_left_before_its_end_and_not_gone_back_to() -> None:
    ending, keeper = replace(QUIC, leave_at=50.0), PathKeeper()
    assert keeper.decide(ending, [RELAY, ending], 30.0) == Decision(None, "STAY", again=20.0)
    assert keeper.decide(ending, [RELAY, ending], 50.0) == Decision(RELAY.id, "LIFETIME")
    assert keeper.decide(RELAY, [RELAY, ending], 51.0) == Decision(None, "STAY")
    assert keeper.decide(ending, [RELAY, TCP, ending], 50.0) == Decision(TCP.id, "LIFETIME")
    alone = keeper.decide(ending, [ending], 50.0)
    assert (alone.move_to, alone.fresh_circuit) == (None, True)
    assert keeper.decide(None, [ending], 50.0).move_to == ending.id, "better than none"


def test_direct_path_that_stays_slower_stays_left_alone() -> None:
    keeper = PathKeeper()
    slow = Candidate(2, "direct", 0.200)
    for now in (0.0, PROBE_AGAIN, 2 * PROBE_AGAIN):
        assert keeper.decide(RELAY, [RELAY, slow], now).reason == "MEASURE"
        assert keeper.decide(RELAY, [RELAY, slow], now).again == PROBE_AGAIN


def test_direct_is_kept() -> None:
    assert PathKeeper().decide(DIRECT, [RELAY, DIRECT], 0.0) == Decision(None, "STAY")


def test_without_a_carrier_the_best_live_path_is_taken_unmeasured() -> None:
    assert PathKeeper().decide(None, [RELAY, Candidate(2, "direct")], 0.0) == Decision(2, "RESUME")
    assert PathKeeper().decide(None, [RELAY], 0.0) == Decision(1, "RESUME")
    assert PathKeeper().decide(None, [], 0.0) == Decision(None, "NO_PATH")


def test_policies_bound_every_choice() -> None:
    assert PathKeeper("direct").decide(None, [RELAY], 0.0).move_to is None
    assert PathKeeper("relay").decide(None, [RELAY, DIRECT], 0.0).move_to == 1
    assert PathKeeper("relay").decide(RELAY, [RELAY, DIRECT], 0.0).move_to is None


def test_hold_down_doubles_with_each_failure_and_is_bounded() -> None:
    keeper, holds = PathKeeper(), []
    for at in range(10):
        keeper.failed("direct", float(at))
        holds.append(keeper.decide(RELAY, [RELAY, DIRECT], float(at)).again)
    assert holds[:3] == [HOLD_FIRST, 2 * HOLD_FIRST, 4 * HOLD_FIRST]
    assert holds[-1] == HOLD_MAX
    assert keeper.decide(RELAY, [RELAY, DIRECT], 9 + HOLD_MAX).move_to == 2


def test_a_path_that_fails_thousands_of_times_is_held_down_as_long_and_remembered_as_little() -> None:
    keeper = PathKeeper()
    for number in range(3000):
        keeper.failed("direct", number / 100)
    assert keeper.decide(RELAY, [RELAY, DIRECT], 29.99).again == HOLD_MAX
    assert len(keeper._failures) < 10
    # Once the flapping lies far enough back, the first hold-down again.
    keeper.failed("direct", 30 + FLAP_WINDOW)
    assert keeper.decide(RELAY, [RELAY, DIRECT], 30 + FLAP_WINDOW).again == HOLD_FIRST


def test_relay_that_failed_holds_nothing_down() -> None:
    keeper = PathKeeper()
    keeper.failed("relay", 0.0)
    assert keeper.decide(RELAY, [RELAY, DIRECT], 0.0).move_to == 2


def test_circuit_near_its_cap_is_renewed_before_it_is_cut() -> None:
    spent = Candidate(1, "relay", 0.1, left=CAP_LEFT / 2)
    assert PathKeeper().decide(spent, [spent], 0.0) == Decision(None, "RELAY_CAP", fresh_circuit=True)
    fresh = Candidate(3, "relay", None, left=1.0)
    assert PathKeeper().decide(spent, [spent, fresh], 0.0) == Decision(3, "RELAY_CAP")
    assert PathKeeper().decide(spent, [spent, DIRECT], 0.0).move_to == 2


candidates = st.builds(
    Candidate,
    st.integers(1, 20),
    st.sampled_from(("relay", "direct")),
    st.none() | st.floats(0.001, 1.0),
    st.floats(0.0, 1.0),
    transport=st.sampled_from(("tcp", "quic")),
    loss=st.none() | st.floats(0.0, 0.2),
    rate=st.none() | st.floats(1e3, 1e8),
    leave_at=st.none() | st.floats(0.0, 100.0),
)


@given(st.sampled_from(("any", "direct", "relay")), st.none() | candidates, st.lists(candidates, max_size=6))
def test_a_decision_names_a_live_connection_the_policy_allows(
    policy: str, active: Candidate | None, live: list[Candidate]
) -> None:
    keeper = PathKeeper(policy)  # type: ignore[arg-type]
    decision = keeper.decide(active, live, 5.0)
    if decision.move_to is not None:
        assert any(one.id == decision.move_to and keeper.allows(one.path) for one in live)
    assert decision.again is None or 0 < decision.again <= HOLD_MAX


@given(
    st.floats(0.001, 0.5),
    st.floats(0.001, 0.5),
    st.floats(0.001, 0.5),
    st.floats(0.0, 0.05),
    st.tuples(st.floats(1e5, 1e8), st.floats(1e5, 1e8)),
    st.booleans(),
)
def test_where_nothing_changes_there_are_few_moves(
    relayed: float, tcp: float, quic: float, loss: float, rates: tuple[float, float], busy: bool
) -> None:
    """An hour in which each path stays what it is. What is tried again is tried ever more seldom."""
    relay, one, other = Candidate(1, "relay", relayed), Candidate(2, "direct", tcp), QUIC
    one = replace(one, loss=loss, rate=rates[0] if busy else None)
    other = replace(other, round_trip=quic, rate=rates[1] if busy else None)
    known = {each.id: each for each in (relay, one, other)}
    # What a path carries and loses is known of the one in use alone.
    standing = [relay, replace(one, loss=None, rate=None), replace(other, rate=None)]
    keeper, active, moves = PathKeeper(), relay, list[tuple[float, int]]()
    for now in range(3600):
        for _ in range(6):
            decision = keeper.decide(active, standing, float(now))
            if decision.move_to is not None:
                active = known[decision.move_to]
                moves.append((now, active.id))
            elif not decision.measure:
                break
        else:
            raise AssertionError("it comes to no end")
    assert len(moves) <= 2 + 2 * 7, moves
    assert len([at for at, _ in moves if at > DOUBT_MAX]) <= 2 * 3600 / DOUBT_MAX


@given(st.lists(st.tuples(st.floats(0.1, 20.0), st.booleans(), st.booleans()), max_size=40))
def test_a_direct_path_that_failed_is_held_down(steps: list[tuple[float, bool, bool]]) -> None:
    """Whatever fails when, the session on the relay waits at least the first hold-down."""
    keeper, now, failed = PathKeeper(), 0.0, -100.0
    for later, over_quic, fails in steps:
        now += later
        if fails:
            keeper.failed("direct", now, "quic" if over_quic else "tcp")
            failed = now
        decision = keeper.decide(RELAY, [RELAY, TCP, QUIC], now)
        assert decision.move_to is None or now - failed >= HOLD_FIRST
        assert (decision.reason == "HOLD_DOWN") == (decision.move_to is None)


@given(candidates, candidates, st.floats(0.0, 200.0))
def test_tcp_is_left_for_a_reason_alone(active: Candidate, other: Candidate, now: float) -> None:
    tcp = replace(active, id=30, path="direct", transport="tcp", leave_at=None)
    quic = replace(other, id=31, path="direct", transport="quic", leave_at=None)
    decision = taken(PathKeeper(), tcp, [tcp, quic], now)
    if decision.move_to is None:
        return
    assert tcp.round_trip is not None
    assert quic.round_trip is not None
    faster = tcp.round_trip > quic.round_trip * FASTER_FACTOR + FASTER_MARGIN
    assert decision.reason == ("LOSS" if tcp.loss is not None and tcp.loss >= LOSS else "FASTER")
    assert decision.reason == "LOSS" or faster
