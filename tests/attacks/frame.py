"""What every attack stands on: real programs, an honest peer beside, and one row of figures for each thing tried.

An attack is a module `tests/attacks/aNN_name.py` with a docstring whose first line says what is tried, and

    async def main(stage: Stage) -> list[Row]

It starts programs by `stage`, and calls `stage.measure(...)` once for each row. `NAMESPACES = True` in the module makes
it run in a network namespace of its own (root, or user namespaces), where any address may be put on `lo`. Without it
only 127.0.0.0/8 is there, each of whose addresses is a stranger of its own. `stage.short` asks for a form of seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from punchbridge.identity import Identity
from tests.attacks.programs import ROOT, START, Dead, Forward, Listening, Program, Relay, command
from tests.attacks.wire import EXPECTED

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
HONEST = "127.0.0.200"
"""The address of the honest peer."""

CALM = 4.0
"""Seconds of the honest peer alone."""

RECOVERY = 60.0
"""Seconds after the attack within which the honest peer has to be well again."""


@dataclass(frozen=True)
class Tries:
    """What the honest peer tried within a time, of one kind. `median`: milliseconds of those that succeeded."""

    count: int = 0
    failed: int = 0
    median: float | None = None
    why: str = ""


class Honest:
    """What an honest peer tries, and how it fares. A module may also `note` tries of its own."""

    def __init__(self) -> None:
        self.tries: list[tuple[str, float, float, bool, str]] = []

    def note(self, kind: str, seconds: float, ok: bool, why: str = "") -> None:
        """One try that has just ended."""
        self.tries.append((kind, time.monotonic(), seconds, ok, why))

    def between(self, began: float, ended: float) -> dict[str, Tries]:
        """The tries that ended within that time, by kind."""
        found: dict[str, Tries] = {}
        for kind in sorted({one[0] for one in self.tries}):
            rows = [one for one in list(self.tries) if one[0] == kind and began <= one[1] <= ended]
            good = [one[2] * 1000 for one in rows if one[3]]
            why = next((one[4] for one in rows if not one[3]), "")
            found[kind] = Tries(len(rows), len(rows) - len(good), statistics.median(good) if good else None, why)
        return found


@dataclass
class Row:
    """The figures of one thing that was tried; what `scripts/attacks run` prints and CI asserts. MiB, seconds."""

    attack: str
    what: str
    before: float = 0.0
    peak: float = 0.0
    after: float = 0.0
    cpu: float = 0.0
    """Share of one core during the attack, from 0 to 1."""
    calm: dict[str, Tries] = field(default_factory=dict)
    attacked: dict[str, Tries] = field(default_factory=dict)
    recovery: float | None = None
    """Seconds until the honest peer was well again; None: it was not, or nobody asked."""
    refused: dict[str, int] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    """Figures of the attack itself, by name."""
    bounds: list[tuple[str, bool]] = field(default_factory=list)
    """What was to hold, in words, and whether it did."""

    @property
    def grown(self) -> float:
        """MiB of resident memory at the peak above those before."""
        return self.peak - self.before

    @property
    def kept(self) -> float:
        """MiB of resident memory after the recovery above those before."""
        return self.after - self.before

    @property
    def held(self) -> bool:
        return bool(self.bounds) and all(good for _, good in self.bounds)

    def failed(self, kind: str) -> tuple[int, int]:
        """How many tries of the honest peer failed during the attack, of how many."""
        tries = self.attacked.get(kind, Tries())
        return tries.failed, tries.count

    def ratio(self, kind: str) -> float | None:
        """How many times longer the honest peer took during the attack."""
        calm, attacked = self.calm.get(kind, Tries()).median, self.attacked.get(kind, Tries()).median
        return attacked / calm if calm and attacked else None

    def bound(self, words: str, held: bool) -> None:
        """States what was to hold, and whether it did."""
        self.bounds.append((words, bool(held)))


class Stage:
    """Where an attack plays: starts programs and honest peers, and ends them. `short`: some seconds, for CI."""

    def __init__(self, attack: str, nursery: trio.Nursery, *, short: bool) -> None:
        self.attack, self.short = attack, short
        self.nursery = nursery
        self.honest = Honest()
        self._programs: list[Program] = []
        self._probes: list[subprocess.Popen[bytes]] = []
        self._folders: list[tempfile.TemporaryDirectory[str]] = []

    def pick(self, full: float, short: float) -> float:
        """A size or a time: that of the whole form, or that of the short one."""
        return short if self.short else full

    # Programs.

    def start(self, kind: type[Program], *arguments: str, files: int | None = None, **env: str) -> Any:
        """Starts `punchbridge ARGUMENTS --json`. `files`: its limit of open files; `env`: more of its environment."""
        program = kind(arguments[0], arguments, env=env, command=command(files))
        self._programs.append(program)
        return program

    async def relay(self, *arguments: str, listen: str = LOOPBACK, files: int | None = None, lan: bool = True) -> Relay:
        """A relay that listens. `lan`: loopback counts as an address."""
        more = ("--lan",) if lan else ()
        relay: Relay = self.start(
            Relay, "relay", "--listen", listen, *more, "--stats-interval", "1", *arguments, files=files
        )
        found = await relay.event("relay.listening")
        relay.addr = found["addrs"][0]
        relay.ip, relay.port, relay.peer = parts(relay.addr)
        return relay

    async def listening(self, *arguments: str, relay: Relay | None = None, listen: str = LOOPBACK) -> Listening:
        """`expose` or `listen` with these arguments, once it listens and, with a relay, is reachable through it."""
        name, *rest = arguments
        more = ("--relay", relay.addr) if relay else ()
        program: Listening = self.start(Listening, name, *rest, *more, "--lan", "--listen", listen)
        started = await program.event("node.started")
        program.target = f"{started['listen'][0].partition('/p2p/')[0]}/p2p/{started['peer_id']}"
        program.ip, program.port, program.peer = parts(program.target)
        if relay:
            program.target = (await program.event("reservation.accepted"))["addrs"][0]
        return program

    async def forward(self, target: str, *arguments: str) -> Forward:
        """`forward` to a target, once its local socket is there."""
        folder = self.folder()
        program: Forward = self.start(Forward, "forward", target, "--bind", f"unix:{folder}/s", "--lan", *arguments)
        program.socket = f"{folder}/s"
        with trio.fail_after(START):
            while not os.path.exists(program.socket):  # noqa: ASYNC110, ASYNC240 - another process makes it
                if not program.alive:
                    raise Dead(f"forward: {program.errors[-2000:]}")
                await trio.sleep(0.05)
        return program

    def folder(self) -> str:
        """A fresh private folder with a short path, removed at the end."""
        made = tempfile.TemporaryDirectory(prefix="pb-")
        self._folders.append(made)
        return made.name

    # Honest peers.

    async def peer(self, program: Relay | Listening, source: str = HONEST, key: str = "") -> None:
        """An honest peer of a program from now on: fresh connections (`fresh`), and one that stands (`ping`)."""
        await self._probe("peer", program.ip, str(program.port), source, *([key] if key else []))

    async def peer_over_quic(self, program: Relay | Listening, port: int, source: str = HONEST) -> None:
        """The same over QUIC: `fresh over QUIC` and `ping over QUIC`."""
        await self._probe("quic", program.ip, str(port), source)

    async def calls(self, forward: Forward) -> None:
        """Honest calls (`call`) through a program that forwards to an echo."""
        await self._probe("calls", forward.socket)

    async def _probe(self, *arguments: str) -> None:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting it is all that waits
            [sys.executable, "-m", "tests.attacks.probe", *arguments],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
        self._probes.append(process)
        before = len(self.honest.tries)

        def read() -> None:
            assert process.stdout is not None
            with process.stdout as pipe:
                for line in pipe:
                    self.honest.tries.append(tuple(json.loads(line)))

        threading.Thread(target=read, daemon=True).start()
        with trio.fail_after(60):
            while len(self.honest.tries) == before:  # noqa: ASYNC110 - a thread tells
                await trio.sleep(0.05)

    async def echo(self) -> Backend:
        """A server behind `expose` that echoes, and counts its connections."""
        backend = Backend()
        await self.nursery.start(backend.serve)
        return backend

    # Figures.

    async def measure(
        self,
        what: str,
        victim: Program,
        attack: Callable[[], Awaitable[Any]],
        *,
        seconds: float,
        settle: float = 0.0,
        calm: float = CALM,
        recovery: float = RECOVERY,
    ) -> Row:
        """Plays one attack for so many seconds (or until it returns) and gives its figures, without bounds.

        The honest peer is watched alone first, then beside the attack; its tries count from `settle` seconds after the
        attack began. Then it is waited for until it succeeded in everything that it tried within two seconds. An attack
        that the victim throws out is played again after a moment.
        """
        row = Row(self.attack, what, before=victim.resident)
        began = time.monotonic()
        await trio.sleep(calm)
        row.calm = self.honest.between(began, time.monotonic())
        row.before, row.peak = victim.resident, victim.resident
        refused, began, cpu = victim.refused, time.monotonic(), victim.cpu
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch, victim, row)
                with politely():
                    await _play(attack)
                nursery.cancel_scope.cancel()
        ended = time.monotonic()
        row.cpu = (victim.cpu - cpu) / max(ended - began, 0.001)
        row.attacked = self.honest.between(began + settle, ended)
        row.recovery = await self._recovered(recovery) if self.honest.tries else None
        row.after = victim.resident
        row.refused = {
            name: times - refused.get(name, 0) for name, times in victim.refused.items() if times > refused.get(name, 0)
        }
        row.bound("the program lives", victim.alive)
        return row

    async def _recovered(self, most: float) -> float | None:
        began = time.monotonic()
        while time.monotonic() - began < most:
            await trio.sleep(0.5)
            now = time.monotonic()
            seen = self.honest.between(max(began, now - 2), now)
            if now - began >= 2 and seen and all(one.count and not one.failed for one in seen.values()):
                return max(0.0, now - began - 2)
        return None

    def clear(self) -> None:
        """Ends honest peers and programs, for another row on a stage where nothing was played yet."""
        for probe in self._probes:
            probe.kill()
            probe.wait()
        for program in reversed(self._programs):
            program.stop()
        self._probes, self._programs, self.honest = [], [], Honest()

    def close(self) -> None:
        self.clear()
        for folder in self._folders:
            folder.cleanup()


class Backend:
    """A TCP server that echoes. `open`: connections now, `most`: at once, `taken`: since the start."""

    def __init__(self) -> None:
        self.open = self.most = self.taken = 0
        self.port = 0

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._echo, listeners)

    async def _echo(self, stream: trio.SocketStream) -> None:
        self.open += 1
        self.taken += 1
        self.most = max(self.most, self.open)
        try:
            async for data in stream:
                await stream.send_all(data)
        except EXPECTED:
            pass
        finally:
            self.open -= 1


async def _watch(victim: Program, row: Row) -> None:
    while True:
        row.peak = max(row.peak, victim.resident)
        await trio.sleep(0.2)


async def _play(attack: Callable[[], Awaitable[Any]]) -> None:
    while True:
        try:
            await attack()
            return
        except EXPECTED:
            pass
        except BaseExceptionGroup as group:
            if (rest := group.split(EXPECTED)[1]) is not None:
                raise rest from None
        await trio.sleep(0.2)


@contextmanager
def politely() -> Iterator[None]:
    """The attacker, who shares the cores here, takes what the victim and the honest peer leave, where it may."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, usual + 5)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            os.setpriority(os.PRIO_PROCESS, 0, usual)


def parts(addr: str) -> tuple[str, int, str]:
    """Address, port and peer id of a TCP multiaddr."""
    words = addr.split("/")
    return words[2], int(words[4]), words[6]


def strangers(count: int, net: int = 2) -> Sequence[str]:
    """So many addresses of 127.NET.0.0/16, each in a /24 of its own."""
    return [f"127.{net}.{number}.1" for number in range(1, count + 1)]


@asynccontextmanager
async def stage(attack: str, *, short: bool) -> AsyncIterator[Stage]:
    """A stage whose programs and probes end with the block."""
    async with trio.open_nursery() as nursery:
        made = Stage(attack, nursery, short=short)
        try:
            yield made
            nursery.cancel_scope.cancel()
        finally:
            made.close()


def key_file(stage_: Stage, program: Program, identity: Identity) -> str:
    """A file in the home of a program that holds the key, for the honest peer."""
    path = program.home / "honest.key"
    path.write_bytes(identity.private_key.serialize())
    return str(path)
