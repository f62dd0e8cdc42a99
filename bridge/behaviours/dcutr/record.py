"""What is known of the punches with one peer, in one record; and the records of all peers, bounded.

Plain values. `punchbridge.reach.punching` decides, the service performs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from punchbridge.behaviours.dcutr.attempts import Attempt
from punchbridge.identity import PeerId
from punchbridge.reach.dials import RunDials
from punchbridge.reach.punching import Punching, Run
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Connection

__all__ = ["Active", "PeerPunch", "Records"]

_ARRIVALS: Final = 8
"""Connections of one peer that wait for the punch which they belong to; it takes each at once."""


@dataclass(eq=False)
class Active:
    """A run of ours, or one exchange of the peer's that is answered, while a task performs it."""

    run: Run
    spent: RunDials
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    direct: Connection | None = None
    """A direct connection that appeared meanwhile by other means."""
    attempt: Attempt | None = None
    """The attempt under way."""
    overtaken: bool = False
    """The peer has begun an exchange meanwhile: the next one if we answer, its own if we had opened this one."""


@dataclass(eq=False)
class PeerPunch:
    """The record of one peer."""

    peer: PeerId
    punching: Punching
    changed: Signal = field(default_factory=Signal)
    """Announced when anything that the decisions depend on has changed."""
    active: Active | None = None
    driven: bool = False
    """A task follows the decisions: it does as long as the peer has a circuit to us."""
    waiting: int = 0
    """Tasks that wait for a direct connection."""
    circuits: set[int] = field(default_factory=set)
    """The relayed connections with the peer."""
    direct: int | None = None
    """The direct connection that was told as an upgrade."""
    making: set[Hashable] = field(default_factory=set)
    """The connections that a punch of ours is just making: local and remote address of a TCP socket, whose connection
    is not there yet; the number of a QUIC connection, since several may have the same addresses."""
    arrivals: list[Callable[[Connection], bool]] = field(default_factory=list)
    """Each takes a connection of the peer's for a punch of ours, or says that it is none."""
    seen: set[str] = field(default_factory=set)
    """The IPs of its direct connections so far."""
    spent: tuple[int, RunDials] = field(default_factory=lambda: (-1, RunDials()))
    """The id of the last run, and what it has dialled."""

    def dials_of(self, run: int) -> RunDials:
        """What the run with this id has dialled so far; a run of ours and the answers to the peer's have each an id."""
        if self.spent[0] != run:
            self.spent = run, RunDials(self.seen)
        return self.spent[1]

    def takes(self, connection: Connection) -> bool:
        """Whether a direct connection of the peer belongs to a punch of ours; it is handed over then."""
        keys = {connection.id, (str(connection.local), str(connection.remote))}
        return not keys.isdisjoint(self.making) or any(take(connection) for take in tuple(self.arrivals))

    @property
    def idle(self) -> bool:
        """Nothing is under way with the peer; what the record holds is memory."""
        busy = self.active is not None or self.driven or self.waiting or self.making or self.arrivals
        return not (busy or self.circuits or self.direct is not None)


class Records:
    """One record a peer. Memory of peers with which nothing is under way is bounded by `most`."""

    def __init__(self, make: Callable[[PeerId], Punching], most: int) -> None:
        self._make = make
        self._most = most
        self._records: dict[PeerId, PeerPunch] = {}

    def __iter__(self) -> Iterator[PeerPunch]:
        return iter(tuple(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def find(self, peer: PeerId) -> PeerPunch | None:
        """The peer's record; None when there is nothing to remember."""
        return self._records.get(peer)

    def of(self, peer: PeerId) -> PeerPunch:
        """The peer's record; a fresh one when there was none."""
        record = self._records.get(peer)
        if record is None:
            self._bound()
            record = self._records[peer] = PeerPunch(peer, self._make(peer))
        return record

    @contextmanager
    def making(self, peer: PeerId, key: Hashable) -> Iterator[None]:
        """A punch makes a connection, which is not to be taken for somebody's dial. `key`: see `PeerPunch.making`."""
        record = self.of(peer)
        record.making.add(key)
        try:
            yield
        finally:
            record.making.discard(key)

    @contextmanager
    def arriving(
        self, peer: PeerId, matches: Callable[[Connection], bool]
    ) -> Iterator[trio.MemoryReceiveChannel[Connection]]:
        """While open, matching direct connections with the peer that others have made come out of the channel: they
        are a punch's. What finds the channel full counts as taken."""
        send, receive = trio.open_memory_channel[Connection](_ARRIVALS)

        def take(connection: Connection) -> bool:
            if not matches(connection):
                return False
            with suppress(trio.WouldBlock):
                send.send_nowait(connection)
            return True

        record = self.of(peer)
        record.arrivals.append(take)
        try:
            yield receive
        finally:
            record.arrivals.remove(take)
            send.close()
            receive.close()

    def _bound(self) -> None:
        """Makes room for one. Pauses that are not over are forgotten last: peer ids cost nothing, and a crowd of them
        must not end the pause of a peer whose punches fail."""
        if len(self._records) < self._most:
            return
        now = trio.current_time()
        idle = [one for one in self._records.values() if one.idle]
        gone = next((one for one in idle if not one.punching.holds(now)), idle[-1] if idle else None)
        if gone is not None:
            del self._records[gone.peer]
