"""Keeps the dialling end of a session on the best path: moves it, finds a path when it has none, renews circuits.

`reach.path` decides; here connections are listed, measured, dialled and released. It moves no byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import trio

from punchbridge.addresses import (
    Circuit,
    Multiaddr,
    circuit_of,
    endpoint_of,
    is_relayed,
    peer_of,
    with_peer,
    without_peer,
)
from punchbridge.errors import AddressError, BridgeError, DirectRequired
from punchbridge.events import ConnectionClosed, ConnectionOpened, Event, SessionKept
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.candidates import Scope, filter_remote
from punchbridge.reach.path import CAP_LEFT, Candidate, Decision, PathKeeper, PathPolicy
from punchbridge.session.around import Around
from punchbridge.session.carrier import BROKEN, cap_left
from punchbridge.session.live import milliseconds

if TYPE_CHECKING:
    from punchbridge.session.live import LiveSession
    from punchbridge.transport.base import Connection

__all__ = ["Route", "SessionKeeper", "routes"]

Attach = Callable[["LiveSession", "Connection", str], Awaitable[bool]]


class Route(Protocol):
    """A peer, and the addresses that it was looked for at first."""

    @property
    def peer(self) -> PeerId: ...

    @property
    def addrs(self) -> tuple[Multiaddr, ...]: ...


def routes(host: Around, route: Route, last: Connection | None) -> tuple[Multiaddr, ...]:
    """Every address the peer may be found at again: the first ones, the relays it told us of, and our own relays."""
    known = list(route.addrs)
    if last is not None and last.identify is not None:
        known += _told(host, route, last.identify.listen)
    for relay in host.relays():
        if peer_of(relay) is not None:
            known.append(with_peer(relay.encapsulate("/p2p-circuit"), route.peer))
    return tuple(dict.fromkeys(known))


def _told(host: Around, route: Route, listen: tuple[Multiaddr, ...]) -> list[Multiaddr]:
    """Circuits of the peer through relays that it names: those we are connected to, and else such as it might have us
    punch to. It must not aim our dials at this machine, at a LAN or at a crowd of strangers."""
    swarm = host.swarm
    circuits = {addr: circuit for addr in listen if (circuit := _circuit(addr)) is not None and circuit.relay_peer}
    raw = tuple(circuit.relay.to_bytes() for circuit in circuits.values())
    first = endpoint_of(route.addrs[0]) if route.addrs else None
    here = first is not None and first.on_loopback
    scope = Scope.chosen(swarm.config.allow_private, on_machine=here)
    limits = swarm.config.limits.punch
    own = swarm.listen_addrs()
    allowed = filter_remote(raw, peer=None, own=own, scope=scope, limits=limits).accepted
    return [
        with_peer(addr, route.peer)
        for addr, circuit in circuits.items()
        if without_peer(circuit.relay) in allowed or (circuit.relay_peer and swarm.connections(circuit.relay_peer))
    ]


def _circuit(addr: Multiaddr) -> Circuit | None:
    try:
        return circuit_of(addr)
    except AddressError:  # a circuit inside a circuit
        return None


class SessionKeeper:
    """One session's path, for as long as the session lives."""

    def __init__(
        self,
        host: Around,
        session: LiveSession,
        route: Route,
        policy: PathPolicy,
        attach: Attach,
        nursery: trio.Nursery,
    ) -> None:
        self._host = host
        self._limits = host.swarm.config.limits.paths
        self._session = session
        self._route = route
        self._attach = attach
        self._nursery = nursery
        self._paths = session.paths = PathKeeper(policy)
        self._changed = trio.Event()
        self._failed: dict[int, float] = {}
        self._renewing = False
        self._releasing: set[int] = set()
        self._pause = self._limits.retry
        self._fruitless = 0
        """Carriers in a row that were lost soon and had brought next to nothing."""
        self._moved_at = trio.current_time()
        """When the last carrier was attached."""
        self._brought = 0
        """What both ends had received when a carrier was lost last. An ATTACHED tells more for the carrier before."""
        self._kept: tuple[str, int] | None = None
        self._trips: dict[int, float] = {}

    async def run(self) -> None:
        """Until the session is over. Cancelling leaves connections as they are."""
        text = peer_text(self._route.peer)

        def notice(event: Event) -> None:
            if isinstance(event, ConnectionOpened | ConnectionClosed) and event.peer == text:
                self._changed.set()

        unsubscribe = self._host.swarm.events.subscribe(notice)
        self._session.on_change = self._poke
        try:
            while not self._session.over.is_set():
                self._changed = trio.Event()
                wait = await self._step()
                if wait != 0.0:
                    with trio.move_on_after(wait):
                        await self._changed.wait()
        finally:
            unsubscribe()

    def _poke(self) -> None:
        self._changed.set()

    async def _step(self) -> float:
        """Decides once and acts; returns how long the decision stands unless something changes."""
        session, now = self._session, trio.current_time()
        carrier = session.active
        if carrier is None and session.last is not None and session.starved.is_set():
            self._paths.failed(session.last.path, now, session.last.transport)
            session.starved = trio.Event()
            if self._brought_nothing(now):
                self._pause = self._limits.retry_most
                await self._backoff()
                return 0.0
        # The swarm lists a connection for a moment after it died: trying that one would cost a back-off.
        live = {one.id: one for one in self._host.swarm.connections(self._route.peer) if not one.closed.is_set()}
        active = None if carrier is None else self._candidate(carrier.connection, now)
        usable = [self._candidate(one, now) for one in live.values() if now >= self._failed.get(one.id, 0.0)]
        self._trips.clear()
        decision = self._paths.decide(active, usable, now)
        self._tell(decision, active, live)
        if decision.move_to is not None:
            await self._move(live[decision.move_to], decision.reason)
            return 0.0
        if decision.measure:
            await self._measure([live[one] for one in decision.measure if one in live])
            return 0.0
        if active is None:
            await self._find()
            return 0.0
        if active.path == "direct":
            # Also those that never carried us: a direct path may stand before the session is opened.
            for connection in live.values():
                self._let_go(connection)
        if active.left < 1.0 and active.path == "relay":
            self._keep_spare(decision, usable, active)
            return self._limits.cap_poll
        retries = [at - now for one in live if (at := self._failed.get(one, 0.0)) > now]
        return min(60.0, decision.again or 60.0, *retries)

    def _tell(self, decision: Decision, active: Candidate | None, live: dict[int, Connection]) -> None:
        """Says, once for each reason and connection, that a direct path is left alone."""
        if decision.reason == "MEASURE":
            return
        kept = None if decision.instead is None else (decision.reason, decision.instead)
        if kept is not None and kept != self._kept and active is not None and decision.again is not None:
            session, other = self._session, live[kept[1]]
            self._host.swarm.events.emit(
                SessionKept(
                    session=session.machine.id.hex()[:8],
                    peer=peer_text(session.peer),
                    path=active.path,
                    reason=decision.reason,
                    again_s=round(decision.again, 3),
                    rtt_ms=milliseconds(active.round_trip),
                    rtt_direct_ms=milliseconds(other.rtt),
                )
            )
        self._kept = kept

    def _candidate(self, connection: Connection, now: float) -> Candidate:
        measured = self._trips.get(connection.id, connection.rtt)
        left, least = cap_left(connection, now), connection.rtt_least
        return Candidate(connection.id, connection.path, measured, left, least, connection.transport)

    async def _move(self, connection: Connection, reason: str) -> None:
        before, switches = self._session.active, self._session.switches
        moved = False
        # Without a carrier every second counts: a connection that does not answer now is as dead as the last one.
        patience = self._limits.dial_timeout
        if before is None:
            patience = max(self._session.machine.limits.silence, 3 * (connection.rtt or 0.0))
        with trio.move_on_after(patience):
            moved = await self._attach(self._session, connection, reason)
        if not moved and self._session.switches > switches:
            self._moved_at = trio.current_time()  # attached, and lost before anybody looked: the next step counts it
            return
        if not moved:
            self._failed[connection.id] = trio.current_time() + self._pause
            await self._backoff()
            return
        self._failed.clear()
        if not self._fruitless:
            self._pause = self._limits.retry
        self._moved_at = trio.current_time()
        if before is not None and before.connection is not connection:
            self._let_go(before.connection)

    def _carried(self) -> int:
        """Bytes that each end has of the other, together."""
        machine = self._session.machine
        return machine.outgoing.acked + machine.incoming.received

    def _brought_nothing(self, now: float) -> bool:
        """Whether this is at least the second carrier in a row that was taken and soon dropped: such a peer is not
        attached to at the rate of the round trip."""
        brought, self._brought = self._carried() - self._brought, self._carried()
        if now - self._moved_at >= self._limits.retry_most or brought >= self._limits.fruitful:
            self._fruitless, self._pause = 0, self._limits.retry
            return False
        self._fruitless += 1
        return self._fruitless > 1

    async def _backoff(self) -> None:
        """Pauses; not while a session that still had a carrier loses it, which no failure before must delay."""
        session = self._session
        if session.active is not None and session.starved.is_set():
            session.starved = trio.Event()  # of a loss that is mended
        with trio.move_on_after(self._pause):
            await (session.over if session.active is None else session.starved).wait()
        self._pause = min(2 * self._pause, self._limits.retry_most)

    async def _measure(self, connections: list[Connection]) -> None:
        """The shortest of a few round trips of each, all at the same time: what burdens one burdens the others."""
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(self._ping, connection)

    async def _ping(self, connection: Connection) -> None:
        trips: list[float] = []
        with trio.move_on_after(self._limits.measure_timeout):
            try:
                while len(trips) < self._limits.measures:
                    trips.append(await connection.ping())
            except BROKEN:
                pass
        if trips:
            self._trips[connection.id] = min(trips)
        else:
            self._failed[connection.id] = trio.current_time() + self._limits.retry_most

    async def _find(self) -> None:
        """No connection carries: dials what is known. Failing is no error here; the session's own time-out is."""
        swarm, policy, peer = self._host.swarm, self._paths.policy, self._route.peer
        addrs = routes(self._host, self._route, self._session.last)
        if policy == "direct":
            addrs = tuple(sorted(addrs, key=is_relayed))
            self._session.problem = self._no_direct()
        # A direct path may need a circuit first, to punch over; one that stands is enough.
        path = "any" if policy == "direct" and swarm.best(peer) is None else policy
        with trio.move_on_after(self._limits.dial_timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_usable, nursery.cancel_scope)
                try:
                    await swarm.connect(peer, addrs, path=path)
                except BridgeError:
                    pass
                nursery.cancel_scope.cancel()
        if not self._usable(trio.current_time()):
            await self._backoff()

    async def _until_usable(self, dial: trio.CancelScope) -> None:
        """Ends a dial that hangs once a connection stands that somebody else made: the peer, or a punch."""
        while not self._usable(trio.current_time()):
            self._changed = trio.Event()
            await self._changed.wait()
        dial.cancel()

    def _usable(self, now: float) -> list[Connection]:
        """The live connections that the session may run on, but for those where that has just failed."""
        return [
            one
            for one in self._host.swarm.connections(self._route.peer)
            if not one.closed.is_set() and self._paths.allows(one.path) and now >= self._failed.get(one.id, 0.0)
        ]

    def _no_direct(self) -> DirectRequired:
        """Why a session that runs on direct paths only fails, should none come back."""
        peer = self._route.peer
        text = f"the direct path to {peer_text(peer)} was lost and none came back"
        return DirectRequired(text, self._host.verdict(peer))

    def _keep_spare(self, decision: Decision, usable: list[Candidate], active: Candidate) -> None:
        """A capped circuit in use gets a successor in time, so that the move costs one round trip."""
        spares = sum(one.path == "relay" and one.id != active.id and one.left > 0.9 for one in usable)
        wanted = decision.fresh_circuit or active.left < self._limits.spare_below
        if self._renewing or spares >= self._limits.spares or not wanted:
            return
        self._renewing = True
        self._nursery.start_soon(self._renew)

    async def _renew(self) -> None:
        try:
            for addr in routes(self._host, self._route, self._session.last):
                if not is_relayed(addr) or self._session.over.is_set():
                    continue
                with trio.move_on_after(self._limits.dial_timeout):
                    try:
                        await self._host.swarm.dial(addr, expected=self._route.peer, fresh=True)
                        self._changed.set()
                        return
                    except BridgeError:
                        continue
            await self._backoff()
        finally:
            self._renewing = False

    def _let_go(self, connection: Connection) -> None:
        """Begins to release a relayed connection that we dialled; once for each."""
        if connection.path == "relay" and not connection.inbound and connection.id not in self._releasing:
            self._releasing.add(connection.id)
            self._nursery.start_soon(self._release, connection)

    async def _release(self, connection: Connection) -> None:
        """A relayed connection that nobody uses any more gives its place at the relay back."""
        spent = cap_left(connection, trio.current_time()) < CAP_LEFT
        grace = self._limits.cap_poll if spent else self._limits.release_after
        try:
            while not connection.closed.is_set() and not self._session.over.is_set():
                with trio.move_on_after(grace):
                    await connection.closed.wait()
                active = self._session.active
                if active is None or active.connection is connection:
                    return
                if not connection.streams:
                    try:
                        return await self._host.swarm.close(connection, "RELEASED")
                    except BridgeError:  # too much is asked of the swarm now, or it stops
                        continue
        finally:
            self._releasing.discard(connection.id)
