"""What the streams of a connection ask of the engine below them, Yamux or QUIC. Declarations only.

An engine frames, keeps windows and timers, and sends by itself. It is called in the task that has something to send,
and tells what happened in the task that brought the bytes; neither side blocks.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol, TypeVar

from punchbridge.transport.raw import Buffer

__all__ = ["Queue", "StreamEvents", "StreamState", "Streams"]


class StreamState(Protocol):
    """One stream as its engine sees it. Sizes in bytes. What has a value here is set by the engine alone."""

    id: int
    inbound: bool
    buffered: int
    """What has come and was not taken yet."""
    moved: float
    """When some of it was taken, or it came while there was none; by trio's clock."""
    send_window: int
    """What the peer lets us send now."""
    fin_sent: bool
    fin_received: bool
    reset: bool

    @property
    def finished(self) -> bool:
        """Both halves have ended, or the stream was reset: the engine has forgotten it."""
        ...

    def take(self, limit: int) -> bytes:
        """At most `limit` buffered bytes, in order. The engine learns of them by `Streams.consumed`."""
        ...

    def take_pieces(self, limit: int) -> list[Buffer]:
        """As `take`, in the pieces that arrived, not copied."""
        ...

    def put_back(self, data: bytes) -> None:
        """Bytes that were taken but not used come out first again."""
        ...


S = TypeVar("S", bound=StreamState)


class Queue(Protocol):
    """What waits to leave for all streams together."""

    queued: int
    """Bytes."""
    full: int
    """So many bytes, and writers wait."""


class StreamEvents(Protocol):
    """What an engine tells. Calls may end the connection; they never block."""

    @property
    def openers(self) -> Sized:
        """Those who wait until `can_open`."""
        ...

    def readable(self, state: StreamState) -> None:
        """The stream has more bytes, or its end."""
        ...

    def writable(self, state: StreamState) -> None:
        """The stream's send window grew."""
        ...

    def was_reset(self, state: StreamState) -> None:
        """The stream was reset, by the peer or by a rule. What came before it may still be read."""
        ...

    def stopped(self, state: StreamState) -> None:
        """The peer reads no more of the stream; what it sends may still be read. Our half has ended."""
        ...

    def opened(self, state: StreamState) -> None:
        """The peer opened a stream. It counts against the backlog until `Streams.taken`."""
        ...

    def pong(self, value: int, rtt: float) -> None:
        """Our ping was answered after `rtt` seconds."""
        ...

    def may_open(self) -> None:
        """Own streams can be opened again, or never will: whoever waits is to look."""
        ...

    def dead(self) -> None:
        """The peer has answered nothing for too long."""
        ...


class Streams(Protocol[S]):
    """An engine with one connection's streams, whose states it makes itself.

    Calls send at once or queue; they never block, and never raise for what the peer did.
    """

    events: StreamEvents
    queue: Queue
    frame: int
    """The most bytes that `data` takes at once."""

    @property
    def can_open(self) -> bool:
        """The peer takes one more stream of ours."""
        ...

    def open(self) -> S:
        """A stream of ours; the peer learns of it with its first bytes. Raises ConnectionLost, LimitExceeded."""
        ...

    def taken(self, state: S) -> None:
        """An inbound stream has an owner and leaves the backlog."""
        ...

    def data(self, state: S, *parts: Buffer) -> None:
        """Sends bytes in parts, together at most the stream's window and `frame`."""
        ...

    def consumed(self, state: S) -> None:
        """Bytes were taken: credit goes back to the peer once it is worth it."""
        ...

    def finish(self, state: S) -> None:
        """Our half ends. Repeated calls send nothing."""
        ...

    def close(self, state: S) -> None:
        """Our half ends, and what the peer still sends is dropped."""
        ...

    def reset(self, state: S) -> None:
        """Both halves end at once. Repeated calls send nothing."""
        ...

    def ping(self) -> int:
        """Sends a ping; its answer is told as `pong` with this value. Raises LimitExceeded when too many are out."""
        ...

    def flush(self) -> None:
        """Sends what earlier calls have left to be sent."""
        ...

    def next_timer(self) -> float:
        """When `on_timer` has something to do, by trio's clock."""
        ...

    def on_timer(self, now: float) -> None:
        """Keepalive, round trips, and streams that lingered too long."""
        ...
