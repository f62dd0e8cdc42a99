"""Each parser takes its seeds, the kept corpus and some changes of them; and the fuzzer tells a parser that fails.

`scripts/fuzz` runs them for longer, and lets atheris follow the branches taken where that is installed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from punchbridge.errors import ProtocolViolation
from tests.fuzz import registry
from tests.fuzz.main import Outcome, fuzz, page
from tests.fuzz.mutation import Mutator
from tests.fuzz.parser import Parser
from tests.fuzz.worker import Judge, State, counts

LEAST = 30
SECONDS = 0.25
"""CPU of each parser beyond its first inputs; the same inputs in each run, more or fewer of them."""


@pytest.mark.parametrize("name", list(registry.parsers()))
def test_any_bytes_are_accepted_or_refused(name: str) -> None:
    parser, corpus = registry.parser(name), registry.inputs(name)
    accepted = sum(map(parser.try_one, corpus))
    mutator, done, end = Mutator(1), 0, time.thread_time() + SECONDS
    while done < LEAST or time.thread_time() < end:
        data = mutator.change(corpus)
        try:
            accepted += parser.try_one(data)
        except Exception as problem:
            raise AssertionError(f"{name}: {data.hex()}") from problem
        done += 1
    # An initiator of Noise accepts nothing but what was encrypted for it.
    assert accepted or name == "noise-initiator"


def test_every_corpus_belongs_to_a_parser() -> None:
    assert {path.stem for path in registry.CORPUS.glob("*.txt")} <= set(registry.parsers())


def _fragile(data: bytes) -> bool:
    if data[:1] == b"b":
        raise ProtocolViolation("bad")
    return data[3:4] != b"x" or data[9] != 7


def test_a_parser_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fragile = Parser("fragile", _fragile, [b"good"])
    monkeypatch.setattr(registry, "parser", lambda name: fragile)
    judge = Judge("fragile", State(tmp_path / "state"), tmp_path)
    for data in (b"good", b"bad", b"000x", b"111x"):
        judge(data)
    found, under_way = counts(tmp_path / "state")
    assert (found["cases"], found["accepted"], found["unexpected"], under_way) == (4, 1, 2, b"")
    assert {path.name.partition("-")[0] for path in tmp_path.glob("*-*") if path.suffix != ".txt"} == {"IndexError"}
    (kept,) = (path for path in tmp_path.glob("IndexError-*") if path.suffix != ".txt")
    assert kept.read_bytes() == b"000x"


def test_one_run_of_the_command(tmp_path: Path) -> None:
    outcome = fuzz("varint", "mutation", seconds=0.2, seed=7, folder=tmp_path / "run")
    assert outcome.cases > 20
    assert outcome.accepted
    assert not outcome.unexpected, outcome.told


def test_a_worker_that_dies_is_told_with_its_last_input(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.fuzz.worker import State; "
        "State(Path(sys.argv[1])).begins(b'deadly'); os.abort()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "state")], cwd=registry.CORPUS.parents[2], check=False)
    assert counts(tmp_path / "state")[1] == b"deadly"


def test_the_page_sums_up() -> None:
    about = {"commit": "0" * 40, "kernel": "6", "python": "3"}
    told = page([Outcome("a", "mutation", 10, 4, 1), Outcome("a", "guided", 5, 5, new=3)], about, "scripts/fuzz")
    assert "15 cases, 1 unexpected" in told
    assert "| a | mutation | 10 | 4 | 5 | 1 | 0 | 0.0 |  |" in told
