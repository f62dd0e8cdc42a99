"""What a person reads on stderr: one plain line for each change, and on a terminal a line that shows the waiting.

`line_of` turns an event into a text and a tone; `Console` prints it, coloured only on a terminal and never when
NO_COLOR is set (no-color.org). It knows event classes and terminals; it keeps no state of connections or peers.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TextIO

from punchbridge import events
from punchbridge.addresses import endpoint_of, parse
from punchbridge.errors import AddressError
from punchbridge.events import Event

Tone = Literal["good", "plain", "dim", "warn", "bad"]
_SGR: Final[Mapping[Tone, str]] = {"good": "32", "plain": "0", "dim": "2", "warn": "33", "bad": "31"}
_REFRESH: Final = 0.5
"""Seconds between two paintings of the elapsed time."""


_PEER_ID: Final = re.compile(r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}|Qm[1-9A-HJ-NP-Za-km-z]{44}")


def short(peer: str) -> str:
    """A peer id as people compare them: the last eight characters (the first are the same for all Ed25519 keys)."""
    return peer if len(peer) <= 12 else f"…{peer[-8:]}"


def spot(address: str) -> str:
    """Where a printed multiaddr leads first, as people write it: HOST:PORT. Text in, text out."""
    try:
        endpoint = endpoint_of(parse(address))
    except AddressError:
        return address
    if endpoint is None or endpoint.proto != "tcp":
        return address
    return f"[{endpoint.host}]:{endpoint.port}" if endpoint.kind == "ip6" else f"{endpoint.host}:{endpoint.port}"


def harmless(text: str) -> str:
    """The text with what could move a cursor, fake a line or turn the writing round made visible as escapes.

    Peers choose some of it: user agents, reasons, addresses.
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _soon(seconds: float | None) -> str:
    return f"; next try in {seconds:.1f} s" if seconds else ""


