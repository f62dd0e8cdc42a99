"""The soak runs of scripts/torture, each as a test: minutes of load in the NAT lab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runs.soaks import SOAKS, Soak

ROOT = Path(__file__).resolve().parents[2]
UNAVAILABLE = 77

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("one", SOAKS, ids=lambda one: one.id)
def test_soak(one: Soak, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "torture"), one.id, "--logs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
