"""How close this process is to its limit of open files, told by the number of a file that was just opened.

The kernel gives out the lowest number that is free. So a number near the limit says that the numbers below it are
taken, whoever took them, and nobody has to count.
"""

from __future__ import annotations

import os
import resource

__all__ = ["Spare", "room_above"]


def room_above(number: int) -> int | None:
    """How many more files can be opened at least, when `number` is the newest; None without a limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(0, soft - 1 - number)


class Spare:
    """A file that is held so that there is one to give up when no other can be opened."""

    def __init__(self) -> None:
        self._number: int | None = None

    def hold(self) -> None:
        """Opens it, where that is possible now. Repeated calls do nothing."""
        if self._number is None:
            try:
                self._number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass

    def give_up(self) -> bool:
        """Closes it. False when it is not held."""
        number, self._number = self._number, None
        if number is None:
            return False
        os.close(number)
        return True
