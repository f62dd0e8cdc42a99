"""The byte stream below security, and the errors its readers see.

`RawStream` is what a TCP socket and a stream that carries a circuit have in common; an `InboxStream` is filled by
somebody else's reading. Knows no protocol above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from punchbridge.errors import BridgeError, ConnectionLost, NotAllowed, StreamReset
from punchbridge.reach.gauge import PathCounts

Buffer = bytes | bytearray | memoryview


class BrokenStream(StreamReset, trio.BrokenResourceError):
    """A reset stream, for callers that know our errors and for callers that know trio's."""


class StruckOut(NotAllowed, BrokenStream):
    """A stream that the peer has reset because it does not admit us any more."""


class BrokenConnection(ConnectionLost, trio.BrokenResourceError):
    """A dead connection, for callers that know our errors and for callers that know trio's."""


class ShutOut(NotAllowed, BrokenConnection):
    """A connection that the peer has closed because it does not admit us."""


class ByteStream(Protocol):
    """An ordered byte stream in both directions.

    One task may read and one may write at a time. After `aclose` or `abort` calls raise trio.ClosedResourceError.
    """

    async def receive_some(self, max_bytes: int = 262144) -> bytes:
        """At most `max_bytes`; b"" is the clean end. Raises StreamReset or ConnectionLost. Cancelling loses nothing."""
        ...

    def send_nowait(self, data: Buffer) -> int:
        """Hands over what fits now and returns how many bytes that is; 0 means it would block."""
        ...

    async def send_all(self, data: Buffer) -> None:
        """Sends everything. Cancelling leaves an unknown part of it sent."""
        ...

    async def send_eof(self) -> None:
        """Ends our half; the peer reads b""."""
        ...

    async def aclose(self) -> None:
        """Closes gracefully; repeated calls do nothing."""
        ...

    def abort(self) -> None:
        """Closes at once: TCP plainly, a stream with a reset; repeated calls do nothing."""
        ...


class RawStream(ByteStream, Protocol):
    """A byte stream below security: a TCP socket, or a muxed stream that carries a circuit."""

    @property
    def reads_to_end(self) -> bool:
        """Closing it with bytes unread loses what was sent before: end our half, and read on until the peer's end."""
        ...

    def notify(self, arrived: Callable[[], None] | None) -> bool:
        """Has `arrived` called in the task that brings bytes, the end or a failure; None ends that.

        False when nobody but a caller of `receive_some` brings bytes: then nothing is called. `arrived` must neither
        block nor raise; while it is set, nobody may wait in `receive_some`.
        """
        ...

    def receive_nowait(self, max_bytes: int = 262144) -> bytes | None:
        """What is there now, b"" at the end, None when a read would wait. Raises as `receive_some`."""
        ...

    def discard(self) -> None:
        """Closes it when the peer is silent: what is queued is dropped, and nothing of it is kept anywhere."""
        ...

    def prove(self) -> None:
        """The peer was heard on it. A socket of a punch drops all at its end until then, see `discard`."""
        ...

    @property
    def counts(self) -> Callable[[], PathCounts | None] | None:
        """Tells what it has carried and lost on a path of its own; None where it has none."""
        ...


class InboxStream(ByteStream, Protocol):
    """A byte stream whose bytes arrive through another task's read: a stream of a connection, or a session."""

    on_readable: Callable[[], None] | None
    """Called in the task that brought bytes, the end or a failure. It must neither block nor raise. While it is set,
    nobody may wait in `receive_some`."""

    @property
    def keeps(self) -> bool:
        """What is sent is kept for a while: as it is when immutable, else copied."""
        ...

    @property
    def room(self) -> int:
        """Bytes that `send_nowait` would take now; about so many, of a stream that does not keep them."""
        ...

    async def wait_send_all_might_not_block(self) -> None:
        """Returns once the stream takes more bytes. Raises as `send_all`."""
        ...

    @property
    def failure(self) -> BridgeError | None:
        """Why the stream ended, if it was not closed here or by the peer's end; bytes before it may still be there."""
        ...

    def receive_parts(self, max_bytes: int) -> list[Buffer] | None:
        """What is there, in the pieces that arrived; [] at the end, None when nothing has come yet. Raises as
        `receive_some`. With 0 nothing is taken: [] tells that something has come."""
        ...
