"""Soak runs: the pair of programs in tests/soak on two hosts of a lab with a relay between them, judged and recorded.

Each takes minutes and ends in logs/<utc>-<name>/ with report.json and a summary beside it, as scenarios do. It knows
the programs by their JSON lines only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.lab import Lab

from runs import records
from runs.eventlog import EventLog, Program, ProgramEnded
from runs.limits import RELAY_START_SECONDS, RESERVATION_SECONDS
from runs.memory import flat, quarters
from runs.records import REPOSITORY
from runs.report import environment
from runs.run import program_command

Data = Mapping[str, Any]
Findings = list[tuple[str, bool]]

UNLIMITED = ("--circuit-bytes", "0", "--circuit-seconds", "0", "--circuits-per-peer", "0", "--peer-burst", "0",
             "--address-burst", "0", "--hop-streams-per-peer", "0")  # fmt: skip
MEMORY_GROWTH = 1.25
"""The last third of a run may hold this much more than the second: sizes of buffers swing, a leak grows for ever."""


@dataclass(frozen=True, slots=True)
class Soak:
    """One run. `judge` turns the dialling program's `result` and both programs' memory samples into statements, true
    or not."""

    id: str
    name: str
    title: str
    goal: str
    arguments: tuple[str, ...]
    seconds: float
    judge: Callable[[Data, Data], Findings]
    relay_options: tuple[str, ...] = UNLIMITED
    server_options: tuple[str, ...] = ()
    delay: Mapping[str, float] = field(default_factory=lambda: {"relay": 10.0, "a": 5.0, "b": 5.0})
    direct: bool = True
    nats: tuple[str, str] = ("public", "home")
    punch: bool = False
    """Both ends are behind NATs, and the direct path has to be punched."""
    server: str = "server.py"
    client: str = "client.py"
    needs: Path | None = None
    """A folder that has to be built first: `scripts/interop build` with its name."""


def _flat(samples: Sequence[Data]) -> bool:
    memory = [one["resident"] for one in samples]
    third = len(memory) // 3
    return third > 0 and max(memory[-third:]) <= MEMORY_GROWTH * max(memory[third : 2 * third])


def _no_failures(result: Data) -> tuple[str, bool]:
    return "no RPC failed, every message once, in order, hashes equal", not result["failures"]


def _switches(result: Data, memory: Data) -> Findings:
    done = result["planned"] + result["unplanned"]
    return [
        _no_failures(result),
        (f"{done} switches, {result['unplanned']} of them after a kill, at least 1000", done >= 1000),
        *(statement for who, samples in memory.items() for statement in flat(who, samples)),
    ]  # fmt: skip


def _punched(result: Data, memory: Data) -> Findings:
    punched, direct = result["punched"], result["switches_to_direct"]
    return [
        *_switches(result, memory),
        (f"{punched} punches through both NATs, at least 10", punched >= 10),
        (f"{direct} switches to a punched path, at least 100", direct >= 100),
    ]


def _caps(result: Data, memory: Data) -> Findings:
    moved = result["planned"] + result["unplanned"]
    return [
        _no_failures(result),
        (f"{result['bytes'] >> 20} MiB arrived whole at {result['kib_per_second']} KiB/s", not result["failures"]),
        (f"over {moved + 1} circuits of 128 KiB", moved > result["bytes"] / (256 << 10)),
    ]


def _gaps(result: Data, memory: Data) -> Findings:
    rows = {row["kind"]: row for row in result["gaps"]}
    relayed, direct = result["relayed_trip_ms"], result["direct_trip_ms"]
    found = [_no_failures(result)]
    for kind, row in rows.items():
        if "planned" in kind:
            bound, words = relayed, f"one relayed round trip ({relayed:g} ms)"
        elif "killed" in kind:
            taken = direct if kind.endswith("direct taken") else relayed
            bound, words = 3 * taken, f"three round trips of the path taken ({taken:g} ms)"
        else:
            continue
        found.append((f"{kind}: longest gap {row['longest_ms']} ms, at most {words}", row["longest_ms"] <= bound))
    return found


OFFICIAL = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "punchbridge" / "interop" / "official"

OFFICIAL_CASES = 14
"""Those of gRPC 1.51's Python client that need no credentials."""


