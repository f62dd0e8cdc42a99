"""The streams that a peer opens on one QUIC connection: a few at once, the others when it is the connection's turn.

Each costs the agreement on a protocol and a task. All connections of a socket are read by one task, so whoever opens
streams without a pause would be served before everybody else. What waits is bounded by the streams that may be open.
Knows no stream: events go in, and come out later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import punchbridge_quic as quic

__all__ = ["Openings"]

_AT_ONCE: Final = 16
"""Streams of one turn; as many as a turn of Yamux has (`limits.muxed.turn_frames`, `limits.yamux.opening`)."""


class Openings:
    """What has to wait. `late`: the streams that the peer has opened and nobody was told of, each with its events."""

    def __init__(self, tell: Callable[[list[quic.Event]], None], begin: Callable[[], None]) -> None:
        """tell: called with events, in order, in the task of `run`. begin: has `run` started in a task; one that has
        ended takes no memory of an idle connection."""
        self.late: dict[int, list[quic.Event]] = {}
        self._tell, self._begin = tell, begin
        self._told = 0
        self._rests = False

    def waits(self, event: quic.Event) -> bool:
        """Whether a stream that was opened has to wait; it is kept here then, and told later."""
        if not self._rests and self._told < _AT_ONCE:
            self._told += 1
            return False
        self.late[event[1]] = [event]
        self._rest()
        return True

    def keeps(self, event: quic.Event) -> bool:
        """Whether an event is one of a stream that waits. What is to be read there is read when it is told."""
        events = self.late.get(event[1]) if event[0] in (quic.READABLE, quic.STOPPED) else None
        if events is not None and event[0] == quic.STOPPED:
            events.append(event)
        return events is not None

    def settled(self) -> None:
        """The events that were there are told. Who has opened streams opens no more before its next turn."""
        if self._told:
            self._rest()

    def _rest(self) -> None:
        if not self._rests:
            self._rests = True
            self._begin()

    async def run(self, turn: Callable[[], Awaitable[None]]) -> None:
        """Tells of those that wait, until there are none. turn: returns when it is this connection's turn."""
        while self._rests:
            await turn()
            numbers = list(self.late)[:_AT_ONCE]
            self._told, self._rests = 0, bool(numbers)
            if numbers:
                self._tell([event for number in numbers for event in self.late.pop(number)])
