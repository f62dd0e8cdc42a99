"""The connection table: who is connected, who may connect, and which connection is best. Pure decisions.

It does no I/O, reads no clock and starts nothing; the pool carries out what it answers. Members are anything with
the few attributes of `Listed`, in practice `Connection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

from punchbridge.config import SwarmLimits
from punchbridge.events import Path
from punchbridge.identity import PeerId, peer_text
from punchbridge.tasks.prefixes import EVERYWHERE, Full, Places, PrefixBounds, PrefixRates, Source, Step, source
from punchbridge.tasks.refusals import Refusals

__all__ = ["Admission", "Arrival", "ConnectionRefusal", "ConnectionTable", "Listed", "Ticket"]


class ConnectionRefusal(StrEnum):
    """Which bound of `SwarmLimits` turned a socket or connection away, or that a list did; it is counted under that
    name."""

    TOTAL = "connections"
    PER_ADDRESS = "connections_per_address"
    PER_24 = "connections_per_24"
    PER_56 = "connections_per_56"
    PER_48 = "connections_per_48"
    HALF_OPEN = "half_open"
    HALF_OPEN_PER_ADDRESS = "half_open_per_address"
    HALF_OPEN_PER_24 = "half_open_per_24"
    HALF_OPEN_PER_56 = "half_open_per_56"
    HALF_OPEN_PER_48 = "half_open_per_48"
    PER_PEER = "connections_per_peer"
    STRANGER = "strangers"
    FILES = "files"
    RATE = "handshakes"
    UNPROVEN = "unproven"
    DATAGRAMS = "datagrams"
    DENIED = "denied"


_CONNECTIONS: Final[dict[Step, ConnectionRefusal]] = {
    "all": ConnectionRefusal.TOTAL,
    "address": ConnectionRefusal.PER_ADDRESS,
    "24": ConnectionRefusal.PER_24,
    "56": ConnectionRefusal.PER_56,
    "48": ConnectionRefusal.PER_48,
}
_HALF_OPEN: Final[dict[Step, ConnectionRefusal]] = {
    "all": ConnectionRefusal.HALF_OPEN,
    "address": ConnectionRefusal.HALF_OPEN_PER_ADDRESS,
    "24": ConnectionRefusal.HALF_OPEN_PER_24,
    "56": ConnectionRefusal.HALF_OPEN_PER_56,
    "48": ConnectionRefusal.HALF_OPEN_PER_48,
}

_LOOK_AGAIN: Final = 1.0
"""Seconds."""


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


def _spoke() -> bool:
    return False


@dataclass(eq=False)
class Ticket:
    """An accepted socket's place in the counts, from accept until the connection is gone."""

    source: Source
    since: float = 0.0
    """When it was accepted, by the clock of whoever asks for admission."""
    silent: Callable[[], bool] = _spoke
    """Whether not one byte has come from there yet."""
    half_open: bool = True

    @property
    def group(self) -> str:
        """The IPv4 address or IPv6 /64 that it came from."""
        return self.source[0][1]


@dataclass(frozen=True)
class Arrival:
    """The answer to a socket that was accepted: a place, or why there is none.

    `evict`: the place of another socket, given back in favour of this one; its socket is to be closed.
    """

    ticket: Ticket | None = None
    refused: ConnectionRefusal | None = None
    evict: Ticket | None = None


@dataclass(frozen=True)
class Admission(Generic[C]):
    """The answer to a connection that stands: `refused` is why not, else `evict` are to be closed in its favour."""

    refused: ConnectionRefusal | None = None
    evict: tuple[C, ...] = ()


