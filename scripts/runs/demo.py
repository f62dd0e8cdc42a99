"""The demo: two home routers, three programs, one punched connection; it is cut and comes back; the relay is killed.

Shows a run of `runs.scenario` as it happens and closes with the proof. Where no namespaces can be made the same
three programs run on loopback (`runs.loopback`). It judges nothing itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab import session
from lab.behaviours import BEHAVIOURS

from runs import evidence, loopback, records
from runs.catalogue import row
from runs.eventlog import Seen
from runs.report import Report
from runs.scenario import Run, Scenario, run_scenario

ROW = row("S-001")

_COLOURS = {"relay": "\033[35m", "listener": "\033[36m", "dialer": "\033[33m", "lab": "\033[1m"}
_OFF = "\033[0m"
_NAMES = {"tcp": "TCP", "quic": "QUIC", "udp": "QUIC"}


def _show(event: Mapping[str, Any]) -> str:
    """One event in words; empty for those that the timeline leaves out."""
    name = event.get("event")
    if name == "node.started":
        return f"started, listens on {', '.join(event['listen']) or 'nothing'}"
    if name == "relay.listening":
        return f"relay {event['peer_id']}"
    if name == "reservation.accepted" and not event.get("renewed"):
        return f"reservation accepted by {_short(event['relay'])}"
    if name == "connection.opened":
        return f"{event['path']} connection to {_short(event['peer'])} ({event['role']})"
    if name == "handshake.completed":
        return f"Kaspa handshake completed over {event['path']} ({event['user_agent']})"
    if name == "punch.started":
        return f"punch attempt {event['attempt']}: {', '.join(event['remote_candidates']) or 'awaiting addresses'}"
    if name == "punch.succeeded":
        took = f"attempt {event['attempt']}, {event['elapsed_ms']:.0f} ms"
        word = "DIALLED DIRECTLY" if event["how"] == "dial" else "PUNCHED"
        return (
            f"{word} OVER {_NAMES[event['transport']]}: {took}, {event['local']} ⇄ {event['remote']} ({event['how']})"
        )
    if name == "punch.failed":
        why = ", ".join(f"{_NAMES[name]} {code}" for name, code in event["transports"].items())
        return f"punch attempt {event['attempt']} failed: {event['code']}{f' ({why})' if why else ''}"
    if name == "path.changed":
        return f"gossip moved from {event['from']} to {event['to']}: {event['reason']}"
    if name == "session.switched" and event["from"] != "none":
        how = "planned" if event["planned"] else f"after {event['gap_ms']:.0f} ms without a path"
        return f"session on {event['to']} ({how}, {event['replayed']} bytes sent again)"
    if name == "p2p_fallback":
        return f"on the relay: {event['code']}"
    if name == "error":
        return f"error: {event.get('code')} {event.get('message', '')}"
    return ""


def _short(peer: str) -> str:
    return f"…{peer[-8:]}"


class Timeline:
    """Prints what happens, when it happens, on standard error; on a terminal with colours."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._colour = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._gossip: dict[str, str] = {}

    def say(self, who: str, text: str) -> None:
        at = time.monotonic() - self.began
        name = f"{_COLOURS.get(who, '')}{who:<9}{_OFF}" if self._colour else f"{who:<9}"
        with self._lock:
            print(f"{at:7.2f} s  {name} {text}", file=sys.stderr, flush=True)

    def event(self, seen: Seen) -> None:
        if seen.name == "flow.stats":
            self._count(seen)
            return
        text = _show(seen.event)
        if text:
            self.say(seen.who, text)

    def _count(self, seen: Seen) -> None:
        """Gossip counters, shown when the path they ran over changed, else not at every interval."""
        path = str(seen.event.get("path"))
        if self._gossip.get(seen.who) != path:
            self._gossip[seen.who] = path
            sent, received = (sum((seen.event.get(way) or {}).values()) for way in ("sent", "received"))
            self.say(seen.who, f"gossip over {path}: {sent} messages sent, {received} received")


def _hooks(timeline: Timeline) -> dict[str, Any]:
    def built(run: Run) -> None:
        delay = ", ".join(f"{link} {one:g} ms" for link, one in run.lab.delay.items())
        names = f"listener behind {run.scenario.listener_nat}, dialer behind {run.scenario.dialer_nat}"
        timeline.say("lab", f"{names}; one way per link: {delay}")

    def outcome(run: Run) -> None:
        timeline.say("lab", "watching which path carries the bytes")

    def watched(run: Run) -> None:
        timeline.say("lab", "now the direct path is cut (packets dropped in silence); gossip must go on over the relay")

    def returned(run: Run) -> None:
        timeline.say("lab", "healed and direct again; now the relay is killed (SIGKILL), and gossip must go on")

    def end(run: Run) -> None:
        timeline.say("lab", "stopping the programs")

    return {"built": built, "outcome": outcome, "watched": watched, "returned": returned, "end": end}


