"""Yamux: many streams over one secured byte stream, strict to the specification, without I/O."""

from __future__ import annotations

from punchbridge.yamux.events import Dead, Event, GoneAway, Opened, Pong, Readable, Reset, Writable
from punchbridge.yamux.frames import YAMUX, GoAwayCode
from punchbridge.yamux.session import Yamux
from punchbridge.yamux.stream import StreamState

__all__ = [
    "YAMUX",
    "Dead",
    "Event",
    "GoAwayCode",
    "GoneAway",
    "Opened",
    "Pong",
    "Readable",
    "Reset",
    "StreamState",
    "Writable",
    "Yamux",
]
