"""The state of one QUIC stream on our side of the engine: bytes read and not taken, bytes taken and not written.

Plain bookkeeping; it calls nobody.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from punchbridge.config import KIB
from punchbridge.tasks.memory import Account
from punchbridge.transport.raw import Buffer

__all__ = ["FRAME", "INBOX", "QuicState", "Waiting"]

INBOX: Final = 256 * KIB
"""Bytes that are read ahead of the reader; the rest stays with the engine, and the peer gets no credit for it."""

FRAME: Final = 64 * KIB
"""The most that is handed to the engine at once, and so the most that one stream has waiting in front of it."""


_SMALL: Final = KIB
_TAIL: Final = 32 * KIB


@dataclass
class Waiting:
    """Bytes that wait in all outboxes of a connection."""

    bytes: int = 0


class QuicState:
    """See `streams.engine.StreamState`. `more`: the engine has bytes that did not fit. `ending`: our half ends when the
    outbox has left. `closed`: nobody reads it any more. `stalled`: its reader has left so much that more waits in the
    engine; `reserved`: the room that the others got for that."""

    __slots__ = (
        "_account",
        "_waiting",
        "buffered",
        "closed",
        "ending",
        "fin_received",
        "fin_sent",
        "id",
        "inbound",
        "inbox",
        "more",
        "moved",
        "outbox",
        "reserved",
        "reset",
        "send_window",
        "stalled",
    )

    def __init__(self, stream: int, account: Account, waiting: Waiting, *, inbound: bool, now: float) -> None:
        self.id = stream
        self._account, self._waiting = account, waiting
        self.inbound = inbound
        self.inbox: deque[Buffer] = deque()
        self.outbox: deque[bytes] = deque()
        self.buffered = 0
        self.moved = now
        self.send_window = FRAME
        self.reserved = 0
        self.stalled = False
        self.fin_sent = self.fin_received = self.reset = self.more = self.ending = self.closed = False

    @property
    def finished(self) -> bool:
        """See StreamState."""
        return self.reset or (self.fin_sent and self.fin_received)

    def put(self, data: bytes, now: float) -> None:
        """Bytes that were read from the engine."""
        if not self.buffered:
            self.moved = now
        size = len(data)
        tail = self.inbox[-1] if self.inbox else None
        # An object for each small piece would take more than its bytes: they are joined.
        if size >= _SMALL:
            self.inbox.append(data)
        elif isinstance(tail, bytearray) and len(tail) < _TAIL:
            tail += data
        else:
            self.inbox.append(data if tail is None else bytearray(data))
        self.buffered += size
        self._account.unread += size

    def take(self, limit: int) -> bytes:
        """See StreamState."""
        inbox = self.inbox
        if not inbox:
            return b""
        first = inbox[0]
        if len(first) > limit:
            inbox[0] = memoryview(first)[limit:]
            self._taken(limit)
            return bytes(memoryview(first)[:limit])
        if len(inbox) == 1:
            inbox.clear()
            self._taken(len(first))
            return bytes(first)
        return b"".join(self.take_pieces(limit))

    def take_pieces(self, limit: int) -> list[Buffer]:
        """See StreamState."""
        pieces: list[Buffer] = []
        inbox, left = self.inbox, limit
        while inbox and left:
            piece = inbox[0]
            if len(piece) > left:
                inbox[0] = memoryview(piece)[left:]
                piece = memoryview(piece)[:left]
            else:
                inbox.popleft()
            pieces.append(piece)
            left -= len(piece)
        self._taken(limit - left)
        return pieces

    def put_back(self, data: bytes) -> None:
        """See StreamState."""
        if data:
            self.inbox.appendleft(data)
            self.buffered += len(data)
            self._account.unread += len(data)

    def keep(self, data: Buffer) -> None:
        """Bytes that the engine did not take wait, and no more are taken until they have left."""
        if data:
            self.outbox.append(bytes(data))
            self._waiting.bytes += len(data)
            self.send_window = 0

    def left(self, count: int) -> None:
        """So many bytes of the first piece that waited have left."""
        piece = self.outbox.popleft()
        if count < len(piece):
            self.outbox.appendleft(piece[count:])
        self._waiting.bytes -= count

    def drop_outbox(self) -> None:
        """What waits will not be sent."""
        self._waiting.bytes -= sum(map(len, self.outbox))
        self.outbox.clear()

    def drop(self) -> None:
        """Nobody will take what was read."""
        self.inbox.clear()
        self._account.unread -= self.buffered
        self.buffered = 0

    def _taken(self, size: int) -> None:
        self.buffered -= size
        self._account.unread -= size
