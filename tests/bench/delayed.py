"""Set-up in round trips, and one stream's throughput, over paths of known delay in the network lab.

The lab moves a process into namespaces of its own for good, so it runs in a child; this half reads its figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from driver import PROGRAMS, ROOT
from figures import Table, progress

LOSSY = "One stream over a path that loses 1 % of the packets, 40 ms there and back"
UNAVAILABLE = 77
"""Exit status of the child where no namespaces can be made."""


def run(*, rounds: int, seconds: int, skip: int, trips: int, lossy: int) -> list[Table]:
    tables: dict[str, Table] = {}
    command = [sys.executable, str(PROGRAMS / "lab_run.py"), *map(str, (rounds, seconds, skip, trips, lossy))]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT / 'tests' / 'bench'}"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for text in child.stdout:
            line = json.loads(text)
            if "progress" in line:
                progress(line["progress"])
                continue
            table = tables.setdefault(line["table"], Table(line["table"], []))
            if "note" in line:
                table.notes.append(line["note"])
                continue
            if line["column"] not in table.columns:
                table.columns.append(line["column"])
            table.add(line["row"], line["column"], line["value"])
    if child.returncode not in (0, UNAVAILABLE):
        tables.setdefault("Delayed paths", Table("Delayed paths", [])).notes.append("the lab run failed; see stderr")
    if LOSSY in tables:
        tables[LOSSY].base = dict.fromkeys(tables[LOSSY].columns, "punchbridge")
    return list(tables.values())
