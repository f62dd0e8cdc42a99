"""Fixtures that run the real programs with a home of their own; nothing of the caller's environment leaks in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calls import shouting
from tests.cli.programs import LOOPBACK, ROOT, Program, Run, Start


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
    return {
        **kept,
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "COLUMNS": "100",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts `punchbridge ARGUMENTS` in the background; killed at the end of the test."""
    running: list[Program] = []

    def begin(*arguments: str, **more: str) -> Program:
        program = Program(arguments, {**environment, **more}, tmp_path)
        running.append(program)
        return program

    yield begin
    for program in running:
        program.kill()


@pytest.fixture
def run(start: Start) -> Run:
    """Runs `punchbridge ARGUMENTS` to its end: (exit code, stdout, stderr)."""
    return lambda *arguments, **more: start(*arguments, **more).ended()


@pytest.fixture
def relay(start: Start) -> tuple[Program, str]:
    """A relay on loopback and its address."""
    program = start("relay", "--listen", LOOPBACK, "--lan", "--json")
    return program, program.event("relay.listening")["addrs"][0]


@pytest.fixture
def server() -> Iterator[str]:
    """A plain gRPC server that knows nothing of the bridge; HOST:PORT."""
    with shouting() as place:
        yield place
