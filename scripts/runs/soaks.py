"""The soak runs that scripts/torture knows: what each is to show, how it is run, and how its result is judged.

A table and its judges. It starts nothing but the faults of a run; the rest is `runs.soak`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.lab import Lab

from runs.memory import flat

Data = Mapping[str, Any]
Findings = list[tuple[str, bool]]
Carried = Callable[[int], None]
"""Returns once the client has told that so many stages carried what they had to. Raises SoakFailed."""

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
    quic: bool = False
    """Relay and programs speak QUIC too, and what the client may dial directly it may dial over either."""
    faults: Callable[[Lab, Carried], None] | None = None
    """Called before the client starts, in a thread of its own: breaks the network, and mends it, between the stages."""


def _flat(samples: Sequence[Data]) -> bool:
    memory = [one["resident"] for one in samples]
    third = len(memory) // 3
    return third > 0 and max(memory[-third:]) <= MEMORY_GROWTH * max(memory[third : 2 * third])


def _no_failures(result: Data) -> tuple[str, bool]:
    return "no RPC failed, every message once, in order, hashes equal", not result["failures"]


def _over_quic(result: Data, done: int) -> tuple[str, bool]:
    over = result["by_transport"]
    told = ", ".join(f"{count} to {kind}" for kind, count in sorted(over.items()))
    return f"of all carriers {told}; at least one in fifty over QUIC", over.get("quic", 0) >= done / 50


def _switches(result: Data, memory: Data) -> Findings:
    done = result["planned"] + result["unplanned"]
    return [
        _no_failures(result),
        _over_quic(result, done),
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
            taken = relayed if kind.endswith("relay taken") else direct
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
        _over_quic(result, carriers),
        *((f"memory of the {who} is flat", _flat(samples)) for who, samples in memory.items()),
    ]  # fmt: skip


WAY = ("relay", "tcp", "quic", "relay", "direct")
"""What carries the one stream of T-006, stage by stage."""


def _break(lab: Lab, carried: Carried) -> None:
    """Nothing goes directly; then all does; then no TCP; then no UDP either; then all again."""
    lab.cut_direct()
    carried(1)
    lab.heal()
    carried(2)
    lab.cut_direct(protocol="tcp")
    carried(3)
    lab.cut_direct(protocol="udp")
    carried(4)
    lab.heal()


def _all_paths(result: Data, memory: Data) -> Findings:
    stages = result["stages"]
    way = tuple(one["kind"] for one in stages)
    told = ", ".join(f"{one['messages']} over {one['kind']}" for one in stages)
    return [
        _no_failures(result),
        (f"one stream: {told}", way == WAY and all(one["messages"] >= result["count"] for one in stages)),
        (f"{result['messages']['unary']} calls beside it, none failed", result["messages"]["unary"] > 0),
        (f"longest time without a carrier {result['longest_without_carrier_ms']:g} ms, at most 2 s",
         result["longest_without_carrier_ms"] <= 2000.0),
    ]  # fmt: skip


SOAKS = (
    Soak(
        "T-001",
        "t-001-switches",
        "sessions moved and cut a thousand times under load",
        "Two echo streams (700 B and 1 MiB messages) and 16 callers on three sessions, while both ends kill "
        "connections and the dialling end moves sessions to fresh and standing ones at random: relayed, over TCP and "
        "over QUIC.",
        ("switches", "--count", "2400"),
        900.0,
        _switches,
        quic=True,
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
        "500 messages a second; the session is moved between relay, TCP and QUIC, and its connection killed with "
        "another standing, 12 times each.",
        ("gaps", "--count", "12"),
        400.0,
        _gaps,
        quic=True,
        delay={"relay": 25.0, "a": 15.0, "b": 15.0},
    ),
    Soak(
        "T-004",
        "t-004-official",
        "the official gRPC interop client while carriers are switched every 20 ms",
        "Every case of gRPC's own Python client that needs no credentials, unmodified, through forward and expose; "
        "every 20 ms its session moves to another path (relay, TCP, QUIC) or, every third time, its connection is "
        "killed.",
        ("--peer", str(OFFICIAL), "--seconds", "5"),
        400.0,
        _official,
        server_options=("--peer", str(OFFICIAL)),
        delay={"relay": 1.0, "a": 1.0, "b": 1.0},
        server="official_server.py",
        client="official.py",
        needs=OFFICIAL,
        quic=True,
    ),
    Soak(
        "T-005",
        "t-005-punched",
        "sessions moved and cut a thousand times between two home routers",
        "As T-001 with both ends behind NATs: direct paths over TCP and QUIC are punched, and again after each kill, "
        "beside circuits.",
        ("switches", "--count", "1200"),
        900.0,
        _punched,
        server_options=("--torment", "0.8", "--punch"),
        direct=False,
        nats=("home", "home"),
        punch=True,
        quic=True,
    ),
    Soak(
        "T-006",
        "t-006-paths",
        "one gRPC stream from the relay to TCP, to QUIC, to the relay and back",
        "Two home routers. At first nothing passes directly; then both transports are punched; then TCP is cut in "
        "silence, then UDP too; then all is healed. One stream of numbered messages goes on throughout.",
        ("paths", "--count", "400"),
        240.0,
        _all_paths,
        server_options=("--punch",),
        direct=False,
        nats=("home", "home"),
        punch=True,
        quic=True,
        faults=_break,
    ),
)


def soak(identifier: str) -> Soak:
    """Look a soak run up by its id. Raises ValueError that lists the ids."""
    for one in SOAKS:
        if one.id.lower() == identifier.lower():
            return one
    raise ValueError(f"unknown soak run {identifier!r}; one of: {', '.join(one.id for one in SOAKS)}")
