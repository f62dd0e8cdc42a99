"""The session layer's bounds: 0.8 of the throughput, 1.25 times the latency of a small call."""

from __future__ import annotations

import pytest
from session_cost import measure

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]


def test_cost_of_sessions() -> None:
    found = measure(5)
    assert found["up"]["ratio"] >= 0.8, found
    assert found["down"]["ratio"] >= 0.8, found
    assert found["call"]["ratio"] <= 1.25, found
