"""The judgement of memory over a long run."""

from __future__ import annotations

from runs.memory import LEAST, flat, parts, quarters


def samples(*resident: int) -> list[dict[str, int]]:
    return [
        {"resident": one << 20, "in_use": 30 << 20, "blocks": 470_000 + 9_000 * (n % 2)}
        for n, one in enumerate(resident)
    ]


def test_swings_are_flat_and_a_steady_rise_is_not() -> None:
    swinging = samples(*(140 + 6 * (n % 3) for n in range(60)))
    assert all(good for _, good in flat("server", swinging))
    rising = samples(*(100 + n for n in range(60)))
    assert [good for _, good in flat("server", rising)] == [False, True, True]


def test_rise_at_the_begin_is_no_leak() -> None:
    assert all(good for _, good in flat("server", samples(*range(100, 140, 2), *[140] * 60)))


def test_run_that_is_too_short_shows_nothing() -> None:
    assert not all(good for _, good in flat("server", samples(*[140] * (LEAST - 1))))
    assert not all(good for _, good in flat("server", []))


def test_parts_are_medians_in_order() -> None:
    assert parts([1, 1, 9, 2, 2, 2, 3, 3, 3], 3) == [1, 2, 3]
    assert parts([1], 3) == []
    assert quarters(samples(*[140] * 8))["resident (MiB)"] == [140.0] * 4
