"""How long paths last: learned from two deaths alike, left before the third, and forgotten when one lives longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.reach.lifetimes import DISPROVED, LEAD_LEAST, OLDEST, REFRESH_LEAST, YOUNGEST, Lifetimes


def test_two_deaths_at_one_age_tell_when_the_third_comes() -> None:
    known: Lifetimes[str] = Lifetimes(8)
    known.died("carrier", 61.0, 0.0)
    assert known.leave_after("carrier", 1.0) is None
    known.died("carrier", 59.0, 0.0)
    after = known.leave_after("carrier", 1.0)
    assert after is not None
    assert 45 < after < 59
    assert known.leave_after("another", 1.0) is None


def test_deaths_at_other_ages_tell_nothing() -> None:
    known: Lifetimes[str] = Lifetimes(8)
    for age in (30.0, 60.0, 300.0, 30.0):
        known.died("a", age, 0.0)
        assert known.leave_after("a", 0.0) is None


def test_a_path_that_lives_longer_has_no_lifetime() -> None:
    known: Lifetimes[str] = Lifetimes(8)
    known.died("a", 60.0, 0.0)
    known.died("a", 60.0, 0.0)
    assert known.leave_after("a", 60.0) is not None
    assert known.leave_after("a", 60.0 * DISPROVED + 1) is None
    assert known.leave_after("a", 1.0) is None
    known.died("a", 60.0, 0.0)
    assert known.leave_after("a", 1.0) is None, "one death alone"


def test_what_dies_young_was_cut_and_what_dies_old_is_not_worth_it() -> None:
    known: Lifetimes[str] = Lifetimes(8)
    for age in (YOUNGEST - 1, YOUNGEST - 1, OLDEST + 1, OLDEST + 1):
        known.died("a", age, 0.0)
        assert known.leave_after("a", 0.0) is None


def test_a_path_that_died_after_a_silence_is_refreshed_more_often() -> None:
    known: Lifetimes[str] = Lifetimes(8)
    known.died("a", 61.0, 1.0)
    assert known.refresh("a") is None
    known.died("a", 100.0, 10.0)
    assert known.refresh("a") == 5.0
    known.died("a", 500.0, 4.0)
    assert known.refresh("a") == REFRESH_LEAST


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 5000), st.floats(0, 60)), max_size=60))
def test_it_leaves_before_the_end_and_remembers_so_many(deaths: list[tuple[int, float, float]]) -> None:
    known: Lifetimes[int] = Lifetimes(4)
    for key, age, quiet in deaths:
        known.died(key, age, quiet)
        assert len(known._known) <= 4
        after = known.leave_after(key, 0.0)
        if after is not None:
            assert YOUNGEST - LEAD_LEAST <= after <= OLDEST - LEAD_LEAST
        refresh = known.refresh(key)
        assert refresh is None or refresh >= REFRESH_LEAST