def _official(result: Data, memory: Data) -> Findings:
    rows, apart = result["cases"], result["ms_between_carriers"]
    carriers, killed, runs = result["carriers"], result["killed"], sum(row["runs"] for row in rows)
    return [
        (f"{len(rows)} cases of the client, run {runs} times, none failed",
         not result["failures"] and len(rows) >= OFFICIAL_CASES),
        (f"{carriers} carriers, one every {apart['median']} ms (median; mean {apart['mean']})", apart["mean"] <= 30.0),
        (f"{killed} of them killed, one in {carriers / max(killed, 1):.1f}", killed >= 0.3 * carriers),
        (f"each case used {min(row['carriers'] for row in rows)} carriers or more, at least 100",
         min(row["carriers"] for row in rows) >= 100),
        (f"{result['by_path']['direct']} of them direct, {result['by_path']['relay']} relayed",
         min(result["by_path"].values()) >= 0.3 * carriers),
        *((f"memory of the {who} is flat", _flat(samples)) for who, samples in memory.items()),
    ]  # fmt: skip


SOAKS = (
    Soak(
        "T-001",
        "t-001-switches",
        "sessions moved and cut a thousand times under load",
        "Two echo streams (700 B and 1 MiB messages) and 16 callers on three sessions, while both ends kill "
        "connections and the dialling end moves sessions to fresh and standing ones, direct and relayed, at random.",
        ("switches", "--count", "2400"),
        900.0,
        _switches,
        server_options=("--torment", "0.4"),
    ),
    Soak(
        "T-002",
        "t-002-caps",
        "64 MiB over a relay of stock limits",
        "One gRPC stream over circuits of 128 KiB and 2 min each; the session moves to a fresh one before each cap.",
        ("caps", "--bytes", str(64 << 20)),
        900.0,
        _caps,
        relay_options=(),
        direct=False,
    ),
    Soak(
        "T-003",
        "t-003-gaps",
        "the longest gap of each kind of switch",
        "500 messages a second; the session is moved, and its connection killed with another standing, 20 times each.",
        ("gaps", "--count", "20"),
        400.0,
        _gaps,
        delay={"relay": 25.0, "a": 15.0, "b": 15.0},
    ),
    Soak(
        "T-004",
        "t-004-official",
        "the official gRPC interop client while carriers are switched every 20 ms",
        "Every case of gRPC's own Python client that needs no credentials, unmodified, through forward and expose; "
        "every 20 ms its session moves to the other path or, every third time, its connection is killed.",
        ("--peer", str(OFFICIAL), "--seconds", "5"),
        400.0,
        _official,
        server_options=("--peer", str(OFFICIAL)),
        delay={"relay": 1.0, "a": 1.0, "b": 1.0},
        server="official_server.py",
        client="official.py",
        needs=OFFICIAL,
    ),
    Soak(
        "T-005",
        "t-005-punched",
        "sessions moved and cut a thousand times between two home routers",
        "As T-001 with both ends behind NATs: the direct path is punched, and again after each kill, beside circuits.",
        ("switches", "--count", "1200"),
        900.0,
        _punched,
        server_options=("--torment", "0.8", "--punch"),
        direct=False,
        nats=("home", "home"),
        punch=True,
    ),
)


def soak(identifier: str) -> Soak:
    """Look a soak run up by its id. Raises ValueError that lists the ids."""
    for one in SOAKS:
        if one.id.lower() == identifier.lower():
            return one
    raise ValueError(f"unknown soak run {identifier!r}; one of: {', '.join(one.id for one in SOAKS)}")


