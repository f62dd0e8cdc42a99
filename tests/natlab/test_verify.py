"""Every NAT behaviour shows what the table says, and a wrong one is noticed."""

from __future__ import annotations

import pytest
from lab import BEHAVIOURS, Lab, behaviour
from lab.verify import expected, measure, verify

pytestmark = pytest.mark.natlab


def test_every_behaviour_is_what_the_table_says() -> None:
    rows = verify(list(BEHAVIOURS))
    assert [row.behaviour for row in rows] == list(BEHAVIOURS)
    assert [(row.behaviour, row.seen, row.expected) for row in rows if not row.passed] == []


def test_a_wrong_behaviour_is_noticed() -> None:
    with Lab("symmetric", "public") as lab:
        seen = measure(lab, behaviour("symmetric"))
    assert seen != expected(behaviour("home"))
    assert (seen.mapping, seen.port_kept, seen.filtering) == ("APDM", "no", "APDF")


@pytest.mark.parametrize("side", ["a", "b"])
def test_both_sides_are_built_alike(side: str) -> None:
    with Lab("addr-restricted", "addr-restricted") as lab:
        assert measure(lab, behaviour("addr-restricted"), side) == expected(behaviour("addr-restricted"))
