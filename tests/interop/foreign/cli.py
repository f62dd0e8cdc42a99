"""Command line of `scripts/interop`. Parses, calls, prints."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from foreign import table
from foreign.build import RECIPES, REPOSITORY, BuildFailed, Missing
from foreign.peer import PeerFailed, Pool
from foreign.suite import Result, cases, run_case

RECORDS = REPOSITORY / "logs" / "interop"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="interop", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build the peers into the cache (all when none is named)")
    build.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(RECIPES)}")
    run = commands.add_parser("run", help="run the suite with the peers that are built")
    run.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains this")
    run.add_argument("--group", action="append", metavar="GROUP", help="only this group (repeatable)")
    run.add_argument("--write", type=Path, metavar="FILE", help="write the page from the newest records of all groups")
    commands.add_parser("list", help="list the cases")
    page = commands.add_parser("table", help="write the page from the records")
    page.add_argument("file", type=Path)
    return parser.parse_args(argv)


def _build(kinds: Sequence[str]) -> int:
    status = 0
    for kind in kinds or RECIPES:
        if kind not in RECIPES:
            print(f"interop: no peer {kind!r}; there are {', '.join(RECIPES)}", file=sys.stderr)
            return 2
        try:
            print(f"{kind:6} built: {RECIPES[kind].build()}", flush=True)
        except Missing as why:
            print(f"{kind:6} SKIPPED: {why}", flush=True)
        except BuildFailed as problem:
            print(f"{kind:6} FAILED: {problem}", flush=True)
            status = 1
    return status


def _run(groups: Sequence[str] | None, only: str) -> int:
    known = list(cases())
    chosen = [one for one in known if (not groups or one.group in groups) and only in one.name]
    results: list[Result] = []
    versions: dict[str, str] = {}
    with Pool() as pool:
        for case in chosen:
            if case.ahead is not None and case.unavailable() is None:
                with contextlib.suppress(PeerFailed):  # the case itself tells
                    case.ahead(pool)
        for case in chosen:
            result = run_case(case, pool)
            results.append(result)
            print(f"{result.outcome:11} {result.seconds:6.2f} s  {case.name}  {result.note}", flush=True)
        versions |= pool.versions
    table.record(RECORDS, results, versions, {one.name for one in known})
    bad = sum(not one.good for one in results)
    print(f"{len(results)} cases, {sum(one.outcome == 'pass' for one in results)} passed, {bad} failed")
    return 1 if bad else 0


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    if given.command == "build":
        return _build(given.kinds)
    if given.command == "list":
        for case in cases():
            print(case.name)
        return 0
    status = 0
    if given.command == "run":
        status = _run(given.group, given.only)
    target: Path | None = given.file if given.command == "table" else given.write
    if target is not None:
        target.write_text(table.page(RECORDS, [case.name for case in cases()]))
    return status
