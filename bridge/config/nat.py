"""Bounds of what is learned about the NAT in front of us: observed addresses, and whom to ask for one more."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import Checked, Count, Seconds

__all__ = ["NatLimits"]


@dataclass(frozen=True, kw_only=True)
class NatLimits(Checked):
    """Observed addresses, and second observers."""

    observations: Count = 32
    """Observations of our address that are kept; the oldest goes first. Two that differ settle the mapping already."""

    stale: Seconds = 120.0
    """An observation outlives its connection this long (conntrack keeps a half-open or closing mapping 120 s)."""

    observer_timeout: Seconds = 4.0
    """Asking a second observer between an attempt and its verdict: TCP, security and identify, 6 round trips."""

    observer_probes: Count = 2
    """Second observers that are dialled for one verdict."""

    observer_hold: Seconds = 600.0
    """How long a second observer's connection is kept: its observation counts only while it stands."""

    other_addresses: Count = 2
    """Addresses of a relay that are dialled for a second connection to it, over the transport that the first lacks."""

    other_retry: Seconds = 60.0
    """After a failure such a connection is tried again after this time, and twice as long each time after that."""

    other_retry_most: Seconds = 1800.0
    """The longest such pause: where UDP is blocked it stays so."""

    other_settle: Seconds = 1.0
    """From the end of one of the two connections to the next dial: whoever leaves closes both."""
