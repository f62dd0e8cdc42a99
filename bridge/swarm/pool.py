"""The live connections: enters them in the table, runs them and their stream handlers, closes them.

It decides nothing about admission (the table does) and knows no address to dial. Idle connections are kept without
a limit of time, while there are places and files: a relay connection carries a reservation, a user's connection waits
for its next call, and dead ones are found by the keepalive; `SwarmLimits` bounds their number.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

import trio

from punchbridge.addresses import Multiaddr
from punchbridge.config import SwarmLimits
from punchbridge.errors import (
    ConnectionLost,
    LimitExceeded,
    NotAllowed,
    RemoteError,
    SwarmStopped,
)
from punchbridge.eventhub import EventHub
from punchbridge.identity import Identity, PeerId, peer_text
from punchbridge.swarm.gater import Gater
from punchbridge.swarm.news import closed, moved, opened, refused
from punchbridge.swarm.registry import Registration, Registry
from punchbridge.swarm.table import ConnectionRefusal, ConnectionTable, Ticket
from punchbridge.swarm.watchers import Watchers
from punchbridge.tasks.supervise import supervise
from punchbridge.transport.base import NOT_ALLOWED, Connection, Incoming, Stream
from punchbridge.transport.origin import origin_of

__all__ = ["Pool"]

_log = logging.getLogger(__name__)

_TOLD: Final = 8
"""Prefixes named in one `refused` event: a line of a log can be read."""

_SOON: Final = 1.0
"""Seconds until the first refusals after a quiet time are told; whoever waits for a caller looks now."""


class Pool:
    """Owns every connection of a swarm. Its tasks live in `nursery`, which the actor sets and cancels."""

    nursery: trio.Nursery

    def __init__(
        self, identity: Identity, limits: SwarmLimits, registry: Registry, gater: Gater, events: EventHub
    ) -> None:
        self.identity = identity
        self._limits = limits
        self.table: ConnectionTable[Connection] = ConnectionTable(limits)
        self.registry = registry
        self._gater = gater
        self._gater.follow(self._access_changed)
        self._served: dict[Stream, Registration] = {}
        self.watchers = Watchers()
        self._events = events
        self._arriving: dict[Ticket, Incoming] = {}
        """The half-open ones, by their places."""
        self._gone: dict[int, trio.Event] = {}
        self._stopping = False

    def live(self, peer: PeerId) -> tuple[Connection, ...]:
        """The peer's connections that are not closing down, best first."""
        return tuple(one for one in self.table.ranked(peer) if not one.closing)

    def accepted(self, incoming: Incoming) -> None:
        """Takes over who comes in at a port: refused at once when a limit is reached, else secured in a task."""
        if self._gater.refuses_host(incoming.host):
            self.table.refusals.add(ConnectionRefusal.DENIED, incoming.host, "")
            incoming.abort()
            return
        if self._stopping:
            incoming.abort()
            return
        if (
            incoming.room is not None
            and incoming.room < self._limits.files_reserve
            and not self._gave_way(incoming.host)
        ):
            self.table.refusals.add(ConnectionRefusal.FILES, incoming.host, "")
            incoming.abort()
            return
        arrival = self.table.admit_socket(incoming.host, trio.current_time(), lambda: incoming.silent)
        if arrival.evict is not None:
            self._arriving.pop(arrival.evict).abort()
        if arrival.ticket is None:
            incoming.abort()
            return
        self._arriving[arrival.ticket] = incoming
        self.nursery.start_soon(self._secure_inbound, incoming, arrival.ticket)

    def _gave_way(self, host: str) -> bool:
        """Cuts the connection that is of least use, for its file, which somebody at `host` asks for. False: all are of
        use, or have only just come from addresses that hold no more."""
        idle = self.table.idle(trio.current_time(), stranger=False) or self.table.crowding(host)
        if idle is None:
            return False
        self.table.refusals.add(ConnectionRefusal.FILES, origin_of(idle), peer_text(idle.peer))
        self.table.remove(idle)
        idle.abort("NO_PLACE")
        return True

    async def _secure_inbound(self, incoming: Incoming, ticket: Ticket) -> None:
        async def work() -> None:
            await self.enter(await incoming.secure(), ticket)

        def failed(_reason: str) -> None:
            incoming.abort()

        try:
            await supervise("upgrade of an inbound connection", work, failed)
        finally:
            self._arriving.pop(ticket, None)
            self.table.discard(ticket)

    async def enter(self, connection: Connection, ticket: Ticket | None = None) -> Connection:
        """Enters a connection in the table; it runs when this returns.

        Raises LimitExceeded when the table refuses, SwarmStopped. On failure and on cancellation it is cut.
        """
        if self._stopping:
            connection.abort("STOPPED")
            raise SwarmStopped(f"the swarm is stopping; {connection.remote} was not taken in")
        if self._gater.refuses(connection):
            self.table.refusals.add(ConnectionRefusal.DENIED, origin_of(connection), peer_text(connection.peer))
            await connection.turn_away()
            raise NotAllowed(f"{peer_text(connection.peer)} is on the list of those that are denied")
        others = self.table.members(connection.peer)
        stranger = connection.inbound and not self._gater.known(connection)
        admission = self.table.add(connection, ticket, now=trio.current_time(), stranger=stranger)
        if admission.refused is not None:
            connection.abort("LIMIT")
            raise LimitExceeded(
                f"no more connections: limits.swarm.{admission.refused} is reached; close some or raise it"
            )
        for old in admission.evict:
            old.abort("REPLACED" if old.peer == connection.peer else "NO_PLACE")
        self._gater.enter(connection, others)
        await self.nursery.start(self._run, connection)
        return connection

    async def _run(self, connection: Connection, *, task_status: trio.TaskStatus[None]) -> None:
        """One connection from Opened to Closed, whatever ends it."""
        gone = self._gone[connection.id] = trio.Event()

        async def work() -> None:
            await connection.run(
                self._on_stream,
                partial(self.registry.supported, connection),
                partial(self._on_refused, connection),
            )

        try:
            self._events.emit(opened(connection))
            self.watchers.connected(connection)
            task_status.started()
            await supervise("a connection", work, connection.abort)
        finally:
            connection.abort("STOPPED")
            self.table.remove(connection)
            self._gater.leave(connection)
            del self._gone[connection.id]
            self._events.emit(closed(connection))
            self.watchers.disconnected(connection)
            gone.set()

    def _on_stream(self, stream: Stream, protocol: str) -> None:
        registration = self.registry.find(protocol, stream.connection)
        origin = self.table.origin(stream.connection.id) or _relay_of(stream.connection)
        if registration is None or self._stopping:
            stream.reset()
            return
        if not registration.enter(stream.connection.peer, origin):
            self.table.refusals.add("streams", origin or "", peer_text(stream.connection.peer))
            stream.reset()
            return
        if registration.small:
            stream.unread_most = self._limits.unread
        self.nursery.start_soon(self._serve, registration, stream, origin)

    def _on_refused(self, connection: Connection, protocol: str) -> None:
        """A proposal was answered as one of an unknown protocol. It is counted when it is unknown to this peer only."""
        if self.registry.closed_to(protocol, connection):
            self.table.refusals.add("not_allowed", self._origin(connection), peer_text(connection.peer))

    def _origin(self, connection: Connection) -> str:
        """Where a connection comes from, as refusals tell it."""
        return self.table.origin(connection.id) or _relay_of(connection) or ""

    async def _serve(self, registration: Registration, stream: Stream, origin: str | None) -> None:
        """Runs a handler. The handler owns the stream and closes it; on an error it is reset here."""

        def failed(_reason: str) -> None:
            stream.reset()

        self._served[stream] = registration
        try:
            await supervise(f"the handler of {registration.protocol}", partial(registration.handler, stream), failed)
        finally:
            del self._served[stream]
            if registration.small and isinstance(stream.failure, LimitExceeded):
                self.table.refusals.add("unread", origin or "", peer_text(stream.connection.peer))
            registration.leave(stream.connection.peer, origin)

    async def tell_refusals(self) -> None:
        """Emits what limits and lists have turned away: soon when there was nothing for a while, else once in
        `refusals_told` seconds."""
        since = trio.current_time()
        while True:
            await trio.sleep(min(_SOON, self._limits.refusals_told))
            counts, sources = self.table.refusals.untold(_TOLD)
            if counts:
                now = trio.current_time()
                self._events.emit(refused(round(now - since, 1), counts, sources))
                since = now
                await trio.sleep(self._limits.refusals_told)

    def moved(self, connection: Connection, before: Multiaddr) -> None:
        """The peer of a connection is at another address than before: it is told, and judged by that from now on."""
        if self.table.get(connection.id) is connection:
            self._events.emit(moved(connection, before))
            self._gater.moved(connection)

    def _access_changed(self) -> None:
        """Who is denied now is told so and goes, and streams whose audience has lost their peer end."""
        for stream, registration in tuple(self._served.items()):
            if not registration.audience(stream.connection) and not self._gater.refuses(stream.connection):
                stream.reset()
        self.table.admitted(self._gater.known)
        for connection in self.table.members():
            if self._gater.refuses(connection) and not self._stopping:
                farewell = partial(self.close, (connection,), NOT_ALLOWED)
                self.nursery.start_soon(supervise, "the end of a denied connection", farewell, connection.abort)

    async def open_stream(self, connections: tuple[Connection, ...], protocols: tuple[str, ...]) -> Stream:
        """Opens a stream on the first connection that is not closing down."""
        problem: RemoteError = ConnectionLost("the connection closed before the stream was opened; connect again")
        for connection in connections:
            try:
                return await connection.open_stream(protocols)
            except RemoteError as error:
                if not connection.closing:
                    raise
                problem = error
        raise problem

    async def close(self, connections: tuple[Connection, ...], reason: str) -> None:
        """GoAway and flush, at most `close_timeout` seconds together, then cut. Cancellation cuts at once. When this
        returns they are out of the table and their Closed events are out."""
        try:
            with trio.move_on_after(self._limits.close_timeout):
                async with trio.open_nursery() as nursery:
                    for connection in connections:
                        nursery.start_soon(connection.aclose, reason)
        finally:
            for connection in connections:
                connection.abort(reason)
        for gone in [self._gone[one.id] for one in connections if one.id in self._gone]:
            await gone.wait()  # soon: an aborted connection's task has nothing to wait for

    async def stop(self) -> None:
        """Closes everything, circuits first; no connection is taken in afterwards. At most twice `close_timeout`."""
        self._stopping = True
        for path in ("relay", "direct"):  # the goodbye on a circuit needs the connection to its relay
            await self.close(tuple(one for one in self.table.members() if one.path == path), "NORMAL")


def _relay_of(connection: Connection) -> str | None:
    """The origin of who came over a relay, where no address is seen; None of whom we have dialled."""
    relay = connection.relay if connection.inbound else None
    return None if relay is None else f"over {peer_text(relay)}"
