"""A condition that is announced again and again, and can be waited for. Knows nothing of what changed.

A `trio.Event` happens once. Where something happens many times, replacing the event each time loses an announcement as
soon as the order of two lines is wrong; a `Signal` counts, so whoever waits says up to which count it has looked.
"""

from __future__ import annotations

import trio

__all__ = ["Signal"]


class Signal:
    """A counter of announcements. Any number of tasks may wait.

    A waiting task takes `number` before it looks at the state, and then waits for what lies beyond it::

        seen = signal.number
        while not state_is_right():
            seen = await signal.beyond(seen)
    """

    __slots__ = ("_waiting", "number")

    def __init__(self) -> None:
        self.number = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def notify(self) -> None:
        """Something changed: counts up and wakes all that wait. Costs next to nothing while nobody does."""
        self.number += 1
        if self._waiting:
            self._waiting.unpark_all()

    async def beyond(self, number: int) -> int:
        """Waits until the count is greater than `number` and returns it. It is a checkpoint in any case."""
        if self.number > number:
            await trio.lowlevel.checkpoint()
        while self.number <= number:
            await self._waiting.park()
        return self.number
