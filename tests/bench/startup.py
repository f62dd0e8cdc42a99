"""How long the programs take to say their first word, and what they hold once they run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from driver import ROOT, TICKS
from figures import Table, progress

WALL, CPU, MEMORY = "wall ms", "CPU ms", "resident MiB"
ANY = ("--listen", "/ip4/127.0.0.1/tcp/0")
PROGRAMS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "punchbridge --help": (sys.executable, "-m", "punchbridge", "--help"),
    "punchbridge relay, listening": (sys.executable, "-m", "punchbridge", "relay", "--json", *ANY),
    "punchbridge listen, listening": (sys.executable, "-m", "punchbridge", "listen", "--json", *ANY),
    "punchbridge expose, listening": (
        sys.executable,
        "-m",
        "punchbridge",
        "expose",
        "127.0.0.1:9",
        "--json",
        *ANY,
    ),
}
LISTENING = '"event":"node.started"'


def run(*, rounds: int) -> list[Table]:
    table = Table("Start of the programs", [WALL, CPU, MEMORY])
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        env = {**os.environ, "XDG_STATE_HOME": home, "XDG_CONFIG_HOME": home}
        for number in range(rounds):
            progress(f"start-up, round {number + 1} of {rounds}")
            for name, command in PROGRAMS.items():
                _start(table, name, list(command), env)
    table.notes.append("From exec to the end (help) or to the line that says it listens. The file cache is warm.")
    return [table]


def _start(table: Table, name: str, command: list[str], env: dict[str, str]) -> None:
    began = time.perf_counter()
    if "listening" not in name:
        before = os.times()
        subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        table.add(name, WALL, 1000 * (time.perf_counter() - began))
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        table.add(name, CPU, 1000 * spent)
        return
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            while line := child.stdout.readline():
                if LISTENING in line:
                    break
            table.add(name, WALL, 1000 * (time.perf_counter() - began))
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            table.add(name, CPU, 1000 * (int(fields[11]) + int(fields[12])) / TICKS)
            table.add(name, MEMORY, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20))
        finally:
            child.terminate()
