"""The two commands of a newcomer, before anything was set up. They run from a copy that has no .venv."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["demo", "test", "natlab"])
def test_help_needs_no_set_up(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    path = f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"
    outcome = subprocess.run(
        [tmp_path / "scripts" / name, "--help"], env={"PATH": path}, text=True, capture_output=True, timeout=20
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "usage" in outcome.stdout.lower()
    assert not (tmp_path / ".venv").exists()


def test_an_unknown_argument_of_the_check_command_is_a_usage_error() -> None:
    outcome = subprocess.run([ROOT / "scripts" / "test", "--nonsense"], text=True, capture_output=True, timeout=20)
    assert outcome.returncode == 2
    assert "unknown argument --nonsense" in outcome.stderr