class ConnectionTable(Generic[C]):
    """All connections by id and by peer, with the counts that limits are checked against."""

    def __init__(self, limits: SwarmLimits) -> None:
        self.limits = limits
        self.refusals = Refusals()
        """Every socket and connection that a bound has turned away."""
        self._members: dict[int, C] = {}
        self._peers: dict[PeerId, dict[int, C]] = {}
        self._tickets: dict[int, Ticket] = {}
        self._standing: dict[Ticket, C] = {}
        self._accepted: Places[Ticket] = Places(
            PrefixBounds(
                address=limits.connections_per_address,
                ipv4_24=limits.connections_per_24 if limits.connections else 0,
                ipv6_56=limits.connections_per_56,
                ipv6_48=limits.connections_per_48,
                soft=limits.connections // 2,
            )
        )
        self._rate = PrefixRates(limits.handshakes_burst, limits.handshakes_interval, limits.rate_keys)
        self._half_open: Places[Ticket] = Places(
            PrefixBounds(
                all=limits.half_open,
                address=limits.half_open_per_address,
                ipv4_24=limits.half_open_per_24 if limits.half_open else 0,
                ipv6_56=limits.half_open_per_56,
                ipv6_48=limits.half_open_per_48,
                soft=limits.half_open // 2,
            )
        )
        self.keepers: list[Callable[[C], bool]] = []
        """Each says whether a connection is of use to it. Where there is none, a connection with streams is of use."""
        self._strangers: dict[int, C] = {}
        """The members who may call nothing here."""
        self._fruitless: dict[bool, float] = {}
        """When `idle` was asked in vain, for a stranger and for others: to look at everybody again takes a while."""
        self._mute: Places[Ticket] = Places(PrefixBounds())
        """Those of the half-open ones of which nobody has seen yet that they have spoken."""

    def __len__(self) -> int:
        return len(self._members)

    @property
    def half_open(self) -> int:
        """Accepted sockets that are not authenticated yet."""
        return len(self._half_open)

    def admit_socket(self, host: str, now: float, silent: Callable[[], bool] = _spoke) -> Arrival:
        """Judges an accepted socket before a byte is read. A ticket must come back through `add` or `discard`.

        Whoever comes too often is turned away first, since the handshake costs us more than it costs a stranger.

        When a bound is reached, one goes of those that the bound counts: the oldest that has said nothing for a while,
        since an honest peer speaks first; without one, the oldest of the address that holds most half-open places, if
        it holds more than the newcomer's own would; at last the oldest that has said nothing yet, if its address holds
        more than the newcomer's. So a newcomer finds a place as long as somebody holds many, and nobody who holds many
        takes one from whoever has only just come.
        """
        came = source(host)
        if not self._rate.take(came, now):
            self.refusals.add(ConnectionRefusal.RATE, came[0][1])
            return Arrival(refused=ConnectionRefusal.RATE)
        evict = None
        full = self._full(came)
        if full is not None:
            refused, where, half_open = full
            evict = self._victim(where.prefix, came, now, half_open=half_open)
            self.refusals.add(refused, came[0][1] if evict is None else evict.group)
            if evict is None:
                return Arrival(refused=refused)
            self.discard(evict)
        ticket = Ticket(came, now, silent)
        for places in (self._accepted, self._half_open, self._mute):
            places.add(ticket, came)
        return Arrival(ticket, evict=evict)

    def unproven(self, host: str) -> None:
        """Notes that somebody who may be elsewhere than the address says was asked to show that it is there."""
        self.refusals.add(ConnectionRefusal.UNPROVEN, source(host)[0][1])

    def dropped(self, host: str) -> None:
        """Notes that datagrams of an address were dropped: it has used up its part of what may wait."""
        self.refusals.add(ConnectionRefusal.DATAGRAMS, source(host)[0][1])

    def crowded(self, host: str, now: float) -> bool:
        """Whether somebody who may be elsewhere than the address says has to show first that it is there: half of the
        half-open places are taken, in all or around it, or half of the handshakes it may ask for. The other half is for
        those who are there, so that nobody can use up another one's share."""
        came = source(host)
        return self._half_open.half(came) or self._rate.half(came, now)

    def _full(self, came: Source) -> tuple[ConnectionRefusal, Full, bool] | None:
        """The bound that is reached around the fewest others, where, and whether it is one of half-open places."""
        standing, arriving = self._accepted.full(came), self._half_open.full(came)
        most = self.limits.connections
        if standing is None and _reached(len(self._members) + len(self._half_open), most + most // 8):
            standing = Full("all", EVERYWHERE)
        if standing is not None and (arriving is None or standing.within(arriving)):
            return _CONNECTIONS[standing.step], standing, False
        return None if arriving is None else (_HALF_OPEN[arriving.step], arriving, True)

    def _victim(self, prefix: str, came: Source, now: float, *, half_open: bool) -> Ticket | None:
        """Who gives a place up inside of a prefix for a newcomer; None when nobody does."""
        mute = self._mute_in(prefix)
        if mute is not None and now - mute.since >= self.limits.half_open_grace:
            return mute
        mine = self._half_open.count(came[0][1])
        fullest, held = self._half_open.fullest(prefix) if half_open else ("", 0)
        if held > mine + 1:
            return self._half_open.oldest(fullest)
        return mute if mute is not None and self._half_open.count(mute.group) > mine else None

    def _mute_in(self, prefix: str) -> Ticket | None:
        while (oldest := self._mute.oldest(prefix)) is not None:
            if oldest.silent():
                return oldest
            self._mute.discard(oldest)
        return None

    def discard(self, ticket: Ticket) -> None:
        """Gives a ticket back whose socket never became a connection; does nothing the second time."""
        if ticket.half_open:
            self._secured(ticket)
            self._accepted.discard(ticket)

    def _secured(self, ticket: Ticket) -> None:
        """The ticket is none of a half-open socket any more."""
        ticket.half_open = False
        self._half_open.discard(ticket)
        self._mute.discard(ticket)

    def add(self, member: C, ticket: Ticket | None = None, *, now: float = 0.0, stranger: bool = False) -> Admission[C]:
        """Takes in an authenticated connection, or refuses it (then the ticket is given back). stranger: its peer may
        call nothing here.

        A peer at its limit replaces its own oldest connection without streams: after a crash or a change of network
        its old ones are dead, but not yet known to be. When places are short, a connection of no use gives way, see
        `idle` and `crowding` (to a stranger none but a stranger); without one strangers are refused while there is room
        for others still.
        """
        mine, most = self._peers.get(member.peer, {}), self.limits.connections
        evict: tuple[C, ...] = ()
        refused = None
        if _reached(len(mine), self.limits.connections_per_peer):
            evict = tuple(sorted((m for m in mine.values() if not m.streams), key=lambda m: m.id)[:1])
            refused = None if evict else ConnectionRefusal.PER_PEER
        elif _reached(len(self._members), most - most // 8):
            idle = self.idle(now, stranger=stranger)
            if idle is None and ticket is not None:
                idle = self._crowding(self._accepted.count(ticket.group), stranger=stranger)
            evict = () if idle is None else (idle,)
            if idle is not None:
                self.refusals.add(ConnectionRefusal.TOTAL, self.origin(idle.id) or "", peer_text(idle.peer))
            elif stranger:
                refused = ConnectionRefusal.STRANGER
            elif _reached(len(self._members), most):
                refused = ConnectionRefusal.TOTAL
        if refused is not None:
            self.refusals.add(refused, "" if ticket is None else ticket.group, peer_text(member.peer))
            if ticket is not None:
                self.discard(ticket)
            return Admission(refused)
        if ticket is not None and ticket.half_open:
            self._secured(ticket)
            self._tickets[member.id] = ticket
            self._standing[ticket] = member
        if stranger:
            self._strangers[member.id] = member
        self._members[member.id] = member
        self._peers.setdefault(member.peer, {})[member.id] = member
        for old in evict:
            self.remove(old)
        return Admission(None, evict)

    def idle(self, now: float, *, stranger: bool) -> C | None:
        """The connection that gives way when places are short; None when there is none.

        It came in and has stood for `idle_grace`. Strangers go first, and for a stranger nobody else goes. Of each the
        oldest goes, one without streams first; those that are of use to a keeper stay.
        """
        if now < self._fruitless.get(stranger, 0.0):
            return None
        found = self._idle_among(self._strangers, now)
        if found is None and not stranger:
            found = self._idle_among(self._members, now)
        if found is None:
            self._fruitless[stranger] = now + _LOOK_AGAIN
        return found

    def crowding(self, host: str) -> C | None:
        """The connection that gives way to a socket from `host` where none has stood for long: the oldest one without
        use of the address that holds most, when that is more than the newcomer's address would hold."""
        return self._crowding(self._accepted.count(source(host)[0][1]) + 1, stranger=False)

    def _crowding(self, mine: int, *, stranger: bool) -> C | None:
        fullest, held = self._accepted.fullest()
        if held <= mine:
            return None
        for ticket in self._accepted.members(fullest):
            member = self._standing.get(ticket)
            if member is not None and not (stranger and member.id not in self._strangers) and self._useless(member):
                return member
        return None

    def _useless(self, member: C) -> bool:
        return not any(keep(member) for keep in self.keepers) if self.keepers else not member.streams

    def _idle_among(self, members: Mapping[int, C], now: float) -> C | None:
        for with_streams in (False, True) if self.keepers else (False,):
            for member in members.values():
                ticket = self._tickets.get(member.id)
                if ticket is None:
                    continue  # we have dialled it
                if now - ticket.since < self.limits.idle_grace:
                    break  # those behind it came later
                if (with_streams or not member.streams) and not any(keep(member) for keep in self.keepers):
                    return member
        return None

    def admitted(self, known: Callable[[C], bool]) -> None:
        """The lists have changed: strangers who are known now are strangers no more."""
        for member in [one for one in self._strangers.values() if known(one)]:
            del self._strangers[member.id]

    def remove(self, member: C) -> None:
        """Forgets a connection; unknown ones are ignored."""
        if self._members.pop(member.id, None) is None:
            return
        self._strangers.pop(member.id, None)
        siblings = self._peers[member.peer]
        del siblings[member.id]
        if not siblings:
            del self._peers[member.peer]
        ticket = self._tickets.pop(member.id, None)
        if ticket is not None:
            del self._standing[ticket]
            self._accepted.discard(ticket)

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


def _reached(count: int, bound: int) -> bool:
    """Whether there is no room for one more; a bound of 0 is none."""
    return 0 < bound <= count
