"""--help of every command against a golden text, and fast enough to be used without thinking.

After a wanted change: GOLDEN=write scripts/test -- tests/cli/test_help.py, and read the diff.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import punchbridge
from punchbridge.cli import COMMANDS
from tests.cli.programs import ROOT, Run

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["", *(name for name, _, _ in COMMANDS), "key new", "key show"]


@pytest.mark.parametrize("name", NAMES)
def test_help(run: Run, name: str) -> None:
    code, stdout, stderr = run(*name.split(), "--help")
    assert (code, stderr) == (0, "")
    path = GOLDEN / f"help{'-' + name.replace(' ', '-') if name else ''}.txt"
    text = "\n".join(line.rstrip() for line in stdout.splitlines()) + "\n"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_aliases_are_the_commands(environment: dict[str, str]) -> None:
    for alias, name in (
        ("punchbridge-relay", "relay"),
        ("punchbridge-listener", "listen"),
        ("punchbridge-dialer", "dial"),
    ):
        script = Path(sys.executable).parent / alias
        shown = subprocess.run([script, "--help"], env=environment, text=True, capture_output=True, check=True).stdout
        assert shown.startswith(f"Usage: punchbridge {name} ")


def test_version(run: Run) -> None:
    assert run("--version")[:2] == (0, punchbridge.__version__)


def test_help_loads_no_network_library() -> None:
    code = "import sys; from punchbridge.cli import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    loaded = set(outcome.stderr.split())
    assert "cyclopts" in loaded
    assert not loaded & {
        "libp2p",
        "grpc",
        "trio",
        "asyncio",
        "multiaddr",
        "google.protobuf",
        "cryptography",
        "punchbridge_relay",
    }
