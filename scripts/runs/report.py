"""The verdict of a scenario run as data, and what it was measured on. Reads events; runs nothing in the lab."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.lab import Lab
from lab.limits import COMMAND_SECONDS

from runs.eventlog import EventLog, Match, Seen
from runs.limits import RELAY_STILL_BYTES

BUDGET_EXTRA_MS = 50.0
"""A punch is usable within 1.5 relayed plus 4 direct round trips plus this after CONNECT was sent."""


def environment(repository: Path) -> dict[str, str]:
    """Commit, kernel, interpreter: what a reader needs to run it again."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(repository), *arguments],
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except OSError:
            return ""
        return done.stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "uncommitted": "yes" if git("status", "--porcelain", "--untracked-files=no") else "no",
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def path_times(lab: Lab) -> dict[str, float | None]:
    """Round trips in milliseconds by ICMP: each host with the relay; their sum; the direct path by difference."""

    def ping(host: str, address: str | None) -> float | None:
        times = [lab.ping(host, address) for _ in range(3)] if address is not None else []
        known = [one for one in times if one is not None]
        return min(known) * 1000 if known else None

    relay = lab.hosts["relay"]
    to_relay = {
        side: ping(side, relay.address if lab.hosts[side].address is not None else relay.address6)
        for side in ("a", "b")
    }
    last_mile = ping("relay", relay.gateway)
    relayed = direct = None
    if to_relay["a"] is not None and to_relay["b"] is not None and last_mile is not None:
        relayed = to_relay["a"] + to_relay["b"]
        direct = relayed - 2 * last_mile
        if lab.behaviours["a"].shared:
            inner = [ping(side, lab.hosts[side].gateway) for side in ("a", "b")]
            direct = sum(one or 0.0 for one in inner)
    times = {"a_relay": to_relay["a"], "b_relay": to_relay["b"], "relayed": relayed, "direct": direct}
    return {name: None if value is None else round(value, 2) for name, value in times.items()}


