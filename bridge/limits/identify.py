"""Bounds of the small services: identify, ping, perf."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB

MAX_IDENTIFY_ADDRS: Final = 64
MAX_IDENTIFY_PROTOCOLS: Final = 256

PERF_BLOCK: Final = 256 * KIB
"""One write of a measurement: what the pump reads at once."""

PERF_TIMEOUT: Final = 300.0
"""One exchange; the cap of libp2p's own perf tests."""

MAX_PERF_STREAMS: Final = 64
MAX_PERF_STREAMS_PER_PEER: Final = 64
"""Exchanges at once. Perf is off by default; who turns it on measures."""
