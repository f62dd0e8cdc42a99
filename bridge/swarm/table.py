"""The connection table: who is connected, who may connect, and which connection is best. Pure decisions.

It does no I/O, reads no clock and starts nothing; the pool carries out what it answers. Members are anything with
the few attributes of `Listed`, in practice `Connection`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from punchbridge.addresses import address_group
from punchbridge.config import SwarmLimits
from punchbridge.events import Path
from punchbridge.identity import PeerId

__all__ = ["Admission", "ConnectionTable", "Listed", "Refusal", "Ticket"]


class Refusal(StrEnum):
    """Which bound of `SwarmLimits` turned a socket or connection away; the counters are kept under these names."""

    TOTAL = "connections"
    PER_ADDRESS = "connections_per_address"
    HALF_OPEN = "half_open"
    PER_PEER = "connections_per_peer"


class Listed(Protocol):
    """What the table needs to know of a connection."""

    @property
    def id(self) -> int: ...
    @property
    def peer(self) -> PeerId: ...
    @property
    def path(self) -> Path: ...
    @property
    def streams(self) -> int: ...


C = TypeVar("C", bound=Listed)


@dataclass(eq=False)
class Ticket:
    """An accepted socket's place in the counts, from accept until the connection is gone."""

    group: str
    half_open: bool = True


@dataclass(frozen=True)
class Admission(Generic[C]):
    """The answer to a connection that stands: `refused` is why not, else `evict` are to be closed in its favour."""

    refused: Refusal | None = None
    evict: tuple[C, ...] = ()


class ConnectionTable(Generic[C]):
    """All connections by id and by peer, with the counts that limits are checked against."""

    def __init__(self, limits: SwarmLimits) -> None:
        self.limits = limits
        self.refused: Counter[Refusal] = Counter()
        self._members: dict[int, C] = {}
        self._peers: dict[PeerId, dict[int, C]] = {}
        self._groups: Counter[str] = Counter()
        self._tickets: dict[int, Ticket] = {}
        self._half_open = 0

    def __len__(self) -> int:
        return len(self._members)

    @property
    def half_open(self) -> int:
        """Accepted sockets that are not authenticated yet."""
        return self._half_open

    def admit_socket(self, host: str) -> Ticket | Refusal:
        """Judges an accepted socket before a byte is read. A ticket must come back through `add` or `discard`."""
        group = address_group(host)
        refusal = None
        limits = self.limits
        if _reached(len(self._members) + self._half_open, limits.connections):
            refusal = Refusal.TOTAL
        elif _reached(self._half_open, limits.half_open):
            refusal = Refusal.HALF_OPEN
        elif _reached(self._groups[group], limits.connections_per_address):
            refusal = Refusal.PER_ADDRESS
        if refusal is not None:
            self.refused[refusal] += 1
            return refusal
        self._groups[group] += 1
        self._half_open += 1
        return Ticket(group)

    def discard(self, ticket: Ticket) -> None:
        """Gives a ticket back whose socket never became a connection; does nothing the second time."""
        if ticket.half_open:
            ticket.half_open = False
            self._half_open -= 1
            self._leave(ticket.group)

    def add(self, member: C, ticket: Ticket | None = None) -> Admission[C]:
        """Takes in an authenticated connection, or refuses it (then the ticket is given back).

        A peer at its limit replaces its own oldest connection without streams: after a crash or a change of network
        its old ones are dead, but not yet known to be. Nobody can evict another peer's connection.
        """
        mine = self._peers.get(member.peer, {})
        evict: tuple[C, ...] = ()
        refused = None
        if _reached(len(mine), self.limits.connections_per_peer):
            evict = tuple(sorted((m for m in mine.values() if not m.streams), key=lambda m: m.id)[:1])
            refused = None if evict else Refusal.PER_PEER
        elif _reached(len(self._members), self.limits.connections):
            refused = Refusal.TOTAL
        if refused is not None:
            self.refused[refused] += 1
            if ticket is not None:
                self.discard(ticket)
            return Admission(refused)
        if ticket is not None and ticket.half_open:
            ticket.half_open = False
            self._half_open -= 1
            self._tickets[member.id] = ticket
        self._members[member.id] = member
        self._peers.setdefault(member.peer, {})[member.id] = member
        for old in evict:
            self.remove(old)
        return Admission(None, evict)

    def remove(self, member: C) -> None:
        """Forgets a connection; unknown ones are ignored."""
        if self._members.pop(member.id, None) is None:
            return
        siblings = self._peers[member.peer]
        del siblings[member.id]
        if not siblings:
            del self._peers[member.peer]
        ticket = self._tickets.pop(member.id, None)
        if ticket is not None:
            self._leave(ticket.group)

    def get(self, connection: int) -> C | None:
        """The member of that id, or None."""
        return self._members.get(connection)

    def origin(self, connection: int) -> str | None:
        """The address group that the member of that id came from; None when it came from none, or is gone."""
        ticket = self._tickets.get(connection)
        return None if ticket is None else ticket.group

    def members(self, peer: PeerId | None = None) -> tuple[C, ...]:
        """A snapshot in the order of opening; of one peer, or of all."""
        return tuple((self._members if peer is None else self._peers.get(peer, {})).values())

    def ranked(self, peer: PeerId) -> tuple[C, ...]:
        """The peer's connections, best first: direct before relayed, then the newest."""
        return tuple(sorted(self.members(peer), key=lambda m: (m.path == "direct", m.id), reverse=True))

    def _leave(self, group: str) -> None:
        self._groups[group] -= 1
        if self._groups[group] <= 0:
            del self._groups[group]


def _reached(count: int, bound: int) -> bool:
    """Whether there is no room for one more; a bound of 0 is none."""
    return 0 < bound <= count
