"""The parts of a node that are told when a connection comes or goes, with the connection itself.

This is wiring inside the node. The public news of the same moments are events (`punchbridge.events`), which carry text
and are meant for people and programs outside. This module starts nothing and knows no watcher by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from punchbridge.tasks.supervise import report
from punchbridge.transport.base import Connection

__all__ = ["Watcher", "Watchers"]


class Watcher(Protocol):
    """A part that follows the connections of a swarm. Both calls come in the swarm's thread and must not block."""

    def on_connected(self, connection: Connection) -> None:
        """The connection is in the table and about to run."""

    def on_disconnected(self, connection: Connection) -> None:
        """The connection has ended and is out of the table."""


class Watchers:
    """The watchers of a swarm, told in the order in which they were added."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """Adds a watcher; the value returned removes it (once or more often)."""
        self._watchers.append(watcher)

        def leave() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return leave

    def connected(self, connection: Connection) -> None:
        """Tells everybody of a connection that came. A watcher that raises is reported; the others are told."""
        for watcher in tuple(self._watchers):
            _guard(watcher, watcher.on_connected, connection)

    def disconnected(self, connection: Connection) -> None:
        """Tells everybody of a connection that went. A watcher that raises is reported; the others are told."""
        for watcher in tuple(self._watchers):
            _guard(watcher, watcher.on_disconnected, connection)


def _guard(watcher: Watcher, tell: Callable[[Connection], None], connection: Connection) -> None:
    try:
        tell(connection)
    except Exception as problem:  # noqa: BLE001 - a named supervisor: one watcher's defect is not the connection's
        report(f"the watcher {type(watcher).__name__}", problem)
