"""What was read from a UDP socket and waits to be handled: one read of each source after the other.

The kernel hands datagrams over in the order in which they came, so whoever sends most would be handled first, and all
others behind it. Here each source has a queue of its own; what it sends beyond its part of the room is lost, as it may
be on any path. Knows no socket, no connection and no packet.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from punchbridge.transport.quic.sockets import Datagrams

__all__ = ["Arrivals", "cost"]

_LEAST: Final = 1024
"""What a datagram counts for at least: a small one takes the engine as long as so many bytes of a large one."""


def cost(got: Datagrams) -> int:
    """What handling a read costs, in bytes of large datagrams."""
    size = len(got.data)
    return max(size, _LEAST * (-(-size // got.segment) if got.segment else 1))


class _Source:
    """The reads of one source that wait, and what they cost."""

    __slots__ = ("cost", "reads")

    def __init__(self) -> None:
        self.reads: deque[Datagrams] = deque()
        self.cost = 0


class Arrivals:
    """`cost`: what handling all that waits costs."""

    def __init__(self, room: int) -> None:
        """room: what may wait, in cost. Half of it is anybody's; the other half is for sources that have less than an
        equal part of the first."""
        self._room = room
        self._sources: dict[tuple[str, int], _Source] = {}
        self.cost = 0

    @property
    def sources(self) -> int:
        """How many sources have something that waits."""
        return len(self._sources)

    def put(self, got: Datagrams) -> bool:
        """A read, behind those of its source. False when there is no room for it, and it is dropped."""
        key, more = (got.host, got.port), cost(got)
        source = self._sources.get(key)
        if self.cost + more > self._room // 2:
            mine, others = (source.cost, 0) if source else (0, 1)
            part = self._room // 2 // (len(self._sources) + others)
            if mine + more > part or self.cost + more > self._room:
                return False
        if source is None:
            source = self._sources[key] = _Source()
        source.reads.append(got)
        source.cost += more
        self.cost += more
        return True

    def take(self) -> Datagrams | None:
        """The oldest read of the source whose turn it is; None when nothing waits."""
        if not self._sources:
            return None
        key = next(iter(self._sources))
        source = self._sources.pop(key)
        got = source.reads.popleft()
        less = cost(got)
        source.cost -= less
        self.cost -= less
        if source.reads:
            self._sources[key] = source  # behind all others
        return got
