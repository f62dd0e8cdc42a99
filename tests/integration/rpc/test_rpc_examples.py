"""The two examples, run as a reader would run them, on loopback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_server_and_client(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "server.py")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            addr = server.stdout.readline().strip()
            client = [sys.executable, str(EXAMPLES / "client.py"), addr]
            done = subprocess.run(client, cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False)
        finally:
            server.terminate()
    assert done.returncode == 0, done.stderr
    first, direct, again = done.stdout.splitlines()
    assert first.startswith("hello world, you are 12D3KooW")
    assert first.endswith("on a direct path")
    assert direct.startswith("direct: /ip4/")
    assert again.startswith("hello again")
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
