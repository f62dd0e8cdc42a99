"""What only the programs of the command line need: draining, reports."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import Checked, Count, Seconds

__all__ = ["Programs"]


@dataclass(frozen=True, kw_only=True)
class Programs(Checked):
    """The programs around a bridge. Nothing here concerns an application that opens a bridge itself."""

    drain: Seconds = 10.0
    """After SIGTERM peers are told and queues are flushed; whoever is not done by then is cut."""

    report_flush: Seconds = 5.0
    """At its end a program waits this long for a slow reader of its JSON lines."""

    events: Count = 1024
    """Events waiting for a slow reader; beyond it the oldest is dropped, and for JSON lines counted."""
