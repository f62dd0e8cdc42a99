"""Events as JSON lines: one object a line, flushed, in the order in which they happened.

The envelope is `{"v":1,"seq":n,"ts":"2026-01-02T03:04:05.678901Z","event":"name", ...fields}`. Fields may be added
within version 1; none is renamed or dropped. A thread of its own writes, so that a reader that stalls cannot
stall the network: the queue is bounded, the oldest line is dropped, and the gap shows in `seq`. This module knows
no event class and decides nothing about the program.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from punchbridge.config import Programs
from punchbridge.events import Event

VERSION: Final = 1
_FLOAT_DIGITS: Final = 3
"""Milliseconds are floats with microseconds behind the point; more digits say nothing."""


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC with microseconds: for humans and for joining logs, never for measuring."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def encode(event: Event, seq: int, now: datetime) -> str:
    """One line without its newline, in ASCII: peers choose some of the text, and any stream can take it so."""
    record: dict[str, Any] = {"v": VERSION, "seq": seq, "ts": timestamp(now), "event": event.name}
    record.update(_plain(event.as_dict()))
    return json.dumps(record, separators=(",", ":"), default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _FLOAT_DIGITS)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class JsonLines:
    """An event subscriber that prints public events to a text stream.

    May be called from any thread and never blocks. `on_broken` is called once, from the writer, when the stream
    cannot be written any more (its reader left, or the disk is full); later events are discarded. `programs`:
    how many lines wait for the reader, and how long their end is awaited.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_broken: Callable[[OSError], None] = lambda problem: None,
        programs: Programs | None = None,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._on_broken = on_broken
        self._programs = programs or Programs()
        self._lines: deque[str] = deque(maxlen=self._programs.events)
        self._changed = threading.Condition()
        self._seq = 0
        self._closing = False
        self._broken = False
        self.dropped = 0
        self._writer = threading.Thread(target=self._write, name="punchbridge-json", daemon=True)
        self._writer.start()

    def __call__(self, event: Event) -> None:
        if not event.public:
            return
        with self._changed:
            if self._closing or self._broken:
                return
            if len(self._lines) == self._lines.maxlen:
                self.dropped += 1
            self._lines.append(encode(event, self._seq, self._clock()))
            self._seq += 1
            self._changed.notify()

    def follow(self, programs: Programs) -> None:
        """Takes other bounds; the oldest lines beyond the new one are dropped."""
        with self._changed:
            self._programs = programs
            self.dropped += max(0, len(self._lines) - programs.events)
            self._lines = deque(self._lines, maxlen=programs.events)

    def close(self) -> None:
        """Writes what is queued, for at most `report_flush` seconds, and ends the writer. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join(self._programs.report_flush)

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closing:
                    self._changed.wait()
                batch = "".join(f"{line}\n" for line in self._lines)
                self._lines.clear()
                if not batch:
                    return
            try:
                self._stream.write(batch)
                self._stream.flush()
            except OSError as problem:
                with self._changed:
                    self._broken = True
                    self._lines.clear()
                self._on_broken(problem)
                return
