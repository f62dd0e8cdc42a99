"""The state of one Yamux stream: both windows, both halves, and the bytes not yet read.

Plain bookkeeping for the session; sends nothing itself and knows no other stream.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from punchbridge.tasks.memory import Account
from punchbridge.yamux.frames import INITIAL_WINDOW

_SMALL = 1024
_TAIL = 32 * 1024

_WINDOW_SPAN: Final = 0.02
"""Seconds over which the rate of a stream is taken, at least: a reader that had to wait for its turn on the processor
then reads a whole window at once, which says nothing about the path."""

_RTT_LEAST: Final = 0.002
"""Shorter round trips count as this for the window growth: below it the two processes' turns on the processor decide,
and a stream whose window follows a loopback's 60 µs stands still whenever the reader has to wait for its turn."""


class StreamState:
    """One stream as the session sees it. Windows and `buffered` in bytes; `read`: bytes credited since `epoch`;
    `account`: where unread bytes are counted; `moved`: when bytes were taken, or came while there were none."""

    __slots__ = (
        "account",
        "acked",
        "buffered",
        "closed",
        "discarded",
        "epoch",
        "fin_received",
        "fin_sent",
        "id",
        "inbound",
        "inbox",
        "max_window",
        "moved",
        "pending_flags",
        "read",
        "receive_window",
        "reset",
        "send_window",
        "taken",
    )

    def __init__(self, stream_id: int, account: Account, *, inbound: bool, flags: int, now: float) -> None:
        self.id = stream_id
        self.account = account
        self.inbound = inbound
        self.pending_flags = flags
        self.send_window = INITIAL_WINDOW
        self.receive_window = INITIAL_WINDOW
        self.max_window = INITIAL_WINDOW
        self.inbox: deque[bytes | bytearray | memoryview] = deque()
        self.buffered = 0
        self.epoch = self.moved = now
        self.read = 0
        self.acked = inbound
        self.taken = not inbound
        self.fin_sent = False
        self.fin_received = False
        self.reset = False
        self.closed = False
        self.discarded = 0

    @property
    def finished(self) -> bool:
        """Both halves have ended, or the stream was reset: the session has forgotten it."""
        return self.reset or (self.fin_sent and self.fin_received)

    def outgrows(self, credit: int, rtt: float | None, now: float) -> bool:
        """Whether the reader takes half a window in two round trips; `credit`: bytes read that now go back.

        The lowest round trip counts: one measured behind our own bulk would let the window grow into a queue, which
        delays every other stream; so would a rate taken while a reader catches up after a pause.
        """
        self.read += credit
        span = now - self.epoch
        if rtt is None or span < _WINDOW_SPAN:
            return False
        read, self.read, self.epoch = self.read, 0, now
        return read * 4 * max(rtt, _RTT_LEAST) > self.max_window * span

    def put(self, payload: memoryview, whole: int) -> None:
        """Keeps a payload cut out of a buffer of `whole` bytes.

        A slice keeps its whole buffer alive, and each piece costs an object: small pieces are copied together, so
        that what a peer can make us hold stays near the window it was granted.
        """
        size = len(payload)
        self.buffered += size
        self.account.unread += size
        if size * 2 >= whole:
            self.inbox.append(payload)
        elif size >= _SMALL:
            self.inbox.append(bytes(payload))
        else:
            tail = self.inbox[-1] if self.inbox else None
            if isinstance(tail, bytearray) and len(tail) < _TAIL:
                tail += payload
            else:
                self.inbox.append(bytearray(payload))

    def take(self, limit: int) -> bytes:
        """At most `limit` buffered bytes, in order."""
        inbox = self.inbox
        if not inbox:
            return b""
        first = inbox[0]
        size = len(first)
        if size > limit:
            inbox[0] = memoryview(first)[limit:]
            self.buffered -= limit
            self.account.unread -= limit
            return bytes(first[:limit])
        if len(inbox) == 1:
            inbox.clear()
            self.buffered -= size
            self.account.unread -= size
            return bytes(first)
        pieces = [inbox.popleft()]
        while inbox and size + len(inbox[0]) <= limit:
            piece = inbox.popleft()
            size += len(piece)
            pieces.append(piece)
        if inbox and size < limit:
            rest = limit - size
            piece = inbox[0]
            pieces.append(piece[:rest])
            inbox[0] = memoryview(piece)[rest:]
            size = limit
        self.buffered -= size
        self.account.unread -= size
        return b"".join(pieces)

    def take_pieces(self, limit: int) -> list[bytes | bytearray | memoryview]:
        """As `take`, in the pieces that are kept, not copied."""
        inbox, pieces, left = self.inbox, [], limit
        while inbox and left > 0:
            piece = inbox.popleft()
            if len(piece) > left:
                view = memoryview(piece)
                inbox.appendleft(view[left:])
                piece = view[:left]
            pieces.append(piece)
            left -= len(piece)
        self.buffered -= limit - left
        self.account.unread -= limit - left
        return pieces

    def put_back(self, data: bytes) -> None:
        """Bytes taken but not used come out first again. They were consumed for the window already."""
        if data:
            self.inbox.appendleft(bytes(data))
            self.buffered += len(data)
            self.account.unread += len(data)

    def drop(self) -> None:
        """Forgets what was not read."""
        self.inbox.clear()
        self.account.unread -= self.buffered
        self.buffered = 0
