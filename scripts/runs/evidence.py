"""Turns recorded runs into text: one readable summary a run, and TEST_SCENARIOS.md over all of them.

Everything comes from report.json in `logs/<utc>-<name>/`; nothing here runs a program or judges anew. The raw lines
are beside it in events.jsonl.gz (`runs.records`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs import beside, records, soak
from runs.catalogue import ROWS, Row

Data = Mapping[str, Any]

_STEPS = {
    "relay.listening": "relay listens",
    "reservation.accepted": "reservation accepted",
    "connection.opened": "connection opened",
    "connection.closed": "connection closed",
    "handshake.completed": "handshake completed",
    "punch.started": "punch started (CONNECT)",
    "punch.succeeded": "punch succeeded",
    "punch.failed": "punch failed",
    "p2p_upgrade": "upgraded to direct",
    "p2p_fallback": "stays on the relay",
    "path.changed": "traffic moved",
    "session.switched": "session moved",
    "session.kept": "session stays",
    "circuit.opened": "circuit opened",
    "circuit.closed": "circuit closed",
    "error": "error",
    "summary": "ended",
}
_FIELDS = (
    "path",
    "attempt",
    "elapsed_ms",
    "local",
    "remote",
    "transport",
    "code",
    "from",
    "to",
    "reason",
    "planned",
    "gap_ms",
    "replayed",
    "again_s",
    "rtt_ms",
    "rtt_direct_ms",
    "expires",
    "exit_code",
)


def _verdict(report: Data, row: Row | None) -> str:
    if report.get("error"):
        return f"FAIL ({report['error']})"
    expected = row.expected if row is not None else report["scenario"]["expected"]
    if expected == "direct":
        if not (report["direct"] and report["proven"]):
            return "FAIL"
        attempt = report["punch"].get("attempt") or 1
        return "PASS" if attempt == 1 else f"PASS-FLAKY (attempt {attempt})"
    codes = set(report["punch"].get("codes", []))
    right = report["outcome"] == "relay" and report["watched"].get("flows_rise")
    right = right and report["proof"].get("flowing_after_every_fault") is not False
    return "PASS" if right and (row is None or not row.codes or codes & set(row.codes)) else "FAIL"


def passed(report: Data, row: Row) -> bool:
    """Whether a recorded run shows what the row promises."""
    return _verdict(report, row).startswith("PASS")


def _short(value: Any) -> str:
    """A circuit address without its peer ids: the relay's endpoint is what tells."""
    text = str(value)
    return f"{text.partition('/p2p/')[0]}/p2p-circuit" if "/p2p-circuit" in text else text


def _event_text(event: Data) -> str:
    shown = ", ".join(f"{key} {_short(event[key])}" for key in _FIELDS if event.get(key) not in (None, "", []))
    return f"{_STEPS.get(event['event'], event['event'])}{f' ({shown})' if shown else ''}"


def _timeline(report: Data) -> Iterable[str]:
    for event in report["timeline"]:
        if event["event"] in _STEPS:
            yield f"| {event['at']:.3f} | {event['who']} | {_event_text(event)} | {event['line']} |"


def _table(head: Sequence[str], rows: Iterable[str]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""]


def _environment(report: Data) -> list[str]:
    env, topology = report["environment"], report.get("topology", {})
    lines = ["## Environment", ""]
    lines += [f"- commit `{env['commit'] or 'unknown'}` (uncommitted changes: {env['uncommitted']})"]
    lines += [f"- kernel {env['kernel']}, {env['machine']}, Python {env['python']}"]
    times = topology.get("round_trips_ms", {})
    lines += [f"- measured round trips, ms: {', '.join(f'{k} {v}' for k, v in times.items())}"]
    for side, found in topology.get("measured", {}).items():
        shown = ", ".join(f"{key} {value}" for key, value in found.items() if value not in (None, ""))
        lines += [f"- NAT of side {side}, measured: {shown}"]
    lines += ["", *_table(["role", "host", "command", "exit"], _programs(report))]
    for box, rules in topology.get("rulesets", {}).items():
        lines += [
            f"<details><summary>nft rules of {box}</summary>",
            "",
            "```",
            rules.strip(),
            "```",
            "",
            "</details>",
            "",
        ]
    return lines


