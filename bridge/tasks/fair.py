"""A queue in which everybody who waits is served in turn, however many times somebody else stands in it.

Work that comes in a crowd, by one read of one connection, would otherwise be done in one go, with all others waiting.
Knows no work and no peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

import trio

__all__ = ["FairQueue"]

K = TypeVar("K", bound=Hashable)


class FairQueue(Generic[K]):
    """`run` lets `batch` through, one of each key after the other, before other tasks have their turn."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._waiting: dict[K, deque[trio.Event]] = {}
        self._work = trio.Event()

    async def run(self) -> None:
        """Until cancelled; whoever waits then waits for ever."""
        while True:
            await self._work.wait()
            for _ in range(self._batch):
                if not self._waiting:
                    self._work = trio.Event()
                    break
                key = next(iter(self._waiting))
                queue = self._waiting.pop(key)
                queue.popleft().set()
                if queue:
                    self._waiting[key] = queue  # behind all others
            await trio.lowlevel.checkpoint()

    async def turn(self, key: K) -> None:
        """Returns when it is the caller's turn. Cancelling costs a turn at most."""
        turn = trio.Event()
        self._waiting.setdefault(key, deque()).append(turn)
        self._work.set()
        await turn.wait()
