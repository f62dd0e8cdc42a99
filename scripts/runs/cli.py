"""Command line of `scripts/natlab`. Parses, calls, prints; decides nothing about networks."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from lab import session
from lab.behaviours import BEHAVIOURS, behaviour
from lab.commands import CommandFailed
from lab.verify import Facts, Row, verify
from lab.verify_udp import UdpFacts

from runs import matrix
from runs.eventlog import Seen
from runs.limits import SCENARIO_SECONDS
from runs.matrix_page import markdown
from runs.records import REPOSITORY
from runs.report import Report, environment
from runs.scenario import Scenario, run_scenario

USAGE = 2
INTERRUPTED = 130


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
    run = commands.add_parser("run", help="run relay, listener and dialer in one lab and judge the outcome")
    run.add_argument("--listener-nat", default="home", metavar="NAME", help="behaviour of side a (default home)")
    run.add_argument("--dialer-nat", default="home", metavar="NAME", help="behaviour of side b (default home)")
    run.add_argument("--ipv6", action="store_true", help="give every side IPv6 behind a firewall as well")
    run.add_argument("--logs", type=Path, metavar="DIR", help="keep logs, events, captures and report.json there")
    run.add_argument("--transport", choices=("tcp", "quic", "both"), default="tcp", help="what the programs listen on")
    run.add_argument("--block", choices=("tcp", "udp"), default="", help="what the dialer's router drops")
    run.add_argument("--no-p2p", action="store_true", help="pass --no-p2p: stay on the relay")
    run.add_argument("--kill-relay", action="store_true", help="SIGKILL the relay once traffic is direct")
    run.add_argument("--measure", action="store_true", help="classify both NATs with plain sockets first")
    run.add_argument("--json", action="store_true", help="print the report as one JSON document")
    _scenario_options(run, duration=5.0)
    table = commands.add_parser("matrix", help="run many pairs and print or write the table")
    table.add_argument("--transport", action="append", choices=matrix.TRANSPORTS, help="only this one (repeatable)")
    table.add_argument("--runs", type=int, default=1, metavar="N", help="runs of each pair (default 1)")
    table.add_argument("--pairs", metavar="L:D,...", help="listener:dialer pairs, * for each core behaviour")
    table.add_argument("--quick", action="store_true", help="the small set that continuous integration runs")
    table.add_argument("--jobs", type=int, default=2, metavar="N", help="relayed pairs run side by side (default 2)")
    table.add_argument("--direct-jobs", type=int, default=1, metavar="N", help="the same for timed pairs (default 1)")
    table.add_argument(
        "--write", type=Path, metavar="FILE", help="write the table there, as docs/records/nat-matrix.md"
    )
    table.add_argument("--keep", type=Path, metavar="FILE",
                       help="keep what was run there, and write the table of all that was kept")  # fmt: skip
    table.add_argument("--json", action="store_true", help="print one JSON document")
    _scenario_options(table, duration=1.0)
    inside = commands.add_parser("exec", help="run a command in the lab's private session")
    inside.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    return parser


def _scenario_options(parser: argparse.ArgumentParser, *, duration: float) -> None:
    parser.add_argument("--delay", type=_delay, default="relay=15,a=10,b=20", metavar="LINK=MS,..",
                        help="one way per access link; relay, a, b; default %(default)s")  # fmt: skip
    parser.add_argument("--loss", type=float, default=0.0, metavar="P", help="loss per access link, 0.02 is 2 percent")
    parser.add_argument("--timeout", type=float, default=SCENARIO_SECONDS, metavar="S",
                        help="from the dialer's start to the outcome (default %(default)s)")  # fmt: skip
    parser.add_argument("--duration", type=float, default=duration, metavar="S",
                        help="traffic watched after the outcome (default %(default)s)")  # fmt: skip


def _delay(text: str) -> dict[str, float]:
    delay = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        try:
            delay[name.strip()] = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{item!r} is not LINK=MILLISECONDS") from None
    return delay


def _list() -> int:
    for what in BEHAVIOURS.values():
        print(f"{what.name:20} {what.about}")
    return 0


_COLUMNS = ("mapping", "port_kept", "filtering", "unsolicited", "udp", "stray", "idle", "neighbour")


def _print_row(row: Row) -> None:
    pairs: dict[str, tuple[Facts | UdpFacts, Facts | UdpFacts]] = {
        "tcp": (row.seen, row.expected),
        "udp": (row.seen_udp, row.expected_udp),
    }
    for protocol, (facts, wanted_facts) in pairs.items():
        seen, wanted = asdict(facts), asdict(wanted_facts)
        cells = [seen.get(c, "") if seen.get(c) == wanted.get(c) else f"{seen[c]}!={wanted[c]}" for c in _COLUMNS]
        verdict = "ok" if facts == wanted_facts else "MISMATCH"
        print(f"{row.behaviour:20}", f"{protocol:8}", *(f"{cell:12}" for cell in cells), verdict, flush=True)


def _verify(names: Sequence[str] | None, *, as_json: bool) -> int:
    chosen = [behaviour(name).name for name in names or BEHAVIOURS]
    session.enter()
    if not as_json:
        print(f"{'behaviour':20}", f"{'protocol':8}", *(f"{column:12}" for column in _COLUMNS), "result")
    rows = verify(chosen, None if as_json else _print_row)
    failed = [row.behaviour for row in rows if not row.passed]
    if as_json:
        print(json.dumps({"v": 1, "passed": not failed, "rows": [row.as_json() for row in rows]}, indent=1))
    elif failed:
        print(f"not as the table says: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


_SHOWN = ("local", "remote", "path", "attempt", "elapsed_ms", "code", "from", "to", "reason", "addrs", "message")


def _print_event(seen: Seen) -> None:
    if seen.name in ("flow.stats", "relay.stats"):
        return
    details = " ".join(f"{key}={seen.event[key]}" for key in _SHOWN if seen.event.get(key) not in (None, ""))
    print(f"{seen.at:8.3f} {seen.who:9} {seen.name:22} {details}", file=sys.stderr, flush=True)


def _print_report(report: Report) -> None:
    scenario = report.scenario
    print(f"listener {scenario['listener_nat']}, dialer {scenario['dialer_nat']}: {report.outcome}", end="")
    print(f" (expected {scenario['expected']}){'' if not report.error else ': ' + report.error}")
    punch = report.punch
    if punch.get("elapsed_ms") is not None:
        print(
            f"punched on attempt {punch['attempt']} in {punch['elapsed_ms']:.0f} ms (budget {punch.get('budget_ms')})"
        )
    if punch.get("codes"):
        print(f"codes: {', '.join(punch['codes'])}")
    for pair in report.five_tuples:
        print(f"5-tuples: {json.dumps(pair)}")
    for name, value in report.proof.items():
        print(f"{name:22} {'-' if value is None else 'yes' if value else 'NO'}")
    if not report.as_expected:
        for name, program in report.programs.items():
            print(f"--- {name}: exit {program['exit']}\n{program['stderr']}", file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    scenario = Scenario(
        args.listener_nat, args.dialer_nat, args.delay, args.loss, args.timeout, args.duration,
        p2p=not args.no_p2p, kill_relay=args.kill_relay, measure=args.measure, capture=args.logs is not None,
        ipv6=args.ipv6, transport=args.transport, block=args.block,
    )  # fmt: skip
    session.enter()
    report = run_scenario(scenario, logs=args.logs, on_event=None if args.json else _print_event)
    if args.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        _print_report(report)
    return 0 if report.as_expected else 1


def _print_cell(cell: matrix.Cell) -> None:
    times = ",".join(f"{time:.0f}" for time in cell.elapsed_ms)
    verdict = "ok" if cell.as_expected == cell.runs else "UNEXPECTED"
    counts = f"expected {cell.expected:7} direct {cell.direct}/{cell.runs} ms [{times}]"
    words = [counts, *cell.codes, verdict, *cell.errors]
    print(f"{cell.listener:20} {cell.dialer:20} {cell.transport:4}", *words, file=sys.stderr, flush=True)


def _matrix(args: argparse.Namespace) -> int:
    pairs = list(matrix.QUICK) if args.quick else matrix.all_pairs()
    if args.pairs:
        pairs = matrix.parse_pairs(args.pairs)
    scenario = Scenario(delay=args.delay, loss=args.loss, timeout=args.timeout, duration=args.duration)
    kept = [] if args.keep is None else matrix.read_cells(args.keep)
    session.enter()
    cells = matrix.run_matrix(
        pairs,
        scenario,
        transports=args.transport or matrix.TRANSPORTS,
        runs=args.runs,
        jobs=args.jobs,
        direct_jobs=args.direct_jobs,
        progress=_print_cell,
    )
    about = environment(REPOSITORY)
    every = matrix.merged(kept, cells)
    if args.keep is not None:
        matrix.write_cells(args.keep, every)
    text = markdown(every, scenario, about, " ".join(["scripts/natlab", *sys.argv[1:]]))
    if args.write is not None:
        args.write.write_text(text)
    if args.json:
        print(json.dumps({"v": 1, "environment": about, "cells": [asdict(cell) for cell in cells]}, indent=1))
    elif args.write is None:
        print(text)
    return 0 if all(cell.as_expected == cell.runs for cell in cells) else 1


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


def _interrupted(number: int, frame: FrameType | None) -> None:
    """The first signal lets runs under way end and clean up; the second ends at once (the kernel cleans up)."""
    signal.signal(signal.SIGINT, _at_once)
    signal.signal(signal.SIGTERM, _at_once)
    raise KeyboardInterrupt


def _at_once(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        if args.command == "list":
            return _list()
        if args.command == "verify":
            return _verify(args.behaviour, as_json=args.json)
        if args.command == "run":
            return _run(args)
        if args.command == "matrix":
            return _matrix(args)
        return _exec(args.argv)
    except session.LabUnavailable as error:
        print(f"natlab: {error}", file=sys.stderr)
        return session.EXIT_UNAVAILABLE
    except ValueError as error:
        print(f"natlab: {error}", file=sys.stderr)
        return USAGE
    except CommandFailed as error:
        print(f"natlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
