"""Lets the other threads that are ready run before a socket is read, so that one read finds what several of them write.

A program with 16 calls under way writes them one after another, and each read costs a loop turn, a message, a system
call and a wake-up at the peer. Without it a read found the calls of about two. Knows no socket.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from punchbridge.config import LocalLimits

__all__ = ["Coalescer"]


class Coalescer:
    """One for each thread. Where nobody waits for a processor it costs a system call and next to no time.

    Giving way takes half of the thread's time at most, however many sockets are read. Once it took so long that others
    must be computing rather than writing, it pauses.
    """

    def __init__(
        self,
        limits: LocalLimits,
        clock: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._clock, self._give_way = clock, give_way
        self._most, self._pause = limits.coalesce_most, limits.coalesce_pause
        self._not_before = clock()

    def before_read(self) -> None:
        """To be called between the wake-up for a socket and its read."""
        began = self._clock()
        if began < self._not_before:
            return
        self._give_way()
        ended = self._clock()
        took = ended - began
        self._not_before = ended + (took if took < self._most else self._pause)
