"""Holds a program's events back until the program has said who it is. Knows no event by name."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from punchbridge.events import Event

__all__ = ["Gate"]


class Gate:
    """Holds events back until the program has said who it is; then hands them on, in order, from any thread.

    most: events that are held; the oldest are dropped beyond it.
    """

    def __init__(self, forward: Callable[[Event], None], most: int) -> None:
        self._forward = forward
        self._held: deque[Event] | None = deque(maxlen=most)
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._held is not None:
                self._held.append(event)
                return
        self._forward(event)

    def open(self, first: Event) -> None:
        """Forwards `first`, then all that was held, then everything as it comes."""
        with self._lock:
            held, self._held = self._held or (), None
            self._forward(first)
            for event in held:
                self._forward(event)
