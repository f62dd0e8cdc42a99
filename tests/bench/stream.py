"""One stream: /perf/1.0.0 both ways and a 32-byte echo, each contender with itself and ours with each other stack.

Contenders take turns in every round, two processes each on loopback. Ours, go's and rust's stand there over QUIC too.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from driver import Failed, Peer, program
from figures import Table, progress
from peers import QUIC, foreign, listening, over_quic

OURS = "punchbridge"
OURS_QUIC = f"{OURS}{QUIC}"
BASE = "ChaCha20 framing"
RUST = "rust-libp2p"
"""Its ping client pauses between two pings, so that it cannot time echoes; it answers them like the others."""

RAW = "raw TCP"

UP, DOWN, ECHO, CPU = "up MB/s", "down MB/s", "echo p50 µs", "CPU ms/MiB"


def contenders(notes: list[str]) -> dict[str, list[str]]:
    """Name and command of each that is present; the others are named in `notes` with the reason."""
    found = {
        RAW: program("plain.py", "raw"),
        BASE: program("plain.py", "chacha"),
        OURS: program("ours.py"),
        "py-libp2p": program("stock.py"),
    }
    found |= foreign(notes)
    return found | over_quic(found, OURS, notes)


def run(*, rounds: int, mib: int, echoes: int) -> list[Table]:
    table = Table("One stream: each stack with itself", [UP, DOWN, ECHO, CPU])
    table.base = {UP: BASE, DOWN: BASE, ECHO: RAW, CPU: BASE}
    crossed = Table("One stream: ours with each other stack", [UP, DOWN, ECHO])
    commands = contenders(table.notes)
    with ExitStack() as stack:
        servers, pairs = {}, {}
        for name, command in list(commands.items()):
            try:
                progress(f"starting {name}")
                servers[name] = stack.enter_context(Peer([*command, *listening(name)]))
                pairs[name] = _dialled(stack, command, servers[name])
            except Failed as problem:
                table.notes.append(f"{name}: not measured ({problem})")
                commands.pop(name)
        crossings = {}
        for name in [one for one in commands if one not in (RAW, BASE, OURS, OURS_QUIC)]:
            mine = OURS_QUIC if name.endswith(QUIC) else OURS
            if mine not in commands:
                continue
            for label, command, server in (
                (f"{mine} → {name}", commands[mine], servers[name]),
                (f"{name} → {mine}", commands[name], servers[mine]),
            ):
                try:
                    crossings[label] = (_dialled(stack, command, server), server)
                except Failed as problem:
                    crossed.notes.append(f"{label}: not measured ({problem})")
        # The first exchange of each pair is thrown away: windows grow, code is compiled, pages are touched.
        for name, client in pairs.items():
            _measure(client, servers[name], 16, _echoes(name, 50))
        for number in range(rounds):
            for name, client in pairs.items():
                progress(f"stream, round {number + 1} of {rounds}: {name}")
                for column, value in _measure(client, servers[name], mib, _echoes(name, echoes)).items():
                    table.add(name, column, value)
            for label, (client, server) in crossings.items():
                progress(f"stream, round {number + 1} of {rounds}: {label}")
                for column, value in _measure(client, server, mib // 2, _echoes(label, echoes // 2)).items():
                    if column != CPU:
                        crossed.add(label, column, value)
    table.notes.append(f"{mib} MiB in each direction and {echoes} echoes a round; = ratio to {BASE} (echo: to {RAW}).")
    others = [str(peer.ready["version"]) for name, peer in servers.items() if name not in (RAW, BASE, OURS, OURS_QUIC)]
    table.notes.append("; ".join(dict.fromkeys(others)))
    if RUST in commands:
        table.notes.append(f"{RUST}: echoes are timed towards it only, its own ping client pauses between two.")
    return [table, crossed] if crossed.rows else [table]


def _dialled(stack: ExitStack, command: list[str], server: Peer) -> Peer:
    client = stack.enter_context(Peer(command))
    client.order("dial", addr=server.addr, peer=server.peer)
    return client


def _measure(client: Peer, server: Peer, mib: int, echoes: int) -> dict[str, float]:
    size = max(1, mib) << 20
    began = client.cpu() + server.cpu()
    up = client.order("perf", peer=server.peer, up=size, down=0)["seconds"]
    down = client.order("perf", peer=server.peer, up=0, down=size)["seconds"]
    cpu = client.cpu() + server.cpu() - began
    found = {UP: size / 1e6 / up, DOWN: size / 1e6 / down, CPU: 1000 * cpu / (2 * max(1, mib))}
    if echoes:
        found[ECHO] = 1000 * statistics.median(client.order("ping", peer=server.peer, count=echoes)["ms"])
    return found


def _echoes(client: str, count: int) -> int:
    return 0 if client.startswith(RUST) else count
