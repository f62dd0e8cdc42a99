"""What is known of a path from its counters: losses and what it carries, each only where enough was sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.reach.gauge import INTERVALS, LEAST_PACKETS, LONGEST, Gauge, PathCounts


def test_a_share_of_lost_packets_is_told_once_enough_were_sent() -> None:
    gauge = Gauge()
    gauge.read(PathCounts(1000, 7, 0), 0.0, full=False)
    assert gauge.loss is None
    gauge.read(PathCounts(1000 + LEAST_PACKETS - 1, 17, 0), 1.0, full=False)
    assert gauge.loss is None
    gauge.read(PathCounts(1000 + LEAST_PACKETS, 17, 0), 2.0, full=False)
    assert gauge.loss == 10 / LEAST_PACKETS


def test_losses_of_long_ago_are_forgotten() -> None:
    gauge = Gauge()
    for at, lost in ((0.0, 0), (1.0, 50), (2.0, 50), (3.0, 50)):
        gauge.read(PathCounts(round(at) * LEAST_PACKETS, lost, 0), at, full=False)
    assert gauge.loss == 0.0
    idle = Gauge()
    idle.read(PathCounts(0, 0, 0), 0.0, full=False)
    idle.read(PathCounts(LEAST_PACKETS, 50, 0), 1.0, full=False)
    for at in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 1.5 + LONGEST):
        idle.read(PathCounts(LEAST_PACKETS, 50, 0), at, full=False)
    assert idle.loss is None


def test_a_rate_is_told_where_more_was_waiting_all_the_time() -> None:
    gauge = Gauge()
    told = []
    for at in range(INTERVALS + 1):
        gauge.read(PathCounts(0, 0, 1000 * at + (500 if at == INTERVALS else 0)), float(at), full=True)
        told.append(gauge.rate)
    assert told == [None] * INTERVALS + [1500]
    for full in (False, True):  # it took all that there was, and might take more
        gauge.read(PathCounts(0, 0, 9_000_000), gauge.read_at + 1.0 if gauge.read_at else 0.0, full=full)
        told.append(gauge.rate)
    assert told[-2:] == [None, None]


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 50), st.floats(0.0, 30.0), st.booleans()), max_size=80))
def test_what_is_told_is_a_share_and_what_is_kept_has_a_bound(steps: list[tuple[int, int, float, bool]]) -> None:
    gauge, now, packets, lost, delivered = Gauge(), 0.0, 0, 0, 0
    for more, gone, later, full in steps:
        now, packets, lost, delivered = now + later, packets + more, lost + min(more, gone), delivered + 1000 * more
        gauge.read(PathCounts(packets, lost, delivered), now, full=full)
        assert gauge.loss is None or gauge.loss >= 0
        assert gauge.rate is None or gauge.rate >= 0
        assert gauge.read_at == now
