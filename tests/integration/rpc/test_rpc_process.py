"""A process with a bridge in it: interrupted in a blocking call, ended without closing, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A shell without job control starts its background jobs with SIGINT ignored, and children inherit that.
START = """
import os, signal, sys, punchbridge
signal.signal(signal.SIGINT, signal.default_int_handler)
def announce(b):
    print(b._control.gateway.directory.path, flush=True)
"""
OPEN = 'punchbridge.open(listen=["/ip4/127.0.0.1/tcp/0"], allow_private=True)'


def start(body: str, tmp_path: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "TMPDIR": "/tmp", "XDG_RUNTIME_DIR": ""}
    return subprocess.Popen(
        [sys.executable, "-c", START + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


@pytest.mark.parametrize("wait", ["b.wait_direct(SILENT, 30)", "b.connect(SILENT, 30)"])
def test_an_interrupt_ends_a_blocking_call_and_the_bridge(tmp_path: Path, wait: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
        addr = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{peer}"
        body = f"SILENT = {addr!r}\nwith {OPEN} as b:\n    announce(b)\n    {wait}\n"
        with start(body, tmp_path) as process:
            assert process.stdout is not None
            directory = process.stdout.readline().strip()
            assert os.path.isdir(directory)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in told
        assert not os.path.exists(directory)


IN_A_THREAD = """
import threading, time
ready = threading.Event()
def work():
    with OPEN as b:
        announce(b)
        ready.set()
        time.sleep(60)
threading.Thread(target=work, daemon=True).start()
ready.wait()
sys.exit(7)
""".replace("OPEN", OPEN)


@pytest.mark.parametrize(
    "body", [f"keep = {OPEN}\nb = keep.__enter__()\nannounce(b)\nsys.exit(7)\n", IN_A_THREAD], ids=["main", "thread"]
)
def test_a_program_that_ends_without_closing_does_not_hang_and_leaves_nothing(tmp_path: Path, body: str) -> None:
    with start(body, tmp_path) as process:
        out, told = process.communicate(timeout=20)
    assert process.returncode == 7, told
    assert told == ""
    assert not os.path.exists(out.strip())
