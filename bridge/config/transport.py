"""Bounds of the transports: TCP, and the upgrade of a byte stream to a secured and muxed connection."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import Checked, Seconds

__all__ = ["MuxedLimits", "TcpLimits"]


@dataclass(frozen=True, kw_only=True)
class TcpLimits(Checked):
    """TCP sockets."""

    connect_timeout: Seconds = 5.0
    """TCP connect of an ordinary dial: four SYNs (initial RTO 1 s, doubling) have gone out by then."""


@dataclass(frozen=True, kw_only=True)
class MuxedLimits(Checked):
    """Noise and Yamux over any byte stream."""

    upgrade_timeout: Seconds = 10.0
    """Security and muxer together: 3 round trips, generous for 1 s of round trip over a slow relay."""
