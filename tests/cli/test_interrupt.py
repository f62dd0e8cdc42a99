"""Ctrl-C before a program has opened anything: it ends at once, with nothing but its exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.programs import LOOPBACK, PATIENCE

# Begins as the console script does, and is interrupted in the middle of one import.
PROBE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from punchbridge.cli import main
where = sys.argv.pop(1)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.exit(main())
"""


@pytest.mark.parametrize("command", ["relay", "listen", "expose", "dial"])
@pytest.mark.parametrize("where", ["cyclopts", "trio", "punchbridge.keys", "punchbridge.swarm.swarm"])
def test_an_interrupt_inside_an_import(command: str, where: str, environment: dict[str, str], tmp_path: Path) -> None:
    target = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
    arguments = {"expose": ["localhost:1"], "dial": [target]}.get(command, [])
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, where, command, *arguments, "--listen", LOOPBACK],
        env={**environment, "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
    assert not list(tmp_path.glob("punchbridge-*"))


# A program whose work does not end when it is told to.
STUCK = """
import signal, sys, trio
from punchbridge.cli.signals import until_signal
async def work(scope):
    print("works", flush=True)
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()
trio.run(until_signal, work, float(sys.argv[1]))
"""


def test_a_drain_that_does_not_end_is_ended(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUCK, "0.05"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"works\n"
        program.terminate()
        assert program.wait(PATIENCE) == -signal.SIGALRM
