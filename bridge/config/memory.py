"""Bounds of the memory that all connections of a swarm hold together, and those of one address."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import MIB, Bytes, Checked, Seconds

__all__ = ["MemoryLimits"]


@dataclass(frozen=True, kw_only=True)
class MemoryLimits(Checked):
    """What peers may make a swarm hold. An address is an IPv4 address or an IPv6 /48."""

    windows: Bytes = 64 * MIB
    """What all streams of all connections may have granted above their initial windows: 640 MB/s at 100 ms."""

    windows_per_address: Bytes = 32 * MIB
    """The same of the connections with one address: two streams with the largest window (`limits.yamux.window_most`).
    One address leaves half to the others."""

    held: Bytes = 128 * MIB
    """Bytes that came and were not read yet, bytes that wait to be sent, and 8 KiB for each open stream, in all
    connections. What windows have grown by comes on top. Beyond it, whoever holds most loses a stream or its
    connection. Resident memory is up to two or three times as much."""

    held_per_address: Bytes = 48 * MIB
    """The same of the connections with one address."""

    stalled_per_address: Bytes = 12 * MIB
    """The same, and from here on what has not moved for `stalled` goes: 48 streams whose initial window is full, and
    nobody reads them. What moves may be slow."""

    give_back: Seconds = 20.0
    """How often it is looked whether connections hold much less than before; then free memory goes back to the
    system."""

    stalled: Seconds = 1.0
    """How long that is. A reader that waits for its turn on a loaded processor is faster."""