@dataclass(slots=True)
class Report:
    """Everything one run showed; `as_json` is the evidence format. `outcome`: direct, relay, timeout or none."""

    scenario: dict[str, Any]
    environment: dict[str, str]
    topology: dict[str, Any] = field(default_factory=dict)
    programs: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: str = "none"
    error: str = ""
    five_tuples: list[dict[str, object]] = field(default_factory=list)
    watched: dict[str, Any] = field(default_factory=dict)
    after_cut: dict[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    after_kill: dict[str, Any] = field(default_factory=dict)
    slower: dict[str, Any] = field(default_factory=dict)
    punch: dict[str, Any] = field(default_factory=dict)
    times_s: dict[str, float] = field(default_factory=dict)
    events: dict[str, dict[str, int]] = field(default_factory=dict)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    proof: dict[str, bool | None] = field(default_factory=dict)
    garbage: list[str] = field(default_factory=list)
    folder: str | None = None

    def judge(self, log: EventLog, marks: Mapping[str, float]) -> None:
        """Fill in everything that follows from events and marks."""
        self.times_s = {name: round(at, 4) for name, at in sorted(marks.items(), key=lambda item: item[1])}
        for seen in log.events:
            counts = self.events.setdefault(seen.who, {})
            counts[seen.name] = counts.get(seen.name, 0) + 1
        self.timeline = [seen.as_json() for seen in log.events if seen.name in _TIMELINE]
        self.garbage = [f"{who}: {text}" for who, text in log.garbage[:20]]
        self.punch = _punch(log, self.topology.get("round_trips_ms", {}), marks.get("stopping", log.now()))
        self.proof = self._proof()

    def _proof(self) -> dict[str, bool | None]:
        """Each part of the proof: held, failed, or None where this run could not or need not show it."""
        watched, direct = self.watched, self.outcome == "direct"
        payload = watched.get("circuit_payload_bytes")
        return {
            "five_tuples_match": bool(self.five_tuples) if direct else None,
            "relay_still": payload <= RELAY_STILL_BYTES if direct and payload is not None else None,
            "direct_bytes_rise": watched.get("direct_bytes", 0) > 0 if direct and watched else None,
            "flows_rise": watched.get("flows_rise"),
            "went_on_over_the_relay": self.after_cut.get("flows_rise"),
            "direct_again": self.after_cut.get("direct_again"),
            "survived_relay_kill": self.after_kill.get("flows_rise"),
            "flowing_after_every_fault": all(one["flowing"] for one in self.trials) if self.trials else None,
            "stayed_while_direct_was_slower": self.slower.get("stayed"),
            "moved_once_direct_was_faster": self.slower.get("moved"),
            "held_down_after_failures": self.slower.get("held_down")
            and all(one["waited"] and one["direct_after_s"] is not None for one in self.slower["flaps"]),
            "one_stream_throughout": self._one_stream() if direct or self.trials else None,
        }

    def _one_stream(self) -> bool:
        """Whatever happened to the paths, the node's one RPC never failed: each side shook hands once."""
        return all(self.events.get(who, {}).get("handshake.completed") == 1 for who in ("listener", "dialer"))

    @property
    def direct(self) -> bool:
        """Direct by events and by the kernel: matching 5-tuples on both hosts that carried bytes both ways."""
        return self.outcome == "direct" and bool(self.five_tuples)

    @property
    def proven(self) -> bool:
        """Every part of the proof that this run asked for holds."""
        wanted = [name for name, value in self.proof.items() if value is not None]
        return self.direct and all(self.proof[name] for name in wanted)

    @property
    def as_expected(self) -> bool:
        """Direct where it should be, over a transport that can be; else on the relay with a reported reason, and
        traffic running there."""
        if self.error:
            return False
        if self.scenario["expected"] == "direct":
            over = self.scenario["expected_over"]
            return self.direct and all(over.get(transport_of(pair)) == "direct" for pair in self.five_tuples)
        return self.outcome == "relay" and not self.five_tuples and bool(self.watched.get("flows_rise"))

    def as_json(self) -> dict[str, Any]:
        return {
            "v": 1,
            **asdict(self),
            # The name alone: where the checkout lies says nothing about the run.
            "folder": None if self.folder is None else Path(self.folder).name,
            "direct": self.direct,
            "proven": self.proven,
            "as_expected": self.as_expected,
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def transport_of(pair: Mapping[str, object]) -> str:
    """`tcp` or `quic`: what a pair of matching ends, as in `Report.five_tuples`, speaks."""
    return "quic" if pair.get("protocol") == "udp" else "tcp"


_TIMELINE = frozenset(
    (
        "node.started",
        "relay.listening",
        "reservation.accepted",
        "reservation.lost",
        "connection.opened",
        "connection.closed",
        "address.observed",
        "punch.started",
        "punch.succeeded",
        "punch.failed",
        "p2p_upgrade",
        "p2p_fallback",
        "path.changed",
        "session.switched",
        "session.kept",
        "handshake.completed",
        "circuit.opened",
        "circuit.closed",
        "autonat.result",
        "error",
        "summary",
    )
)


def _brief(seen: Seen) -> dict[str, Any]:
    keys = ("attempt", "elapsed_ms", "local", "remote", "side", "how", "transport", "transports", "dials",
            "direct_rtt_ms", "relay_rtt_ms", "code", "seen", "final", "message", "local_candidates",
            "remote_candidates", "retry_in")  # fmt: skip
    return {"at_s": round(seen.at, 4), **{key: seen.event[key] for key in keys if key in seen.event}}


def _role(log: EventLog, who: str, other: str, match: Match) -> str | None:
    """Our part in Noise and Yamux on the latest direct connection with the peer (AutoNAT's dial-backs are not)."""
    started = log.last("node.started", who=other)
    if started is None:
        return None
    peer = started.event.get("peer_id")
    opened = [
        seen
        for seen in log.find("connection.opened", who=who, match=match)
        if seen.event.get("path") == "direct" and seen.event.get("peer") == peer
    ]
    return str(opened[-1].event.get("role")) if opened else None


def _punch(log: EventLog, round_trips: Mapping[str, float | None], until: float) -> dict[str, Any]:
    """What both sides told of the punch before `until`; what falls while the programs stop is no verdict."""

    def running(seen: Seen) -> bool:
        return seen.at < until

    found: dict[str, Any] = {}
    for who in ("listener", "dialer"):
        succeeded = next(iter(log.find("punch.succeeded", who=who, match=running)), None)
        found[who] = {
            "started": [_brief(seen) for seen in log.find("punch.started", who=who, match=running)],
            "failed": [_brief(seen) for seen in log.find("punch.failed", who=who, match=running)],
            "succeeded": _brief(succeeded) if succeeded is not None else None,
        }
    for who, other in (("listener", "dialer"), ("dialer", "listener")):
        found[who]["connection_role"] = _role(log, who, other, running)
    best = found["listener"]["succeeded"] or found["dialer"]["succeeded"]
    found["attempt"] = best.get("attempt") if best else None
    found["elapsed_ms"] = best.get("elapsed_ms") if best else None
    failures = log.find("punch.failed", "p2p_fallback", match=running)
    found["codes"] = sorted({str(seen.event.get("code")) for seen in failures})
    relayed, direct = round_trips.get("relayed"), round_trips.get("direct")
    if relayed is not None and direct is not None:
        found["budget_ms"] = round(1.5 * relayed + 4 * direct + BUDGET_EXTRA_MS, 1)
        if found["elapsed_ms"] is not None:
            found["within_budget"] = float(found["elapsed_ms"]) <= found["budget_ms"]
    return found
