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


def install(folder: Path, uid: int, apt_status: int) -> subprocess.CompletedProcess[str]:
    """Runs the set-up's step that installs packages, with an `apt-get` and an `id` of ours. Its last line goes on."""
    for name, text in {"apt-get": f'echo "apt-get $*"; exit {apt_status}', "id": f"echo {uid}"}.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    script = f"source <(sed '$d' '{ROOT}/scripts/setup-env'); setup_install_packages one two; echo goes on"
    return subprocess.run(
        ["bash", "-c", script], env={"PATH": f"{folder}:/usr/bin:/bin"}, text=True, capture_output=True, timeout=20
    )


def test_missing_packages_are_installed_by_root(tmp_path: Path) -> None:
    outcome = install(tmp_path, uid=0, apt_status=0)
    assert (outcome.returncode, outcome.stdout) == (0, "goes on\n")
    assert outcome.stderr == "set-up: installing system packages: one two\n"


@pytest.mark.parametrize(("uid", "status"), [(0, 100), (1000, 0)])
def test_otherwise_the_exact_command_is_told_and_the_set_up_stops(tmp_path: Path, uid: int, status: int) -> None:
    outcome = install(tmp_path, uid, status)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert "    sudo apt-get update && sudo apt-get install -y one two\n" in outcome.stderr
    assert ("could not install" in outcome.stderr) is (uid == 0)
