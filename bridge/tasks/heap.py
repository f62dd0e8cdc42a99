"""Which memory that was freed goes back to the system, and when: not after each read, but after much traffic."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import trio

from punchbridge.config.values import MIB
from punchbridge.tasks.memory import Memory

__all__ = ["give_back"]

_WORTH: Final = 4 * MIB
"""Less is kept: it will be used again."""


def _keep_for_reads() -> None:
    """Lets the C library keep some MiB that were freed, for the next read.

    glibc gives back what is free at the end of its heap above a threshold, which begins at 128 KiB and becomes twice
    the size of the largest block of its own pages that was freed (mallopt(3), M_MMAP_THRESHOLD). With a low one each
    read of a fast stream takes fresh pages from the kernel: 50 to 90 page faults a MiB, against 1, and twice the
    receiver's system time. The block here is never touched, so it costs no memory.
    """
    bytes(_WORTH)


async def give_back(memory: Memory, every: float) -> None:
    """Looks each `every` seconds, and gives back what is free once connections hold much less than they did. That takes
    some milliseconds for each hundred MiB of heap. Runs until cancelled."""
    _keep_for_reads()
    while True:
        await trio.sleep(every)
        if memory.most > _WORTH and memory.held < memory.most // 2:
            memory.most = memory.held
            trim = _malloc_trim()
            if trim is not None:
                trim(0)


@cache
def _malloc_trim() -> Any:
    import ctypes  # only where there was an attack, or much traffic

    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
