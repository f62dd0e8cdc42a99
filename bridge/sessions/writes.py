"""What an end has to send, packed into writes: each fills at most one frame of the muxer below, in parts not joined.

Each write costs an encrypted message, a system call and a waking at the peer, so small frames share one; the parts
are joined once, where they are encrypted.
"""

from __future__ import annotations

from punchbridge.sessions.frames import MAX_FRAME

__all__ = ["Write", "Writes"]

Part = bytes | memoryview
Write = list[Part]


class Writes:
    """Frames in order, grouped. `size`: bytes of all. A write holds `most` bytes, or one larger frame."""

    def __init__(self, most: int = MAX_FRAME) -> None:
        self.packed: list[Write] = []
        self.size = 0
        self._left, self._most = 0, most

    def add(self, size: int, *parts: Part) -> None:
        """One frame of `size` bytes in all, MAX_FRAME at most."""
        if size > self._left:
            self.packed.append([])
            self._left = self._most
        self.packed[-1] += parts
        self._left -= size
        self.size += size
