"""When the relay client renews and how long it waits: for any expiry and any die."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.behaviours.relay_client.lease import Backoff, Grants, lease_seconds, renew_after
from punchbridge.config import RelayClientLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.wire.voucher import CLOCK_SKEW

LIMITS = RelayClientLimits()
LEASES = st.floats(LIMITS.lease_least, LIMITS.lease_most)
NOW = 1_800_000_000.5


@given(st.integers(0, 2**64 - 1), st.floats(0, 1e12))
def test_r14_any_expiry_gives_a_bounded_lease_or_a_typed_error(expire: int, wall: float) -> None:
    try:
        assert LIMITS.lease_least <= lease_seconds(expire, wall, LIMITS) <= LIMITS.lease_most
    except ProtocolViolation:
        assert expire < wall - CLOCK_SKEW


def test_an_ordinary_lease_is_what_is_left() -> None:
    assert lease_seconds(int(NOW) + 3600, NOW, LIMITS) == 3599.5
    assert lease_seconds(2**64 - 1, NOW, LIMITS) == LIMITS.lease_most
    assert lease_seconds(int(NOW) - CLOCK_SKEW + 1, NOW, LIMITS) == LIMITS.lease_least
    with pytest.raises(ProtocolViolation, match="clocks"):
        lease_seconds(int(NOW) - CLOCK_SKEW - 1, NOW, LIMITS)
    with pytest.raises(ProtocolViolation):
        lease_seconds(0, NOW, LIMITS)


@given(LEASES, st.floats(0, 1))
def test_renewal_comes_between_half_and_three_quarters(lease: float, die: float) -> None:
    assert 0.5 * lease <= renew_after(lease, die, LIMITS) <= 0.75 * lease


@given(LEASES, st.lists(st.floats(0, 1), min_size=4, max_size=60))
def test_a_relay_whose_old_timers_stay_is_soon_asked_again(lease: float, dice: list[float]) -> None:
    """As js-libp2p's: the first renewal takes the timer away, each later one puts its own beside those there are."""
    grants, now, asked = Grants(LIMITS), 1000.0, [1000.0]
    grants.add(now + lease, now)
    timers, renewals = [now + lease], 0
    for die in dice:
        now += grants.renew_after(now, die)
        assert now <= min(timers) + LIMITS.renew_past + 1e-6
        renewals = 0 if min(timers) <= now else renewals + 1
        timers = [*timers, now + lease] if renewals > 1 else [now + lease]
        grants.add(now + lease, now)
        asked.append(now)
    often = LIMITS.renew_ends + 2
    assert all(later - early >= lease * 0.99 for early, later in zip(asked, asked[often:], strict=False))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.floats(0, 100))
def test_the_back_off_is_positive_and_bounded(dice: list[float], least: float) -> None:
    backoff = Backoff(LIMITS)
    for die in dice:
        wait = backoff.next(die, least)
        assert LIMITS.backoff_first / 2 <= wait <= LIMITS.backoff_most
        assert wait >= min(least, LIMITS.backoff_most) / 2


def test_the_first_retry_is_quick_and_a_reset_makes_it_so_again() -> None:
    backoff = Backoff(LIMITS)
    waits = [backoff.next(1.0) for _ in range(30)]
    assert waits[0] == LIMITS.backoff_first
    assert waits == sorted(waits)
    assert waits[-1] == LIMITS.backoff_most
    backoff.reset()
    assert math.isclose(backoff.next(0.0), LIMITS.backoff_first / 2)


def test_a_relay_that_was_away_for_t_is_found_within_two_thirds_of_t_more() -> None:
    for outage in (1.0, 3.0, 5.0, 10.0, 30.0):
        backoff, now = Backoff(LIMITS), 0.0
        while now < outage:
            now += backoff.next(1.0)
        assert now - outage <= outage * 0.67 + LIMITS.backoff_first
