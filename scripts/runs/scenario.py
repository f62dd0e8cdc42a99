"""One scenario: the three real programs in a lab, their events, and the verdict with its proof.

`run_scenario` is what `natlab run`, `natlab matrix`, the demo and the tests share. It judges by events and by
the kernel; it knows the programs only by their command line and their JSON lines.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import proof
from lab.lab import Lab
from lab.verify import measure

from runs import records, slower, trials
from runs.eventlog import EventLog, ProgramEnded, Seen
from runs.limits import (
    FAILURE_GRACE_SECONDS,
    PROOF_SECONDS,
    RELAY_START_SECONDS,
    RELEASE_SECONDS,
    RESERVATION_SECONDS,
    RETURN_SECONDS,
)
from runs.records import REPOSITORY
from runs.report import Report, environment, path_times
from runs.run import SIDE, TRANSPORTS, Run, Scenario, program_command

__all__ = ["Hook", "Run", "Scenario", "ScenarioFailed", "program_command", "run_scenario"]

RELAY_PORT, LISTENER_PORT, DIALER_PORT = 4001, 4101, 4102


class ScenarioFailed(RuntimeError):
    """The run could not be judged: a program did not start, or the relay gave no reservation."""


Hook = Callable[[Run], None]


def _listen(run: Run, wildcards: Sequence[str], port: int) -> list[str]:
    addrs = [TRANSPORTS[one].format(where, port) for where in wildcards for one in run.scenario.transports]
    return [item for addr in addrs for item in ("--listen", addr)]


def _node_listens(run: Run, port: int) -> list[str]:
    ipv6_only = any(one.ipv6_only for one in run.lab.behaviours.values())
    return _listen(
        run, ["/ip6/::"] if ipv6_only else ["/ip4/0.0.0.0", *(["/ip6/::"] if run.scenario.ipv6 else [])], port
    )


def _relay_address(run: Run, side: str) -> str:
    relay, host = run.lab.hosts["relay"], run.lab.hosts[side]
    where = f"/ip4/{relay.address}" if host.address is not None else f"/ip6/{relay.address6}"
    return f"{TRANSPORTS[run.scenario.relay_transport(side)].format(where, RELAY_PORT)}/p2p/{run.relay_id}"


def _start_relay(run: Run) -> None:
    dual = run.lab.hosts["relay"].address6 is not None
    options = _listen(run, ["/ip4/0.0.0.0", *(["/ip6/::"] if dual else [])], RELAY_PORT)
    run.start("relay", "relay", "relay", "--stats-interval", "0.5", *options, *run.scenario.relay_options)
    if not run.log.wait(lambda: run.log.last("relay.listening"), RELAY_START_SECONDS, alive=["relay"]):
        raise ScenarioFailed("the relay printed no relay.listening")
    listening = run.log.last("relay.listening")
    assert listening is not None
    run.relay_id = str(listening.event["peer_id"])
    run.mark("relay.listening")


def _start_listener(run: Run) -> None:
    options = [*_node_listens(run, LISTENER_PORT), *_node_options(run), *run.scenario.listener_options]
    run.start("listener", "a", "listen", "--relay", _relay_address(run, "a"), *options)
    if not run.log.wait(
        lambda: run.log.last("reservation.accepted", who="listener"), RESERVATION_SECONDS, alive=["relay", "listener"]
    ):
        raise ScenarioFailed("the listener got no reservation")
    accepted = run.log.last("reservation.accepted", who="listener")
    assert accepted is not None
    listener_id = str(accepted.event["addrs"][0]).rsplit("/", 1)[-1]
    run.target = f"{_relay_address(run, 'b')}/p2p-circuit/p2p/{listener_id}"
    run.mark("reservation.accepted")


def _node_options(run: Run) -> list[str]:
    # Traffic and reports often enough that a short run shows both paths clearly.
    options = ["--gossip-interval", "0.25", "--stats-interval", "0.2"]
    if not run.scenario.p2p:
        options.append("--no-p2p")
    if run.lab.behaviours["a"].one_lan:
        options.append("--lan")
    return options


def _start_dialer(run: Run) -> None:
    whole = run.scenario.timeout + 2 * run.scenario.duration + PROOF_SECONDS
    options = [*_node_listens(run, DIALER_PORT), *_node_options(run), "--duration", f"{whole + 30:g}"]
    run.start("dialer", "b", "dial", run.target, *options, *run.scenario.dialer_options)


def _succeeded(run: Run) -> bool:
    return all(run.direct(who) for who in SIDE)


def _gave_up(log: EventLog) -> bool:
    final = any(True for _ in log.find("punch.failed", match=lambda seen: bool(seen.event.get("final"))))
    return final or log.last("p2p_fallback") is not None


def _await_outcome(run: Run) -> str:
    """`direct`, `relay` (a failure that was reported, or no punch wanted) or `timeout`."""
    alive = ["relay", "listener", "dialer"]
    log, timeout = run.log, run.scenario.timeout
    began = log.now()
    shaken = log.wait(
        lambda: all(log.last("handshake.completed", who=who) for who in SIDE) or _succeeded(run), timeout, alive=alive
    )
    if shaken:
        run.mark("handshake.completed")
    left = max(0.0, timeout - (log.now() - began))
    if not run.scenario.p2p:
        return "relay" if shaken else "timeout"
    if not log.wait(lambda: _succeeded(run) or _gave_up(log), left, alive=alive):
        return "timeout"
    # One side may report success while the other's event is still on its way.
    if _succeeded(run) or log.wait(lambda: _succeeded(run), FAILURE_GRACE_SECONDS, alive=alive):
        run.mark("direct")
        return "direct"
    run.mark("gave_up")
    return "relay"


def _moving(run: Run, before: Mapping[str, Mapping[str, int]], timeout: float) -> bool:
    """Until both programs have counted messages beyond `before`, or the timeout."""

    def moved() -> bool:
        now = run.flows()
        return all(now[who][way] > before[who][way] for who in SIDE for way in ("sent", "received"))

    return run.log.wait(moved, timeout)


def _on_direct_path(log: EventLog) -> bool:
    """The application's traffic has moved: the dialer said so, or shook hands anew on the direct path."""
    moved = log.last("path.changed", who="dialer", match=lambda seen: seen.event.get("to") == "direct")
    shaken = log.last("handshake.completed", who="dialer", match=lambda seen: seen.event.get("path") == "direct")
    return moved is not None or shaken is not None


