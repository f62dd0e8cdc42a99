"""Starts the bench's programs and gives them orders; reads their memory and processor time from /proc.

Each program is a process group of its own that ends with the `with` block. Knows no measurement.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "programs"
TICKS = os.sysconf("SC_CLK_TCK")
START_TIMEOUT = 30.0
ORDER_TIMEOUT = 120.0


class Failed(Exception):
    """A program did not start, ended, was silent, or could not do what it was told."""


def program(name: str, *arguments: str) -> list[str]:
    """The command of one of our own Python programs."""
    return [sys.executable, str(PROGRAMS / name), *arguments]


class Peer:
    """One running program. `ready` is its first line; `order` waits for the answer."""

    def __init__(
        self, command: Sequence[str], *, popen: Callable[..., subprocess.Popen[str]] = subprocess.Popen
    ) -> None:
        self.command = list(command)
        self.name = Path(next((one for one in command if one.endswith(".py")), command[0])).name
        self._log: list[str] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._next = 0
        began = time.perf_counter()
        self._process = popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.pid = self._process.pid
        for target in (self._read, self._read_errors):
            threading.Thread(target=target, daemon=True).start()
        try:
            self.ready = self._until(lambda line: line.get("event") == "ready", START_TIMEOUT)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - began

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def addr(self) -> str:
        """Its first address on loopback."""
        found = [addr for addr in self.ready["addrs"] if "/127.0.0.1/" in addr]
        return str((found or self.ready["addrs"])[0])

    @property
    def peer(self) -> str:
        return str(self.ready["peer"])

    def order(self, do: str, *, within: float = ORDER_TIMEOUT, **arguments: Any) -> dict[str, Any]:
        """The answer to one order. Raises Failed."""
        self._next += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"id": self._next, "do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as problem:
            raise Failed(f"{self.name}: {problem}; {self._last_words()}") from None
        answer = self._until(lambda line: line.get("id") == self._next, within)
        if "error" in answer:
            raise Failed(f"{self.name} {do}: {answer['error']}")
        found: dict[str, Any] = answer["ok"]
        return found

    def _until(self, wanted: Any, within: float) -> dict[str, Any]:
        deadline = time.monotonic() + within
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{self.name}: no answer within {within:g} s; {self._last_words()}") from None
            if line is None:
                raise Failed(f"{self.name} ended; {self._last_words()}")
            if wanted(line):
                return line

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            if text.startswith("{"):
                self._lines.put(json.loads(text))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for text in self._process.stderr:
            self._log = [*self._log[-20:], text.rstrip()]

    def _last_words(self) -> str:
        time.sleep(0.1)
        return "it said: " + " | ".join(self._log[-5:]) if self._log else "it said nothing"

    def cpu(self) -> float:
        """Processor seconds used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """Resident bytes now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Failed(f"{self.name} has no memory figure")

    def close(self) -> None:
        """Ends the program: its stdin first, then by signal."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it ended before us
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(3)
                return
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()