def _programs(report: Data) -> Iterable[str]:
    for name in ("relay", "listener", "dialer"):
        if name in report["programs"]:
            program = report["programs"][name]
            ended = "SIGKILL" if program["killed"] else program["exit"]
            yield f"| {name} | {program['host']} | `punchbridge {' '.join(_clean(program['argv']))}` | {ended} |"


def _clean(argv: Sequence[str]) -> list[str]:
    """The command without the run's own scratch paths."""
    return ["KEYFILE" if argument.endswith("/key") else argument for argument in argv]


def _traffic(report: Data) -> list[str]:
    lines = ["## Traffic", ""]
    for title, part in (
        ("while the direct path was slower", report.get("slower")),
        ("watched after the outcome", report["watched"]),
        ("after the relay was killed", report["after_kill"]),
    ):
        if part:
            numbers = {key: value for key, value in part.items() if not isinstance(value, Mapping | list)}
            lines += [f"- {title}: " + ", ".join(f"{key} {value}" for key, value in numbers.items())]
            for who, counts in part["flows_after"].items():
                before = part["flows_before"][who]
                moved = ", ".join(f"{way} {before[way]} → {counts[way]}" for way in counts)
                lines += [f"  - {who}: messages {moved}"]
    if report.get("trials"):
        rows = (
            f"| {one['trial']} | {one['about']} | {one['seconds']} | {one['bound_s']} | "
            f"{'yes' if one['within'] else '**no**'} | {', '.join(one['path_after'])} |"
            for one in report["trials"]
        )
        head = ["fault", "what", "s until messages arrive at both ends", "bound", "within", "path then"]
        lines += ["", *_table(head, rows)]
    if report.get("slower"):
        flaps = (
            f"| {one['relayed_after_s']} | {one['held_s'] or 'over before the next punch'} | {one['direct_after_s']} |"
            for one in report["slower"]["flaps"]
        )
        head = ["cut: s until traffic on the relay", "s of hold-down left with a direct connection", "s until direct"]
        lines += ["", *_table(head, flaps)]
    return [*lines, ""]


def _proof(report: Data) -> list[str]:
    lines = ["## Proof of directness", ""]
    for pair in report["five_tuples"]:
        quic = pair.get("protocol") == "udp"  # older records have no protocol
        for side in ("a", "b"):
            end = pair[side]
            lines += [
                f"- host {side}: local {end['local']}, seen outside as {end['external']}, remote {end['remote']}; "
                f"{'in QUIC packets it' if quic else 'its socket'} received {end['received_bytes']} bytes"
            ]
    words = {True: "yes", False: "**no**", None: "not asked"}
    lines += [f"- {name.replace('_', ' ')}: {words[value]}" for name, value in report["proof"].items()]
    return [*lines, ""]


def summary(report: Data, row: Row | None = None) -> str:
    """The readable record of one run, in Markdown."""
    title = f"{row.id}: {row.title}" if row is not None else report["scenario"]["name"] or "scenario"
    punch = report["punch"]
    lines = [f"# {title}", "", f"Outcome: **{report['outcome']}**, verdict **{_verdict(report, row)}**", ""]
    if punch.get("elapsed_ms") is not None:
        lines += [
            f"Punch: attempt {punch['attempt']}, usable {punch['elapsed_ms']} ms after CONNECT "
            f"(bound {punch.get('budget_ms')} ms: 1.5 relayed + 4 direct round trips + 50 ms)",
            "",
        ]
    if punch.get("codes"):
        lines += [f"Failure codes: {', '.join(punch['codes'])}", ""]
    if report.get("error"):
        lines += [f"Error: {report['error']}", ""]
    lines += ["## Timeline", "", "Every line of all programs: `zcat events.jsonl.gz`.", ""]
    lines += _table(["s", "who", "what", "line of its output"], _timeline(report))
    return "\n".join([*lines, *beside.section(report), *_proof(report), *_traffic(report), *_environment(report)])


def record(folder: Path, report: Data, row: Row | None = None) -> Path:
    """Writes `<folder>-summary.md` beside a run's folder and returns its path."""
    path = folder.with_name(f"{folder.name}-summary.md")
    path.write_text(summary(report, row))
    return path