def _cut(text: str, most: int = 160) -> str:
    """A long text at one line's length, peer ids shortened first: the reason stands last. The event has it all."""
    text = _PEER_ID.sub(lambda found: short(found[0]), text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _ms(value: float | None) -> str:
    return "" if value is None else f" {value:.0f} ms"


def _total(counts: Mapping[str, int]) -> int:
    return sum(counts.values())


def _reservation(event: events.ReservationAccepted) -> tuple[str, Tone]:
    verb = "renewed" if event.renewed else "accepted"
    return f"reservation {verb} by relay {short(event.relay)}", "dim" if event.renewed else "good"


def _reservation_lost(event: events.ReservationLost) -> tuple[str, Tone]:
    text = f": {_cut(event.message)}" if event.message else ""
    return f"reservation lost at relay {short(event.relay)} ({event.code}{text}){_soon(event.retry_in)}", "warn"


def _opened(event: events.ConnectionOpened) -> tuple[str, Tone]:
    how = "punched" if event.punched else "accepted" if event.inbound else "dialled"
    over = "directly at" if event.path == "direct" else "over the relay at"
    return f"connected to {short(event.peer)} {over} {spot(event.remote)} ({how})", "plain"


def _closed(event: events.ConnectionClosed) -> tuple[str, Tone]:
    kind = "direct" if event.path == "direct" else "relayed"
    return f"{kind} connection to {short(event.peer)} closed: {event.reason}", "dim"


def _punched(event: events.PunchSucceeded) -> tuple[str, Tone]:
    ends = f"{spot(event.local)} ↔ {spot(event.remote)}"
    if event.attempt == 0:
        return f"direct to {short(event.peer)} without a punch, in{_ms(event.elapsed_ms)}: {ends}", "good"
    return f"punched through to {short(event.peer)} in{_ms(event.elapsed_ms)}, attempt {event.attempt}: {ends}", "good"


def _punch_failed(event: events.PunchFailed) -> tuple[str, Tone]:
    text = f": {event.message.rstrip('.')}" if event.message else ""
    return (
        f"punch attempt {event.attempt} to {short(event.peer)} failed: {event.code}{text}{_soon(event.retry_in)}",
        "warn",
    )


def _switched(event: events.SessionSwitched) -> tuple[str, Tone]:
    if event.from_ == "none":
        return f"session with {short(event.peer)} opened, path {event.to}", "dim"
    text = f"session with {short(event.peer)} goes on: {event.from_} → {event.to} ({event.reason})"
    if event.planned:
        return text, "dim"
    return f"{text} after{_ms(event.gap_ms)}, {event.replayed} bytes sent again", "plain"


def _kept(event: events.SessionKept) -> tuple[str, Tone]:
    why = "the direct path is slower" if event.reason == "SLOWER" else "a direct path has just failed"
    trips = f"round trip{_ms(event.rtt_ms)}, direct{_ms(event.rtt_direct_ms)}"
    return f"session with {short(event.peer)} stays on the {event.path}: {why} ({trips})", "dim"


def _relay_stats(event: events.RelayStats) -> tuple[str, Tone]:
    return f"{event.reservations} reservations, {event.circuits} circuits, {event.bytes_} bytes relayed", "dim"


_LINES: Final[Mapping[type[Event], Callable[[Any], tuple[str, Tone]]]] = {
    events.NodeStarted: lambda e: (f"peer {e.peer_id}, listening on {', '.join(e.listen) or 'nothing'}", "plain"),
    events.RelayListening: lambda e: ("the relay accepts reservations", "good"),
    events.ReservationAccepted: _reservation,
    events.ReservationLost: _reservation_lost,
    events.ConnectionOpened: _opened,
    events.ConnectionClosed: _closed,
    events.PunchStarted: lambda e: (
        f"punch attempt {e.attempt} to {short(e.peer)} ({len(e.remote_candidates)} candidates)",
        "plain",
    ),
    events.PunchSucceeded: _punched,
    events.PunchFailed: _punch_failed,
    events.P2pFallback: lambda e: (
        f"staying on the relay with {short(e.peer)}: {e.code}{' ' + e.message if e.message else ''}",
        "warn",
    ),
    events.PathChanged: lambda e: (
        f"path to {short(e.peer)}: {e.from_} → {e.to} ({e.reason})",
        "good" if e.to == "direct" else "warn",
    ),
    events.SessionSwitched: _switched,
    events.SessionKept: _kept,
    events.HandshakeCompleted: lambda e: (f"handshake with {short(e.peer)} {e.user_agent} over {e.path}", "good"),
    events.FlowStats: lambda e: (
        f"{short(e.peer)} {e.path}: {_total(e.sent)} messages sent, {_total(e.received)} received",
        "dim",
    ),
    events.RelayStats: _relay_stats,
    events.CircuitOpened: lambda e: (f"circuit {e.circuit}: {short(e.source)} → {short(e.target)}", "plain"),
    events.CircuitClosed: lambda e: (
        f"circuit {e.circuit} closed: {e.reason}, {e.bytes_to_target}+{e.bytes_to_source} bytes, {e.seconds:.0f} s",
        "dim",
    ),
    events.AutonatResult: lambda e: (f"reachability of {e.addr}: {e.reachability} ({e.status})", "dim"),
    events.ErrorEvent: lambda e: (f"error {e.code}: {e.message}", "bad"),
}


_UNDOES: Final[Mapping[type[Event], type[Event]]] = {
    events.ReservationLost: events.ReservationAccepted,
    events.ReservationAccepted: events.ReservationLost,
    events.ConnectionClosed: events.ConnectionOpened,
    events.ConnectionOpened: events.ConnectionClosed,
}
"""After one of these the other is news again, even in the same words."""


def line_of(event: Event) -> tuple[str, Tone] | None:
    """The line for this event and its tone, or None when a person need not see it."""
    render = _LINES.get(type(event))
    return None if render is None else render(event)


class Console:
    """Prints lines and at most one progress text to a stream, from any thread.

    live: repaint the progress line with the seconds elapsed (a terminal); otherwise each text is printed once.
    A stream that cannot be written is ignored: the program's work does not depend on who watches it.
    """

    def __init__(self, stream: TextIO, *, live: bool, color: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._live = live
        self._color = color
        self._clock = clock
        self._lock = threading.Condition()
        self._progress: tuple[str, float] | None = None
        self._painter: threading.Thread | None = None
        self._closed = False
        self._last: dict[type[Event], str] = {}

    def __call__(self, event: Event) -> None:
        """Prints the event's line, unless it says what the last one of its kind said."""
        rendered = line_of(event)
        if rendered is None or self._last.get(type(event)) == rendered[0]:
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
