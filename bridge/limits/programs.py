"""Bounds that only the programs need: dialling again."""

from __future__ import annotations

from typing import Final

REDIAL_BACKOFF_FIRST: Final = 0.25
"""A dialer whose paths are all gone waits this long before it asks again; then twice as long each time."""

REDIAL_BACKOFF_MOST: Final = 5.0
"""The longest of these pauses: a relay that restarts is found within it."""
