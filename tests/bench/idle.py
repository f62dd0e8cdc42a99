"""Connections of ours over TCP and over QUIC: what setting one up costs, and the memory of each end while it is idle.

Memory is the growth of the resident pages of a process that holds one end of them all; of the QUIC engine alone it is
what was allocated.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from driver import Failed, Peer, program
from figures import Table, progress
from peers import QUIC, listening, over_quic

OURS = "punchbridge"
ENGINE = "the QUIC engine alone"
TITLE = "Connections: setting one up, and holding it idle"
DIALLED, ACCEPTED = "KiB, end that dialled", "KiB, end that accepted"
CPU = "CPU ms to set up, both ends"
FIRST = 50
"""Connections that are there before: the heap has grown, and code was loaded."""

SETTLED = 1.0
"""Seconds after the last one: identify is over on both ends."""


def run(*, rounds: int, connections: int) -> list[Table]:
    table = Table(TITLE, [DIALLED, ACCEPTED, CPU])
    commands = {OURS: program("ours.py")}
    commands |= {
        name: command for name, command in over_quic(commands, OURS, table.notes).items() if name == OURS + QUIC
    }
    table.base = dict.fromkeys(table.columns, OURS)
    for number in range(rounds):
        for name, command in commands.items():
            progress(f"idle connections, round {number + 1} of {rounds}: {name}")
            try:
                _whole(table, name, command, connections)
            except Failed as problem:
                table.notes.append(f"{name}: not measured ({problem})")
        if OURS + QUIC in commands:
            _engine(table, connections)
    table.notes.append(
        f"{connections} connections beyond the first {FIRST}, between two processes, with identify; = ratio to TCP."
    )
    return [table]


def _whole(table: Table, name: str, command: list[str], count: int) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(Peer([*command, *listening(name)]))
        dialler = stack.enter_context(Peer(command))
        dialler.order("circuits_open", addr=listener.addr, count=FIRST)
        time.sleep(SETTLED)
        before, spent = (dialler.memory(), listener.memory()), dialler.cpu() + listener.cpu()
        held = dialler.order("circuits_open", addr=listener.addr, count=count)["open"]
        time.sleep(SETTLED)
        if held != FIRST + count:
            raise Failed(f"{held} connections stand")
        table.add(name, CPU, 1000 * (dialler.cpu() + listener.cpu() - spent) / count)
        table.add(name, DIALLED, (dialler.memory() - before[0]) / 1024 / count)
        table.add(name, ACCEPTED, (listener.memory() - before[1]) / 1024 / count)


def _engine(table: Table, count: int) -> None:
    """Two engines in one process, of which one is given up then: what each has allocated."""
    with Peer(program("engines.py")) as engines:
        none = engines.order("open", count=0)["held"]
        both = engines.order("open", count=count)["held"]
        accepted = engines.order("drop")["held"]
    table.add(ENGINE, DIALLED, (both - accepted) / 1024 / count)
    table.add(ENGINE, ACCEPTED, (accepted - none) / 1024 / count)
