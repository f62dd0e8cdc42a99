"""Dialling: one address or many at once, from the listening port, with every failure kept.

It turns addresses into links and has the pool upgrade them. It chooses no addresses of its own, and filters only
what can never be dialled; addresses learned from strangers are filtered by whoever learned them.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Sequence
from typing import Final, Literal

import trio

from punchbridge.addresses import Endpoint, Multiaddr, circuit_of, endpoint_of, is_relayed, peer_of, without_peer
from punchbridge.errors import (
    AddressError,
    AuthenticationFailed,
    BridgeError,
    DialTimeout,
    SwarmStopped,
    Unreachable,
    WrongPeer,
)
from punchbridge.identity import PeerId, peer_text
from punchbridge.limits.net import CONNECT_TIMEOUT
from punchbridge.limits.swarm import DIAL_STAGGER, MAX_PARALLEL_DIALS, TRANSPORT_DIAL_TIMEOUT
from punchbridge.swarm.plan import DialPlan, dial_endpoint, expected_peer, failure
from punchbridge.swarm.pool import Pool
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Connection, Transport
from punchbridge.transport.link import Link
from punchbridge.transport.tcp.listener import Listeners
from punchbridge.transport.tcp.sockets import TcpStream, connect, resolve

__all__ = ["Dialer"]

_log = logging.getLogger(__name__)

_NOT_FROM_THERE: Final = {errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EINVAL}
"""connect(2) from the listening port: the 4-tuple exists already, here or half-open at the listener, or the address
bound cannot send to that destination."""


class _Race:
    """One dial in progress, which several callers may share; it ends when nobody waits any more."""

    def __init__(self, addrs: Sequence[Multiaddr]) -> None:
        self.plan = DialPlan(addrs)
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.news = Signal()
        self.waiters = 0
        self.running = 0
        self.failures: list[tuple[Multiaddr, BridgeError]] = []
        self.winner: Connection | None = None
        self.error: Exception | None = None
        self.lost = False
        """Every address was tried in vain; those of a later caller would not be."""

    def add(self, addrs: Sequence[Multiaddr]) -> None:
        self.plan.add(addrs)
        self.news.notify()

    def start_next(self) -> Multiaddr | None:
        """The address to try now; None when all are tried or enough of them are under way."""
        addr = self.plan.next() if self.running < MAX_PARALLEL_DIALS else None
        self.running += addr is not None
        return addr

    def ended(self, connection: Connection | None) -> None:
        """One attempt is over. A second connection that stood at the same moment is closed."""
        self.running -= 1
        self.news.notify()
        if self.winner is None:
            self.winner = connection
        elif connection is not None and connection is not self.winner:
            connection.abort("DUPLICATE")


class Dialer:
    """Makes connections for a pool, using TCP from the listeners' ports and the transports added."""

    def __init__(self, pool: Pool, listeners: Listeners, transports: Sequence[Transport]) -> None:
        self._pool = pool
        self._listeners = listeners
        self._transports = transports
        self._races: dict[object, _Race] = {}

    async def dial(self, addr: Multiaddr, expected: PeerId | None, fresh: bool) -> Connection:
        """Dials one address (a name counts as all its addresses). Unless `fresh`, a live connection of the same
        kind to that peer is returned, and callers that dial the same address at once share one dial."""
        expected = expected_peer(addr, expected)
        if expected == self._pool.identity.peer_id:
            raise AddressError(f"{addr} is this node itself; dial another peer")
        if fresh:
            return await self._race(_Race([addr]), expected, fresh=True)
        live = self._live(addr, expected)
        return live or await self._shared((expected, addr), [addr], expected)

    async def connect(
        self, peer: PeerId, addrs: Sequence[Multiaddr], path: Literal["any", "direct", "relay"]
    ) -> Connection:
        """The best live connection to the peer on the path, else a race over `addrs`; concurrent calls share it."""
        if peer == self._pool.identity.peer_id:
            raise AddressError(f"{peer_text(peer)} is this node itself; connect to another peer")
        for addr in addrs:
            expected_peer(addr, peer)
        live = [one for one in self._pool.live(peer) if path in ("any", one.path)]
        if live:
            return live[0]
        if path != "any":
            addrs = [addr for addr in addrs if is_relayed(addr) == (path == "relay")]
        return await self._shared((peer, path), addrs, peer)

    def _live(self, addr: Multiaddr, expected: PeerId | None) -> Connection | None:
        """A connection that serves as well as dialling `addr` would: direct, or through the same relay."""
        if expected is None:
            return None
        circuit = circuit_of(addr)
        for connection in self._pool.live(expected):
            if circuit is None and connection.path == "direct":
                return connection
            if circuit is not None and connection.path == "relay" and connection.relay == circuit.relay_peer:
                return connection
        return None

    async def _shared(self, key: object, addrs: Sequence[Multiaddr], expected: PeerId | None) -> Connection:
        race = self._races.get(key)
        if race is None or race.lost:
            race = self._races[key] = _Race(addrs)
            self._pool.nursery.start_soon(self._run_shared, key, race, expected)
        else:
            race.add(addrs)
        race.waiters += 1
        try:
            await race.done.wait()
        finally:
            race.waiters -= 1
            if not race.waiters:
                race.scope.cancel()
                self._forget(key, race)
        if race.error is not None:
            raise race.error
        if race.winner is None:
            raise SwarmStopped("the swarm stopped before the dial ended")
        return race.winner

    async def _run_shared(self, key: object, race: _Race, expected: PeerId | None) -> None:
        try:
            with race.scope:
                await self._race(race, expected, fresh=False)
        except Exception as problem:  # noqa: BLE001 - handed on: every caller raises it
            race.error = problem
        finally:
            self._forget(key, race)
            race.done.set()

    def _forget(self, key: object, race: _Race) -> None:
        if self._races.get(key) is race:
            del self._races[key]

    async def _race(self, race: _Race, expected: PeerId | None, *, fresh: bool) -> Connection:
        """Tries the plan's addresses, DIAL_STAGGER apart or at once after a failure, at most MAX_PARALLEL_DIALS
        together (RFC 8305). The first authenticated connection wins, the other attempts are cancelled.
        Raises the error that `failure` makes of all attempts."""

        async def attempt(addr: Multiaddr) -> None:
            connection = None
            try:
                connection = await self._attempt(addr, expected, race, fresh)
            except BridgeError as problem:
                race.failures.append((addr, problem))
            finally:
                race.ended(connection)

        async with flat_nursery() as nursery:
            while race.winner is None:
                seen = race.news.number
                addr = race.start_next()
                if addr is not None:
                    nursery.start_soon(attempt, addr)
                elif not race.running:
                    race.lost = True
                    break
                more = race.plan.waiting and race.running < MAX_PARALLEL_DIALS
                with trio.move_on_after(DIAL_STAGGER if more else math.inf):
                    await race.news.beyond(seen)
            nursery.cancel_scope.cancel()
        if race.winner is None:
            raise failure(peer_text(expected) if expected else "the address", race.failures, race.plan.skipped)
        return race.winner

    async def _attempt(self, addr: Multiaddr, expected: PeerId | None, race: _Race, fresh: bool) -> Connection | None:
        """One address; None when it was a name, whose addresses then join the race."""
        for transport in self._transports:
            if transport.handles(addr):
                with trio.move_on_after(TRANSPORT_DIAL_TIMEOUT) as deadline:
                    link = await transport.dial(addr)
                if deadline.cancelled_caught:
                    raise DialTimeout(f"no answer within {TRANSPORT_DIAL_TIMEOUT:g} s", (str(addr),))
                return await self._pool.establish(link, role="initiator", expected=expected)
        if is_relayed(addr):
            raise AddressError(f"{addr} is a circuit address, but this node runs no relay client")
        endpoint = dial_endpoint(addr)
        if endpoint.kind not in ("ip4", "ip6"):
            await self._resolve(addr, endpoint, race)
            return None
        if self._listeners.is_own(endpoint):
            raise AddressError(f"{addr} is our own listening address; dial another peer")
        connected = await self._tcp(addr, endpoint, expected, fresh)
        if not isinstance(connected, TcpStream):
            return connected
        try:
            return await self._initiate(connected, expected)
        except WrongPeer:
            raise
        except AuthenticationFailed:
            # Two nodes that dial each other at one moment, both from their listening ports, get one TCP connection
            # by simultaneous open (RFC 9293 section 3.5) with an initiator at either end. Another port parts them.
            local = endpoint_of(connected.local)
            if local is None or not self._listeners.is_own(local):
                raise
        _log.debug("%s: handshake clash from the listening port, then from another port", addr)
        return await self._initiate(await connect(_bare(addr), source=None, timeout=CONNECT_TIMEOUT), expected)

    async def _initiate(self, tcp: TcpStream, expected: PeerId | None) -> Connection:
        link = Link(raw=tcp, local=tcp.local, remote=tcp.remote, path="direct", inbound=False)
        return await self._pool.establish(link, role="initiator", expected=expected)

    async def _resolve(self, addr: Multiaddr, endpoint: Endpoint, race: _Race) -> None:
        found = await resolve(addr)
        if not found:
            raise Unreachable(f"the name {endpoint.host} has no address; check its spelling and the resolver")
        race.add(found)

    async def _tcp(
        self, addr: Multiaddr, endpoint: Endpoint, expected: PeerId | None, fresh: bool
    ) -> TcpStream | Connection:
        target = _bare(addr)
        source = self._listeners.source_for(endpoint.ip)
        try:
            return await connect(target, source=source, timeout=CONNECT_TIMEOUT)
        except Unreachable as problem:
            busy = _errno(problem)
            if source is None or busy not in _NOT_FROM_THERE:
                raise
        live = None if fresh else self._same_endpoint(target, expected)
        if live is not None:
            return live
        note = f"{errno.errorcode[busy]} from the listening port {source[1]}, then from another port"
        _log.debug("%s: %s", addr, note)
        try:
            return await connect(target, source=None, timeout=CONNECT_TIMEOUT)
        except Unreachable as problem:
            raise type(problem)(f"{note}: {problem}", problem.attempts) from problem

    def _same_endpoint(self, target: Multiaddr, expected: PeerId | None) -> Connection | None:
        for connection in self._pool.table.members(expected):
            if connection.path == "direct" and connection.remote == target and not connection.closing:
                return connection
        return None


def _bare(addr: Multiaddr) -> Multiaddr:
    return without_peer(addr) if peer_of(addr) is not None else addr


def _errno(problem: Unreachable) -> int:
    """The system's error number behind a failed connect; 0 when there is none."""
    cause = problem.__cause__ or problem.__context__
    return cause.errno or 0 if isinstance(cause, OSError) else 0
