"""The stub of the QUIC engine says what the extension module has, call by call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.built import NOT_BUILT

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

NOT_AT_RUN_TIME = ("Attempt", "Event", "Packet")
"""Types that only the stub names."""
PACKAGING = ("__all__", "punchbridge_quic")
"""The build puts the extension module into a package of its name."""


@pytest.mark.timeout(180)
def test_the_stub_and_the_module_are_the_same(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("".join(f"punchbridge_quic.{name}\n" for name in (*NOT_AT_RUN_TIME, *PACKAGING)))
    command = [sys.executable, "-m", "mypy.stubtest", "punchbridge_quic", "--allowlist", str(allowed)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
