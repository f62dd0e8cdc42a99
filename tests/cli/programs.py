"""Runs the real programs as a user would, with a home of their own; nothing of the caller's environment leaks in."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
LOCAL = ("--listen", LOOPBACK, "--lan")
PATIENCE = 20.0  # seconds that anything may take on a busy machine


class Program:
    """A running `punchbridge` command. `events` grows while it runs; `ended` gives code, stdout and stderr."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        environment: dict[str, str],
        cwd: Path,
        command: tuple[str, ...] = (sys.executable, "-m", "punchbridge"),
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
            text=True,
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, lines), daemon=True)
            for pipe, lines in ((self.process.stdout, self.stdout), (self.process.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: Any, lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout]

    def wait_for(self, found: Callable[[], Any], what: str) -> Any:
        """The first true value of `found`, asked again after each line."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while not (value := found()):
                left = deadline - time.monotonic()
                lost = left <= 0 or not any(one.is_alive() for one in self._readers)
                assert not lost, f"no {what}:\n" + "\n".join(self.stdout + self.stderr)
                self._changed.wait(min(left, 0.2))
        return value

    def event(self, name: str, **match: Any) -> dict[str, Any]:
        """The first event of that name with these fields."""

        def look() -> dict[str, Any] | None:
            return next(
                (
                    one
                    for one in self.events
                    if one["event"] == name and all(one.get(key) == value for key, value in match.items())
                ),
                None,
            )

        found: dict[str, Any] = self.wait_for(look, f"event {name} {match}")
        return found

    def line(self, number: int = 0) -> str:
        """A line of stdout."""
        text: str = self.wait_for(lambda: self.stdout[number] if len(self.stdout) > number else "", "line on stdout")
        return text

    def ended(self) -> tuple[int, str, str]:
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code, "\n".join(self.stdout), "\n".join(self.stderr)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.ended()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(PATIENCE)


Start = Callable[..., Program]
Run = Callable[..., tuple[int, str, str]]


def failed(outcome: tuple[int, str, str], code: int, *words: str) -> None:
    """The exit code is `code`, and the last line on stderr is an error that holds the words."""
    status, stdout, stderr = outcome
    assert status == code, (stdout, stderr)
    errors = [line for line in stderr.splitlines() if line.startswith("error ")]
    assert len(errors) == 1, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in errors[0]
