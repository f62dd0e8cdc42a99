"""The memory that the buffers of many sessions share: how far they may grow together beyond the least of each."""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """Bytes. What is taken is given back by whoever took it."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, wanted: int) -> int:
        """As much of `wanted` as is left."""
        taken = min(wanted, self.left)
        self.left -= taken
        return taken

    def give_back(self, taken: int) -> None:
        self.left += taken
