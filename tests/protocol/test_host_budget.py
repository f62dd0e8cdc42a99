"""The budget of dials to one host."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.reach.host_budget import HostBudget


def test_a_host_has_its_own_budget_and_gets_it_back() -> None:
    budget = HostBudget(4, 2.0, hosts=10)
    assert [budget.take("a", 0.0) for _ in range(5)] == [True] * 4 + [False]
    assert budget.take("b", 0.0)
    assert [budget.take("a", 0.5), budget.take("a", 0.5)] == [True, False]
    assert [budget.take("a", 10.0) for _ in range(5)] == [True] * 4 + [False]


def test_hosts_are_forgotten_once_they_have_it_back_and_refused_before() -> None:
    budget = HostBudget(1, 2.0, hosts=2)
    assert [budget.take(host, 0.0) for host in "abc"] == [True, True, False]
    assert budget.take("c", 2.1)
    assert len(budget) == 1


@given(st.integers(1, 20), st.lists(st.floats(0, 3), max_size=100))
def test_a_window_never_sees_more_than_twice_the_budget(most: int, waits: list[float]) -> None:
    budget, now, taken = HostBudget(most, 5.0, hosts=3), 0.0, []
    for wait in waits:
        now += wait
        if budget.take("a", now):
            taken.append(now)
        assert sum(at > now - 5.0 for at in taken) <= 2 * most
