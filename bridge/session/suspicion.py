"""When one path has gone silent, the others are asked: a NAT that lost its state kills them all without a word.

Pings connections and closes those that do not answer, so that what depends on them (a relay's reservation, another
session) starts anew now and not when the keepalive notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from punchbridge.limits.session import SESSION_SILENCE, SESSION_STALL
from punchbridge.session.carrier import BROKEN

if TYPE_CHECKING:
    from punchbridge.swarm.swarm import Swarm
    from punchbridge.transport.base import Connection

__all__ = ["Suspicion", "verify"]


async def verify(connection: Connection) -> None:
    """Returns when the connection answered or ended; closes it when it does neither in time."""
    late = True
    while late:
        with trio.move_on_after(max(SESSION_SILENCE, 3 * (connection.rtt or 0.0))) as patience:
            try:
                await connection.ping()
            except BROKEN:
                pass
            return
        # It was this process that was held up; the answer may lie unread.
        late = trio.current_time() - patience.deadline > SESSION_STALL
    connection.abort("SILENT")


class Suspicion:
    """Asks all connections of a swarm, circuits too, one round at a time."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._asking = False

    async def ask(self) -> None:
        """One round; returns at once while another is under way."""
        if self._asking:
            return
        self._asking = True
        try:
            async with trio.open_nursery() as nursery:
                for connection in self._swarm.connections():
                    nursery.start_soon(verify, connection)
        finally:
            self._asking = False
