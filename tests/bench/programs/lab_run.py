"""Runs the bench's programs in the network lab and prints figures as JSON lines.

lab_run.py ROUNDS SECONDS SKIP TRIPS LOSSY: TRIPS says how many of the round trips below, LOSSY how many rounds with
loss. Delays are one way per access link; a round trip between two hosts crosses two links twice.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from control import say
from delayed import LOSSY
from driver import Failed, Peer, program
from lab import EXIT_UNAVAILABLE, Lab, LabUnavailable
from peers import QUIC, foreign, listening, over_quic

SETUP = "Set-up, in round trips of its path"
PUNCH = "Punch behind two home NATs, from CONNECT to a usable connection"
FLOW = "One stream over delay, download after the first seconds"
COUNTED = "as counted by the receiving host's interface, headers included"
OURS = "punchbridge"
TRIPS = (20, 60, 200)
FLOW_TRIPS = (20, 100, 200)
LOSS, LOSSY_TRIP, LOSSY_MIB = 0.01, 40, 24
LISTEN = ("--listen", "/ip4/0.0.0.0/tcp/4001")
PERF_BYTE = {"up": 0, "down": 1}


def figure(table: str, row: str, column: str, value: float) -> None:
    say({"table": table, "row": row, "column": column, "value": value})


@contextmanager
def lab_of(trip: float, nat: str = "public", loss: float = 0.0) -> Iterator[Lab]:
    """A lab where any two hosts are `trip` milliseconds apart, there and back; `loss`: of packets from and to a."""
    with Lab(nat, nat, delay=dict.fromkeys(("relay", "a", "b"), trip / 4), loss={"a": loss}) as lab:
        lab.ping("b", "11.0.0.10")  # the wire forwards from now on
        yield lab


def start(lab: Lab, host: str, command: list[str]) -> Peer:
    return Peer(command, popen=functools.partial(lab.popen, host))


def addr_of(peer: Peer) -> str:
    return next(str(addr) for addr in peer.ready["addrs"] if "/127.0.0.1/" not in addr)


def first_byte(lab: Lab, server: Peer, command: list[str]) -> float:
    """Seconds from the dial of a fresh program to the first byte of a stream."""
    with start(lab, "b", command) as client:
        began = time.perf_counter()
        client.order("dial", addr=addr_of(server), peer=server.peer)
        client.order("perf", peer=server.peer, **PERF_BYTE)
        return time.perf_counter() - began


def contenders(table: str) -> dict[str, list[str]]:
    """Name and command of each that is present; the table is told of the others."""
    notes: list[str] = []
    commands = {OURS: program("ours.py")} | foreign(notes)
    commands |= over_quic(commands, OURS, notes)
    for note in notes:
        say({"table": table, "note": note})
    return commands


def set_up(rounds: int, trips: int) -> None:
    commands = contenders(SETUP)
    for trip in TRIPS[:trips]:
        say({"progress": f"set-up at {trip} ms"})
        with lab_of(trip) as lab, start(lab, "relay", program("hop.py", *LISTEN)) as relay:
            for name, command in commands.items():
                try:
                    with start(lab, "a", [*command, *listening(name, str(lab.hosts["a"].address), 4001)]) as server:
                        for _ in range(rounds):
                            seconds = first_byte(lab, server, command)
                            figure(SETUP, f"{name}: dial to first byte", f"{trip} ms", 1000 * seconds / trip)
                except Failed as problem:
                    say({"table": SETUP, "note": f"{name}, {trip} ms: not measured ({problem})"})
            _relayed(lab, relay, trip, rounds)


def _relayed(lab: Lab, relay: Peer, trip: int, rounds: int) -> None:
    for _ in range(rounds):
        with start(lab, "a", program("ours.py")) as listener, start(lab, "b", program("ours.py")) as dialer:
            seconds = listener.order("reserve", addr=addr_of(relay))["seconds"]
            figure(SETUP, "punchbridge: dial and reservation", f"{trip} ms", 1000 * seconds / trip)
            dialer.order("dial", addr=addr_of(relay), peer=relay.peer)
            circuit = f"{addr_of(relay)}/p2p-circuit/p2p/{listener.peer}"
            seconds = dialer.order("first", addr=circuit)["seconds"]
            # There and back over the relay is twice a round trip between two hosts.
            figure(SETUP, "punchbridge: circuit to first byte", f"{trip} ms", 1000 * seconds / (2 * trip))


def punches(rounds: int, trips: int) -> None:
    command = [*program("ours.py"), "--punch", *LISTEN]
    for trip in TRIPS[:trips]:
        say({"progress": f"punch at {trip} ms"})
        with lab_of(trip, "home") as lab, start(lab, "relay", program("hop.py", *LISTEN)) as relay:
            for _ in range(rounds):
                with start(lab, "a", command) as listener, start(lab, "b", command) as dialer:
                    listener.order("reserve", addr=addr_of(relay))
                    found = dialer.order("punch", addr=f"{addr_of(relay)}/p2p-circuit/p2p/{listener.peer}")
                    if "failed" in found:
                        say({"table": PUNCH, "note": f"{trip} ms: failed once with {found['failed']}"})
                        continue
                    figure(PUNCH, "milliseconds", f"{trip} ms", found["ms"])
                    figure(PUNCH, "round trips over the relay", f"{trip} ms", found["ms"] / (2 * trip))


Pairs = dict[str, tuple[Peer, Peer]]
"""(client, server) of each contender."""


def dialled(lab: Lab, stack: ExitStack, commands: dict[str, list[str]], table: str, where: str) -> Pairs:
    """A client at b of each contender, connected with its server at a."""
    pairs: Pairs = {}
    for at, (name, command) in enumerate(commands.items()):
        try:
            listen = listening(name, str(lab.hosts["a"].address), 4001 + at)
            server = stack.enter_context(start(lab, "a", [*command, *listen]))
            client = stack.enter_context(start(lab, "b", command))
            client.order("dial", addr=addr_of(server), peer=server.peer)
            pairs[name] = (client, server)
        except Failed as problem:
            say({"table": table, "note": f"{name}, {where}: not measured ({problem})"})
    return pairs


def flows(rounds: int, seconds: float, skip: float, trips: int) -> None:
    commands = contenders(FLOW)
    counted: set[str] = set()
    for trip in FLOW_TRIPS[:trips]:
        with lab_of(trip) as lab, ExitStack() as stack:
            pairs = dialled(lab, stack, commands, FLOW, f"{trip} ms")
            for _ in range(rounds):
                for name, (client, server) in list(pairs.items()):
                    say({"progress": f"throughput at {trip} ms: {name}"})
                    try:
                        rate, exact = steady(lab, client, server, seconds, skip)
                        figure(FLOW, f"{name} MB/s", f"{trip} ms", rate)
                        if not exact and name not in counted:
                            counted.add(name)
                            say({"table": FLOW, "note": f"{name}: {COUNTED}"})
                    except Failed as problem:
                        say({"table": FLOW, "note": f"{name}, {trip} ms: ended early ({problem})"})
                        del pairs[name]


def losses(rounds: int, mib: int) -> None:
    """The time of one download, since what a loss costs changes from second to second."""
    commands = {name: one for name, one in contenders(LOSSY).items() if name == OURS or name.endswith(QUIC)}
    with lab_of(LOSSY_TRIP, loss=LOSS) as lab, ExitStack() as stack:
        pairs = dialled(lab, stack, commands, LOSSY, "with loss")
        for _ in range(rounds):
            for name, (client, server) in list(pairs.items()):
                say({"progress": f"throughput with loss: {name}"})
                try:
                    size = mib << 20
                    figure(LOSSY, name, "MB/s", size / 1e6 / download(client, server, size))
                except Failed as problem:
                    say({"table": LOSSY, "note": f"{name}: ended early ({problem})"})
                    del pairs[name]
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    say({"table": LOSSY, "note": f"{mib} MiB a round; the kernel's TCP here is {control}"})


def steady(lab: Lab, client: Peer, server: Peer, seconds: float, skip: float) -> tuple[float, bool]:
    """MB/s of one download once it has grown, as the peer itself tells (True). Of one that cannot stop after a time,
    what its host's interface counts during a download that is long enough (False)."""
    try:
        return float(client.order("flow", peer=server.peer, seconds=seconds, skip=skip)["rate"]), True
    except Failed as problem:
        if "unknown order" not in str(problem):
            raise
    probe = 16 << 20
    size = int(min(1 << 30, max(probe, probe / download(client, server, probe) * seconds * 1.5)))
    with ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        ending = pool.submit(download, client, server, size)
        time.sleep(skip)
        before, at = received(lab), time.perf_counter()
        took = ending.result()
    if took < skip + 0.5:
        return size / 1e6 / took, False
    return (received(lab) - before) / 1e6 / (began + took - at), False


def download(client: Peer, server: Peer, size: int) -> float:
    return float(client.order("perf", peer=server.peer, up=0, down=size)["seconds"])


def received(lab: Lab) -> int:
    """Bytes that host b's interfaces took in so far, headers included."""
    found = lab.popen("b", ["cat", "/proc/net/dev"], stdout=subprocess.PIPE, text=True).communicate()[0]
    return sum(
        int(line.partition(":")[2].split()[0]) for line in found.splitlines() if ":" in line and "lo:" not in line
    )


def main() -> int:
    rounds, seconds, skip = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    trips, lossy = int(sys.argv[4]), int(sys.argv[5])
    try:
        parts: tuple[Callable[[], None], ...] = (
            lambda: set_up(rounds, trips),
            lambda: punches(rounds, trips),
            lambda: flows(rounds, seconds, skip, trips),
            lambda: losses(lossy, LOSSY_MIB if lossy > 1 else 1),
        )
        for part in parts:
            try:
                part()
            except Failed as problem:
                say({"table": "Delayed paths", "note": f"a part was not measured: {problem}"})
    except LabUnavailable as problem:
        say({"table": "Delayed paths", "note": f"not measured: {problem}"})
        return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
