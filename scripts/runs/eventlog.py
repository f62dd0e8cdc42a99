"""Programs that print JSON events, and the one list all their events go to, with this machine's clock.

Knows processes and lines, no event by name and no network.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.lab import Lab

from runs import records
from runs.limits import EVENT_LINE_BYTES, EVENTS_PER_RUN


@dataclass(frozen=True, slots=True)
class Seen:
    """One event line. `at`: seconds since the run began, when the line was read; `line`: its number in the output."""

    at: float
    who: str
    line: int
    event: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.event.get("event", ""))

    def as_json(self) -> dict[str, Any]:
        return {"at": round(self.at, 6), "who": self.who, "line": self.line, **self.event}


Match = Callable[[Seen], bool]


class ProgramEnded(RuntimeError):
    """A program ended before the event that was waited for."""


class EventLog:
    """All events of a run in order of arrival; `on_event` is called for each, one at a time.

    `path`: a file that gets each event as it comes; it is compressed when the log is closed (`<path>.gz`).
    """

    def __init__(self, path: Path | None = None, on_event: Callable[[Seen], None] | None = None) -> None:
        self.began = time.monotonic()
        self.events: list[Seen] = []
        self.ended: dict[str, float] = {}
        self.garbage: list[tuple[str, str]] = []
        self._changed = threading.Condition()
        self._path = path
        self._file = None if path is None else path.open("w")
        self._on_event = on_event

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    def add(self, who: str, line: int, text: str) -> None:
        """Take one line of a program; what is no JSON object is kept as garbage."""
        at = self.now()
        try:
            event = json.loads(text)
        except ValueError:
            event = None
        with self._changed:
            if not isinstance(event, dict):
                if len(self.garbage) < EVENTS_PER_RUN:
                    self.garbage.append((who, text.rstrip()[:200]))
                return
            if len(self.events) >= EVENTS_PER_RUN:
                return
            seen = Seen(at, who, line, event)
            self.events.append(seen)
            if self._file is not None:
                self._file.write(json.dumps(seen.as_json()) + "\n")
                self._file.flush()
            if self._on_event is not None:
                self._on_event(seen)
            self._changed.notify_all()

    def end(self, who: str) -> None:
        """A program's output ended."""
        with self._changed:
            self.ended[who] = self.now()
            self._changed.notify_all()

    def close(self) -> None:
        """End the file of events and compress it. Raises OSError."""
        if self._file is not None and self._path is not None and not self._file.closed:
            self._file.close()
            records.compress(self._path)

    def find(self, *names: str, who: str | None = None, match: Match | None = None) -> Iterator[Seen]:
        """Events so far with one of these names, from this program, that match."""
        for seen in tuple(self.events):
            if seen.name in names and who in (None, seen.who) and (match is None or match(seen)):
                yield seen

    def last(self, *names: str, who: str | None = None, match: Match | None = None) -> Seen | None:
        """The latest such event."""
        return max(self.find(*names, who=who, match=match), key=lambda seen: seen.at, default=None)

    def wait(
        self, ready: Callable[[], object], timeout: float, *, alive: Sequence[str] = (), step: float = 0.5
    ) -> bool:
        """Until `ready()` is true, asked after each event; False after `timeout` seconds.

        Raises ProgramEnded when one of the programs named in `alive` ended first.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not ready():
                for who in alive:
                    if who in self.ended:
                        raise ProgramEnded(self._why(who))
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, step))
        return True

    def _why(self, who: str) -> str:
        told = self.last("error", who=who)
        return f"the {who} ended early" + ("" if told is None else f": {told.event.get('message')}")


class Program:
    """One program of a run: started in a host, its stdout read into the event log, its stderr kept in a file.

    A program that has ended and said nothing on its standard error leaves no file of it.
    """

    def __init__(
        self,
        lab: Lab,
        log: EventLog,
        name: str,
        host: str,
        argv: Sequence[str],
        folder: Path,
        env: dict[str, str],
        *,
        suffix: str = "",
    ) -> None:
        self.name = name
        self.host = host
        self.argv = list(argv)
        self.env = env
        self.stderr_path = folder / f"{name}{suffix}.log"
        self.killed = False
        self._lab = lab
        self._log = log
        with self.stderr_path.open("wb") as errors:
            self.process: subprocess.Popen[bytes] = lab.popen(
                host, self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=env, cwd=folder
            )
        assert self.process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self.process.stdout,), name=f"read-{name}", daemon=True
        )
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        number = 0
        while line := stream.readline(EVENT_LINE_BYTES):
            number += 1
            self._log.add(self.name, number, line.decode("utf-8", "replace"))
        self._log.end(self.name)

    def kill(self) -> None:
        """SIGKILL, as the demo does to the relay."""
        self.killed = True
        self.process.kill()
        self.process.wait()
        self._drop_empty()

    def stop(self) -> int:
        """SIGTERM, later SIGKILL; returns the exit status once all output is read."""
        status = self._lab.stop(self.process)
        self._reader.join(timeout=5.0)
        self._drop_empty()
        return status

    def _drop_empty(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.stderr_path.stat().st_size == 0:
                self.stderr_path.unlink()

    def error_tail(self, lines: int = 8) -> str:
        """The last lines of standard error."""
        try:
            return "\n".join(self.stderr_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""
