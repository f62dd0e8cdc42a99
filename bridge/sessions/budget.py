"""The memory that the buffers of many sessions share: what they may hold together beyond the floor of each.

A budget may be a share of another one, so that whoever uses up the share leaves the rest to others.
"""

from __future__ import annotations

__all__ = ["Budget"]


_FIRST = 16
"""One buffer takes no more than this part of what is left when it is made: those that come later find something too."""


class Budget:
    """Bytes. What is taken is given back by whoever took it. of: the budget that this one is a share of."""

    def __init__(self, size: int, of: Budget | None = None) -> None:
        self.size = size
        self.left = size
        self._of = of

    def take(self, wanted: int) -> int:
        """As much of `wanted` as is left."""
        taken = min(wanted, self.left)
        if self._of is not None:
            taken = self._of.take(taken)
        self.left -= taken
        return taken

    def first(self, floor: int, least: int) -> int:
        """The size that a buffer begins with: `least` while there is plenty, and never less than `floor`."""
        return floor + self.take(min(least - floor, self.left // _FIRST))

    def give_back(self, taken: int) -> None:
        self.left += taken
        if self._of is not None:
            self._of.give_back(taken)
