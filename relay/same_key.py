"""Two programs with one key: a relay notices when both reserve, and tells both.

A peer that reserves over another connection than before has come back, or runs twice. The earlier connection is asked:
one that does not answer is the dead end of a path or of a program. The connections of one program both answer, so the
program that is told decides: it resets a notice about itself. Who does not speak the notice protocol is let be.

Nothing here grants or ends a reservation, and no peer is refused for it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

import trio

from punchbridge.errors import NegotiationFailed
from punchbridge.identity import PeerId
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.rates import Buckets
from punchbridge.tasks.supervise import supervise
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import write_message
from punchbridge.wire.notice import NOTICE, NoticeCode, encode_notice
from punchbridge_relay.limits import HopLimits

__all__ = ["Holders"]


class _Told(Enum):
    TAKEN = auto()
    UNSPOKEN = auto()
    """The program does not know the protocol."""
    NOT = auto()
    """It was about the same program, or did not arrive."""


class Holders:
    """Over which connection each peer reserved last, and what follows when there were two.

    changed: called with a peer when `only` is another connection than before.
    """

    def __init__(self, hop: HopLimits, changed: Callable[[PeerId], None]) -> None:
        self._hop = hop
        self._changed = changed
        self._holders: dict[PeerId, Connection] = {}
        self._earlier: dict[PeerId, dict[int, Connection]] = {}
        """Those of each peer that are still to be asked; a peer is in here while a task asks them."""
        self._telling: set[int] = set()
        self._shared: set[PeerId] = set()
        self._rate = Buckets(hop.notice_burst, hop.notice_interval, hop.rate_keys)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Asks and tells until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def only(self, peer: PeerId) -> Connection | None:
        """The one connection that leads to the program which has the reservation, when the peer is known to be two
        programs; else None, and every connection of the peer does."""
        return self._holders.get(peer) if peer in self._shared else None

    def granted(self, connection: Connection) -> None:
        """The peer was granted a reservation over this connection."""
        peer = connection.peer
        if connection.id in self._telling:
            return  # the request and the notice have crossed; whoever takes the notice asks no more
        before, self._holders[peer] = self._holders.get(peer), connection
        if before is connection:
            return
        if peer in self._shared:
            self._changed(peer)
        self._earlier.get(peer, {}).pop(connection.id, None)
        if before is not None and not before.closing:
            self._ask_soon(before)

    def ended(self, connection: Connection, *, last: bool) -> bool:
        """A connection is over; last: it was the peer's last. True when no other one leads to the program that has the
        reservation, so that it ends."""
        peer = connection.peer
        orphaned = peer in self._shared and self._holders.get(peer) is connection
        if self._holders.get(peer) is connection:
            del self._holders[peer]
        if last:
            self._shared.discard(peer)
        return orphaned or last

    def _ask_soon(self, earlier: Connection) -> None:
        peer = earlier.peer
        if self._nursery is None or not self._rate.take(peer, trio.current_time()):
            return
        if peer in self._earlier:
            self._earlier[peer][earlier.id] = earlier
        elif len(self._earlier) < self._hop.notices:
            self._earlier[peer] = {earlier.id: earlier}
            self._nursery.start_soon(supervise, "asking for a second program", lambda: self._look(peer), _ignore)

    async def _look(self, peer: PeerId) -> None:
        """Asks the earlier connections of a peer, one by one, also those that are added meanwhile."""
        earlier = self._earlier[peer]
        try:
            while earlier:
                asked = earlier.pop(next(iter(earlier)))
                if await self._answers(asked) and self._holders.get(peer, asked) is not asked:
                    await self._tell_both(asked)
        finally:
            del self._earlier[peer]

    async def _answers(self, connection: Connection) -> bool:
        try:
            with trio.move_on_after(self._hop.same_key_ping):
                await connection.ping()
                return not connection.closing
        except NETWORK_FAILURES:
            pass
        return False

    async def _tell_both(self, earlier: Connection) -> None:
        peer = earlier.peer
        self._telling.add(earlier.id)
        try:
            told = await self._tell(earlier, NoticeCode.REPLACED_BY_SAME_KEY)
        finally:
            self._telling.discard(earlier.id)
        if told is _Told.TAKEN:
            self._share(peer)
        holder = self._holders.get(peer)
        if told is _Told.NOT or holder is None:
            return
        # A program that takes this notice is another one than a program that does not know it.
        if await self._tell(holder, NoticeCode.SAME_KEY_ELSEWHERE) is _Told.TAKEN:
            self._share(peer)

    def _share(self, peer: PeerId) -> None:
        if peer not in self._shared and peer in self._holders:
            self._shared.add(peer)
            self._changed(peer)

    async def _tell(self, connection: Connection, code: NoticeCode) -> _Told:
        stream: Stream | None = None
        try:
            with trio.move_on_after(self._hop.notice_timeout):
                stream = await connection.open_stream([NOTICE])
                await write_message(stream, encode_notice(code))
                if await stream.receive_some(1) == b"":
                    return _Told.TAKEN
        except NegotiationFailed:
            return _Told.UNSPOKEN
        except NETWORK_FAILURES:
            pass
        finally:
            if stream is not None:
                stream.abort()
        return _Told.NOT


def _ignore(_reason: str) -> None:
    """Nothing depends on how the asking ends."""
