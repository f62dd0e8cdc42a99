"""When a session's path has gone silent, the other connections are asked: a NAT that lost its state kills them all.

What does not answer is closed, so that what depends on it (a relay's reservation, another session) starts anew now and
not when the keepalive notices. One peer's silence alone closes nothing of other peers: their connections are closed
only when no connection at all answers, and a peer whose silence was its own alone is not believed again for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from punchbridge.identity import PeerId
from punchbridge.session.carrier import BROKEN

if TYPE_CHECKING:
    from punchbridge.config import Limits
    from punchbridge.swarm.swarm import Swarm
    from punchbridge.transport.base import Connection

__all__ = ["SilenceCheck"]


class SilenceCheck:
    """Asks all connections of a swarm, circuits too, one round at a time."""

    def __init__(self, swarm: Swarm, limits: Limits) -> None:
        self._swarm = swarm
        self._limits = limits.paths
        self._least = limits.sessions.silence
        self._stall = limits.sessions.stall
        self._asking = False
        self._watched: set[int] = set()
        self._own: set[PeerId] = set()
        """Peers whose own connections are being asked."""
        self._disbelieved: OrderedDict[PeerId, tuple[float, float]] = OrderedDict()
        """Peers whose silence was their own alone: until when it counts for nothing, and the pause that led there."""

    async def verify(self, connection: Connection) -> None:
        """Returns when the connection answered or ended; closes it when it does neither in time. Cancelling leaves
        it as it is."""
        if not await self._answers(connection, 1.0):
            connection.abort("SILENT")

    async def watch(self, connection: Connection) -> None:
        """Verifies it again and again until it has ended, or carries something again and its users notice what becomes
        of it; returns at once while somebody else does. Cancelling leaves it as it is."""
        if connection.id in self._watched:
            return
        self._watched.add(connection.id)
        try:
            while not connection.closed.is_set():
                with trio.move_on_after(self._limits.watch):
                    await connection.closed.wait()
                if connection.streams:
                    return
                await self.verify(connection)
        finally:
            self._watched.discard(connection.id)

    async def ask(self, peer: PeerId) -> None:
        """One round because of a silent session with `peer`; returns at once while another is under way. While the peer
        is not believed only its own connections are asked. Cancelling leaves every connection as it is."""
        if self._asking:
            return
        if trio.current_time() < self._disbelieved.get(peer, (0.0, 0.0))[0]:
            if peer not in self._own:
                self._own.add(peer)
                try:
                    await self._round_of(peer)
                finally:
                    self._own.discard(peer)
            return
        self._asking = True
        try:
            await self._round(peer)
        finally:
            self._asking = False

    async def _round(self, peer: PeerId) -> None:
        # One that has ended answers nothing and says nothing of the network.
        asked = [one for one in self._swarm.connections() if not one.closed.is_set()]
        silent = await self._silent(asked, 1.0)
        if len(silent) == len(asked):
            # Nobody answers. A moment more tells a network that is gone from one that has a hiccup.
            silent = await self._silent(asked, 0.5)
        alone = any(not one.closed.is_set() for one in asked if one not in silent)
        for connection in silent:
            if connection.peer == peer or not alone:
                connection.abort("SILENT")
        if alone or all(one.peer == peer for one in asked):
            # Where nobody else is connected, its silence says nothing of the network either.
            self._disbelieve(peer)
        else:
            self._disbelieved.clear()

    async def _round_of(self, peer: PeerId) -> None:
        """Asks the peer's own connections, with a moment more for those that do not answer at once: its last silence
        said nothing of the others, but one of these may be dead now, and sessions would be sent over it again."""
        own = [one for one in self._swarm.connections(peer) if not one.closed.is_set()]
        for connection in await self._silent(await self._silent(own, 1.0), 0.5):
            connection.abort("SILENT")

    async def _answers(self, connection: Connection, share: float) -> bool:
        """Whether the connection answers a ping, or ends, within `share` of what a silent carrier is given."""
        while True:
            with trio.move_on_after(share * max(self._least, 3 * (connection.rtt or 0.0))) as patience:
                try:
                    await connection.ping()
                except BROKEN:
                    pass
                return True
            # It may have been this process that was held up; the answer may lie unread then.
            if trio.current_time() - patience.deadline <= self._stall:
                return False

    async def _silent(self, connections: tuple[Connection, ...] | list[Connection], share: float) -> list[Connection]:
        """Those that do not answer in time; all are asked at once."""
        found: list[Connection] = []

        async def ask(connection: Connection) -> None:
            if not await self._answers(connection, share):
                found.append(connection)

        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(ask, connection)
        return found

    def _disbelieve(self, peer: PeerId) -> None:
        now = trio.current_time()
        until, pause = self._disbelieved.pop(peer, (0.0, 0.0))
        # A peer that has kept still for as long as its last pause begins anew.
        limits = self._limits
        again = pause and now - until <= pause
        pause = min(2 * pause, limits.silence_pause_most) if again else limits.silence_pause
        self._disbelieved[peer] = (now + pause, pause)
        if len(self._disbelieved) > limits.silent_peers:
            self._disbelieved.popitem(last=False)
