"""One scenario: the three real programs in a lab, their events, and the verdict with its proof.

`run_scenario` is what `natlab run`, `natlab matrix`, the demo and the tests share. It judges by events and by
the kernel; it knows the programs only by their command line and their JSON lines.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import proof
from lab.behaviours import behaviour, check_pair, direct_expected
from lab.eventlog import EventLog, Program, ProgramEnded, Seen
from lab.lab import Lab
from lab.limits import FAILURE_GRACE_SECONDS, PROOF_SECONDS, RELAY_START_SECONDS, RESERVATION_SECONDS, SCENARIO_SECONDS
from lab.report import Report, environment, path_times
from lab.verify import measure

REPOSITORY = Path(__file__).resolve().parents[2]
RELAY_PORT, LISTENER_PORT, DIALER_PORT = 4001, 4101, 4102
SIDE = {"listener": "a", "dialer": "b"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to run. `delay` in milliseconds one way per access link; `duration`: seconds of traffic watched after
    the outcome; `timeout`: seconds from the dialer's start to the outcome; `kill_relay`: SIGKILL it once traffic
    went direct, and watch `duration` more; `measure`: classify both NATs first (about 3 s)."""

    listener_nat: str = "home"
    dialer_nat: str = "home"
    delay: Mapping[str, float] = field(default_factory=lambda: {"relay": 15.0, "a": 10.0, "b": 20.0})
    loss: float = 0.0
    timeout: float = SCENARIO_SECONDS
    duration: float = 5.0
    p2p: bool = True
    kill_relay: bool = False
    measure: bool = False
    capture: bool = False
    ipv6: bool = False
    name: str = ""
    relay_options: tuple[str, ...] = ()
    listener_options: tuple[str, ...] = ()
    dialer_options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.name or f"{self.dialer_nat}-to-{self.listener_nat}" + ("" if self.p2p else "-no-p2p")

    @property
    def direct_expected(self) -> bool:
        return self.p2p and direct_expected(behaviour(self.listener_nat), behaviour(self.dialer_nat))

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "delay": dict(self.delay), "expected": "direct" if self.direct_expected else "relay"}


class ScenarioFailed(RuntimeError):
    """The run could not be judged: a program did not start, or the relay gave no reservation."""


def program_command() -> list[str]:
    """How to start punchbridge: PUNCHBRIDGE_LAB_PROGRAM, the repository's .venv, or this interpreter."""
    given = os.environ.get("PUNCHBRIDGE_LAB_PROGRAM")
    if given:
        return shlex.split(given)
    script = REPOSITORY / ".venv" / "bin" / "punchbridge"
    if script.exists():
        return [str(script)]
    python = REPOSITORY / ".venv" / "bin" / "python"
    interpreter = str(python) if python.exists() else sys.executable
    return [interpreter, "-c", "import sys; from node.cli import main; sys.exit(main())"]


