"""This tree and a checkout of another commit, in turns: one stream, gRPC on both paths, and the start of the programs.

For the question whether a change costs anything. Each tree runs its own programs with its own `.venv`; the orders that
the programs take are the same in both. Knows no stack but ours.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import rpc
from driver import ROOT, Failed, Peer
from figures import Series, Table, progress

HERE, THERE = "this tree", "the other tree"
ANY = ("--listen", "/ip4/127.0.0.1/tcp/0")
UP, DOWN, ECHO, CPU = "up MB/s", "down MB/s", "echo p50 µs", "CPU ms/MiB"
WALL, MEMORY = "wall ms", "resident MiB"
STARTS = {
    "--help": ("--help",),
    "relay": ("relay", "--json", *ANY),
    "listen": ("listen", "--json", *ANY),
    "expose": ("expose", "127.0.0.1:9", "--json", *ANY),
}


def run(*, tree: str, rounds: int, mib: int, echoes: int, calls: int) -> list[Table]:
    """Raises Failed when the other tree has no `.venv`, or one of the programs does not do what it is told."""
    trees = {HERE: ROOT, THERE: Path(tree).resolve()}
    for name, root in trees.items():
        if not (root / ".venv" / "bin" / "python").exists():
            raise Failed(f"{name}, {root}, has no .venv: run scripts/setup-env there")
    stream = Table("One stream", [UP, DOWN, ECHO, CPU])
    grpc = {
        path: Table(f"gRPC, {path}", [rpc.P50, rpc.RATE, rpc.CHAT, rpc.CPU_CALL, rpc.UP, rpc.DOWN, rpc.LOADED50])
        for path in (rpc.DIRECT, rpc.RELAYED)
    }
    starts = {name: Table(f"Start of `{name}`", [WALL, MEMORY]) for name in STARTS}
    with ExitStack() as stack:
        pairs = {name: _stream_pair(stack, root) for name, root in trees.items()}
        paths = {name: _grpc_paths(stack, root, calls, mib) for name, root in trees.items()}
        for number in range(rounds):
            # The one that goes first changes with each round.
            names = list(trees) if number % 2 else list(reversed(trees))
            progress(f"against, round {number + 1} of {rounds}")
            for name in names:
                _stream(stream, name, pairs[name], mib, echoes)
            for path, table in grpc.items():
                for name in names:
                    _grpc(table, name, paths[name][path], calls, mib)
    for number in range(rounds):
        progress(f"against, starts, round {number + 1} of {rounds}")
        for what, arguments in STARTS.items():
            for name in list(trees) if number % 2 else list(reversed(trees)):
                _start(starts[what], name, trees[name], arguments)
    tables = [stream, *grpc.values(), *starts.values()]
    for table in tables:
        table.base = dict.fromkeys(table.columns, THERE)
    worst = _verdict(tables)
    stream.notes.append(f"= ratio to {THERE}. Least favourable over all tables, more is better: {worst}.")
    return tables


def _program(root: Path, name: str, *arguments: str) -> list[str]:
    return [str(root / ".venv/bin/python"), str(root / "tests/bench/programs" / name), *arguments]


def _stream_pair(stack: ExitStack, root: Path) -> tuple[Peer, Peer]:
    server = stack.enter_context(Peer(_program(root, "ours.py", *ANY)))
    client = stack.enter_context(Peer(_program(root, "ours.py")))
    client.order("dial", addr=server.addr, peer=server.peer)
    client.order("perf", peer=server.peer, up=16 << 20, down=16 << 20)
    return client, server


def _grpc_paths(stack: ExitStack, root: Path, calls: int, mib: int) -> dict[str, rpc.Path]:
    relay = stack.enter_context(Peer(_program(root, "hop.py")))
    server = stack.enter_context(Peer(_program(root, "rpc_server.py", "--relay", relay.addr)))
    paths = {}
    for name, target in rpc.targets(server, relay).items():
        if name in (rpc.DIRECT, rpc.RELAYED):
            client = stack.enter_context(Peer(_program(root, "rpc_client.py")))
            client.order("channel", **target)
            paths[name] = rpc.Path(client, [client, server, *([relay] if name == rpc.RELAYED else [])])
            paths[name].warm(calls, mib)
    return paths


def _stream(table: Table, name: str, pair: tuple[Peer, Peer], mib: int, echoes: int) -> None:
    client, server = pair
    size, began = mib << 20, client.cpu() + server.cpu()
    up = client.order("perf", peer=server.peer, up=size, down=0)["seconds"]
    down = client.order("perf", peer=server.peer, up=0, down=size)["seconds"]
    cpu = client.cpu() + server.cpu() - began
    table.add(name, UP, size / 1e6 / up)
    table.add(name, DOWN, size / 1e6 / down)
    table.add(name, CPU, 1000 * cpu / (2 * mib))
    table.add(name, ECHO, 1000 * statistics.median(client.order("ping", peer=server.peer, count=echoes)["ms"]))


def _grpc(table: Table, name: str, path: rpc.Path, calls: int, mib: int) -> None:
    table.add(name, rpc.P50, 1000 * statistics.median(path.order("unary", count=calls)["ms"]))
    began = path.cpu()
    rate = path.order("rate", flight=rpc.FLIGHT, count=2 * calls)
    table.add(name, rpc.CPU_CALL, 1e6 * (path.cpu() - began) / max(1, rate["calls"]))
    table.add(name, rpc.RATE, rate["calls"] / rate["seconds"])
    chat = path.order("chat", count=4 * calls)
    table.add(name, rpc.CHAT, chat["messages"] / chat["seconds"])
    table.add(name, rpc.UP, mib * 1.048576 / path.order("up", mib=mib)["seconds"])
    table.add(name, rpc.DOWN, mib * 1.048576 / path.order("down", mib=mib)["seconds"])
    loaded = path.order("loaded", count=max(calls // 4, 10))
    table.add(name, rpc.LOADED50, 1000 * statistics.median(loaded["ms"]))


def _start(table: Table, name: str, root: Path, arguments: tuple[str, ...]) -> None:
    """Through the installed script, which both trees have under one name."""
    command = [str(root / ".venv/bin/punchbridge"), *arguments]
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        env = {**os.environ, "XDG_STATE_HOME": home, "XDG_CONFIG_HOME": home}
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    if '"event":"node.started"' in line:
                        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
                        table.add(name, MEMORY, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20))
                        break
                table.add(name, WALL, 1000 * (time.perf_counter() - began))
            finally:
                child.terminate()


def _verdict(tables: list[Table]) -> str:
    """The three least favourable ratios, each turned so that more is better; only rates are so by themselves."""
    found = []
    for table in tables:
        for column in table.columns:
            rows = [table.rows.get(name, {}).get(column) for name in (HERE, THERE)]
            if (
                isinstance(rows[0], Series)
                and isinstance(rows[1], Series)
                and all(rows[1].values)
                and all(rows[0].values)
            ):
                ratio = rows[0].ratio(rows[1])
                found.append((ratio if column.endswith("/s") else 1 / ratio, f"{table.title}, {column}"))
    return "; ".join(f"{ratio:.2f} ({what})" for ratio, what in sorted(found)[:3])
