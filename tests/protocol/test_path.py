"""The path keeper: when a session moves, and why."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.reach.path import (
    CAP_LEFT,
    FLAP_WINDOW,
    HOLD_FIRST,
    HOLD_MAX,
    PROBE_AGAIN,
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
