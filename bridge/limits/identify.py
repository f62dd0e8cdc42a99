"""Bounds of the small services: identify, ping, perf."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB

IDENTIFY_TIMEOUT: Final = 5.0
MAX_IDENTIFY_ADDRS: Final = 64
MAX_IDENTIFY_PROTOCOLS: Final = 256

MAX_IDENTIFY_READ: Final = 8 * KIB
"""One identify message from others (go sends up to 8 KiB); ours stays below MAX_MESSAGE."""

MAX_IDENTIFY_MESSAGES: Final = 10
"""Messages merged from one identify stream (go: 10)."""

IDENTIFY_PUSH_DELAY: Final = 0.2
"""Changes within this time go out in one push: a reservation brings several addresses at once."""

PUSHES_TAKEN: Final = 30
"""Pushes of one connection that are read at once; each may hold 64 addresses, which take 4 ms to read."""

PUSH_TAKEN_EVERY: Final = 1.0
"""Then one in this time; others wait for it, IDENTIFY_TIMEOUT at most. We, like js, push once for many changes."""

INTERFACE_CHECK: Final = 30.0
"""How soon a change of the interfaces' addresses is told to peers; reading them costs under a millisecond."""

MAX_PARALLEL_PUSHES: Final = 32
"""Peers told of a change at the same time."""

MAX_IDENTIFY_STREAMS: Final = 512
MAX_IDENTIFY_STREAMS_PER_PEER: Final = 8
"""Inbound identify and push streams: one for each of a peer's connections."""

PING_TIMEOUT: Final = 10.0
"""One echo of /ipfs/ping/1.0.0 (go: 10 s)."""

PING_IDLE_TIMEOUT: Final = 60.0
"""An inbound ping stream without a ping for this long is closed."""

MAX_PING_STREAMS: Final = 256
MAX_PING_STREAMS_PER_PEER: Final = 2
"""specs/ping: accept at most two streams of one peer."""

PERF_BLOCK: Final = 256 * KIB
"""One write of a measurement: what the pump reads at once."""

PERF_TIMEOUT: Final = 300.0
"""One exchange; the cap of libp2p's own perf tests."""

MAX_PERF_STREAMS: Final = 64
MAX_PERF_STREAMS_PER_PEER: Final = 64
"""Exchanges at once. Perf is off by default; who turns it on measures."""