def _difference(first: Mapping[str, float], last: Mapping[str, float], name: str) -> float | None:
    return last[name] - first[name] if name in first and name in last else None


def _watch(run: Run, report: Report) -> None:
    """Watch traffic for `duration`: which path's bytes rise, on which sockets, do the application's counters rise."""
    direct = report.outcome == "direct"
    if direct:
        run.log.wait(lambda: _on_direct_path(run.log), PROOF_SECONDS, alive=["listener", "dialer"])
        run.mark("traffic.direct")
        # The relayed connection carries nothing any more and gives its place at the relay back.
        run.log.wait(lambda: run.log.last("circuit.closed", who="relay"), RELEASE_SECONDS, alive=["listener", "dialer"])
    # A direct connection has to carry payload while it is watched; on the relay none may ever have carried any.
    pairs = proof.established_pairs(run.lab) if direct else []
    flows, first = run.flows(), run.sample()
    time.sleep(run.scenario.duration)
    moving = _moving(run, flows, PROOF_SECONDS)
    last = run.sample()
    report.five_tuples = [pair.as_json() for pair in proof.direct_pairs(run.lab, since=pairs)]
    report.watched = {
        "seconds": round(last["at"] - first["at"], 3),
        "direct_bytes": last["direct"] - first["direct"],
        "relay_bytes": last["relay"] - first["relay"],
        "circuit_payload_bytes": _difference(first, last, "circuit_payload"),
        "flows_before": flows,
        "flows_after": run.flows(),
        "flows_rise": moving,
    }


def _cut_direct(run: Run) -> dict[str, Any]:
    """Silently drop everything between the two hosts, until gossip runs over the relay; heal, until direct again."""
    alive = ["relay", "listener", "dialer"]
    flows = run.flows()
    run.lab.cut_direct()
    run.mark("direct.cut")
    relayed = run.log.wait(lambda: trials.on_path(run, "relay"), PROOF_SECONDS, alive=alive)
    run.mark("relayed.again")
    moving = relayed and _moving(run, flows, PROOF_SECONDS)
    run.mark("flows.again")
    run.lab.heal()
    run.mark("healed")
    direct = run.log.wait(lambda: trials.on_path(run, "direct"), RETURN_SECONDS, alive=alive)
    run.mark("direct.again")
    return {
        "relayed": relayed,
        "flows_rise": moving,
        "seconds_without_traffic": round(run.marks["flows.again"] - run.marks["direct.cut"], 3),
        "direct_again": direct,
        "seconds_to_direct": round(run.marks["direct.again"] - run.marks["healed"], 3),
        "flows_before": flows,
        "flows_after": run.flows(),
    }


def _kill_relay(run: Run) -> dict[str, Any]:
    flows, first = run.flows(), run.sample()
    run.programs["relay"].kill()
    run.mark("relay.killed")
    time.sleep(run.scenario.duration)
    run.survived = _moving(run, flows, PROOF_SECONDS)
    last = run.sample()
    return {
        "seconds": round(last["at"] - first["at"], 3),
        "direct_bytes": last["direct"] - first["direct"],
        "flows_before": flows,
        "flows_after": run.flows(),
        "flows_rise": run.survived,
    }


