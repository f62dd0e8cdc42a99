"""Bounds of identify."""

from __future__ import annotations

from typing import Final

MAX_IDENTIFY_ADDRS: Final = 64
MAX_IDENTIFY_PROTOCOLS: Final = 256
