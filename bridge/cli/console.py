"""What a person reads on stderr: one plain line for each change, and on a terminal a line that shows the waiting.

`Console` prints the line that a table gives for an event, coloured only on a terminal and never when NO_COLOR is set
(no-color.org). It knows terminals; which events have a line, the table says. It keeps no state of connections or peers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, TextIO

from punchbridge import events
from punchbridge.cli.lines import LINES, Lines, Tone
from punchbridge.events import Event

_SGR: Final[Mapping[Tone, str]] = {"good": "32", "plain": "0", "dim": "2", "warn": "33", "bad": "31"}
_REFRESH: Final = 0.5
"""Seconds between two paintings of the elapsed time."""

_UNDOES: Final[Mapping[type[Event], type[Event]]] = {
    events.ReservationLost: events.ReservationAccepted,
    events.ReservationAccepted: events.ReservationLost,
    events.ConnectionClosed: events.ConnectionOpened,
    events.ConnectionOpened: events.ConnectionClosed,
    events.AccessRead: events.ErrorEvent,
}
"""After one of these the other is news again, even in the same words."""

_ANSWERS: Final = frozenset((events.AccessRead,))
"""What somebody has asked for: it is told each time."""


def harmless(text: str) -> str:
    """The text with what could move a cursor, fake a line or turn the writing round made visible as escapes.

    Peers choose some of it: user agents, reasons, addresses.
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class Console:
    """Prints lines and at most one progress text to a stream, from any thread.

    lines: the line of each class of events; the others are not shown. live: repaint the progress line with the
    seconds elapsed (a terminal); otherwise each text is printed once. A stream that cannot be written is ignored: the
    program's work does not depend on who watches it.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        live: bool,
        color: bool,
        lines: Lines = LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._lines = lines
        self._live = live
        self._color = color
        self._clock = clock
        self._lock = threading.Condition()
        self._progress: tuple[str, float] | None = None
        self._painter: threading.Thread | None = None
        self._closed = False
        self._last: dict[type[Event], str] = {}

    def __call__(self, event: Event) -> None:
        """Prints the event's line, unless it says what the last one of its kind said and nobody has asked."""
        render = self._lines.get(type(event))
        if render is None:
            return
        rendered = render(event)
        if self._last.get(type(event)) == rendered[0] and type(event) not in _ANSWERS:
            return
        self._last[type(event)] = rendered[0]
        undone = _UNDOES.get(type(event))
        if undone is not None:
            self._last.pop(undone, None)
        self.line(*rendered)

    def line(self, text: str, tone: Tone = "plain") -> None:
        """One line, whatever is in the text."""
        text = harmless(text)
        if self._color and tone != "plain":
            text = f"\x1b[{_SGR[tone]}m{text}\x1b[0m"
        with self._lock:
            self._put(f"{self._erase()}{text}\n{self._painted()}")

    def progress(self, text: str | None) -> None:
        """Shows what the program waits for; None: it waits no more. The same text again keeps its clock."""
        text = None if text is None else harmless(text)
        with self._lock:
            if text == (self._progress[0] if self._progress else None):
                return
            erase = self._erase()
            self._progress = None if text is None else (text, self._clock())
            if self._live:
                self._put(f"{erase}{self._painted()}")
                if text is not None and self._painter is None:
                    self._painter = threading.Thread(target=self._paint, name="punchbridge-progress", daemon=True)
                    self._painter.start()
            elif text is not None:
                self._put(f"{text} …\n")

    def close(self) -> None:
        """Erases the progress line and ends its painter. Idempotent."""
        self.progress(None)
        with self._lock:
            self._closed = True
            self._lock.notify()
        if self._painter is not None:
            self._painter.join(2 * _REFRESH)

    def _erase(self) -> str:
        return "\r\x1b[2K" if self._live and self._progress is not None else ""

    def _painted(self) -> str:
        if not self._live or self._progress is None:
            return ""
        text, began = self._progress
        return f"{text} … {self._clock() - began:.0f} s"

    def _paint(self) -> None:
        with self._lock:
            while not self._closed:
                if self._progress is not None:
                    self._put(f"{self._erase()}{self._painted()}")
                self._lock.wait(_REFRESH)

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._closed = True