@contextlib.contextmanager
def _folder(logs: Path | None, title: str) -> Iterator[Path]:
    """Where a run's records go: kept under `logs`, or thrown away."""
    if logs is None:
        with tempfile.TemporaryDirectory(prefix="natlab-") as temporary:
            yield Path(temporary)
        return
    folder = logs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{title}"
    folder.mkdir(parents=True)
    yield folder.resolve()


def run_scenario(
    scenario: Scenario,
    *,
    logs: Path | None = None,
    on_event: Callable[[Seen], None] | None = None,
    hooks: Mapping[str, Hook] | None = None,
    command: Sequence[str] | None = None,
) -> Report:
    """Run a scenario and judge it.

    `logs`: a folder that gets `<utc>-<title>/` with report.json, events.jsonl.gz, what the programs said on their
    standard errors, and captures if the scenario asks for them.
    `on_event` is called for every event line, in reader threads but one at a time; it must not block. `hooks`:
    functions called with the Run at `built`, `reserved`, `outcome`, `watched`, `returned` (after a cut) and `end`.
    Raises ValueError (see `Scenario.check`), LabUnavailable. A program that fails ends in a report with `error`, not
    in an exception.
    """
    scenario.check()
    called = dict(hooks or {})
    # Keys, stores and sockets are no evidence, and socket paths must stay short: they live in a folder of their own.
    with _folder(logs, scenario.title) as folder, tempfile.TemporaryDirectory(prefix="natlab-") as state:
        log = EventLog(folder / records.EVENTS, on_event)
        lab = Lab(
            scenario.listener_nat, scenario.dialer_nat, delay=scenario.delay, loss=scenario.loss, ipv6=scenario.ipv6
        )
        try:
            with lab:
                if scenario.block:
                    lab.block("b", scenario.block)
                if scenario.detour:
                    lab.set_detour(scenario.detour)
                run = Run(scenario, lab, log, folder, Path(state), command or program_command())
                report = _conduct(run, called)
        finally:
            log.close()
        report.folder = str(folder) if logs is not None else None
        if logs is not None:
            report.write(folder / "report.json")
    return report


def _conduct(run: Run, hooks: Mapping[str, Hook]) -> Report:
    report = Report(scenario=run.scenario.as_json(), environment=environment(REPOSITORY))
    report.topology = _topology(run)
    if run.scenario.capture:
        for side in ("a", "b"):
            run.lab.capture(side, run.folder / f"host{side}.pcap")
    hooks.get("built", _nothing)(run)
    try:
        _start_relay(run)
        _start_listener(run)
        hooks.get("reserved", _nothing)(run)
        _start_dialer(run)
        report.outcome = _await_outcome(run)
        hooks.get("outcome", _nothing)(run)
        if run.scenario.detour and report.outcome == "direct":
            report.slower = slower.conduct(run)
        _watch(run, report)
        hooks.get("watched", _nothing)(run)
        if run.scenario.cut_direct and report.outcome == "direct":
            report.after_cut = _cut_direct(run)
            hooks.get("returned", _nothing)(run)
        if run.scenario.trials:
            report.trials = trials.conduct(run, trials.DIRECT if report.outcome == "direct" else trials.RELAYED)
        if run.scenario.kill_relay and report.outcome == "direct":
            report.after_kill = _kill_relay(run)
    except (ProgramEnded, ScenarioFailed) as error:
        report.error = str(error)
    hooks.get("end", _nothing)(run)
    run.mark("stopping")
    for name in ("dialer", "listener", "relay"):
        if name in run.programs:
            program = run.programs[name]
            status = program.stop()
            report.programs[name] = {
                "host": program.host,
                "argv": [_public(argument, run) for argument in program.argv[len(run.command) :]],
                "exit": status,
                "killed": program.killed,
                "stderr": program.error_tail(),
            }
    report.judge(run.log, run.marks)
    return report


def _public(argument: str, run: Run) -> str:
    """An argument as a reader may use it: without the run's own scratch folder."""
    return "KEYFILE" if argument.startswith(str(run.state)) else argument


def _nothing(run: Run) -> None:
    """The hook that is not there."""


def _topology(run: Run) -> dict[str, Any]:
    lab = run.lab
    boxes = dict.fromkeys(box for side in ("a", "b") for box in lab.boxes(side))
    found: dict[str, Any] = {
        "hosts": {name: asdict(host) for name, host in lab.hosts.items()},
        "rulesets": {box: lab.ruleset(box) for box in boxes},
        "round_trips_ms": path_times(lab),
    }
    if run.scenario.measure:
        found["measured"] = {side: asdict(measure(lab, lab.behaviours[side], side)) for side in ("a", "b")}
    return found
