"""The command `scripts/attacks`: plays the attacks in turn, each in a process of its own, and prints the table.

Knows no attack: every module of this folder whose name begins with `a` and a number is one.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.session import EXIT_UNAVAILABLE
from runs.report import environment

from tests.attacks import table
from tests.attacks.frame import Row
from tests.attacks.programs import ROOT

FOLDER = Path(__file__).parent
LONGEST = 900.0
"""Seconds after which one attack is given up."""


class Unavailable(RuntimeError):
    """The attack cannot be played on this machine."""


class Failed(RuntimeError):
    """The attack's own process ended without figures."""


def names() -> list[str]:
    """Every attack, by its module's name."""
    return sorted(path.stem for path in FOLDER.glob("a*.py") if re.match(r"a\d", path.stem))


def chosen(wanted: Sequence[str]) -> list[str]:
    """The attacks that begin with these words; all when there are none. Raises ValueError."""
    found = []
    for word in wanted:
        matching = [name for name in names() if name.startswith(word)]
        if not matching:
            raise ValueError(f"no attack {word!r}; there are {', '.join(names())}")
        found += matching
    return found or names()


def title(name: str) -> str:
    """The first line of an attack's docstring."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def needs_namespaces(name: str) -> bool:
    return re.search(r"^NAMESPACES\b.*= True$", (FOLDER / f"{name}.py").read_text(), re.MULTILINE) is not None


def play(name: str, *, short: bool) -> list[Row]:
    """The rows of one attack. Raises Unavailable, Failed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.one", name, *(["--short"] if short else [])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{ROOT / 'scripts'}"},
        text=True,
        capture_output=True,
        timeout=LONGEST,
        check=False,
    )
    if done.returncode == EXIT_UNAVAILABLE:
        raise Unavailable(done.stderr.strip())
    if done.returncode != 0:
        raise Failed(f"{name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return [table.row_of(one) for one in json.loads(done.stdout.splitlines()[-1])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attacks", description="Attacks on the real programs, beside honest peers.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list the attacks")
    run = commands.add_parser("run", help="play attacks and print the table; exit 1 when a bound did not hold")
    run.add_argument(
        "names", nargs="*", metavar="NAME", help="the beginning of an attack's name; all when none is given"
    )
    run.add_argument("--short", action="store_true", help="some seconds each, as continuous integration plays them")
    run.add_argument("--write", type=Path, metavar="FILE", help="write the page too, as docs/records/attacks.md")
    run.add_argument("--json", action="store_true", help="print the rows as one JSON document")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 0: every bound held, 1: one did not, 2: usage."""
    options = _parser().parse_args(arguments)
    if options.command == "list":
        for name in names():
            print(f"{name:24} {title(name)}{' (in a namespace)' if needs_namespaces(name) else ''}")
        return 0
    try:
        wanted = chosen(options.names)
    except ValueError as problem:
        print(f"attacks: {problem}", file=sys.stderr)
        return 2
    rows, skipped, failed = [], {}, False
    for name in wanted:
        print(f"{name}: {title(name)}", file=sys.stderr, flush=True)
        try:
            found = play(name, short=options.short)
        except Unavailable as problem:
            skipped[name] = str(problem)
        except (Failed, subprocess.TimeoutExpired) as problem:
            print(f"attacks: {problem}", file=sys.stderr)
            failed = True
        else:
            rows += found
            if not options.json:
                print(table.text(found), flush=True)
    for name, why in skipped.items():
        print(f"attacks: {name} was not played: {why}", file=sys.stderr)
    if options.json:
        print(json.dumps([{**dict(zip(table.HEAD, table.cells(row), strict=True))} for row in rows], indent=1))
    if options.write is not None:
        about = {**environment(ROOT), "load": " ".join(f"{one:.1f}" for one in os.getloadavg())}
        command = " ".join(["scripts/attacks", *(sys.argv[1:] if arguments is None else arguments)])
        titles = {name: title(name) for name in wanted}
        options.write.write_text(table.page(rows, about, titles, command, skipped))
    return 0 if rows and not failed and all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