def _rows(report: Report) -> list[tuple[str, str, bool | None]]:
    proof, watched, after = report.proof, report.watched, report.after_kill
    punch = report.punch
    rows: list[tuple[str, str, bool | None]] = []
    for pair in report.five_tuples[:1]:
        ends: Any = pair
        a, b = ends["a"], ends["b"]
        rows.append(("listener's socket", f"{a['local']} (outside {a['external']}) → {a['remote']}", None))
        rows.append(("dialer's socket", f"{b['local']} (outside {b['external']}) → {b['remote']}", None))
        moved = (
            f"over {_NAMES[ends['protocol']]}: listener {a['received_bytes']} bytes, dialer {b['received_bytes']} bytes"
        )
        rows.append(("bytes arrived at both sockets", moved, proof["five_tuples_match"]))
    rows.append(("both 5-tuples match across the NATs", "", proof["five_tuples_match"]))
    if punch.get("elapsed_ms") is not None:
        text = (
            f"attempt {punch['attempt']}, {punch['elapsed_ms']:.0f} ms after CONNECT (bound {punch['budget_ms']:.0f})"
        )
        rows.append(("punch", text, punch.get("within_budget")))
    if watched:
        rows.append(
            ("relay payload while gossip ran", f"{watched['circuit_payload_bytes']} bytes", proof["relay_still"])
        )
        rows.append(("direct bytes meanwhile", f"{watched['direct_bytes']} bytes", proof["direct_bytes_rise"]))
        rows.append(("gossip counters", _moved(watched), proof["flows_rise"]))
    cut = report.after_cut
    if cut:
        seconds = f"{cut['seconds_without_traffic']:.1f} s after the cut, {_moved(cut)}"
        rows.append(("gossip over the relay after the cut", seconds, proof["went_on_over_the_relay"]))
        rows.append(("direct again", f"{cut['seconds_to_direct']:.1f} s after healing", proof["direct_again"]))
    if after:
        rows.append(("gossip after the relay was killed", _moved(after), proof["survived_relay_kill"]))
    shaken = [report.events.get(who, {}).get("handshake.completed", 0) for who in ("listener", "dialer")]
    failed = f"{sum(shaken) - 2} failed RPCs, handshakes {shaken[0]} and {shaken[1]}"
    rows.append(("one gRPC stream throughout", failed, proof["one_stream_throughout"]))
    return rows


def _moved(part: Mapping[str, Any]) -> str:
    before, now = part["flows_before"], part["flows_after"]
    return ", ".join(f"{who} {sum(before[who].values())} → {sum(now[who].values())}" for who in now)


def print_table(rows: list[tuple[str, str, bool | None]]) -> None:
    """The closing table, on standard output."""
    width = max(len(title) for title, _, _ in rows)
    words = {True: "yes", False: "NO", None: ""}
    print()
    for title, text, holds in rows:
        print(f"  {title:<{width}}  {words[holds]:<3}  {text}".rstrip())
    print()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Two private gRPC peers meet over a relay and punch a direct connection, on real NATs.",
        epilog="Exit: 0 only with the whole proof of directness, 1 otherwise.",
    )
    names = ", ".join(BEHAVIOURS)
    parser.add_argument("--listener-nat", default="home", metavar="NAME", help=f"default home; one of {names}")
    parser.add_argument("--dialer-nat", default="home", metavar="NAME", help="default home")
    parser.add_argument(
        "--transport", choices=("tcp", "quic", "both"), help="default both, tcp without the QUIC engine"
    )
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="seconds watched, twice (default 5)")
    records.add_options(parser, "demo")
    parser.add_argument("--loopback", action="store_true", help="no namespaces: the three programs on loopback")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")
    return parser.parse_args()


def _spoken() -> str:
    return "tcp" if find_spec("punchbridge_quic") is None else "both"


def _scenario(arguments: argparse.Namespace, *, capture: bool) -> Scenario:
    a, b, transport = arguments.listener_nat, arguments.dialer_nat, arguments.transport or _spoken()
    name = ROW.scenario.name if (a, b, transport) == ("home", "home", "both") else f"demo-{b}-{a}-{transport}"
    return Scenario(
        name=name,
        listener_nat=a,
        dialer_nat=b,
        duration=arguments.duration,
        transport=transport,
        cut_direct=True,
        kill_relay=True,
        measure=True,
        capture=capture,
    )


def main() -> int:
    arguments = _arguments()
    timeline = Timeline()
    try:
        if arguments.loopback:
            raise session.LabUnavailable("--loopback was given")
        session.enter()
    except session.LabUnavailable as problem:
        return loopback.demo(timeline, arguments.duration, str(problem))
    logs = records.place(arguments)
    scenario = _scenario(arguments, capture=not records.is_committed(logs))
    older = records.of(logs, scenario.name)
    try:
        report = run_scenario(scenario, logs=logs, on_event=timeline.event, hooks=_hooks(timeline))
    except ValueError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 2
    assert report.folder is not None
    summary = evidence.record(
        Path(report.folder), report.as_json(), ROW if scenario.name == ROW.scenario.name else None
    )
    records.remove(older)
    if records.is_committed(logs):
        evidence.write_scenarios_page(logs)
    return _close(report, summary, arguments.json)


def _close(report: Report, summary: Path, as_json: bool) -> int:
    good = report.proven
    if as_json:
        print(json.dumps(report.as_json()))
        return 0 if good else 1
    print_table(_rows(report))
    if report.error:
        print(f"  error: {report.error}")
    if good:
        names = sorted({_NAMES[str(pair["protocol"])] for pair in report.five_tuples})
        print(f"DIRECT: two private peers, a punched connection over {' and '.join(names)}, and the relay is gone.")
    elif report.scenario["expected"] != "direct" and report.as_expected:
        codes = ", ".join(report.punch["codes"]) or "no reason given"
        print(f"RELAYED, as these NATs must be ({codes}): gossip goes on over the relay; nothing direct was shown.")
    else:
        print("NOT PROVEN: see the record.")
    print(f"Record: {summary}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
