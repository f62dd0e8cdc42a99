"""What the bridge has py-libp2p write is written whole, or costs the connection.

py-libp2p 0.8 encrypts a frame and waits for the socket then. A task that is cancelled in between has moved the cipher
on by a frame that never leaves, and the peer can read nothing that comes after it: the reset of one stream would cost
the host's connection. The host's own writes are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import trio
from libp2p.io.exceptions import ConnectionClosedError

__all__ = ["Writes", "for_the_bridge"]

WRITE: Final = 30.0
"""Seconds for one frame of at most 64 KiB; a connection that takes none for so long is given up."""
LAST_WRITE: Final = 1.0
"""Seconds for one frame once the bridge is leaving."""

_ours: ContextVar[bool] = ContextVar("_ours", default=False)


@contextmanager
def for_the_bridge() -> Iterator[None]:
    """What the task has py-libp2p write within the block, it writes for the bridge."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


class Writes:
    """Stands in for `write` of a connection's secure session until `leave`; a connection without one needs nothing."""

    def __init__(self, muxed: Any) -> None:
        self._session: Any = getattr(muxed, "secured_conn", None)
        self._most = WRITE
        self._under_way: set[trio.CancelScope] = set()
        if self._session is not None:
            self._write = self._session.write
            self._session.write = self.write

    async def write(self, data: bytes) -> None:
        """As the session's own. For the bridge: cancelling waits for the frame to be written. Raises
        ConnectionClosedError, with the connection closed, when the frame is not written in time."""
        if not _ours.get():
            await self._write(data)
            return
        with trio.CancelScope(deadline=trio.current_time() + self._most, shield=True) as scope:
            self._under_way.add(scope)
            try:
                await self._write(data)
            finally:
                self._under_way.discard(scope)
        if scope.cancelled_caught:
            with trio.CancelScope(shield=True):
                await self._session.close()  # it waits for nothing: the socket is closed
            raise ConnectionClosedError(f"no frame could be written for {self._most:g} s")

    def hurry(self) -> None:
        """The bridge is leaving: it waits no longer than LAST_WRITE for a frame."""
        self._most = LAST_WRITE
        for scope in self._under_way:
            scope.deadline = min(scope.deadline, trio.current_time() + LAST_WRITE)

    def leave(self) -> None:
        """Puts the session's own `write` back."""
        if self._session is not None and vars(self._session).get("write") == self.write:
            del self._session.write
