"""Bounds of what is read and written on a connection: Noise, Yamux, multistream-select, framed messages."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB, MIB

MAX_MESSAGE: Final = 4096
"""circuit, DCUtR (MUST), identify (rust's limit): length prefix not counted."""

MAX_MULTISTREAM_LINE: Final = 1024
"""A protocol id. rust reads at most 16383."""

MAX_NOISE_MESSAGE: Final = 65535
"""Noise spec, section 3; on the wire behind a length of two bytes."""

MAX_NOISE_PLAINTEXT: Final = MAX_NOISE_MESSAGE - 16
"""The authentication tag of ChaCha20-Poly1305 takes 16 bytes."""

MAX_FRAME_PAYLOAD: Final = MAX_NOISE_PLAINTEXT - 12
"""65507: with the Yamux header one frame fills one Noise message, which is one send."""

MAX_RSA_BITS: Final = 8192
"""Larger keys cost the verifier too much (CVE-2023-39533)."""

MAX_IDENTITY_KEY: Final = 2 * KIB
"""A serialized public key; an RSA key of 8192 bits takes about 1100 bytes."""

MAX_EARLY_MUXERS: Final = 100
"""Longer lists in the Noise extensions are ignored, as go does."""

MAX_PROPOSALS: Final = 64
"""Protocols refused on one stream before the proposer is cut off."""

SEND_QUEUE: Final = 256 * KIB
"""Bytes of frames waiting for a socket that would block; senders wait beyond it. What waits here delays the small
frames of other streams, and the kernel has a buffer of its own."""

SEND_QUEUE_HARD: Final = 2 * MIB
"""With the answers that the peer's own frames demand: a peer that asks on and never reads is cut off."""

SEND_BURST: Final = 256 * KIB
"""Bytes one call sends before the other tasks get their turn."""

INITIAL_WINDOW: Final = 256 * KIB
"""Yamux spec: the window of each stream and direction at the start."""

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
