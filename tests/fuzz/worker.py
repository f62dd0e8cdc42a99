"""One parser under one engine for a while, in a process of its own: `python -m tests.fuzz.worker`. Prints JSON.

The counts and the input under way stand in a file that is mapped, so that they outlive a crash or a hang of the
interpreter. Engines: `mutation` changes seeds and corpus at random, `guided` lets atheris follow the branches taken.
"""

from __future__ import annotations

import argparse
import json
import mmap
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Final

_HEAD: Final = struct.Struct("<QQQQQI")
"""Cases, accepted, unexpected, slow, longest case (µs of CPU), size of the input under way."""

_ROOM: Final = 1 << 17
SLOW: Final = 0.05
"""Seconds of CPU. A message of the largest size takes milliseconds."""

INSTRUMENTED: Final = ("punchbridge", "punchbridge_node", "multiaddr")
LONGEST: Final = 4096
"""Bytes of an input of the guided engine."""


class State:
    """What is known of a run while it runs, in a mapped file."""

    def __init__(self, path: Path) -> None:
        self.cases = self.accepted = self.unexpected = self.slow = self.longest = 0
        with path.open("w+b") as file:
            file.truncate(_HEAD.size + _ROOM)
            self._map = mmap.mmap(file.fileno(), 0)

    def begins(self, data: bytes) -> None:
        kept = data[:_ROOM]
        self._map[_HEAD.size : _HEAD.size + len(kept)] = kept
        self.write(len(kept))

    def write(self, size: int = 0) -> None:
        numbers = (self.cases, self.accepted, self.unexpected, self.slow, self.longest)
        self._map[: _HEAD.size] = _HEAD.pack(*numbers, size)


def counts(path: Path) -> tuple[dict[str, int], bytes]:
    """The counts of a run, and the input that was under way when it ended."""
    raw = path.read_bytes()
    *numbers, size = _HEAD.unpack_from(raw)
    names = ("cases", "accepted", "unexpected", "slow", "longest")
    return dict(zip(names, numbers, strict=True)), raw[_HEAD.size : _HEAD.size + size]


class Judge:
    """Feeds a parser and counts. `found`: a folder for inputs that showed a defect, one for each place in the code."""

    def __init__(self, name: str, state: State, found: Path) -> None:
        from tests.fuzz.registry import parser

        self._parser, self._state, self._found = parser(name), state, found
        for data in self._parser.seeds:  # what is loaded at the first use is not the first input's cost
            self._parser.try_one(data)
        self._places: set[str] = set()

    def __call__(self, data: bytes) -> None:
        state = self._state
        state.begins(data)
        state.cases += 1
        began = time.thread_time()
        try:
            state.accepted += self._parser.try_one(data)
        except Exception as problem:  # noqa: BLE001 - whatever a parser raises that it should not
            state.unexpected += 1
            self._keep(data, problem)
        took = time.thread_time() - began
        state.longest = max(state.longest, int(took * 1e6))
        if took > SLOW:
            state.slow += 1
            (self._found / f"slow-{self._parser.name}").write_bytes(data)
        state.write()

    def _keep(self, data: bytes, problem: Exception) -> None:
        last = traceback.extract_tb(problem.__traceback__)[-1]
        place = f"{type(problem).__name__}-{Path(last.filename).stem}-{last.lineno}"
        if place in self._places or len(self._places) > 20:
            return
        self._places.add(place)
        (self._found / place).write_bytes(data)
        (self._found / f"{place}.txt").write_text("".join(traceback.format_exception(problem)))


def _mutation(judge: Judge, name: str, seconds: float, seed: int) -> None:
    from tests.fuzz.mutation import Mutator
    from tests.fuzz.registry import inputs

    corpus, mutator = inputs(name), Mutator(seed)
    for data in corpus:
        judge(data)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            judge(mutator.change(corpus))


def _guided(name: str, state: State, found: Path, seconds: float, seed: int, kept: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        judge = Judge(name, state, found)
        from tests.fuzz.registry import inputs

    kept.mkdir(exist_ok=True)
    seeds = kept.with_name("seeds")
    seeds.mkdir(exist_ok=True)
    for number, data in enumerate(inputs(name)):
        (seeds / str(number)).write_bytes(data)
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-seed={seed}",
        f"-max_len={LONGEST}",
        "-rss_limit_mb=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(kept), str(seeds)], judge)
    atheris.Fuzz()  # ends the process


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.worker", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("engine", choices=("mutation", "guided"))
    parser.add_argument("folder", type=Path, help="gets the state, the defects found and the inputs worth keeping")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    found = options.folder / "found"
    found.mkdir(parents=True, exist_ok=True)
    state = State(options.folder / "state")
    if options.engine == "guided":
        _guided(options.name, state, found, options.seconds, options.seed, options.folder / "kept")
    else:
        _mutation(Judge(options.name, state, found), options.name, options.seconds, options.seed)
    print(json.dumps(counts(options.folder / "state")[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
