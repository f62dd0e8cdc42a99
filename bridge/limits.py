"""Every bound of the library, each with its reason. Bytes and seconds unless the name says otherwise.

Rooms with many bounds of their own (relay/, node/) keep a limits.py of the same form.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- connecting -------------------------------------------------------------------------------------------

CONNECT_TIMEOUT: Final = 5.0
"""TCP connect of an ordinary dial: four SYNs (initial RTO 1 s, doubling) have gone out by then."""

UPGRADE_TIMEOUT: Final = 10.0
"""Security and muxer together: 3 round trips, generous for 1 s of round trip over a slow relay."""

NEGOTIATE_TIMEOUT: Final = 10.0
"""multistream-select on one stream; go and rust use 10 s."""

MAX_PARALLEL_DIALS: Final = 8
"""Addresses of one peer tried at once."""

# --- accepting --------------------------------------------------------------------------------------------

MAX_CONNECTIONS: Final = 2048
"""Connections in all; idle ones cost about 40 KiB each."""

MAX_CONNECTIONS_PER_ADDRESS: Final = 64
"""From one IPv4 address or one IPv6 /64: a carrier-grade NAT holds several honest peers (go: 8 concurrent)."""

MAX_CONNECTIONS_PER_PEER: Final = 8
"""A relayed one, a direct one, and a few in the act of replacing each other."""

MAX_HALF_OPEN: Final = 256
"""Accepted, but not yet authenticated. Each lives at most UPGRADE_TIMEOUT."""

ACCEPT_BACKLOG: Final = 128

# --- commands and events ----------------------------------------------------------------------------------

MAILBOX: Final = 256
"""Commands waiting for the swarm actor; a caller waits when it is full."""

EVENT_QUEUE: Final = 1024
"""Events waiting for a slow subscriber; beyond it the oldest is dropped and counted."""

# --- streams ----------------------------------------------------------------------------------------------

MAX_STREAMS_PER_CONNECTION: Final = 1024
ACCEPT_STREAMS_BACKLOG: Final = 256
"""Inbound streams not yet taken; beyond it they are reset (rust-yamux: 256)."""

MAX_MESSAGE: Final = 4096
"""circuit, DCUtR (MUST), identify (rust's limit): length prefix not counted."""

MAX_MULTISTREAM_LINE: Final = 1024
"""A protocol id. rust reads at most 16383."""

# --- liveness ---------------------------------------------------------------------------------------------

KEEPALIVE_INTERVAL: Final = 15.0
"""Yamux ping on an idle connection: below the shortest common NAT time-outs, finds silent deaths."""

KEEPALIVE_TIMEOUT: Final = 10.0
"""A ping unanswered for this long: the connection is dead."""

TCP_USER_TIMEOUT_MS: Final = 30_000
"""Unacknowledged data for this long ends the TCP connection (RFC 5482)."""

# --- identify ---------------------------------------------------------------------------------------------

IDENTIFY_TIMEOUT: Final = 5.0
MAX_IDENTIFY_ADDRS: Final = 64
MAX_IDENTIFY_PROTOCOLS: Final = 256

# --- gRPC -------------------------------------------------------------------------------------------------

MAX_GRPC_MESSAGE: Final = 1024 * MIB
"""Kaspa's own bound for one message."""
