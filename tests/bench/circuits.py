"""Relays: what passes through one circuit and through many, what it costs, and the memory of idle ones.

The two ends are ours; the relays take turns. Memory is the growth of the relay's resident pages.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from driver import Failed, Peer, program
from figures import Table, progress
from peers import foreign

OURS, GO = "punchbridge", "go-libp2p"
ANY = ("--listen", "/ip4/127.0.0.1/tcp/0")
ONE, MANY, CPU, TRIP = "one circuit MB/s", "many circuits MB/s", "relay CPU ms/MiB", "echo added µs"
EACH = 100
"""Circuits to one listener: ours takes at most 128 from one relay."""

RESERVED, CIRCUIT = "KiB per idle reservation", "KiB per idle circuit"


def run(*, rounds: int, mib: int, circuits: int, echoes: int, crowd: int, idle: int) -> list[Table]:
    moving = Table("Relay: payload through circuits", [ONE, MANY, CPU, TRIP])
    holding = Table("Relay: memory of what is idle", [RESERVED, CIRCUIT])
    relays = {OURS: program("hop.py")}
    for name, command in foreign(moving.notes).items():
        relays[name] = [*command, *ANY, "--relay", "--reservations", "4096"]
    moving.base = dict.fromkeys(moving.columns, GO)
    with ExitStack() as stack:
        ways: dict[str, tuple[Peer, Peer, Peer]] = {}
        for name, command in relays.items():
            try:
                progress(f"starting the {name} relay")
                ways[name] = _connected(stack, command, circuits, moving, name)
            except Failed as problem:
                moving.notes.append(f"{name}: not measured ({problem})")
        for number in range(rounds):
            for name, (relay, listener, dialer) in ways.items():
                progress(f"relay, round {number + 1} of {rounds}: {name}")
                _move(moving, name, relay, listener, dialer, mib, circuits, echoes)
    for name, command in relays.items():
        for count in _steps(crowd):
            progress(f"relay memory: {name}, {count} reservations")
            _hold(holding, f"{name}, {count} reservations", command, count)
        for count in _steps(idle):
            progress(f"relay memory: {name}, {count} circuits")
            _hold_circuits(holding, f"{name}, {count} circuits", command, count)
    moving.notes.append(f"{mib} MiB through one circuit, and in all through {circuits} at once; = ratio to {GO}.")
    return [moving, holding]


def _steps(most: int) -> list[int]:
    return [count for count in (10, 100, 200, 1000) if count <= most]


def _connected(stack: ExitStack, command: list[str], circuits: int, table: Table, name: str) -> tuple[Peer, Peer, Peer]:
    relay = stack.enter_context(Peer(command))
    listener = stack.enter_context(Peer([*program("ours.py"), *ANY]))
    dialer = stack.enter_context(Peer(program("ours.py")))
    listener.order("reserve", addr=relay.addr)
    dialer.order("dial", addr=f"{relay.addr}/p2p-circuit/p2p/{listener.peer}")
    dialer.order("perf", peer=listener.peer, up=8 << 20, down=0)
    try:
        dialer.order("circuits_open", addr=f"{relay.addr}/p2p-circuit/p2p/{listener.peer}", count=circuits)
    except Failed as problem:
        table.notes.append(f"{name}, {circuits} circuits of one peer: refused ({problem})")
    return relay, listener, dialer


def _move(
    table: Table, name: str, relay: Peer, listener: Peer, dialer: Peer, mib: int, circuits: int, echoes: int
) -> None:
    size, began = mib << 20, relay.cpu()
    seconds = dialer.order("perf", peer=listener.peer, up=size, down=0)["seconds"]
    table.add(name, ONE, size / 1e6 / seconds)
    table.add(name, CPU, 1000 * (relay.cpu() - began) / mib)
    open_now = dialer.order("circuits_open", addr="", count=0)["open"]
    if open_now == circuits:
        each = size // circuits
        table.add(name, MANY, each * circuits / 1e6 / dialer.order("circuits_perf", each=each)["seconds"])
    relayed = statistics.median(dialer.order("ping", peer=listener.peer, count=echoes)["ms"])
    with Peer(program("ours.py")) as direct:
        direct.order("dial", addr=listener.addr)
        straight = statistics.median(direct.order("ping", peer=listener.peer, count=echoes)["ms"])
    table.add(name, TRIP, 1000 * (relayed - straight))


def _hold(table: Table, row: str, command: list[str], count: int) -> None:
    try:
        with Peer(command) as relay, Peer(program("crowd.py")) as crowd:
            crowd.order("hold", addr=relay.addr, count=1)
            before = relay.memory()
            crowd.order("hold", addr=relay.addr, count=count + 1)
            table.add(row, RESERVED, (relay.memory() - before) / 1024 / count)
    except Failed as problem:
        table.notes.append(f"{row}: not measured ({problem})")


def _hold_circuits(table: Table, row: str, command: list[str], count: int) -> None:
    try:
        with ExitStack() as stack:
            relay, dialer = stack.enter_context(Peer(command)), stack.enter_context(Peer(program("ours.py")))
            addrs = []
            for _ in range(-(-count // EACH)):
                listener = stack.enter_context(Peer([*program("ours.py"), *ANY]))
                listener.order("reserve", addr=relay.addr)
                addrs.append(f"{relay.addr}/p2p-circuit/p2p/{listener.peer}")
                dialer.order("circuits_open", addr=addrs[-1], count=1)
            before = relay.memory()
            for at, addr in enumerate(addrs):
                held = dialer.order("circuits_open", addr=addr, count=min(EACH, count - at * EACH))["open"]
            if held < count:
                raise Failed(f"{held} circuits stand")
            table.add(row, CIRCUIT, (relay.memory() - before) / 1024 / count)
    except Failed as problem:
        table.notes.append(f"{row}: not measured ({problem})")
