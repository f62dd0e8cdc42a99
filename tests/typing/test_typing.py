"""The samples beside this file pass mypy --strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(180)
def test_samples() -> None:
    samples = [str(path) for path in HERE.glob("*_api.py")]
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *samples]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    mine = [line for line in done.stdout.splitlines() if line.startswith("tests/typing/")]
    assert done.returncode in (0, 1), done.stderr
    assert mine == [], done.stdout
    assert samples
