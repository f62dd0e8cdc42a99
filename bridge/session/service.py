"""The sessions of one host: those it opened, those its peers opened, and who may resume which.

A session belongs to the peer that opened it: carriers of any other peer are refused as unknown, never told apart from
carriers of a session that does not exist.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from punchbridge.errors import BridgeError, LimitExceeded, NotAllowed
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.path import PathPolicy
from punchbridge.session.around import Around
from punchbridge.session.attaching import first_frame, turn_down
from punchbridge.session.carrier import Carrier
from punchbridge.session.keeper import SessionKeeper
from punchbridge.session.known import KnownPaths
from punchbridge.session.live import LiveSession
from punchbridge.session.places import Claim, SessionPlaces, Short
from punchbridge.session.refused import why_not
from punchbridge.session.routes import Route
from punchbridge.session.served import Handler, Served
from punchbridge.session.silence import SilenceCheck
from punchbridge.session.stream import SessionStream
from punchbridge.sessions import Attach, Session, SessionRefusal
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import UnknownVersion
from punchbridge.swarm.gater import Audience, anyone
from punchbridge.tasks.fair import FairQueue
from punchbridge.tasks.supervise import supervise

if TYPE_CHECKING:
    from punchbridge.transport.base import Connection, Stream

__all__ = ["SESSION_PROTOCOL", "SessionService"]

SESSION_PROTOCOL = "/punchbridge/session/1.0.0"

_BATCH: Final = 8
"""Sessions that begin, about a millisecond each, before all that is carried has its turn."""


class SessionService:
    """Accepts, opens and keeps sessions while `run` runs. Used from the trio thread.

    enabled: when False no session protocol is announced, no peer counts as knowing sessions, and `serve` has no effect:
    every stream is a plain one.
    """

    def __init__(self, host: Around, *, enabled: bool = True) -> None:
        self._host = host
        self.enabled = enabled
        self._limits = host.swarm.config.limits.sessions
        self._silence = SilenceCheck(host.swarm, host.swarm.config.limits)
        self._known = KnownPaths(host.swarm.config.limits)
        self._services: dict[str, Served] = {}
        self._accepted: dict[tuple[PeerId, bytes], LiveSession] = {}
        self._opened: set[LiveSession] = set()
        self.budget = Budget(self._limits.budget)
        """What the buffers of all sessions may still hold."""
        self._places = SessionPlaces(self._limits, self.budget)
        self._beginning: FairQueue[PeerId] = FairQueue(_BATCH)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; then every session is reset, and its peer told within `goodbye_timeout`."""
        if not self.enabled:
            task_status.started()
            await trio.sleep_forever()
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve_until, stopping)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                stopping.set()

    async def _serve_until(
        self, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        # Shielded: carriers that are cancelled reset their streams, and a reset overtakes the session's last frame.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._beginning.run)
                await self._host.swarm.handle(
                    SESSION_PROTOCOL,
                    self._carrier_came,
                    max_streams=self._limits.carriers * self._limits.total,
                    max_per_peer=4 * self._limits.per_peer,
                    audience=anyone,  # who may not open a session is told so
                )
                unfollow = self._host.swarm.gater.follow(self._access_changed)
                task_status.started()
                await stopping.wait()
                unfollow()
                with trio.move_on_after(self._limits.goodbye_timeout):
                    async with trio.open_nursery() as goodbyes:
                        for session in (*self._accepted.values(), *self._opened):
                            SessionStream(session).abort()
                            for carrier in session.carriers.values():
                                goodbyes.start_soon(carrier.leave)
                nursery.cancel_scope.cancel()
        self._nursery = None

    @property
    def count(self) -> int:
        """Sessions alive, opened and accepted."""
        return len(self._opened) + len(self._accepted)

    @property
    def opened(self) -> tuple[LiveSession, ...]:
        """The sessions that this host opened and that live."""
        return tuple(self._opened)

    @property
    def accepted(self) -> tuple[LiveSession, ...]:
        """The sessions that peers opened here and that live."""
        return tuple(self._accepted.values())

    def serve(
        self,
        service: str,
        handler: Handler,
        path: PathPolicy = "any",
        *,
        max_sessions: int | None = None,
        max_per_peer: int | None = None,
        audience: Audience | None = None,
    ) -> None:
        """`handler` gets each session that a peer opens for `service`; the session ends when it returns.

        audience: who may open one, by default who is on the lists; others are refused with NOT_ALLOWED, and sessions of
        a peer whom the audience loses are reset with that word.

        path: carriers on another path are refused, the first one and all later ones. Beyond the two limits sessions are
        refused with TOO_MANY, and beyond what the host accepts in all and of one peer whatever these two say, or when
        they are None.
        """
        total = self._limits.total if max_sessions is None else max_sessions
        per_peer = self._limits.per_peer if max_per_peer is None else max_per_peer
        self._services[service] = Served(handler, path, total, per_peer, audience or self._host.swarm.gater.listed)

    def unserve(self, service: str) -> None:
        """Sessions that run go on. Idempotent."""
        self._services.pop(service, None)

    # --- accepting --------------------------------------------------------------------------------------

    async def _carrier_came(self, stream: Stream) -> None:
        try:
            with trio.fail_after(self._limits.first_frame_timeout):
                attach, rest = await first_frame(stream)
        except trio.TooSlowError:
            stream.abort()
            return
        except UnknownVersion:
            await self._refuse(stream, self._claim(stream.connection), SessionRefusal.BAD_VERSION)
            return
        claim = self._claim(stream.connection)
        known = self._accepted.get((claim.peer, attach.session))
        if known is None and self._nursery is not None:
            await self._beginning.turn(claim.peer)
            known = self._accepted.get((claim.peer, attach.session))
        if self._nursery is None:  # stopped, and the swarm still takes streams
            stream.abort()
            return
        if known is None:
            refusal = self._may_open(claim, attach, stream.connection)
            if refusal is not None:
                await self._refuse(stream, claim, refusal)
                return
        elif not _carries(known, stream.connection):
            await self._refuse(stream, claim, SessionRefusal.PATH_NOT_ALLOWED)
            return
        session = known or self._make(claim, attach)
        refused, events = session.machine.attached_by(attach, trio.current_time())
        if known is None:
            self._begin(session, claim, refused)
        if refused is not None:
            await self._refuse(stream, claim, refused)
            return
        carrier = session.adopt(stream, attach.generation)
        session.handle(events)
        await self._carry(session, carrier, rest)

    def _claim(self, connection: Connection) -> Claim:
        return Claim.of(connection, listed=self._host.swarm.gater.named(connection))

    async def _refuse(self, stream: Stream, claim: Claim, refusal: SessionRefusal) -> None:
        if refusal is not SessionRefusal.TOO_MANY:  # which is counted under the bound that was reached
            self._host.swarm.refusals.add(refusal.name.lower(), claim.where[0][1], peer_text(claim.peer))
        await turn_down(stream, refusal, self._limits.first_frame_timeout)

    def _may_open(self, claim: Claim, attach: Attach, connection: Connection) -> SessionRefusal | None:
        if not attach.fresh:
            return SessionRefusal.UNKNOWN_SESSION
        service = self._services.get(attach.service)
        if service is None:
            # What is served, and what is not, is nothing that a stranger is told.
            return (
                SessionRefusal.UNKNOWN_SERVICE
                if self._host.swarm.gater.listed(connection)
                else SessionRefusal.NOT_ALLOWED
            )
        if not service.audience(connection):
            return SessionRefusal.NOT_ALLOWED
        if service.path not in ("any", connection.path):
            return SessionRefusal.PATH_NOT_ALLOWED
        # One that opens nothing, as the session itself will say, must not cost anybody a place.
        return None if not attach.begins or self._make_room(service, claim) else SessionRefusal.TOO_MANY

    def _make_room(self, service: Served, claim: Claim) -> bool:
        """Whether there is a place for one session more; ends others that have to go first."""
        while (short := self._short(service, claim)) is not None:
            going = self._places.first_to_go(claim, short, service.active.keys(), trio.current_time())
            counted = claim if going is None else self._places.claim(going)
            self._host.swarm.refusals.add(short, counted.where[0][1], peer_text(counted.peer))
            if going is None:
                return False
            for one in self._services.values():
                one.leave(going)
            self._places.discard(going)
            going.handle(going.machine.reset("its place was needed"))
        return True

    def _short(self, service: Served, claim: Claim) -> Short | None:
        full: Short | None
        if service.peers[claim.peer] >= service.max_per_peer:
            return "sessions_per_peer"
        full = "sessions_of_service" if len(service.active) >= service.max_sessions else None
        return self._places.short(claim, len(self._opened)) or full

    def _access_changed(self) -> None:
        """Sessions of peers who are not admitted any more end, and the peers are told why."""
        for session in tuple(self._accepted.values()):
            audience, last = session.audience, session.last
            if audience is not None and last is not None and not audience(last) and not session.over.is_set():
                session.handle(session.machine.reset(SessionRefusal.NOT_ALLOWED.name))

    def _make(self, claim: Claim, attach: Attach) -> LiveSession:
        session = self._live(attach.session, attach.service, claim.peer, self._places.borrow(claim), dialling=False)
        service = self._services[attach.service]
        session.allowed, session.audience = service.path, service.audience
        return session

    def _live(self, identifier: bytes, service: str, peer: PeerId, budget: Budget, *, dialling: bool) -> LiveSession:
        now, limits = trio.current_time(), self._limits
        machine = Session(identifier, service, dialling=dialling, now=now, limits=limits, budget=budget)
        return LiveSession(machine, peer, self._host.swarm.events, self._running(), self._silence)

    def _begin(self, session: LiveSession, claim: Claim, refused: SessionRefusal | None) -> None:
        if refused is not None:
            self._return_budget(session, claim)
            return
        service = self._services[session.machine.service]
        service.enter(session)
        self._places.add(session, claim, trio.current_time())
        self._accepted[(session.peer, session.machine.id)] = session
        self._start("an accepted session", partial(self._serve, session, service, claim))

    def _return_budget(self, session: LiveSession, claim: Claim) -> None:
        session.machine.give_back()
        self._places.give_back(claim)

    def _start(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """A task of one session, whose failure must not end the others."""
        self._running().start_soon(supervise, what, work, _let_be)

    async def _serve(self, session: LiveSession, service: Served, claim: Claim) -> None:
        """Runs the handler of one accepted session, and its timer, until both have ended."""
        key = (session.peer, session.machine.id)
        stream = SessionStream(session)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run_timer)
                await supervise(
                    f"the handler of {stream.service}", lambda: service.handler(stream), lambda _: stream.abort()
                )
                await stream.aclose()
                nursery.cancel_scope.cancel()
        finally:
            stream.abort()
            self._return_budget(session, claim)
            del self._accepted[key]
            service.leave(session)
            self._places.discard(session)

    # --- opening ----------------------------------------------------------------------------------------

    async def supported_by(self, connection: Connection) -> bool:
        """Whether sessions are enabled here and the peer told (identify) that it knows them; False when it says nothing
        in time."""
        if not self.enabled:
            return False
        with trio.move_on_after(self._host.swarm.config.limits.identify.timeout):
            await connection.identified.wait()
        info = connection.identify
        return info is not None and SESSION_PROTOCOL in info.protocols

    async def open(self, connection: Connection, service: str, *, route: Route, policy: PathPolicy) -> SessionStream:
        """Opens a session for `service` over a live connection; from then on it moves by itself, as `policy` allows.

        Takes one round trip. Raises NegotiationFailed (the peer does not serve it), NotAllowed, LimitExceeded,
        ConnectionLost, StreamReset. Cancelling leaves no session.
        """
        if len(self._opened) >= self._limits.total:
            raise LimitExceeded(f"{self._limits.total} sessions are open; close some")
        session = self._live(os.urandom(16), service, route.peer, self.budget, dialling=True)
        stream = SessionStream(session)
        try:
            if not await self.move(session, connection, "OPENED"):
                raise why_not(session, service, self._host.swarm.peer)
        except BaseException:
            stream.abort()
            raise
        self._opened.add(session)
        self._start("a session's keeper", partial(self._keep, session, route, policy))
        return stream

    async def _keep(self, session: LiveSession, route: Route, policy: PathPolicy) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run_timer)
                keeper = SessionKeeper(self._host, session, route, policy, self.move, nursery, self._known)
                nursery.start_soon(keeper.run)
                await session.over.wait()
                nursery.cancel_scope.cancel()
        finally:
            SessionStream(session).abort()
            session.machine.give_back()
            self._opened.discard(session)

    async def move(self, session: LiveSession, connection: Connection, reason: str) -> bool:
        """Opens a carrier on the connection and waits for the answer. False when it was refused or broke.

        For sessions that this host opened; the keeper calls it, and may move the session again. Cancelling drops the
        carrier that was being attached.
        """
        machine = session.machine
        if machine.crowded or machine.over is not None:
            return False
        try:
            stream = await connection.open_stream((SESSION_PROTOCOL,), lazy=True)
        except BridgeError as problem:
            session.problem = problem
            if isinstance(problem, NotAllowed) and machine.active is None:
                session.handle(machine.reset(SessionRefusal.NOT_ALLOWED.name))
            return False
        if machine.crowded or session.over.is_set():  # since the stream was asked for
            stream.abort()
            return False
        generation = machine.attach(trio.current_time())
        carrier = session.adopt(stream, generation)
        session.moving(reason)
        ended = trio.Event()
        self._start("a carrier", partial(self._carry, session, carrier, b"", ended))
        carrier.flush(trio.current_time())
        try:
            return await session.attached(carrier, ended)
        except trio.Cancelled:
            if session in self._opened and (machine.active is None or machine.active < generation):
                carrier.drop()
            raise

    async def _carry(
        self, session: LiveSession, carrier: Carrier, early: bytes = b"", ended: trio.Event | None = None
    ) -> None:
        try:
            await carrier.run(early)
        finally:
            session.forget(carrier)
            if ended is not None:
                ended.set()

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("the session service does not run")
        return self._nursery


def _carries(session: LiveSession, connection: Connection) -> bool:
    """Whether a session that lives may move to the connection: the path fits, and the peer would be admitted there. One
    that is admitted for its network is none of the audience at another address, or over a relay."""
    allowed = session.allowed in ("any", connection.path)
    return allowed and (session.audience is None or session.audience(connection))


def _let_be(_reason: str) -> None:
    """The task's own clean-up has done what there is to do."""