class SoakFailed(RuntimeError):
    """The run could not be judged: a program did not start, ended early or took too long."""


def _described(one: Soak) -> dict[str, Any]:
    """Its record holds no path of this machine."""
    told = {**asdict(one), "judge": None, "needs": None if one.needs is None else one.needs.name}
    for key in ("arguments", "server_options"):
        told[key] = [text.replace(str(one.needs), "official") for text in told[key]]
    return told


def unavailable(one: Soak) -> str | None:
    """Why it cannot be run here, None when it can."""
    if one.needs is None or (one.needs / "stamp").exists():
        return None
    return f"the {one.needs.name} peer is not built; run scripts/interop build {one.needs.name}"


def run_soak(one: Soak, logs: Path) -> Path:
    """Runs it in a lab and records it; returns the record's folder. Raises SoakFailed, LabUnavailable."""
    folder = (logs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{one.name}").resolve()
    folder.mkdir(parents=True)
    log = EventLog(folder / records.EVENTS)
    # Where the listener is public a direct dial stands in for a punch, so that kills and moves can follow closely.
    with (
        contextlib.closing(log),
        tempfile.TemporaryDirectory(prefix="soak-") as state,
        Lab(*one.nats, delay=one.delay) as lab,
    ):
        try:
            result = _conduct(one, lab, log, folder, Path(state))
        except ProgramEnded as problem:
            raise SoakFailed(str(problem)) from problem
        peers = {"a": lab.hosts["a"].address, "relay": lab.hosts["relay"].address}
        trips = {where: round(1000 * (lab.ping("b", str(addr)) or 0.0), 1) for where, addr in peers.items()}
    memory = {who: [s.event for s in log.find("memory", who=who)] for who in ("server", "client")}
    relay, a, b = (one.delay[link] for link in ("relay", "a", "b"))
    result = {**result, "direct_trip_ms": 2 * (a + b), "relayed_trip_ms": 2 * (a + 2 * relay + b)}
    found = one.judge(result, memory)
    report = {
        "soak": {**_described(one), "delay": dict(one.delay)},
        "environment": environment(REPOSITORY),
        "round_trips_from_dialler_ms": trips,
        "result": dict(result),
        "memory_mib": {who: [round(one["resident"] / 2**20, 1) for one in each] for who, each in memory.items()},
        "memory_quarters": {who: quarters(samples) for who, samples in memory.items()},
        "findings": [{"what": what, "holds": holds} for what, holds in found],
        "passed": all(holds for _, holds in found),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    folder.with_name(f"{folder.name}-summary.md").write_text(summary(one, report))
    return folder


def _conduct(one: Soak, lab: Lab, log: EventLog, folder: Path, state: Path) -> Data:
    with contextlib.ExitStack() as stack:

        def start(name: str, host: str, command: Sequence[str]) -> Program:
            home = state / name
            home.mkdir(mode=0o700)
            env = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
            env |= {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
            program = Program(lab, log, name, host, command, folder, env)
            stack.callback(program.stop)
            return program

        def await_event(name: str, who: str, seconds: float, alive: Sequence[str]) -> dict[str, Any]:
            if not log.wait(lambda: log.last(name, who=who), seconds, alive=alive):
                raise SoakFailed(f"no {name} of the {who} within {seconds:g} s")
            seen = log.last(name, who=who)
            assert seen is not None
            return seen.event

        listen = "/ip4/0.0.0.0/tcp/4001"
        start("relay", "relay", [*program_command(), "relay", "--listen", listen, "--json",
                                 "--stats-interval", "5", *one.relay_options])  # fmt: skip
        relay_id = await_event("relay.listening", "relay", RELAY_START_SECONDS, ["relay"])["peer_id"]
        relay = f"/ip4/{lab.hosts['relay'].address}/tcp/4001/p2p/{relay_id}"
        programs, public = REPOSITORY / "tests" / "soak", f"/ip4/{lab.hosts['a'].address}/tcp/4101"
        start("server", "a", [sys.executable, str(programs / one.server), "--listen", public, "--relay", relay,
                              *one.server_options])  # fmt: skip
        server_id = await_event("ready", "server", RESERVATION_SECONDS, ["relay", "server"])["peer_id"]
        addrs = ["--circuit", f"{relay}/p2p-circuit/p2p/{server_id}"]
        if one.direct:
            addrs += ["--direct", f"{public}/p2p/{server_id}"]
        if one.punch:
            addrs += ["--listen", "/ip4/0.0.0.0/tcp/4102"]
        start("client", "b", [sys.executable, str(programs / one.client), *one.arguments, *addrs])
        return await_event("result", "client", one.seconds, ["relay", "server", "client"])


def summary(one: Soak, report: Data) -> str:
    """The readable record of one run, in Markdown."""
    env, result = report["environment"], report["result"]
    lines = [f"# {one.id}: {one.title}", "", f"Verdict **{'PASS' if report['passed'] else 'FAIL'}**. {one.goal}", ""]
    lines += [f"- {'holds' if each['holds'] else '**does not hold**'}: {each['what']}" for each in report["findings"]]
    lines += ["", "## Figures", ""]
    lines += [f"- {key}: {value}" for key, value in result.items() if key not in ("event", "gaps", "cases")]
    for row in result.get("gaps", []):
        lines += [f"- {row['kind']}: median {row['median_ms']} ms, longest {row['longest_ms']} ms, "
                  f"round trip of the path taken {row['round_trip_ms']} ms"]  # fmt: skip
    for row in result.get("cases", []):
        lines += [f"- {row['case']}: {row['failure'] or 'passed'}; runs {row['runs']}, carriers {row['carriers']}, "
                  f"killed {row['killed']}"]  # fmt: skip
    for who, series in report["memory_mib"].items():
        if series:
            lines += [f"- memory of the {who}, MiB: first {series[0]}, largest {max(series)}, last {series[-1]}"]
    for who, kinds in report.get("memory_quarters", {}).items():
        lines += [f"- {kind} of the {who}, medians of the quarters of the run: {medians}"
                  for kind, medians in kinds.items() if medians]  # fmt: skip
    lines += ["", "## Environment", "", f"- commit `{env['commit'] or 'unknown'}` (uncommitted changes: "
              f"{env['uncommitted']})", f"- kernel {env['kernel']}, {env['machine']}, Python {env['python']}",
              f"- one-way delays, ms: {report['soak']['delay']}; round trips from the dialler, ms: "
              f"{report['round_trips_from_dialler_ms']}",
              f"- relay options: `{' '.join(report['soak']['relay_options']) or 'stock limits'}`"]  # fmt: skip
    return "\n".join(lines) + "\n"


def latest(logs: Path, one: Soak) -> Path | None:
    """The newest judged record of a soak run."""
    found = sorted(logs.glob(f"*-{one.name}/report.json"))
    return found[-1].parent if found else None


def page(logs: Path) -> Iterator[str]:
    """The section of TEST_SCENARIOS.md about soak runs, line by line."""
    yield from (
        "## Soak runs",
        "",
        "Minutes of load; run one with `scripts/torture T-001` (`--record` replaces its record).",
        "",
    )
    yield from ("| id | what | last verdict | findings | record |", "|---|---|---|---|---|")
    for one in SOAKS:
        folder = latest(logs, one)
        if folder is None:
            yield f"| {one.id} | {one.title} | not run | | |"
            continue
        report = json.loads((folder / "report.json").read_text())
        told = "; ".join(each["what"] + ("" if each["holds"] else " (**no**)") for each in report["findings"])
        verdict = "PASS" if report["passed"] else "FAIL"
        yield f"| {one.id} | {one.title} | {verdict} | {told} | [{folder.name}](logs/{folder.name}-summary.md) |"
