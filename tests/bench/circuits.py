"""Relays: what passes through one circuit and through many, what it costs, and the memory of idle ones.

The two ends are ours; the relays take turns. Memory is the growth of the relay's resident pages.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass

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
        ways: dict[str, Way] = {}
        for name, command in relays.items():
            try:
                progress(f"starting the {name} relay")
                ways[name] = _connected(stack, command, circuits, moving, name)
            except Failed as problem:
                moving.notes.append(f"{name}: not measured ({problem})")
        for number in range(rounds):
            for name, way in ways.items():
                progress(f"relay, round {number + 1} of {rounds}: {name}")
                _move(moving, name, way, mib, circuits, echoes)
    for name, command in relays.items():
        _hold(holding, name, command, _steps(crowd))
        _hold_circuits(holding, name, command, _steps(idle))
    moving.notes.append(f"{mib} MiB through one circuit, and in all through {circuits} at once; = ratio to {GO}.")
    return [moving, holding]


def _steps(most: int) -> list[int]:
    return [count for count in (10, 100, 200, 1000) if count <= most]


@dataclass
class Way:
    """Two ends of ours and the relay between them; `direct` dials the listener without it."""

    relay: Peer
    listener: Peer
    dialer: Peer
    direct: Peer
    many: bool = False
    """The circuits that share the work stand."""


def _connected(stack: ExitStack, command: list[str], circuits: int, table: Table, name: str) -> Way:
    relay = stack.enter_context(Peer(command))
    listener = stack.enter_context(Peer([*program("ours.py"), *ANY]))
    dialer, direct = (stack.enter_context(Peer(program("ours.py"))) for _ in range(2))
    listener.order("reserve", addr=relay.addr)
    circuit = f"{relay.addr}/p2p-circuit/p2p/{listener.peer}"
    dialer.order("dial", addr=circuit)
    direct.order("dial", addr=listener.addr)
    dialer.order("perf", peer=listener.peer, up=8 << 20, down=0)
    way = Way(relay, listener, dialer, direct)
    try:
        way.many = dialer.order("circuits_open", addr=circuit, count=circuits)["open"] == circuits
    except Failed as problem:
        table.notes.append(f"{name}, {circuits} circuits of one peer: refused ({problem})")
    return way


def _move(table: Table, name: str, way: Way, mib: int, circuits: int, echoes: int) -> None:
    dialer, peer = way.dialer, way.listener.peer
    size, began = mib << 20, way.relay.cpu()
    seconds = dialer.order("perf", peer=peer, up=size, down=0)["seconds"]
    table.add(name, ONE, size / 1e6 / seconds)
    table.add(name, CPU, 1000 * (way.relay.cpu() - began) / mib)
    if way.many:
        each = size // circuits
        table.add(name, MANY, each * circuits / 1e6 / dialer.order("circuits_perf", each=each)["seconds"])
    relayed = statistics.median(dialer.order("ping", peer=peer, count=echoes)["ms"])
    straight = statistics.median(way.direct.order("ping", peer=peer, count=echoes)["ms"])
    table.add(name, TRIP, 1000 * (relayed - straight))


def _hold(table: Table, name: str, command: list[str], counts: list[int]) -> None:
    """One crowd that grows: the resident pages of the relay behind each step."""
    with ExitStack() as stack:
        count = 0
        try:
            relay, crowd = stack.enter_context(Peer(command)), stack.enter_context(Peer(program("crowd.py")))
            crowd.order("hold", addr=relay.addr, count=1)
            before = relay.memory()
            for count in counts:
                progress(f"relay memory: {name}, {count} reservations")
                crowd.order("hold", addr=relay.addr, count=count + 1)
                table.add(f"{name}, {count} reservations", RESERVED, (relay.memory() - before) / 1024 / count)
        except Failed as problem:
            table.notes.append(f"{name}, {count} reservations: not measured ({problem})")


def _hold_circuits(table: Table, name: str, command: list[str], counts: list[int]) -> None:
    with ExitStack() as stack:
        count = 0
        try:
            relay, dialer = stack.enter_context(Peer(command)), stack.enter_context(Peer(program("ours.py")))
            addrs = []
            for _ in range(-(-max(counts) // EACH)):
                listener = stack.enter_context(Peer([*program("ours.py"), *ANY]))
                listener.order("reserve", addr=relay.addr)
                addrs.append(f"{relay.addr}/p2p-circuit/p2p/{listener.peer}")
            held = dialer.order("circuits_open", addr=addrs[0], count=1)["open"]
            before = relay.memory()
            for count in counts:
                progress(f"relay memory: {name}, {count} circuits")
                for at, addr in enumerate(addrs):
                    more = min(EACH * (at + 1), count) + 1 - held
                    if more > 0:
                        held = dialer.order("circuits_open", addr=addr, count=more)["open"]
                if held <= count:
                    raise Failed(f"{held} circuits stand")
                table.add(f"{name}, {count} circuits", CIRCUIT, (relay.memory() - before) / 1024 / count)
        except Failed as problem:
            table.notes.append(f"{name}, {count} circuits: not measured ({problem})")
