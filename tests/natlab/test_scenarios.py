"""The scenarios of TEST_SCENARIOS.md, each run with the real programs in the lab."""

from __future__ import annotations

from dataclasses import replace

import pytest
from runs import evidence
from runs.catalogue import ROWS, Row
from runs.scenario import run_scenario

from tests.support.built import NOT_BUILT

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(180)]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id, marks=pytest.mark.scenario(row.id)) for row in ROWS])
def test_scenario(row: Row) -> None:
    if row.scenario.transport != "tcp":
        pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)
    scenario = replace(row.scenario, measure=False, capture=False, duration=min(row.scenario.duration, 3.0))
    report = run_scenario(scenario)
    assert evidence.passed(report.as_json(), row), evidence.summary(report.as_json(), row)
