"""The dialler's hold on one logical peer, over one stream after another.

`reopen` makes before it breaks: the next stream shakes hands first, then the old one is retired on both sides, and
what was under way is announced and requested again. Counters and inventories are the record's and go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .errors import DisconnectReason, Ending, HandshakeError, HandshakeFailure
from .peer import PeerRecord
from .session import PeerSession
from .transport import PeerInfo

Dial = Callable[[Any, PeerInfo], Awaitable[PeerSession]]


class PeerLink:
    """Made by `Node.connect`. One caller at a time opens or re-opens; others wait."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._session: PeerSession | None = None
        self._changing = asyncio.Lock()

    @property
    def record(self) -> PeerRecord:
        """What is known of the peer: key, user agent, round-trip time, counters."""
        assert self._session is not None
        assert self._session.record is not None
        return self._session.record

    @property
    def path(self) -> str:
        """The path below the present stream."""
        return self.record.info.path

    @property
    def ending(self) -> Ending | None:
        """How the present stream ended, None while it runs."""
        assert self._session is not None
        return self._session.connection.ending

    async def open(self, channel: Any, info: PeerInfo) -> None:
        """First stream. See Node.connect, which calls it."""
        async with self._changing:
            self._session = await self._dial(channel, info)

    async def reopen(self, channel: Any, info: PeerInfo) -> None:
        """Move to another channel, or open anew over the same one.

        Raises HandshakeError and leaves the present stream as it was: also when another peer answered
        (failure POLICY). Cancellation likewise. The old channel is the caller's to close once
        `limits.retire_timeout` is over, or later.
        """
        async with self._changing:
            successor = await self._dial(channel, info)
            assert successor.record is not None
            if self._session is not None and successor.record is not self.record:
                reason = f"expected {self.record.label}, {successor.record.label} answered"
                successor.connection.end(Ending(DisconnectReason.LOCAL_CLOSE, reason))
                raise HandshakeError(HandshakeFailure.POLICY, reason)
            self._session = successor

    async def closed(self) -> Ending:
        """Wait until the peer has no stream any more; being replaced is no end. Returns how the last one ended."""
        record, ending = self.record, self.ending
        while (connection := record.connection) is not None:
            ending = await connection.wait_over()
            if record.connection is connection:
                break
        assert ending is not None
        return ending

    async def close(self) -> None:
        """End the present stream. Returns at once; `closed` waits for it."""
        if self._session is not None:
            self._session.connection.end(Ending(DisconnectReason.LOCAL_CLOSE, "closed by this side"))
