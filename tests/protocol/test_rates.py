"""Buckets and windows: what they let through at most and at least, and what they remember."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from punchbridge.tasks.rates import Buckets, Window

WAITS = st.lists(st.floats(0, 50), max_size=60)


@given(st.integers(1, 10), st.floats(0.1, 100), WAITS)
@example(3, 21.92703793790961, [20.92703793790961, 0.0, 0.0])
def test_a_bucket_never_gives_more_than_burst_plus_rate(burst: int, interval: float, waits: list[float]) -> None:
    buckets = Buckets(burst, interval, 10)
    now, taken = 0.0, 0
    for wait in waits:
        now += wait
        taken += buckets.take("key", now)
    assert taken <= burst + now / interval + 1e-6 * (1 + len(waits))
    assert taken >= min(burst, len(waits))


def test_a_key_has_its_own_bucket_and_gets_it_back() -> None:
    buckets = Buckets(4, 0.5, 10)
    assert [buckets.take("a", 0.0) for _ in range(5)] == [True] * 4 + [False]
    assert buckets.take("b", 0.0)
    assert [buckets.take("a", 0.5), buckets.take("a", 0.5)] == [True, False]
    assert [buckets.take("a", 10.0) for _ in range(5)] == [True] * 4 + [False]


def test_buckets_are_forgotten_when_full_or_too_many() -> None:
    buckets = Buckets(5, 1.0, 3)
    for key in range(10):
        assert buckets.take(key, 0.0)
    assert len(buckets) == 3
    assert buckets.take("later", 100.0)
    assert len(buckets) == 1


def test_with_refuse_new_a_key_that_is_not_known_waits_until_a_bucket_is_full_again() -> None:
    buckets = Buckets(1, 2.0, 2, refuse_new=True)
    assert [buckets.take(key, 0.0) for key in "abc"] == [True, True, False]
    assert buckets.take("c", 2.1)
    assert len(buckets) == 1


def test_a_burst_of_zero_switches_the_limit_off() -> None:
    buckets = Buckets(0, 1.0, 3)
    assert all(buckets.take("key", 0.0) for _ in range(100))
    assert len(buckets) == 0


@given(st.integers(1, 10), st.floats(0.1, 100), WAITS)
def test_what_is_due_comes_in_order_and_never_faster_than_burst_plus_rate(
    burst: int, interval: float, waits: list[float]
) -> None:
    buckets = Buckets(burst, interval, 10)
    now, asked, due = 0.0, list[float](), list[float]()
    for wait in waits:
        now += wait
        asked.append(now)
        due.append(buckets.due("key", now))
        assert due[-1] >= now
    assert due[:burst] == pytest.approx(asked[:burst])
    for first, later in pairwise(due):
        assert later - first >= -1e-6
    for first, later in zip(due, due[burst:], strict=False):
        assert later - first >= interval - 1e-6


def test_a_forgotten_key_begins_anew() -> None:
    buckets = Buckets(1, 10.0, 3)
    assert [buckets.take("key", 0.0), buckets.take("key", 0.0)] == [True, False]
    buckets.forget("key")
    buckets.forget("unknown")
    assert buckets.take("key", 0.0)


@given(st.integers(1, 8), st.integers(1, 4), st.lists(st.tuples(st.floats(0, 20), st.sampled_from("ab")), max_size=60))
def test_no_window_holds_more_than_it_may(most: int, per_key: int, asked: list[tuple[float, str]]) -> None:
    window = Window(most, 60.0, per_key=per_key)
    now, taken = 0.0, list[tuple[float, str]]()
    for wait, key in asked:
        now += wait
        if window.take(now, key):
            taken.append((now, key))
        held = [one for at, one in taken if now - at < 60.0]
        assert len(held) <= most
        assert max((held.count(one) for one in "ab"), default=0) <= per_key


def test_a_window_counts_what_it_let_through_and_nothing_else() -> None:
    window = Window(2, 60.0)
    assert [window.take(at) for at in (0.0, 10.0, 20.0, 59.9)] == [True, True, False, False]
    assert [window.take(at) for at in (60.0, 69.9, 70.0)] == [True, False, True]
