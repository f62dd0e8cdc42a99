"""Command line of `scripts/natlab`. Parses, calls, prints; decides nothing about networks."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from lab import session
from lab.behaviours import BEHAVIOURS, behaviour
from lab.verify import Row, verify

USAGE = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="natlab",
        description="Real kernel NATs in network namespaces that have no uplink. Root, or rootless where allowed.",
        epilog=f"Exit: 0 as expected, 1 not as expected, 2 usage, {session.EXIT_UNAVAILABLE} no namespaces here.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list the behaviours")
    proof = commands.add_parser("verify", help="prove each behaviour with plain sockets")
    proof.add_argument("--behaviour", action="append", metavar="NAME", help="only this one (repeatable)")
    proof.add_argument("--json", action="store_true", help="print one JSON document")
    inside = commands.add_parser("exec", help="run a command in the lab's private session (for pytest -m natlab)")
    inside.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    return parser


def _list() -> int:
    for what in BEHAVIOURS.values():
        print(f"{what.name:20} {what.about}")
    return 0


_COLUMNS = ("mapping", "port_kept", "filtering", "unsolicited", "udp", "neighbour")


def _print_row(row: Row) -> None:
    seen, wanted = asdict(row.seen), asdict(row.expected)
    cells = [seen[c] if seen[c] == wanted[c] else f"{seen[c]}!={wanted[c]}" for c in _COLUMNS]
    print(f"{row.behaviour:20}", *(f"{cell:12}" for cell in cells), "ok" if row.passed else "MISMATCH", flush=True)


def _verify(names: Sequence[str] | None, *, as_json: bool) -> int:
    chosen = [behaviour(name).name for name in names or BEHAVIOURS]
    session.enter()
    if not as_json:
        print(f"{'behaviour':20}", *(f"{column:12}" for column in _COLUMNS), "result")
    rows = verify(chosen, None if as_json else _print_row)
    failed = [row.behaviour for row in rows if not row.passed]
    if as_json:
        print(json.dumps({"v": 1, "passed": not failed, "rows": [row.as_json() for row in rows]}, indent=1))
    elif failed:
        print(f"not as the table says: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _exec(argv: list[str]) -> int:
    argv = argv[1:] if argv[:1] == ["--"] else argv
    if not argv:
        print("natlab exec: give a command", file=sys.stderr)
        return USAGE
    session.enter()
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"natlab exec: {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "list":
            return _list()
        if args.command == "verify":
            return _verify(args.behaviour, as_json=args.json)
        return _exec(args.argv)
    except session.LabUnavailable as error:
        print(f"natlab: {error}", file=sys.stderr)
        return session.EXIT_UNAVAILABLE
    except ValueError as error:
        print(f"natlab: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
