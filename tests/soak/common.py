"""What both soak programs share: JSON lines on stdout, this process's memory, messages that prove their place."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

from punchbridge.addresses import Multiaddr, is_relayed

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


class _MallInfo(ctypes.Structure):
    """mallinfo2(3), all arenas together."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    )]  # fmt: skip


_libc = ctypes.CDLL(None)
_mallinfo2 = getattr(_libc, "mallinfo2", None)
if _mallinfo2 is not None:
    _mallinfo2.restype = _MallInfo


def memory() -> dict[str, int]:
    """What this process has (`resident`, bytes), what of it the C allocator has given out (`in_use`, bytes, 0 where
    glibc does not tell) and how many blocks Python's own has (`blocks`): a leak raises the last two, holes do not."""
    told = _mallinfo2() if _mallinfo2 is not None else _MallInfo()
    return {"resident": resident(), "in_use": told.uordblks + told.hblkhd, "blocks": sys.getallocatedblocks()}


def message(number: int, size: int) -> bytes:
    """The `number`th message: eight bytes that count, and bytes that no other number has at that place."""
    start = number * 977 % (len(_NOISE) - size)
    return number.to_bytes(8, "big") + _NOISE[start : start + size - 8]


def kind_of(addr: Multiaddr) -> str:
    """The transport of a connection that is dialled there, as connections tell it."""
    if is_relayed(addr):
        return "circuit"
    return "quic" if "/quic-v1" in str(addr) else "tcp"


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
