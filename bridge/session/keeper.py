"""Keeps the dialling end of a session on the best path: moves it, finds a path when it has none, renews circuits.

`reach.path` decides; here connections are listed, measured, dialled and released. It moves no byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from punchbridge.addresses import is_relayed
from punchbridge.errors import BridgeError, DirectRequired
from punchbridge.events import ConnectionClosed, ConnectionOpened, Event, SessionKept
from punchbridge.identity import peer_text
from punchbridge.reach.path import CAP_LEFT, Candidate, Decision, PathKeeper, PathPolicy
from punchbridge.session.around import Around
from punchbridge.session.carrier import BROKEN, cap_left
from punchbridge.session.known import KnownPaths
from punchbridge.session.live import milliseconds
from punchbridge.session.routes import Route, routes

if TYPE_CHECKING:
    from punchbridge.session.live import LiveSession
    from punchbridge.transport.base import Connection

__all__ = ["SessionKeeper"]

Attach = Callable[["LiveSession", "Connection", str], Awaitable[bool]]


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
        known: KnownPaths | None = None,
    ) -> None:
        """known: what the paths of this host's sessions have shown so far; nothing when None."""
        self._host = host
        self._limits = host.swarm.config.limits.paths
        self._session = session
        self._route = route
        self._attach = attach
        self._nursery = nursery
        self._known = known or KnownPaths(host.swarm.config.limits)
        self._paths = session.paths = PathKeeper(policy)
        self._changed = trio.Event()
        self._failed: dict[int, float] = {}
        self._questioned: set[int] = set()
        """Connections that stand and are asked whether they still lead to the peer."""
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
            session.starved = trio.Event()
            if await self._starved(session.last, now):
                return 0.0
        live = self._live()
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
        if decision.fresh_circuit and not self._renewing:
            self._renewing = True
            self._nursery.start_soon(self._renew)
        retries = [at - now for one in live if (at := self._failed.get(one, 0.0)) > now]
        return min(60.0, decision.again or 60.0, *retries, self._look(live, now))

    def _live(self) -> dict[int, Connection]:
        """By id. The swarm lists a connection for a moment after it died: trying that one would cost a back-off."""
        return {one.id: one for one in self._host.swarm.connections(self._route.peer) if not one.closed.is_set()}

    async def _starved(self, last: Connection, now: float) -> bool:
        """The session has lost its last carrier, on this connection. True when time has passed."""
        self._paths.failed(last.path, now, last.transport)
        lost = self._session.lost
        if lost is not None and lost[1] == "SILENT":
            self._known.died(last, self._session.machine.pulse.heard, now)
            if await self._question_direct():
                return True
        if not self._brought_nothing(now):
            return False
        self._pause = self._limits.retry_most
        await self._backoff()
        return True

    async def _question_direct(self) -> bool:
        """A path has gone silent, and what ended it may have ended the other direct ones too: they are asked first, and
        the session goes on over the one that answers. Where a relayed connection stands, that waits for them no longer
        than an answer takes. True when it has waited."""
        live = self._live()
        if not self._paths.allows("direct"):
            return False
        direct = [one for one in live.values() if one.path == "direct" and one.id not in self._questioned]
        for one in direct:
            self._questioned.add(one.id)
            self._failed[one.id] = trio.current_time() + self._limits.dial_timeout
            self._nursery.start_soon(self._ask, one)
        if not direct or all(one.path == "direct" for one in live.values()):
            return False
        self._changed = trio.Event()
        with trio.move_on_after(self._limits.answer_slack + 1.5 * max(one.rtt or 0.0 for one in direct)):
            await self._changed.wait()
        return True

    async def _ask(self, connection: Connection) -> None:
        """Until the connection has answered, and the session may run on it again, or has ended."""
        try:
            with trio.move_on_after(self._limits.dial_timeout):
                await connection.ping()
                self._failed.pop(connection.id, None)
                self._changed.set()
        except BROKEN:
            pass
        finally:
            self._questioned.discard(connection.id)

    def _look(self, live: dict[int, Connection], now: float) -> float:
        """Reads what the path in use carries and loses, where there is another one to go to, and keeps a NAT's mapping
        that is known to end with a silence. Returns when to look again."""
        session, carrier = self._session, self._session.active
        if carrier is None:
            return 60.0
        again, connection, machine = 60.0, carrier.connection, session.machine
        if len({(one.path, one.transport) for one in live.values()}) > 1:
            self._known.read(connection, now, full=carrier.blocked or not machine.outgoing.room)
            busy = now - machine.pulse.traffic < machine.limits.busy
            again = self._limits.sample if busy else self._limits.sample_idle
        refresh = self._known.refresh(connection)
        if refresh is not None:
            quiet = now - machine.pulse.heard
            if quiet >= refresh:
                self._nursery.start_soon(self._refresh, connection)
            again = min(again, refresh - quiet if quiet < refresh else refresh)
        return again

    async def _refresh(self, connection: Connection) -> None:
        """One packet each way. Whether the path lives is the session's to find out."""
        with trio.move_on_after(self._limits.measure_timeout):
            try:
                await connection.ping()
            except BROKEN:
                pass

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
        return self._known.candidate(connection, self._trips.get(connection.id, connection.rtt), now)

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
        if self._questioned and policy == "any":
            path = "relay"  # else the swarm would give us what is being asked
        with trio.move_on_after(self._limits.dial_timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_usable, nursery.cancel_scope)
                try:
                    await swarm.connect(peer, addrs, path=path)
                except BridgeError:
                    pass
                nursery.cancel_scope.cancel()
        if self._usable(trio.current_time()):
            return
        if self._questioned:
            self._changed = trio.Event()
            with trio.move_on_after(self._limits.retry_most):
                await self._changed.wait()
            return
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