def latest(logs: Path, row: Row) -> Path | None:
    """The newest recorded run of a row."""
    found = sorted(logs.glob(f"*-{row.scenario.name}/report.json"))
    return found[-1].parent if found else None


def _section(logs: Path, number: int, row: Row) -> list[str]:
    lines = [f"## {number}. {row.id} {row.title}", "", f"**Goal.** {row.goal}", "", f"**Test.** `{test_id(row)}`", ""]
    folder = latest(logs, row)
    if folder is None:
        return [*lines, f"**Outcome.** Not run yet: `scripts/scenarios run --record {row.id}`", ""]
    report = json.loads((folder / "report.json").read_text())
    first = {event["event"] + event["who"]: event for event in reversed(report["timeline"])}
    relay, hosts = first.get("relay.listeningrelay", {}), report["topology"].get("hosts", {})
    lines += [f"**Relay.** {', '.join(relay.get('addrs', [])) or 'none'}", ""]
    for name, side, nat in (("listener", "a", "listener_nat"), ("dialer", "b", "dialer_nat")):
        program = report["programs"].get(name, {})
        observed = [e["addr"] for e in report["timeline"] if e["event"] == "address.observed" and e["who"] == name]
        seen = f", observed by the relay as {observed[0]}" if observed else ""
        host = hosts.get(side, {})
        where = host.get("address") or host.get("address6")
        lines += [
            f"**{name.capitalize()}.** `punchbridge {' '.join(_clean(program.get('argv', [])))}` on {where} behind "
            f"`{report['scenario'][nat]}`{seen}",
            "",
        ]
    lines += [f"**Outcome.** {_verdict(report, row)}: {_outcome(report)}", ""]
    if punched := beside.line(report):
        lines += [f"**Punches.** {punched}", ""]
    if row.expected == "relay" and report["punch"].get("codes"):
        lines += [f"**Primary cause.** {', '.join(report['punch']['codes'])} (see docs/troubleshooting.md)", ""]
    record = f"[logs/{folder.name}-summary.md](logs/{folder.name}-summary.md)"
    return [*lines, f"**Record.** {record}; every line: `logs/{folder.name}/{records.EVENTS}.gz`", ""]


def _outcome(report: Data) -> str:
    told = [event for event in report["timeline"] if event.get("session") is None]  # of connections, not of sessions
    for event in told:
        if event["event"] in ("punch.succeeded", "p2p_upgrade") and report["outcome"] == "direct":
            shown = {key: event[key] for key in ("event", "attempt", "elapsed_ms", "local", "remote") if key in event}
            return f"`{json.dumps(shown)}`"
    for event in told:
        if event["event"] == "p2p_fallback":
            return f"`{json.dumps({key: event[key] for key in ('event', 'code', 'message') if key in event})}`"
    return str(report["outcome"])


def test_id(row: Row) -> str:
    """The lab test that runs this row."""
    return f"tests/natlab/test_scenarios.py::test_scenario[{row.id}]"


def scenarios_page(logs: Path) -> str:
    """TEST_SCENARIOS.md: one numbered section a row, from the newest recorded run of each."""
    lines = [
        "# Test scenarios",
        "",
        "Real programs on real kernel NATs in network namespaces. Generated by `scripts/scenarios write` from the",
        "records in `logs/`; run one with `scripts/scenarios run S-001` (`--record` replaces its record here). The",
        "dialer's network comes first.",
        "",
        *_table(["id", "dialer → listener", "expected", "last verdict"], (_line(logs, row) for row in ROWS)),
    ]
    for number, row in enumerate(ROWS, 1):
        lines += _section(logs, number, row)
    lines += soak.page(logs)
    return "\n".join(lines).rstrip() + "\n"


def write_scenarios_page(logs: Path) -> None:
    """Write TEST_SCENARIOS.md from these records. Raises OSError."""
    (records.REPOSITORY / "TEST_SCENARIOS.md").write_text(scenarios_page(logs))


def _line(logs: Path, row: Row) -> str:
    folder = latest(logs, row)
    verdict = "not run" if folder is None else _verdict(json.loads((folder / "report.json").read_text()), row)
    return f"| {row.id} | {row.title} | {row.expected} | {verdict} |"
