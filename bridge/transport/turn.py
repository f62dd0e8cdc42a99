"""One direction of a stream: one task at a time may use it, a second is refused rather than queued.

What trio asks of its streams (trio.abc.SendStream, ReceiveStream). Knows no stream and wakes nobody.
"""

from __future__ import annotations

from types import TracebackType

import trio

__all__ = ["Turn"]


class Turn:
    """`with turn:` around the whole operation; raises trio.BusyResourceError with these words while another has it."""

    __slots__ = ("_taken", "_words")

    def __init__(self, words: str) -> None:
        self._words = words
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(self._words)
        self._taken = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken = False
