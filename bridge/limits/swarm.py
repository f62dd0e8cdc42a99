"""Bounds of the swarm: connections, dials, streams, commands, liveness."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB

NEGOTIATE_TIMEOUT: Final = 10.0
"""multistream-select on one stream; go and rust use 10 s."""

MAX_STREAMS_PER_CONNECTION: Final = 1024
ACCEPT_STREAMS_BACKLOG: Final = 256
"""Inbound streams not yet taken; beyond it they are reset (rust-yamux: 256)."""

KEEPALIVE_INTERVAL: Final = 15.0
"""Yamux ping on an idle connection: below the shortest common NAT time-outs, finds silent deaths."""

KEEPALIVE_TIMEOUT: Final = 10.0
"""A ping unanswered for this long: the connection is dead."""

MAX_LISTENERS: Final = 16
"""Listening sockets: a few interfaces in both IP versions."""

ACCEPT_BACKOFF: Final = 0.1
"""Pause after accept() failed for want of descriptors or memory: long enough for some to be freed."""

DIVERT_QUEUE: Final = 16
"""Accepted sockets waiting for the puncher; one attempt yields one or two."""

MAX_DIVERTERS: Final = 64
"""Punches that wait for accepted sockets at the same time."""

RECEIVE_SIZE: Final = 256 * KIB
"""One read of the socket: four full Noise messages."""

CLOSE_FLUSH: Final = 2.0
"""How long closing a connection waits for queued frames to leave."""

TURN_FRAMES: Final = 256
"""Frames of one connection that are handled before other tasks run: 5 ms when each opens a stream and resets it. One
read holds 20 000 of these. Bulk has four frames in a read."""
