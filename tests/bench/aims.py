"""What the bridge should reach, judged from the tables of one run. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import circuits
import delayed
import idle
import rpc
import startup
import stream
from figures import Series, Table, number

OURS = "punchbridge"
OURS_QUIC, GO_QUIC = "punchbridge QUIC", "go-libp2p QUIC"
STREAM, SMALL, BIG, LOADED = (
    "One stream: each stack with itself",
    "gRPC: small calls (100 bytes)",
    "gRPC: 1 MiB messages",
    "gRPC: a small call beside a bulk stream of the same client",
)
RELAY, IDLE = "Relay: payload through circuits", "Relay: memory of what is idle"
SETUP, FLOW = "Set-up, in round trips of its path", "One stream over delay, download after the first seconds"
START = "Start of the programs"

Tables = Mapping[str, Table]
Judged = tuple[str, bool | None]
"""What the run showed, and whether that is enough; None where it is only shown."""


def _cell(tables: Tables, title: str, row: str, column: str) -> Series:
    return tables[title].rows[row][column]


def _ratios(tables: Tables, title: str, row: str, base: str, columns: Sequence[str]) -> list[float]:
    return [_cell(tables, title, row, one).ratio(_cell(tables, title, base, one)) for one in columns]


def _at_least(bound: float, title: str, row: str, base: str, *columns: str) -> Callable[[Tables], Judged]:
    def judge(tables: Tables) -> Judged:
        found = _ratios(tables, title, row, base, columns)
        return ", ".join(f"{one:.2f}" for one in found), min(found) >= bound

    return judge


def _at_most(bound: float, title: str, row: str, base: str, *columns: str) -> Callable[[Tables], Judged]:
    def judge(tables: Tables) -> Judged:
        found = _ratios(tables, title, row, base, columns)
        return ", ".join(f"{one:.2f}" for one in found), max(found) <= bound

    return judge


def _below(bound: float, title: str, row: str, column: str, unit: str) -> Callable[[Tables], Judged]:
    def judge(tables: Tables) -> Judged:
        found = _cell(tables, title, row, column).median
        return f"{number(found)} {unit}", found < bound

    return judge


def _ahead(tables: Tables) -> Judged:
    shown, reached = [], True
    for other in ("js-libp2p", "go-libp2p", "rust-libp2p"):
        if other in tables[STREAM].rows:
            found = _ratios(tables, STREAM, OURS, other, (stream.UP, stream.DOWN))
            shown.append(f"{other} {found[0]:.2f} and {found[1]:.2f}")
            reached = reached and min(found) > 1
    return "; ".join(shown), reached


def _flow(tables: Tables) -> Judged:
    found = _cell(tables, FLOW, f"{OURS} MB/s", "100 ms").median
    return f"{number(found)} MB/s", found >= 60


def _beside(tables: Tables) -> Judged:
    p99 = _cell(tables, LOADED, rpc.DIRECT, rpc.LOADED99)
    over = p99.ratio(_cell(tables, LOADED, rpc.TLS, rpc.LOADED99))
    return f"p99 {number(p99.median / 1000)} ms, {over:.1f} times TCP with TLS", None


def _held(tables: Tables) -> Judged:
    rows = tables[IDLE].rows
    wanted = (f"{OURS}, 1000 reservations", f"{OURS}, 200 circuits")
    held = [name.removeprefix(f"{OURS}, ") for name in wanted if name in rows]
    return ", ".join(held) or "neither", len(held) == len(wanted)


def _first_byte(tables: Tables) -> Judged:
    found = _cell(tables, SETUP, f"{OURS}: dial to first byte", "200 ms").median
    # The programs' own time is in it: about 20 ms of the 200 that a trip takes.
    return f"{number(found)} at 200 ms", found < 3.25


def _first_byte_quic(tables: Tables) -> Judged:
    found = _cell(tables, SETUP, f"{OURS_QUIC}: dial to first byte", "200 ms").median
    # As over TCP: the programs' own time is in it.
    return f"{number(found)} at 200 ms", found < 2.25


def _engine_held(tables: Tables) -> Judged:
    row = tables[idle.TITLE].rows[idle.ENGINE]
    found = [row[column].median for column in (idle.DIALLED, idle.ACCEPTED)]
    return ", ".join(f"{number(one)} KiB" for one in found), max(found) <= 16


AIMS: tuple[tuple[str, Callable[[Tables], Judged]], ...] = (
    ("one stream at least 0.5 of ChaCha20 framing", _at_least(0.5, STREAM, OURS, stream.BASE, stream.UP, stream.DOWN)),
    ("one stream ahead of js, go and rust (up and down)", _ahead),
    ("32-byte echo at most 2 times raw TCP", _at_most(2, STREAM, OURS, stream.RAW, stream.ECHO)),
    ("60 MB/s at 100 ms", _flow),
    ("QUIC: CPU at most 1.5 times that of our TCP", _at_most(1.5, STREAM, OURS_QUIC, OURS, stream.CPU)),
    ("QUIC: CPU less than go's QUIC", _at_most(1, STREAM, OURS_QUIC, GO_QUIC, stream.CPU)),
    ("QUIC: 32-byte echo at most 1.3 times that of our TCP", _at_most(1.3, STREAM, OURS_QUIC, OURS, stream.ECHO)),
    ("QUIC: first byte on a direct connection in 2 round trips", _first_byte_quic),
    ("QUIC: 0.9 of our TCP where 1 % of the packets is lost", _at_least(0.9, delayed.LOSSY, OURS_QUIC, OURS, "MB/s")),
    (
        "QUIC: CPU to set up a connection at most 1.5 times that over TCP",
        _at_most(1.5, idle.TITLE, OURS_QUIC, OURS, idle.CPU),
    ),
    ("QUIC: the engine holds at most 16 KiB for either end of an idle connection", _engine_held),
    (
        "QUIC: an idle connection at most 1.2 times the memory of our TCP's (ends)",
        _at_most(1.2, idle.TITLE, OURS_QUIC, OURS, idle.DIALLED, idle.ACCEPTED),
    ),
    (
        "gRPC, 1 MiB messages: 0.4 of TCP with TLS (up, down)",
        _at_least(0.4, BIG, rpc.DIRECT, rpc.TLS, rpc.UP, rpc.DOWN),
    ),
    ("gRPC, unary rate: 0.7 of TCP with TLS", _at_least(0.7, SMALL, rpc.DIRECT, rpc.TLS, rpc.RATE)),
    ("gRPC, unary p50 at most 2 times TCP with TLS", _at_most(2, SMALL, rpc.DIRECT, rpc.TLS, rpc.P50)),
    ("gRPC, a small call beside bulk", _beside),
    ("relay at least 0.7 of go's rate per circuit", _at_least(0.7, RELAY, OURS, circuits.GO, circuits.ONE)),
    (
        "idle reservation under 40 KiB (of 1000)",
        _below(40, IDLE, f"{OURS}, 1000 reservations", circuits.RESERVED, "KiB"),
    ),
    ("1000 reservations and 200 circuits held", _held),
    ("first byte on a direct connection in 3 round trips", _first_byte),
    ("`punchbridge --help` under 150 ms", _below(150, START, "punchbridge --help", startup.WALL, "ms")),
    (
        "relay listening within 1.5 s of its start",
        _below(1500, START, "punchbridge relay, listening", startup.WALL, "ms"),
    ),
    (
        "node listening within 1.5 s of its start",
        _below(1500, START, "punchbridge listen, listening", startup.WALL, "ms"),
    ),
)


def judged(results: Mapping[str, Sequence[Table]]) -> str:
    """The aims as a table of Markdown; what was not measured says so."""
    tables = {table.title: table for found in results.values() for table in found}
    lines = ["| Aim | In the figures below | Reached |", "|---|---|---|"]
    for text, judge in AIMS:
        try:
            shown, enough = judge(tables)
        except (KeyError, ValueError, ZeroDivisionError):
            shown, enough = "not measured", None
        lines.append(f"| {text} | {shown} | {'–' if enough is None else 'yes' if enough else 'no'} |")
    return "\n".join(lines) + "\n"