class Run:
    """A scenario under way; hooks get it to look at the lab, wait for events, and break things."""

    def __init__(self, scenario: Scenario, lab: Lab, log: EventLog, folder: Path, command: Sequence[str]) -> None:
        self.scenario = scenario
        self.lab = lab
        self.log = log
        self.folder = folder
        self.command = list(command)
        self.programs: dict[str, Program] = {}
        self.marks: dict[str, float] = {}
        self.relay_id = ""
        self.target = ""
        self.survived: bool | None = None
        self.traffic: list[dict[str, float]] = []

    def mark(self, name: str) -> None:
        """Record a moment of the run under a name (the first time counts)."""
        self.marks.setdefault(name, self.log.now())

    def start(self, name: str, host: str, *arguments: str) -> Program:
        home = self.folder / "state" / name
        for part in ("state", "run"):
            (home / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        env = {
            **os.environ,
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
            "NO_COLOR": "1",
        }
        argv = [*self.command, *arguments, "--key", str(home / "key"), "--json"]
        self.programs[name] = program = Program(self.lab, self.log, name, host, argv, self.folder, env)
        self.mark(f"{name}.started")
        return program

    def flows(self) -> dict[str, dict[str, int]]:
        """Latest `flow.stats` counters of both ends: messages sent and received in all."""
        found = {}
        for who in ("listener", "dialer"):
            last = self.log.last("flow.stats", who=who)
            stats = last.event if last is not None else {}
            found[who] = {way: sum((stats.get(way) or {}).values()) for way in ("sent", "received")}
        return found

    def sample(self) -> dict[str, float]:
        """Bytes on both paths now, by the hosts' packet counters, and the relay's own circuit byte count."""
        last = self.log.last("relay.stats", who="relay")
        sample = {"at": self.log.now(), **proof.traffic(self.lab)}
        if last is not None:
            sample["circuit_payload"] = int(last.event.get("bytes", 0))
        self.traffic.append(sample)
        return sample


Hook = Callable[[Run], None]


def _listen(run: Run, port: int) -> list[str]:
    ipv6_only = any(one.ipv6_only for one in run.lab.behaviours.values())
    wildcards = ["/ip6/::"] if ipv6_only else ["/ip4/0.0.0.0", *(["/ip6/::"] if run.scenario.ipv6 else [])]
    return [item for address in wildcards for item in ("--listen", f"{address}/tcp/{port}")]


def _relay_address(run: Run, side: str) -> str:
    relay, host = run.lab.hosts["relay"], run.lab.hosts[side]
    where = f"/ip4/{relay.address}" if host.address is not None else f"/ip6/{relay.address6}"
    return f"{where}/tcp/{RELAY_PORT}/p2p/{run.relay_id}"


def _start_relay(run: Run) -> None:
    dual = run.lab.hosts["relay"].address6 is not None
    listens = ["/ip4/0.0.0.0", *(["/ip6/::"] if dual else [])]
    options = [item for address in listens for item in ("--listen", f"{address}/tcp/{RELAY_PORT}")]
    run.start("relay", "relay", "relay", *options, *run.scenario.relay_options)
    if not run.log.wait(lambda: run.log.last("relay.listening"), RELAY_START_SECONDS, alive=["relay"]):
        raise ScenarioFailed("the relay printed no relay.listening")
    listening = run.log.last("relay.listening")
    assert listening is not None
    run.relay_id = str(listening.event["peer_id"])
    run.mark("relay.listening")


def _start_listener(run: Run) -> None:
    options = [*_listen(run, LISTENER_PORT), *_shared_options(run), *run.scenario.listener_options]
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


def _shared_options(run: Run) -> list[str]:
    options = [] if run.scenario.p2p else ["--no-p2p"]
    if run.lab.behaviours["a"].one_lan:
        options.append("--lan")
    return options


def _start_dialer(run: Run) -> None:
    whole = run.scenario.timeout + 2 * run.scenario.duration + PROOF_SECONDS
    options = [*_listen(run, DIALER_PORT), *_shared_options(run), "--duration", f"{whole + 30:g}"]
    run.start("dialer", "b", "dial", run.target, *options, *run.scenario.dialer_options)


def _succeeded(log: EventLog) -> bool:
    return all(log.last("punch.succeeded", who=who) or _direct(log, who) for who in SIDE)


def _direct(log: EventLog, who: str) -> bool:
    """Whether a program holds a direct connection to its peer that did not need a punch (public side)."""
    opened = log.last("p2p_upgrade", who=who)
    return opened is not None


def _gave_up(log: EventLog) -> bool:
    final = any(True for _ in log.find("punch.failed", match=lambda seen: bool(seen.event.get("final"))))
    return final or log.last("p2p_fallback") is not None


def _await_outcome(run: Run) -> str:
    """`direct`, `relay` (a failure that was reported, or no punch wanted) or `timeout`."""
    alive = ["relay", "listener", "dialer"]
    log, timeout = run.log, run.scenario.timeout
    began = log.now()
    shaken = log.wait(
        lambda: all(log.last("handshake.completed", who=who) for who in SIDE) or _succeeded(log), timeout, alive=alive
    )
    if shaken:
        run.mark("handshake.completed")
    left = max(0.0, timeout - (log.now() - began))
    if not run.scenario.p2p:
        return "relay" if shaken else "timeout"
    if not log.wait(lambda: _succeeded(log) or _gave_up(log), left, alive=alive):
        return "timeout"
    # One side may report success while the other's event is still on its way.
    if _succeeded(log) or log.wait(lambda: _succeeded(log), FAILURE_GRACE_SECONDS, alive=alive):
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


def _watch(run: Run, outcome: str) -> dict[str, Any]:
    """Watch traffic for `duration`: which path's bytes rise, do the application's counters rise."""
    if outcome == "direct":
        run.log.wait(lambda: _on_direct_path(run.log), PROOF_SECONDS, alive=["listener", "dialer"])
        run.mark("traffic.direct")
    time.sleep(min(1.0, run.scenario.duration))  # what is under way on the old path drains
    flows, first = run.flows(), run.sample()
    time.sleep(run.scenario.duration)
    moving = _moving(run, flows, PROOF_SECONDS)
    last = run.sample()
    return {
        "seconds": round(last["at"] - first["at"], 3),
        "direct_bytes": last["direct"] - first["direct"],
        "relay_bytes": last["relay"] - first["relay"],
        "circuit_payload_bytes": last.get("circuit_payload", 0) - first.get("circuit_payload", 0),
        "flows_before": flows,
        "flows_after": run.flows(),
        "flows_rise": moving,
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
    if logs is None:
        with tempfile.TemporaryDirectory(prefix="natlab-") as temporary:
            yield Path(temporary)
        return
    folder = logs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{title}"
    folder.mkdir(parents=True)
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder / "state", ignore_errors=True)  # keys and stores are no evidence


def run_scenario(
    scenario: Scenario,
    *,
    logs: Path | None = None,
    on_event: Callable[[Seen], None] | None = None,
    hooks: Mapping[str, Hook] | None = None,
    command: Sequence[str] | None = None,
) -> Report:
    """Run a scenario and judge it.

    `logs`: a folder that gets `<utc>-<title>/` with raw output, events.jsonl, captures and report.json.
    `on_event` is called for every event line, in reader threads but one at a time; it must not block. `hooks`:
    functions called with the Run at `built`, `reserved`, `outcome`, `watched` and `end`. Raises ValueError
    (unknown behaviours), LabUnavailable. A program that fails ends in a report with `error`, not in an exception.
    """
    check_pair(behaviour(scenario.listener_nat), behaviour(scenario.dialer_nat))
    called = dict(hooks or {})
    with _folder(logs, scenario.title) as folder:
        log = EventLog(folder / "events.jsonl", on_event)
        lab = Lab(
            scenario.listener_nat, scenario.dialer_nat, delay=scenario.delay, loss=scenario.loss, ipv6=scenario.ipv6
        )
        try:
            with lab:
                run = Run(scenario, lab, log, folder, command or program_command())
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
        report.five_tuples = [pair.as_json() for pair in proof.direct_pairs(run.lab)]
        report.watched = _watch(run, report.outcome)
        hooks.get("watched", _nothing)(run)
        if run.scenario.kill_relay and report.outcome == "direct":
            report.after_kill = _kill_relay(run)
    except (ProgramEnded, ScenarioFailed) as error:
        report.error = str(error)
    hooks.get("end", _nothing)(run)
    for name in ("dialer", "listener", "relay"):
        if name in run.programs:
            program = run.programs[name]
            status = program.stop()
            report.programs[name] = {
                "host": program.host,
                "argv": program.argv[len(run.command) :],
                "exit": status,
                "killed": program.killed,
                "stderr": program.error_tail(),
            }
    report.judge(run.log, run.marks)
    return report


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
