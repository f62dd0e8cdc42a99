"""What relays tell about our key: another program with it has taken our reservation over, or had it before us.

A relay tells it to each connection over which a reservation was asked for, and does not know which of them are of one
program. We do: a notice on another connection than the one over which that relay was asked last is about ourselves.
Only relays at which a reservation is kept are heard. What a relay says about our key is believed no further than that:
at worst a reservation ends, which the relay could end by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import trio

from punchbridge.behaviours.relay_client.keeper import ReservationKeeper
from punchbridge.events import ErrorEvent, KeyShared
from punchbridge.identity import PeerId, peer_text
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.rates import Buckets
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message
from punchbridge.wire.notice import MAX_NOTICE, NOTICE, NoticeCode, decode_notice

__all__ = ["Notices"]


class Notices:
    """The notice protocol of one relay client. keepers: those at work now. asked: as `ReservationKeeper` has it."""

    def __init__(
        self, swarm: Swarm, keepers: Callable[[], Sequence[ReservationKeeper]], asked: Mapping[PeerId, int]
    ) -> None:
        self._swarm = swarm
        self._limits = swarm.config.limits.relay_client
        self._keepers = keepers
        self._asked = asked
        limits = self._limits
        self._rate = Buckets(limits.notice_burst, limits.notice_interval, limits.relays)

    async def serve(self) -> None:
        """Takes notices from now on, until the swarm ends."""
        await self._swarm.handle(
            NOTICE,
            self._take,
            max_streams=self._limits.notice_streams,
            max_per_peer=self._limits.notice_streams_per_relay,
            relayed=False,
            audience=self._kept,
        )

    def _kept(self, connection: Connection) -> bool:
        """The audience: relays at which a reservation is kept, whatever has become of it."""
        return any(connection.peer in (keeper.peer, keeper.asking) for keeper in self._keepers())

    async def _take(self, stream: Stream) -> None:
        with trio.fail_after(self._limits.notice_timeout):
            code = decode_notice(await read_message(stream, MAX_NOTICE))
            await self._until_answered(stream.connection.peer)
            if code is None or not self._note(stream.connection, code):
                stream.reset()
                return
            await stream.aclose()

    async def _until_answered(self, relay: PeerId) -> None:
        """Waits while an answer of the relay is awaited: the notice may be about that one. And once the relay knows
        that its notice was taken, no request of ours that it has not seen is on its way."""
        while asking := next((one for one in self._keepers() if one.asking == relay), None):
            await asking.until_answered(relay)

    def _note(self, connection: Connection, code: NoticeCode) -> bool:
        """False when it is about this program itself, or about no reservation of ours."""
        relay = connection.peer
        holding = [one for one in self._keepers() if one.peer == relay and one.reservation is not None]
        if not holding or self._asked.get(relay) != connection.id:
            return False
        if code is NoticeCode.SAME_KEY_ELSEWHERE:
            if self._rate.take(relay, trio.current_time()):
                self._swarm.events.emit(KeyShared(relay=peer_text(relay), code=code.value))
            return True
        self._swarm.events.emit(KeyShared(relay=peer_text(relay), code=code.value))
        for keeper in holding:
            keeper.replaced()
        problem = holding[0].error
        if problem is not None:
            self._swarm.events.emit(ErrorEvent(code=problem.code, message=str(problem)))
        return True
