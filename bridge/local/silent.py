"""Callers who have said nothing yet and to whom a server listens all the same: so many at once, and who goes first.

Decides and cancels; it opens no connection and reads no byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from punchbridge.identity import PeerId
from punchbridge.local.pump import Pumped

__all__ = ["Silent"]


@dataclass(eq=False)
class _Caller:
    peer: PeerId
    outcome: Pumped
    scope: trio.CancelScope


class Silent:
    """The places of one server. A caller who has said something holds none any more. `gone`: told of each peer of which
    a call had to go."""

    def __init__(self, most: int, gone: Callable[[PeerId], None]) -> None:
        self._most = most
        self._gone = gone
        self._callers: dict[_Caller, None] = {}

    @contextmanager
    def place(self, peer: PeerId | None) -> Iterator[Pumped]:
        """Runs the block, whose pump counts in the value; None: without a place. The block is cancelled when it has to
        go, and the statement ends then like any other."""
        caller = None if peer is None else _Caller(peer, Pumped(), trio.CancelScope())
        if caller is None:
            yield Pumped()
            return
        self._make_room()
        self._callers[caller] = None
        try:
            with caller.scope:
                yield caller.outcome
        finally:
            self._callers.pop(caller, None)

    def _make_room(self) -> None:
        if len(self._callers) < self._most:
            return
        for caller in [one for one in self._callers if one.outcome.received]:
            del self._callers[caller]
        if len(self._callers) >= self._most:
            peers = Counter(one.peer for one in self._callers)
            fullest = max(peers, key=lambda one: peers[one])
            oldest = next(one for one in self._callers if one.peer == fullest)
            del self._callers[oldest]
            oldest.scope.cancel()
            self._gone(oldest.peer)
