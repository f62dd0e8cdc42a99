"""Something at the n-th step of any task: a cancellation in every await, and in every state of the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Steps(trio.abc.Instrument):
    """Calls `act` before the `limit`th step that any task takes."""

    def __init__(self, limit: int, act: Callable[[], object]) -> None:
        self._left = limit
        self._act = act

    @property
    def acted(self) -> bool:
        """So many steps were taken."""
        return self._left <= 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()


async def cut_after(steps: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Runs `work`, cancelled at its `steps`th step; whether it was cut."""
    scope = trio.CancelScope()
    instrument = Steps(steps, scope.cancel)
    trio.lowlevel.add_instrument(instrument)
    try:
        with scope:
            await work()
        return scope.cancelled_caught
    finally:
        trio.lowlevel.remove_instrument(instrument)
