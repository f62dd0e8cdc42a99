"""Bounds of the swarm: connections, dials, streams, commands, events, liveness."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB

UPGRADE_TIMEOUT: Final = 10.0
"""Security and muxer together: 3 round trips, generous for 1 s of round trip over a slow relay."""

NEGOTIATE_TIMEOUT: Final = 10.0
"""multistream-select on one stream; go and rust use 10 s."""

MAX_PARALLEL_DIALS: Final = 8
"""Addresses of one peer tried at once."""

MAX_CONNECTIONS: Final = 2048
"""Connections in all; idle ones cost about 40 KiB each."""

MAX_CONNECTIONS_PER_ADDRESS: Final = 64
"""From one IPv4 address or one IPv6 /64: a carrier-grade NAT holds several honest peers (go: 8 concurrent)."""

MAX_CONNECTIONS_PER_PEER: Final = 8
"""A relayed one, a direct one, and a few in the act of replacing each other."""

MAX_HALF_OPEN: Final = 256
"""Accepted, but not yet authenticated. Each lives at most UPGRADE_TIMEOUT."""

MAILBOX: Final = 256
"""Commands waiting for the swarm actor; a caller waits when it is full."""

EVENT_QUEUE: Final = 1024
"""Events waiting for a slow subscriber; beyond it the oldest is dropped and counted."""

MAX_STREAMS_PER_CONNECTION: Final = 1024
ACCEPT_STREAMS_BACKLOG: Final = 256
"""Inbound streams not yet taken; beyond it they are reset (rust-yamux: 256)."""

KEEPALIVE_INTERVAL: Final = 15.0
"""Yamux ping on an idle connection: below the shortest common NAT time-outs, finds silent deaths."""

KEEPALIVE_TIMEOUT: Final = 10.0
"""A ping unanswered for this long: the connection is dead."""

MAX_COMMANDS: Final = 4096
"""Commands in progress; each holds a task. Beyond it a command fails at once instead of waiting on others."""

MAX_LISTENERS: Final = 16
"""Listening sockets: a few interfaces in both IP versions."""

ACCEPT_BACKOFF: Final = 0.1
"""Pause after accept() failed for want of descriptors or memory: long enough for some to be freed."""

DIAL_STAGGER: Final = 0.25
"""Head start of one address over the next (RFC 8305 section 5: 250 ms)."""

MAX_DIAL_ADDRESSES: Final = 32
"""Addresses tried in one dial, names resolved: at 8 at once and 15 s each this ends within a minute."""

TRANSPORT_DIAL_TIMEOUT: Final = 30.0
"""A circuit: connecting and upgrading to the relay (15 s), CONNECT, and STOP on the far side."""

CLOSE_TIMEOUT: Final = 1.0
"""GoAway and the flush of what is queued; after it the connection is cut."""

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
