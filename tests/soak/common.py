"""What both soak programs share: JSON lines on stdout, this process's memory, messages that prove their place."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

ECHO, ASK, FLOW, TAKE = "Echo", "Ask", "Flow", "Take"
SERVICE = "soak.Soak"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_NOISE = random.Random(4).randbytes(2 << 20)
_lock = threading.Lock()


def say(event: str, **fields: Any) -> None:
    """One event line; whole lines from any thread."""
    with _lock:
        print(json.dumps({"event": event, **fields}), flush=True)


def resident() -> int:
    """Bytes of memory in use by this process (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def message(number: int, size: int) -> bytes:
    """The `number`th message: eight bytes that count, and bytes that no other number has at that place."""
    start = number * 977 % (len(_NOISE) - size)
    return number.to_bytes(8, "big") + _NOISE[start : start + size - 8]


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
