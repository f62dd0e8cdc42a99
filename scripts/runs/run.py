"""A scenario's description, and `Run`: a scenario under way, for hooks and for the steps that conduct it.

Starts programs and reads counters; it decides nothing about the outcome.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab import proof
from lab.behaviours import behaviour, check_pair, direct_expected
from lab.lab import Lab

from runs.eventlog import EventLog, Program, Seen
from runs.limits import RELAY_REPORT_SECONDS, SCENARIO_SECONDS
from runs.records import REPOSITORY

SIDE = {"listener": "a", "dialer": "b"}
"""The side of the lab on which each program runs."""


TRANSPORTS = {"tcp": "{}/tcp/{}", "quic": "{}/udp/{}/quic-v1"}
"""Multiaddr of an IP part and a port."""

_BLOCKS = {"tcp": "tcp", "udp": "quic"}
"""The transport that goes when a router drops a protocol."""

_WORD = {True: "direct", False: "relay"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to run.

    `delay`: milliseconds one way per access link. `timeout`: seconds from the dialer's start to the outcome.
    `duration`: seconds of traffic watched after it. `cut_direct`: drop the direct path silently, and heal it once
    traffic runs over the relay. `trials`: the faults of `runs.trials`. `kill_relay`: SIGKILL it once traffic is direct
    (again), and watch `duration` more. `detour`: direct
    packets take so many milliseconds more until the session has shown that it stays on the relay (`runs.slower`).
    `measure`: classify both NATs first (about 3 s). `transport`: what the programs listen on, and how they reach the
    relay: `tcp`, `quic`, or `both`, with the relay over TCP. `block`: `tcp` or `udp`, which the dialer's router drops
    from the start, the relay's too; with `both` the dialer then reaches the relay over the other.
    """

    listener_nat: str = "home"
    dialer_nat: str = "home"
    delay: Mapping[str, float] = field(default_factory=lambda: {"relay": 15.0, "a": 10.0, "b": 20.0})
    loss: float = 0.0
    timeout: float = SCENARIO_SECONDS
    duration: float = 5.0
    p2p: bool = True
    cut_direct: bool = False
    trials: bool = False
    kill_relay: bool = False
    detour: float = 0.0
    measure: bool = False
    capture: bool = False
    ipv6: bool = False
    transport: str = "tcp"
    block: str = ""
    name: str = ""
    relay_options: tuple[str, ...] = ()
    listener_options: tuple[str, ...] = ()
    dialer_options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.name or f"{self.dialer_nat}-to-{self.listener_nat}" + ("" if self.p2p else "-no-p2p")

    @property
    def transports(self) -> tuple[str, ...]:
        """What all programs listen on."""
        return ("tcp", "quic") if self.transport == "both" else (self.transport,)

    def relay_transport(self, side: str) -> str:
        """What a side reaches the relay over."""
        blocked = _BLOCKS.get(self.block) if side == "b" else None
        return next((one for one in self.transports if one != blocked), self.transports[0])

    @property
    def expected_over(self) -> dict[str, bool]:
        """For each transport that the programs listen on, whether the pair is to become direct over it."""
        pair = behaviour(self.listener_nat), behaviour(self.dialer_nat)
        blocked = _BLOCKS.get(self.block)
        return {one: self.p2p and one != blocked and direct_expected(*pair, one) for one in self.transports}

    @property
    def direct_expected(self) -> bool:
        return any(self.expected_over.values())

    def check(self) -> None:
        """Raises ValueError for behaviours that are unknown or no pair, and for one that cannot reach the relay."""
        pair = behaviour(self.listener_nat), behaviour(self.dialer_nat)
        check_pair(*pair)
        for one in pair:
            if one.udp_blocked and self.transports == ("quic",):
                raise ValueError(f"{one.name} lets no UDP through: over QUIC alone its host reaches no relay")

    def as_json(self) -> dict[str, Any]:
        over = {one: _WORD[direct] for one, direct in self.expected_over.items()}
        return {
            **asdict(self),
            "delay": dict(self.delay),
            "expected": _WORD[self.direct_expected],
            "expected_over": over,
        }


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
    return [interpreter, "-c", "import sys; from punchbridge.cli import main; sys.exit(main())"]


class Run:
    """A scenario under way; hooks get it to look at the lab, wait for events, and break things."""

    def __init__(
        self, scenario: Scenario, lab: Lab, log: EventLog, folder: Path, state: Path, command: Sequence[str]
    ) -> None:
        self.scenario = scenario
        self.lab = lab
        self.log = log
        self.folder = folder
        self.state = state
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
        home = self.state / name
        for part in ("state", "run"):
            (home / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PUNCHBRIDGE_")},
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
            "NO_COLOR": "1",
        }
        argv = [*self.command, *arguments, "--key", str(home / "key"), "--new-key", "--json"]
        self.programs[name] = program = Program(self.lab, self.log, name, host, argv, self.folder, env)
        self.mark(f"{name}.started")
        return program

    def restart_relay(self) -> None:
        """SIGKILL, and the same program again at once."""
        before = self.programs["relay"]
        before.kill()
        self.programs["relay"] = Program(
            self.lab, self.log, "relay", before.host, before.argv, self.folder, before.env, suffix="-again"
        )

    def flows(self) -> dict[str, dict[str, int]]:
        """Latest `flow.stats` counters of both ends: messages sent and received in all."""
        found = {}
        for who in ("listener", "dialer"):
            last = self.log.last("flow.stats", who=who)
            stats = last.event if last is not None else {}
            found[who] = {way: sum((stats.get(way) or {}).values()) for way in ("sent", "received")}
        return found

    def sample(self) -> dict[str, float]:
        """Bytes on both paths now, by the hosts' packet counters, and the relay's own count of circuit payload.

        Waits for the relay's next report, so that an old one cannot pass for stillness; without a report in time
        (the relay is dead, or prints none) `circuit_payload` is missing.
        """
        began = self.log.now()
        packets = proof.traffic(self.lab)

        def fresh() -> Seen | None:
            return self.log.last("relay.stats", who="relay", match=lambda seen: seen.at > began)

        sample: dict[str, float] = {"at": began, **packets}
        relay = self.programs["relay"]
        if not relay.killed and self.log.wait(fresh, RELAY_REPORT_SECONDS):
            reported = fresh()
            assert reported is not None
            sample["circuit_payload"] = int(reported.event.get("bytes", 0))
        self.traffic.append(sample)
        return sample

    def direct(self, who: str) -> bool:
        """Whether a program says that it holds a direct connection to its peer, punched or dialled."""
        if self.log.last("punch.succeeded", "p2p_upgrade", who=who):
            return True
        other = self.log.last("node.started", who="dialer" if who == "listener" else "listener")
        if other is None:
            return False
        closed = {seen.event.get("connection") for seen in self.log.find("connection.closed", who=who)}
        return any(
            seen.event.get("path") == "direct"
            and seen.event.get("peer") == other.event.get("peer_id")
            and seen.event.get("connection") not in closed
            for seen in self.log.find("connection.opened", who=who)
        )
