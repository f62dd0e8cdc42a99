"""The command `scripts/fuzz`: any bytes into every parser of what strangers send, for a bounded time.

Each parser runs under two engines in turn, each in a process of its own: inputs changed at random, and inputs that
follow the branches taken (atheris, where it is installed).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from runs.report import environment

from tests.fuzz.registry import corpus, keep, parsers
from tests.fuzz.worker import INSTRUMENTED, SLOW, counts

ROOT = Path(__file__).resolve().parents[2]
KEPT = 60
"""Inputs of a parser that are kept in the repository."""

LONGEST_KEPT = 600
"""Bytes of one of them."""

HEAD = ("parser", "engine", "cases", "accepted", "refused", "unexpected", "slow", "longest ms", "new branches")
_ENDED = 180.0  # seconds beyond its time that a run may take to begin and to end


@dataclass
class Outcome:
    """What one engine found with one parser. `new`: inputs that took other branches; None: not asked."""

    name: str
    engine: str
    cases: int = 0
    accepted: int = 0
    unexpected: int = 0
    slow: int = 0
    longest: int = 0
    new: int | None = None
    told: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        numbers = (self.cases, self.accepted, self.cases - self.accepted - self.unexpected, self.unexpected, self.slow)
        new = "" if self.new is None else str(self.new)
        return (self.name, self.engine, *map(str, numbers), f"{self.longest / 1000:.1f}", new)


def fuzz(name: str, engine: str, *, seconds: float, seed: int, folder: Path, keeping: bool = False) -> Outcome:
    """Runs one parser under one engine. What it found wrong stays in `folder`; its new inputs too, when keeping."""
    folder.mkdir(parents=True)
    outcome = Outcome(name, engine)
    command = [sys.executable, "-m", "tests.fuzz.worker", name, engine, str(folder)]
    try:
        done = subprocess.run(
            [*command, "--seconds", str(seconds), "--seed", str(seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            text=True,
            capture_output=True,
            timeout=seconds * 4 + _ENDED,
            check=False,
        )
        ended = "" if done.returncode == 0 else f"ended with {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired:
        ended = "did not end in time"
    found, under_way = counts(folder / "state") if (folder / "state").exists() else ({}, b"")
    for key, value in found.items():
        setattr(outcome, key, value)
    texts = [path.read_text() for path in sorted((folder / "found").glob("*.txt"))]
    if not ended and not outcome.cases:
        ended = "tried nothing: the time was over before it began"
    if ended:
        outcome.unexpected += 1
        texts.append(f"the process {ended}\nits last input: {under_way.hex()}")
    outcome.told = "\n".join(texts)
    if engine == "guided" and (folder / "kept").exists():
        fresh = [path.read_bytes() for path in (folder / "kept").iterdir()]
        outcome.new = len(fresh)
        if keeping:
            _keep(name, fresh)
    return outcome


def _keep(name: str, fresh: Sequence[bytes]) -> None:
    old = corpus(name)
    short = sorted((one for one in fresh if len(one) <= LONGEST_KEPT), key=len)
    # Evenly from short to long: the short ones alone would never lead deep.
    step = max(1, len(short) // max(1, KEPT - len(old)))
    keep(name, [*old, *short[::step][: max(0, KEPT - len(old))]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fuzz", description="Any bytes into every parser of what strangers send.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="the beginning of a parser's name; all when none is given"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each parser and engine (default %(default)g)")
    parser.add_argument(
        "--engine", choices=("mutation", "guided", "both"), help="default: both, where atheris is there"
    )
    parser.add_argument("--seed", type=int, default=1, help="another number, other inputs (default %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the parsers")
    parser.add_argument("--keep", action="store_true", help="keep inputs that took other branches in tests/fuzz/corpus")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page, as docs/records/fuzzing.md")
    return parser


def _engines(wanted: str | None) -> list[str]:
    """Raises ValueError when atheris is wanted and not there."""
    there = find_spec("atheris") is not None
    if wanted in ("guided", "both") and not there:
        raise ValueError("atheris is not installed; run: .venv/bin/pip install -c constraints.txt -e '.[fuzz]'")
    return {None: ["mutation", "guided"] if there else ["mutation"], "both": ["mutation", "guided"]}.get(
        wanted, [str(wanted)]
    )


def page(outcomes: Sequence[Outcome], about: dict[str, str], command: str) -> str:
    """The page `docs/records/fuzzing.md`."""
    cases, unexpected = sum(one.cases for one in outcomes), sum(one.unexpected for one in outcomes)
    rows = [HEAD, ["---"] * len(HEAD), *(one.cells for one in outcomes)]
    return "\n".join(
        [
            "# Fuzzing",
            "",
            f"Written by `{command}`; do not edit. {cases} cases, {unexpected} unexpected.",
            "",
            "Each parser that reads what a stranger, a peer, a ticket or a file says gets any bytes (`tests/fuzz`).",
            "It may accept them or refuse them with the error that it documents; anything else that it raises, and any",
            "failed statement about what it then holds, is unexpected. `mutation` changes valid inputs and the kept",
            f"corpus at random; `guided` is atheris, which follows the branches taken in {', '.join(INSTRUMENTED)}.",
            f'Slow: more than {SLOW * 1000:g} ms of CPU for one input; "longest" is that of the slowest one. "New',
            'branches": inputs beyond seeds and corpus that took other branches.',
            "",
            f"Commit {about['commit'][:12]}, kernel {about['kernel']}, Python {about['python']}.",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
        ]
    )


def _print(cells: Sequence[str]) -> None:
    widths = (24, 9, 10, 10, 10, 11, 5, 11, 0)
    print(" ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip(), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 0: nothing unexpected, 1: something, 2: usage."""
    options = _parser().parse_args(arguments)
    names = [name for name in parsers() if not options.names or name.startswith(tuple(options.names))]
    if options.list:
        print("\n".join(names))
        return 0
    try:
        engines = _engines(options.engine)
        if not names:
            raise ValueError(f"no parser begins so; there are {', '.join(parsers())}")
    except ValueError as problem:
        print(f"fuzz: {problem}", file=sys.stderr)
        return 2
    outcomes = []
    _print(HEAD)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for name in names:
            for engine in engines:
                where = Path(folder) / f"{name}-{engine}"
                one = fuzz(name, engine, seconds=options.seconds, seed=options.seed, folder=where, keeping=options.keep)
                outcomes.append(one)
                _print(one.cells)
                if one.told:
                    print(one.told, flush=True)
                for path in sorted((where / "found").glob("*")):
                    if path.suffix != ".txt":
                        print(f"input {path.name}: {path.read_bytes()[:400].hex()}", flush=True)
    print(f"{sum(one.cases for one in outcomes)} cases, {sum(one.unexpected for one in outcomes)} unexpected")
    if options.write is not None:
        command = " ".join(["scripts/fuzz", *(sys.argv[1:] if arguments is None else arguments)])
        options.write.write_text(page(outcomes, environment(ROOT), command))
    return 1 if any(one.unexpected for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
