"""The real programs over one NAT pair for each thing that can go wrong; `scripts/natlab matrix` runs them all."""

from __future__ import annotations

import pytest
from runs.matrix import QUICK
from runs.scenario import Scenario, run_scenario

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(150)]


@pytest.mark.parametrize("pair", QUICK, ids="-".join)
def test_pair(pair: tuple[str, str]) -> None:
    report = run_scenario(Scenario(*pair, duration=1.0))
    told = {name: program["stderr"] for name, program in report.programs.items()}
    assert report.error == "", told
    assert report.as_expected, (report.scenario["expected"], report.outcome, report.punch, told)
    if report.scenario["expected"] == "direct":
        assert report.proven, (report.proof, report.watched)
    else:
        assert report.punch["codes"], report.punch
