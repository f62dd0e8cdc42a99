"""gRPC: the same grpcio over a plain unix socket, over TCP with TLS, through the bridge (direct and relayed) and over a
stock py-libp2p stream; grpc-go over go-libp2p and grpc-js over js-libp2p.

One server process for all of grpcio's, one client process for each path; the paths take turns in every round.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from driver import Failed, Peer, program
from figures import Table, progress
from peers import foreign

UNIX, TLS, DIRECT, RELAYED = "unix socket", "TCP with TLS", "bridge, direct", "bridge, relayed"
STOCK = "py-libp2p stream"
ANY = ("--listen", "/ip4/127.0.0.1/tcp/0")
OTHERS = {"go-libp2p": ("grpc-go, go-libp2p", 1), "js-libp2p": ("grpc-js, js-libp2p", 4)}
"""Other gRPCs on other stacks, as much a difference of languages as of streams; and the part of the work that each
gets: js would take half of the whole run's time."""

P50, P99, RATE, CHAT = "unary p50 µs", "unary p99 µs", "16 in flight /s", "bidi messages /s"
CPU_CALL, UP, DOWN, CPU_MIB = "CPU µs/RPC", "1 MiB up MB/s", "1 MiB down MB/s", "CPU ms/MiB"
LOADED50, LOADED99, BULK = "p50 under bulk µs", "p99 under bulk µs", "bulk MB/s"
FLIGHT = 16


@dataclass
class Path:
    """A client with open channels; `processes` are all that the path's bytes pass."""

    client: Peer
    processes: list[Peer]
    prefix: str = ""
    """Of the orders: the interop peers have others too."""
    part: int = 1
    """It gets one part in so many of the work."""

    def order(self, do: str, **arguments: Any) -> dict[str, Any]:
        return self.client.order(self.prefix + do, **arguments)

    def cpu(self) -> float:
        return sum(one.cpu() for one in self.processes)

    def warm(self, calls: int, mib: int) -> None:
        self.order("unary", count=min(calls, 200))
        self.order("down", mib=min(mib, 16))
        self.order("up", mib=min(mib, 16))


def run(*, rounds: int, calls: int, mib: int) -> list[Table]:
    small = Table("gRPC: small calls (100 bytes)", [P50, P99, RATE, CHAT, CPU_CALL])
    big = Table("gRPC: 1 MiB messages", [UP, DOWN, CPU_MIB])
    loaded = Table("gRPC: a small call beside a bulk stream of the same client", [LOADED50, LOADED99, BULK])
    for table in (small, big, loaded):
        table.base = dict.fromkeys(table.columns, TLS)
    with ExitStack() as stack:
        relay = stack.enter_context(Peer(program("hop.py")))
        server = stack.enter_context(Peer(program("rpc_server.py", "--relay", relay.addr)))
        paths = {}
        for name, target in targets(server, relay).items():
            progress(f"starting {name}")
            try:
                client = stack.enter_context(Peer(program("rpc_client.py")))
                client.order("channel", **target)
                path = Path(client, [client, server, *([relay] if name == RELAYED else [])])
                path.warm(calls, mib)
                paths[name] = path
            except Failed as problem:
                small.notes.append(f"{name}: not measured ({problem})")
        paths |= _others(stack, small.notes, calls, mib)
        for number in range(rounds):
            for name, path in paths.items():
                progress(f"gRPC, round {number + 1} of {rounds}: {name}")
                _small(small, name, path, max(1, calls // path.part))
                _big(big, name, path, max(1, mib // path.part))
                _loaded(loaded, name, path, calls // 4 // path.part)
    small.notes.append(
        f"{calls} calls, {2 * calls} with {FLIGHT} at once, {4 * calls} messages a round (js: a quarter); "
        f"= ratio to {TLS}. grpc-js: its client reaches the stream through a port on loopback."
    )
    big.notes.append(f"{mib} messages each way a round; = ratio to {TLS}. CPU: all processes of the path together.")
    return [small, big, loaded]


def targets(server: Peer, relay: Peer) -> dict[str, dict[str, Any]]:
    direct = next(addr for addr in server.ready["addrs"] if "p2p-circuit" not in addr)
    circuit = next((addr for addr in server.ready["addrs"] if "p2p-circuit" in addr), "")
    return {
        UNIX: {"kind": "unix", "target": server.ready["unix"]},
        TLS: {"kind": "tls", "target": server.ready["tls"], "certificate": server.ready["certificate"]},
        DIRECT: {"kind": "bridge", "target": direct},
        RELAYED: {"kind": "bridge", "target": circuit or f"{relay.addr}/p2p-circuit/p2p/{server.peer}"},
        STOCK: {"kind": "stock", "target": server.ready["stock"]},
    }


def _others(stack: ExitStack, notes: list[str], calls: int, mib: int) -> dict[str, Path]:
    paths = {}
    missing: list[str] = []
    present = foreign(missing)
    notes += [note for note in missing if note.partition(":")[0] in OTHERS]
    for kind in [one for one in OTHERS if one in present]:
        name, part = OTHERS[kind]
        progress(f"starting {name}")
        try:
            server = stack.enter_context(Peer([*present[kind], *ANY]))
            client = stack.enter_context(Peer([*present[kind], *ANY]))
            path = Path(client, [client, server], "grpc_", part)
            client.order("dial", addr=server.addr, peer=server.peer)
            path.order("channel", addr=server.addr, peer=server.peer)
            path.warm(max(1, calls // part), max(1, mib // part))
            paths[name] = path
        except Failed as problem:
            notes.append(f"{name}: not measured ({problem})")
    return paths


def _small(table: Table, name: str, path: Path, calls: int) -> None:
    times = sorted(path.order("unary", count=calls)["ms"])
    table.add(name, P50, 1000 * statistics.median(times))
    table.add(name, P99, 1000 * times[len(times) * 99 // 100])
    began = path.cpu()
    rate = path.order("rate", flight=FLIGHT, count=2 * calls)
    table.add(name, CPU_CALL, 1e6 * (path.cpu() - began) / max(1, rate["calls"]))
    table.add(name, RATE, rate["calls"] / rate["seconds"])
    chat = path.order("chat", count=4 * calls)
    table.add(name, CHAT, chat["messages"] / chat["seconds"])


def _big(table: Table, name: str, path: Path, mib: int) -> None:
    began = path.cpu()
    table.add(name, UP, mib * 1.048576 / path.order("up", mib=mib)["seconds"])
    table.add(name, DOWN, mib * 1.048576 / path.order("down", mib=mib)["seconds"])
    table.add(name, CPU_MIB, 1000 * (path.cpu() - began) / (2 * mib))


def _loaded(table: Table, name: str, path: Path, calls: int) -> None:
    found = path.order("loaded", count=max(calls, 10))
    times = sorted(found["ms"])
    table.add(name, LOADED50, 1000 * statistics.median(times))
    table.add(name, LOADED99, 1000 * times[len(times) * 99 // 100])
    table.add(name, BULK, found["bulk"])
