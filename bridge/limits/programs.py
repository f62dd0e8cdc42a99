"""Bounds that only the programs need: reports, draining, dialling again."""

from __future__ import annotations

from typing import Final

REPORT_FLUSH_TIMEOUT: Final = 5.0
"""At its end a program waits this long for a slow reader of its JSON lines."""

DRAIN_TIMEOUT: Final = 10.0
"""After SIGTERM: peers are told, queues are flushed; whoever is not done by then is cut."""

REDIAL_BACKOFF_FIRST: Final = 0.25
"""A dialer whose paths are all gone waits this long before it asks again; then twice as long each time."""

REDIAL_BACKOFF_MOST: Final = 5.0
"""The longest of these pauses: a relay that restarts is found within it."""
