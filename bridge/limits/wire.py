"""Bounds of what is read and written on a connection: Noise, Yamux, multistream-select, framed messages."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB, MIB

SEND_QUEUE: Final = 256 * KIB
"""Bytes of frames waiting for a socket that would block; senders wait beyond it. What waits here delays the small
frames of other streams, and the kernel has a buffer of its own."""

SEND_QUEUE_HARD: Final = 2 * MIB
"""With the answers that the peer's own frames demand: a peer that asks on and never reads is cut off."""

SEND_BURST: Final = 256 * KIB
"""Bytes one call sends before the other tasks get their turn."""

MAX_WINDOW: Final = 16 * MIB
"""A stream's receive window never grows beyond (go: 16 MiB): 160 MB/s at 100 ms."""

WINDOW_BUDGET: Final = 64 * MIB
"""What all streams of one connection may have granted above their initial windows."""

WINDOW_SPAN: Final = 0.02
"""Seconds over which the rate of a stream is taken, at least: a reader that had to wait for its turn on the processor
then reads a whole window at once, which says nothing about the path."""

MAX_UNACKED_STREAMS: Final = 256
"""Own streams the peer has not acknowledged yet (Yamux Y7; rust resets beyond)."""

MAX_PINGS_IN_FLIGHT: Final = 16
"""Own Yamux pings waiting for their answer."""

MAX_PING_ANSWERS: Final = 64
"""Answers waiting for the socket; further pings stay unanswered until they are sent."""

MAX_REFUSALS: Final = 1024
"""Refused streams whose reset waits for the socket; a peer that goes on is cut off."""

DISCARD_AFTER_CLOSE: Final = 128 * KIB
"""Data that arrives after we closed a stream is dropped up to here, then the stream is reset."""

LINGER: Final = 30.0
"""How long a stream we closed waits for the peer's end before it is reset."""

RTT_SAMPLES: Final = 4
"""Round trips measured one after another on a fresh connection; the lowest counts for the window growth."""

RTT_LEAST: Final = 0.002
"""Shorter round trips count as this for the window growth: below it the two processes' turns on the processor decide,
and a stream whose window follows a loopback's 60 µs stands still whenever the reader has to wait for its turn."""

RTT_INTERVAL: Final = 60.0
"""A busy connection measures its round trip this often, for the window growth."""
