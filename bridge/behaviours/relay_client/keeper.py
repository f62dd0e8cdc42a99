"""Keeps one reservation: reach the relay, reserve, announce, renew, and start over when it is lost.

One task for each relay. It announces a circuit address only while the relay's acceptance stands, and reports each
change as an event. Once another program with our key has the reservation, it asks no more until the network changes.
Which relays are kept, and what arrives over them, is the client's business.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import trio

from punchbridge.addresses import Multiaddr, peer_of
from punchbridge.behaviours.relay_client.exchange import Reservation, request_reservation
from punchbridge.behaviours.relay_client.lease import Backoff, Grants, lease_seconds
from punchbridge.errors import BridgeError, ConnectionLost, DialTimeout, NotAllowed, RelayRefused, ReplacedBySameKey
from punchbridge.events import ReservationAccepted, ReservationLost
from punchbridge.identity import PeerId, peer_text
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import NOT_ALLOWED, Connection

if TYPE_CHECKING:
    from punchbridge.swarm.swarm import Swarm


class ReservationKeeper:
    """The reservation at one relay. `reservation` is None while there is none; `scope` ends the task.

    `addrs`: the relay's addresses that we were given, all of one relay; more may be added at any time.

    It is `settled` once the first try has ended, and the first after a loss: then `reservation` or `error` tells how.
    Unless it is `kept`, it ends, with `error` set, when that try fails. `waiters`: the calls that wait for that.
    """

    def __init__(
        self, swarm: Swarm, relay: Multiaddr, held: dict[PeerId, Reservation], asked: dict[PeerId, int]
    ) -> None:
        """held, asked: shared by all keepers of a client. asked: for each relay, the number of the connection over
        which it was last asked for a reservation."""
        self.addrs = [relay]
        self.scope = trio.CancelScope()
        self.settled = False
        self.kept = False
        self.waiters = 0
        self.asking: PeerId | None = None
        """The relay whose answer is awaited."""
        self.reservation: Reservation | None = None
        self.error: BridgeError | None = None
        self._changed = Signal()
        """Announced when `settled` or `asking` is another."""
        self._swarm = swarm
        self._held = held
        self._asked = asked
        self._holding = trio.CancelScope()
        self._replaced: trio.Event | None = None
        """Exists from the moment at which another program has the reservation; set when it is to be asked for again."""
        self._peer = peer_of(relay)
        self._limits = swarm.config.limits.relay_client
        self._backoff = Backoff(self._limits)
        self._grants = Grants(self._limits)

    @property
    def peer(self) -> PeerId | None:
        """The relay's id; None until it answered when the address does not tell it."""
        return self._peer

    async def until_settled(self) -> None:
        """Waits until a try has ended; `reservation` or `error` tells how."""
        number = self._changed.number
        while not self.settled:
            number = await self._changed.beyond(number)

    async def until_answered(self, relay: PeerId) -> None:
        """Waits while the answer of that relay is awaited."""
        number = self._changed.number
        while self.asking == relay:
            number = await self._changed.beyond(number)

    async def run(self) -> None:
        """Runs until `scope` is cancelled, or the first try of one that is not kept fails."""
        with self.scope:
            try:
                while True:
                    connection = await self._acquire()
                    if connection is None:
                        return
                    with trio.CancelScope() as self._holding:
                        await self._hold(connection)
                    if self._replaced is not None:
                        await self._rest(self._replaced)
            finally:
                self._drop()
                self._settle()

    def replaced(self) -> None:
        """Another program with our key has the reservation: withdraws ours, reports it, and asks no more until
        `network_changed`. Only while there is a `reservation`, and no answer is awaited."""
        relay = peer_text(self._peer) if self._peer is not None else str(self.addrs[0])
        self._replaced = trio.Event()
        self._holding.cancel()
        self._drop()
        self.error = ReplacedBySameKey(
            f"another program runs with the same key, and relay {relay} leads to that one now; stop one of the two, or "
            "give each a key of its own (--key)"
        )
        self._report(self.error, 0.0)

    def network_changed(self) -> None:
        """Asks for a reservation again that another program has taken over."""
        if self._replaced is not None:
            self._replaced.set()

    async def _rest(self, again: trio.Event) -> None:
        await again.wait()
        self._replaced = None
        self.settled = False
        self._backoff.reset()

    async def _acquire(self) -> Connection | None:
        """Tries until the relay accepts. None: it failed and was to be tried once."""
        while True:
            try:
                connection = await self._connect()
                await self._reserve(connection, renewed=False)
                return connection
            except NETWORK_FAILURES as raised:
                problem = self.error = _typed(raised)
                if not self.kept and not self.settled:
                    return None
                wait = self._wait_after(problem)
                self._report(problem, wait)
            self._settle()
            await trio.sleep(wait)

    async def _hold(self, connection: Connection) -> None:
        """Renews the reservation until it is lost; then withdraws it, reports it, and waits a little."""
        since = trio.current_time()
        pause = self._grants.renew_after(since, random.random())
        while True:
            with trio.move_on_after(pause):
                await connection.closed.wait()
            try:
                if connection.closed.is_set():
                    connection = self._replacement(connection)
                await self._reserve(connection, renewed=True)
                self._backoff.reset()
                pause = self._grants.renew_after(trio.current_time(), random.random())
            except NETWORK_FAILURES as raised:
                lost = _typed(raised)
                pause = self._wait_after(lost)
                if connection.closed.is_set() or trio.current_time() + pause >= self._grants.until:
                    break
        self._drop()
        self.settled = False  # who asks now is told how the next try ends
        if trio.current_time() - since >= self._limits.stable:
            self._backoff.reset()
            pause = self._wait_after(lost)
        self._report(lost, pause)
        await trio.sleep(pause)

    def _replacement(self, connection: Connection) -> Connection:
        """R5: the relay keeps a reservation until the last direct connection ends, so another one carries it on."""
        other = self._alive()
        if other is None:
            if connection.close_reason == NOT_ALLOWED:
                connection.check_alive()
            raise ConnectionLost(f"the connection to the relay ended ({connection.close_reason})")
        return other

    def _alive(self) -> Connection | None:
        if self._peer is None:
            return None
        for connection in reversed(self._swarm.connections(self._peer)):
            if connection.path == "direct" and not connection.closed.is_set():
                return connection
        return None

    async def _connect(self) -> Connection:
        """A direct connection to the relay; its addresses are tried in turn, within `limits.dial_timeout` each."""
        connection = self._alive()
        failure: BridgeError | None = None
        for addr in () if connection is not None else tuple(self.addrs):
            try:
                with trio.move_on_after(self._limits.dial_timeout):
                    return await self._swarm.dial(addr, expected=self._peer)
                failure = failure or DialTimeout(f"the relay {addr} did not answer; check its address")
            except BridgeError as problem:
                failure = failure or problem
        if connection is None:
            raise failure or DialTimeout("the relay has no address")
        return connection

    async def _reserve(self, connection: Connection, *, renewed: bool) -> None:
        self.asking = connection.peer
        self._asked[connection.peer] = connection.id
        try:
            await self._ask(connection, renewed=renewed)
        finally:
            self.asking = None
            self._changed.notify()

    async def _ask(self, connection: Connection, *, renewed: bool) -> None:
        swarm = self._swarm
        reservation = await request_reservation(
            connection,
            swarm.peer,
            self.addrs,
            allow_private=swarm.config.allow_private,
            seconds=self._limits.reserve_timeout,
        )
        now = trio.current_time()
        self._grants.add(now + lease_seconds(reservation.expires, time.time(), self._limits), now)
        self._peer = reservation.relay
        self._held[reservation.relay] = reservation
        swarm.set_circuit_addrs(reservation.relay, reservation.addrs)
        self.reservation, self.error = reservation, None
        limit = reservation.limit
        swarm.events.emit(
            ReservationAccepted(
                relay=peer_text(reservation.relay),
                addrs=tuple(str(addr) for addr in reservation.addrs),
                expires=reservation.expires,
                renewed=renewed,
                limit_seconds=(limit and limit.seconds) or 0,
                limit_bytes=(limit and limit.bytes) or 0,
            )
        )
        self._settle()

    def _settle(self) -> None:
        self.settled = True
        self._changed.notify()

    def _drop(self) -> None:
        mine, self.reservation, self._grants = self.reservation, None, Grants(self._limits)
        if mine is not None and self._held.get(mine.relay) is mine:  # else another keeper of this relay has renewed it
            del self._held[mine.relay]
            self._swarm.set_circuit_addrs(mine.relay, ())

    def _wait_after(self, problem: BridgeError) -> float:
        at_least = self._limits.refused_wait if isinstance(problem, RelayRefused | NotAllowed) else 0.0
        return self._backoff.next(random.random(), at_least)

    def _report(self, problem: BridgeError, wait: float) -> None:
        code = problem.status if isinstance(problem, RelayRefused) else problem.code
        relay = peer_text(self._peer) if self._peer is not None else str(self.addrs[0])
        told = ReservationLost(relay=relay, code=code, message=str(problem), retry_in=round(wait, 3), error=problem)
        self._swarm.events.emit(told)


def _typed(problem: BaseException) -> BridgeError:
    """A failure of the network as one of our errors; ours stay as they are."""
    if isinstance(problem, BridgeError):
        return problem
    if isinstance(problem, trio.TooSlowError):
        return DialTimeout("the relay did not answer in time; check its address")
    return ConnectionLost(f"the connection to the relay broke: {str(problem) or type(problem).__name__}")
