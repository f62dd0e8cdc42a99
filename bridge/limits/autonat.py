"""Bounds of AutoNAT v2, client and server."""

from __future__ import annotations

from typing import Final

AUTONAT_MESSAGE: Final = 8192
"""A DialRequest of 50 addresses (go: 8192)."""

AUTONAT_MAX_ADDRS: Final = 50
AUTONAT_MIN_DATA: Final = 30_000
AUTONAT_MAX_DATA: Final = 100_000
"""Bytes a client pays before a dial to an IP that is not its own (specs/autonat: 30 000 to 100 000)."""

AUTONAT_DATA_CHUNK: Final = 4096

AUTONAT_REQUESTS_PER_MINUTE: Final = 60
AUTONAT_REQUESTS_PER_PEER: Final = 12
AUTONAT_DATA_REQUESTS_PER_MINUTE: Final = 12
"""As go-libp2p."""

AUTONAT_CONCURRENT_PER_PEER: Final = 1
AUTONAT_CONFIRMATIONS: Final = 3
"""Agreeing answers that settle an address beyond doubt; one decides already when no other server disagrees."""

AUTONAT_STALE: Final = 2400.0
"""A server that is still there is asked again each AUTONAT_REFRESH: a word older than this is of one that has gone."""

AUTONAT_MAX_TRACKED: Final = 32
"""Own addresses whose reachability is remembered."""
