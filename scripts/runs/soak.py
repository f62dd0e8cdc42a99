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
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab.lab import Lab
from lab.limits import COMMAND_SECONDS

from runs import records
from runs.eventlog import EventLog, Program, ProgramEnded
from runs.limits import RELAY_START_SECONDS, RESERVATION_SECONDS
from runs.memory import quarters
from runs.records import REPOSITORY
from runs.report import environment
from runs.run import TRANSPORTS, program_command
from runs.soaks import SOAKS, Carried, Data, Soak


class SoakFailed(RuntimeError):
    """The run could not be judged: a program did not start, ended early or took too long."""


def _described(one: Soak) -> dict[str, Any]:
    """Its record holds no path of this machine."""
    told = {**asdict(one), "judge": None, "needs": None if one.needs is None else one.needs.name}
    told["faults"] = one.faults is not None
    for key in ("arguments", "server_options"):
        told[key] = [text.replace(str(one.needs), "official") for text in told[key]]
    return told


def unavailable(one: Soak) -> str | None:
    """Why it cannot be run here, None when it can."""
    if one.quic and find_spec("punchbridge_quic") is None:
        return "the QUIC engine is not built; run scripts/setup-env where cargo is"
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

        forms = [TRANSPORTS[name] for name in (("tcp", "quic") if one.quic else ("tcp",))]

        def listen(where: str, port: int) -> list[str]:
            return [word for form in forms for word in ("--listen", form.format(f"/ip4/{where}", port))]

        start("relay", "relay", [*program_command(), "relay", *listen("0.0.0.0", 4001), "--json",
                                 "--stats-interval", "5", *one.relay_options])  # fmt: skip
        relay_id = await_event("relay.listening", "relay", RELAY_START_SECONDS, ["relay"])["peer_id"]
        relay = f"/ip4/{lab.hosts['relay'].address}/tcp/4001/p2p/{relay_id}"
        programs, public = REPOSITORY / "tests" / "soak", str(lab.hosts["a"].address)
        start("server", "a", [sys.executable, str(programs / one.server), *listen(public, 4101), "--relay", relay,
                              *one.server_options])  # fmt: skip
        server_id = await_event("ready", "server", RESERVATION_SECONDS, ["relay", "server"])["peer_id"]
        addrs = ["--circuit", f"{relay}/p2p-circuit/p2p/{server_id}"]
        if one.direct:
            addrs += [word for form in forms
                      for word in ("--direct", f"{form.format(f'/ip4/{public}', 4101)}/p2p/{server_id}")]  # fmt: skip
        if one.punch:
            addrs += listen("0.0.0.0", 4102)
        everybody, begun = ["relay", "server", "client"], threading.Event()

        def carried(stages: int) -> None:
            begun.set()
            done = log.wait(lambda: len(list(log.find("carried", who="client"))) >= stages, one.seconds)
            if not done:
                raise SoakFailed(f"no stage {stages} within {one.seconds:g} s")

        if one.faults is not None:
            faults = threading.Thread(target=_guarded, args=(one.faults, lab, carried), daemon=True)
            faults.start()
            begun.wait(COMMAND_SECONDS)
        start("client", "b", [sys.executable, str(programs / one.client), *one.arguments, *addrs])
        return await_event("result", "client", one.seconds, everybody)


def _guarded(faults: Callable[[Lab, Carried], None], lab: Lab, carried: Carried) -> None:
    """Ends with the run: the stage that did not come fails it."""
    with contextlib.suppress(SoakFailed):
        faults(lab, carried)


def summary(one: Soak, report: Data) -> str:
    """The readable record of one run, in Markdown."""
    env, result = report["environment"], report["result"]
    lines = [f"# {one.id}: {one.title}", "", f"Verdict **{'PASS' if report['passed'] else 'FAIL'}**. {one.goal}", ""]
    lines += [f"- {'holds' if each['holds'] else '**does not hold**'}: {each['what']}" for each in report["findings"]]
    lines += ["", "## Figures", ""]
    lines += [f"- {key}: {value}" for key, value in result.items() if key not in ("event", "gaps", "cases", "stages")]
    lines += [f"- stage {number}: {one['kind']}, {one['messages']} messages in {one['seconds']} s"
              for number, one in enumerate(result.get("stages", []), 1)]  # fmt: skip
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
