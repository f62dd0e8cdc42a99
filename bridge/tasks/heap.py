"""Gives memory that was freed back to the system: the C library keeps it otherwise, for whoever asks next."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import trio

from punchbridge.config.values import MIB
from punchbridge.tasks.memory import Memory

__all__ = ["give_back"]

_WORTH: Final = 4 * MIB
"""Less is kept: it will be used again."""


async def give_back(memory: Memory, every: float) -> None:
    """Looks each `every` seconds, and gives back what is free once connections hold much less than they did. That takes
    some milliseconds for each hundred MiB of heap. Runs until cancelled."""
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
