"""The real programs under attack: started as a user starts them, their events kept, and what the kernel says of them.

Knows no attack. Everything that waits may be awaited beside an attack that runs in the same process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parents[2]
START = 60.0
"""Seconds that a program may take until the event that it is ready: the machine may be loaded by the attacks."""

_TICKS = os.sysconf("SC_CLK_TCK")
_KEPT = 100_000


class Dead(RuntimeError):
    """A program ended, or did not say what it should."""


class Program:
    """A running `punchbridge` command with --json and a home of its own. `lines` counts its events for ever."""

    def __init__(self, name: str, arguments: tuple[str, ...], *, env: dict[str, str], command: tuple[str, ...]) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self.lines = self.told = 0
        self._counts: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._relay_refusals: dict[str, int] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="punchbridge-attack-")
        self.home = Path(self._folder.name)
        self._stderr = (self.home / "stderr").open("wb")
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "TMPDIR") if key in os.environ}
        places = {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state"), "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            [*command, *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=self.home,
            env={**kept, **places, **env},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            for raw in pipe:
                self.told += len(raw)
                try:
                    event = json.loads(raw)
                except ValueError:
                    continue
                self.lines += 1
                self._counts[event.get("event", "")] += 1
                self._count_refusals(event)
                self.events.append(event)
                if len(self.events) > _KEPT:
                    del self.events[: _KEPT // 2]

    def _count_refusals(self, event: dict[str, Any]) -> None:
        found = event.get("refused")
        if not isinstance(found, dict):
            return
        if event["event"] == "relay.stats":
            self._relay_refusals = found  # since the start
        else:
            self._refusals.update(found)  # since the event before

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def counts(self) -> dict[str, int]:
        """How often each event was told."""
        return dict(self._counts)

    @property
    def refused(self) -> dict[str, int]:
        """What the program turned away since its start, by reason, as far as it has told."""
        return {name: times for name, times in {**self._refusals, **self._relay_refusals}.items() if times}

    @property
    def errors(self) -> str:
        return (self.home / "stderr").read_text(errors="replace")

    def find(self, name: str, **match: Any) -> dict[str, Any] | None:
        """The first event of that name with these fields."""
        for event in list(self.events):
            if event["event"] == name and all(event.get(key) == value for key, value in match.items()):
                return event
        return None

    async def event(self, name: str, *, patience: float = START, **match: Any) -> dict[str, Any]:
        """Waits for such an event. Raises Dead when the program ends or does not tell it in time."""
        deadline = trio.current_time() + patience
        while trio.current_time() < deadline:
            ended = self.process.poll()
            if ended is not None:
                await trio.to_thread.run_sync(self._reader.join)
            if found := self.find(name, **match):
                return found
            if ended is not None:
                break
            await trio.sleep(0.05)
        raise Dead(f"{self.name}: no event {name} {match}; exit {self.process.poll()}; {self.errors[-2000:]}")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends the program, by force when it does not end by itself, and removes its home."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._reader.join()
        self._stderr.close()
        self._folder.cleanup()

    # What the kernel says.

    @property
    def resident(self) -> float:
        """Resident memory, MiB; 0 when the program is gone."""
        return _status(self.pid, "VmRSS")

    @property
    def peak(self) -> float:
        """The most resident memory since the start, MiB."""
        return _status(self.pid, "VmHWM")

    @property
    def cpu(self) -> float:
        """Seconds of CPU since the start."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def files(self) -> int:
        """Open file descriptors."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0


def _status(pid: int, field: str) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(field)), 0.0)


class Relay(Program):
    """A relay and where it is: `addr` as others write it, and its parts."""

    addr: str
    ip: str
    port: int
    peer: str

    @property
    def udp(self) -> int:
        """Its UDP port. Raises Dead when it has none."""
        return _udp(self, "relay.listening", "addrs")


class Listening(Program):
    """A program that listens: where, and who it is."""

    ip: str
    port: int
    peer: str
    target: str
    """What `forward` and `ping` take: the direct address, or that over the relay."""

    @property
    def udp(self) -> int:
        """As of a relay."""
        return _udp(self, "node.started", "listen")


def _udp(program: Program, event: str, field: str) -> int:
    told = program.find(event) or {field: ()}
    port = next((int(addr.split("/")[4]) for addr in told[field] if "/udp/" in addr), None)
    if port is None:
        raise Dead(f"{program.name} listens at no UDP port")
    return port


class Forward(Program):
    """A program that forwards. `socket`: the path of its local socket."""

    socket: str


def command(files: int | None = None) -> tuple[str, ...]:
    """How `punchbridge` is run; `files`: its soft and hard limit of open files."""
    limit = ("prlimit", f"--nofile={files}:{files}") if files else ()
    return (*limit, sys.executable, "-m", "punchbridge")
