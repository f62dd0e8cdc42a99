"""gRPC: the same grpcio over a plain unix socket, over TCP with TLS, and through the bridge, direct and relayed.

One server process, one client process for each path; the paths take turns in every round.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from driver import Failed, Peer, program
from figures import Table, progress

UNIX, TLS, DIRECT, RELAYED = "unix socket", "TCP with TLS", "bridge, direct", "bridge, relayed"
P50, P99, RATE, CHAT = "unary p50 µs", "unary p99 µs", "16 in flight /s", "bidi messages /s"
CPU_CALL, UP, DOWN, CPU_MIB = "CPU µs/RPC", "1 MiB up MB/s", "1 MiB down MB/s", "CPU ms/MiB"
LOADED50, LOADED99, BULK = "p50 under bulk µs", "p99 under bulk µs", "bulk MB/s"
FLIGHT = 16


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
        for name, target in _targets(server, relay).items():
            progress(f"starting {name}")
            client = stack.enter_context(Peer(program("rpc_client.py")))
            try:
                client.order("channel", **target)
                client.order("unary", count=min(calls, 200))
                client.order("down", mib=min(mib, 16))
                client.order("up", mib=min(mib, 16))
                paths[name] = client
            except Failed as problem:
                small.notes.append(f"{name}: not measured ({problem})")
        for number in range(rounds):
            for name, client in paths.items():
                progress(f"gRPC, round {number + 1} of {rounds}: {name}")
                processes = [client, server, *([relay] if name == RELAYED else [])]
                _small(small, name, client, processes, calls)
                _big(big, name, client, processes, mib)
                _loaded(loaded, name, client, calls // 4)
    small.notes.append(
        f"{calls} calls, {2 * calls} with {FLIGHT} at once, {4 * calls} messages a round; = ratio to {TLS}."
    )
    big.notes.append(f"{mib} messages each way a round; = ratio to {TLS}. CPU: all processes of the path together.")
    return [small, big, loaded]


def _targets(server: Peer, relay: Peer) -> dict[str, dict[str, str]]:
    direct = next(addr for addr in server.ready["addrs"] if "p2p-circuit" not in addr)
    circuit = next((addr for addr in server.ready["addrs"] if "p2p-circuit" in addr), "")
    found = {
        UNIX: {"kind": "unix", "target": server.ready["unix"]},
        TLS: {"kind": "tls", "target": server.ready["tls"], "certificate": server.ready["certificate"]},
        DIRECT: {"kind": "bridge", "target": direct},
    }
    return found | {RELAYED: {"kind": "bridge", "target": circuit or f"{relay.addr}/p2p-circuit/p2p/{server.peer}"}}


def _cpu(processes: list[Peer]) -> float:
    return sum(one.cpu() for one in processes)


def _small(table: Table, name: str, client: Peer, processes: list[Peer], calls: int) -> None:
    times = sorted(client.order("unary", count=calls)["ms"])
    table.add(name, P50, 1000 * statistics.median(times))
    table.add(name, P99, 1000 * times[len(times) * 99 // 100])
    began = _cpu(processes)
    rate = client.order("rate", flight=FLIGHT, count=2 * calls)
    table.add(name, CPU_CALL, 1e6 * (_cpu(processes) - began) / max(1, rate["calls"]))
    table.add(name, RATE, rate["calls"] / rate["seconds"])
    chat = client.order("chat", count=4 * calls)
    table.add(name, CHAT, chat["messages"] / chat["seconds"])


def _big(table: Table, name: str, client: Peer, processes: list[Peer], mib: int) -> None:
    began = _cpu(processes)
    table.add(name, UP, mib * 1.048576 / client.order("up", mib=mib)["seconds"])
    table.add(name, DOWN, mib * 1.048576 / client.order("down", mib=mib)["seconds"])
    table.add(name, CPU_MIB, 1000 * (_cpu(processes) - began) / (2 * mib))


def _loaded(table: Table, name: str, client: Peer, calls: int) -> None:
    found = client.order("loaded", count=max(calls, 10))
    times = sorted(found["ms"])
    table.add(name, LOADED50, 1000 * statistics.median(times))
    table.add(name, LOADED99, 1000 * times[len(times) * 99 // 100])
    table.add(name, BULK, found["bulk"])
