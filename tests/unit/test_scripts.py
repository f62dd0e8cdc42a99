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


def engine(folder: Path, *, cargo: bool, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the set-up's step that builds the QUIC engine, twice, with a `python` of ours in an environment of ours."""
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >>{folder}/called\nexit {status}\n')
    python.chmod(0o755)
    step = "setup_quic_is_current || setup_make_quic"
    script = (
        f"source <(sed '$d' '{ROOT}/scripts/setup-env'); setup_root={ROOT}; setup_venv={folder};"
        f"setup_has_cargo() {{ {str(cargo).lower()}; }}; {step}; {step}; echo goes on"
    )
    return subprocess.run(
        ["bash", "-c", script],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)}, text=True, capture_output=True, timeout=20,
    )  # fmt: skip


def test_without_cargo_one_line_tells_that_quic_is_missing(tmp_path: Path) -> None:
    outcome = engine(tmp_path, cargo=False)
    assert (outcome.returncode, outcome.stdout) == (0, "goes on\n")
    assert outcome.stderr.count("\n") == 1
    assert "no cargo" in outcome.stderr
    assert "over TCP" in outcome.stderr
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("status", [0, 1])
def test_with_cargo_the_quic_engine_is_built_once(tmp_path: Path, status: int) -> None:
    outcome = engine(tmp_path, cargo=True, status=status)
    assert (outcome.returncode, outcome.stdout) == (0, "goes on\n")
    assert outcome.stderr.startswith("set-up: building the QUIC engine")
    assert outcome.stderr.count("\n") == 1 + status
    assert ("could not be built" in outcome.stderr) is bool(status)
    assert len((tmp_path / "called").read_text().splitlines()) == 2 - status


def test_the_manifest_of_the_quic_engine_pins_what_no_lock_file_does() -> None:
    import tomllib

    manifest = tomllib.loads((ROOT / "native" / "quic" / "Cargo.toml").read_text())
    assert f"punchbridge-quic=={manifest['package']['version']}" in (ROOT / "constraints.txt").read_text().split()
    wanted = [one if isinstance(one, str) else one["version"] for one in manifest["dependencies"].values()]
    assert all(version.startswith("=") for version in wanted)
