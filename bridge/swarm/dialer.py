"""Dialling: one address or many at once, with every failure kept.

It resolves names, has the transports dial, and enters what stands in the pool. It chooses no addresses of its own, and
filters only what can never be dialled; addresses learned from strangers are filtered by whoever learned them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

import trio

from punchbridge.addresses import Endpoint, Multiaddr, Proto, circuit_of, is_relayed, without_peer
from punchbridge.config import Limits, SwarmLimits
from punchbridge.errors import (
    AddressError,
    BridgeError,
    DialTimeout,
    SwarmStopped,
    Unreachable,
)
from punchbridge.identity import PeerId, peer_text
from punchbridge.swarm.plan import DialPlan, dial_endpoint, expected_peer, failure
from punchbridge.swarm.pool import Pool
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.tasks.signal import Signal
from punchbridge.transport.absent import check_present
from punchbridge.transport.base import Connection, Transport
from punchbridge.transport.resolve import resolve

__all__ = ["Dialer"]


class _Race:
    """One dial in progress, which several callers may share; it ends when nobody waits any more."""

    def __init__(self, addrs: Sequence[Multiaddr], limits: SwarmLimits, first: Proto = "tcp") -> None:
        self.plan = DialPlan(addrs, most=limits.dial_addresses, first=first)
        self._parallel = limits.parallel_dials
        self._stagger, self._beside = limits.dial_stagger, limits.transport_stagger
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
        addr = self.plan.next() if self.running < self._parallel else None
        self.running += addr is not None
        return addr

    def pause(self) -> float:
        """Seconds until the next address is due; inf when none is, or enough are under way."""
        if not self.plan.waiting or self.running >= self._parallel:
            return math.inf
        return self._beside if self.plan.beside else self._stagger

    def ended(self, connection: Connection | None) -> None:
        """One attempt is over. A second connection that stood at the same moment is closed."""
        self.running -= 1
        self.news.notify()
        if self.winner is None:
            self.winner = connection
        elif connection is not None and connection is not self.winner:
            connection.abort("DUPLICATE")


class Dialer:
    """Makes connections for a pool by the first of the transports that handles an address."""

    def __init__(self, limits: Limits, pool: Pool, transports: Sequence[Transport], missing: Mapping[str, str]) -> None:
        """missing: why a transport is not there, by the name in its addresses."""
        self._limits, self._tcp = limits.swarm, limits.tcp
        self._seconds = limits.swarm.transport_dial_timeout + limits.muxed.upgrade_timeout
        self._pool = pool
        self._transports = transports
        self._missing = missing
        self._worked: OrderedDict[PeerId, Proto] = OrderedDict()
        """By which transport each peer was reached last."""
        self._races: dict[object, _Race] = {}

    async def dial(self, addr: Multiaddr, expected: PeerId | None, fresh: bool) -> Connection:
        """Dials one address (a name counts as all its addresses). Unless `fresh`, a live connection of the same
        kind to that peer is returned, and callers that dial the same address at once share one dial."""
        expected = expected_peer(addr, expected)
        if expected == self._pool.identity.peer_id:
            raise AddressError(f"{addr} is this node itself; dial another peer")
        if fresh:
            return await self._race(self._new_race([addr], expected), expected, fresh=True)
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

    def _new_race(self, addrs: Sequence[Multiaddr], expected: PeerId | None) -> _Race:
        first = None if expected is None else self._worked.get(expected)
        return _Race(addrs, self._limits, first or "tcp")

    def _works(self, peer: PeerId, proto: Proto) -> None:
        self._worked[peer] = proto
        self._worked.move_to_end(peer)
        while len(self._worked) > self._limits.dialled_peers:
            self._worked.popitem(last=False)

    async def _shared(self, key: object, addrs: Sequence[Multiaddr], expected: PeerId | None) -> Connection:
        race = self._races.get(key)
        if race is None or race.lost:
            race = self._races[key] = self._new_race(addrs, expected)
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
        """Tries the plan's addresses, `dial_stagger` apart (two transports to one host: `transport_stagger`) or at once
        after a failure, at most `parallel_dials` together (RFC 8305). The first authenticated connection wins, the
        other attempts are cancelled. Raises the error that `failure` makes of all attempts."""

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
                with trio.move_on_after(race.pause()):
                    await race.news.beyond(seen)
            nursery.cancel_scope.cancel()
        if race.winner is None:
            raise failure(peer_text(expected) if expected else "the address", race.failures, race.plan.skipped)
        return race.winner

    async def _attempt(self, addr: Multiaddr, expected: PeerId | None, race: _Race, fresh: bool) -> Connection | None:
        """One address; None when it was a name, whose addresses then join the race."""
        endpoint = None if is_relayed(addr) else dial_endpoint(addr)
        # A circuit comes all the same over a relay that we are connected to by another transport.
        if endpoint is not None:
            check_present(addr, self._missing)
        # The kernel would refuse a second connection from the listening port to the same endpoint.
        live = None if fresh or endpoint is None else self._same_endpoint(without_peer(addr), expected)
        if live is not None:
            return live
        for transport in self._transports:
            if transport.handles(addr):
                with trio.move_on_after(self._seconds):
                    connection = await self._pool.enter(await transport.dial(addr, expected))
                    if endpoint is not None:
                        self._works(connection.peer, endpoint.proto)
                    return connection
                raise DialTimeout(f"no answer within {self._seconds:g} s", (str(addr),))
        if endpoint is None:
            raise AddressError(f"{addr} is a circuit address, but this node runs no relay client")
        if endpoint.kind in ("ip4", "ip6"):
            raise AddressError(f"{addr} is of a transport that this node does not run")
        await self._resolve(addr, endpoint, race)
        return None

    async def _resolve(self, addr: Multiaddr, endpoint: Endpoint, race: _Race) -> None:
        found = await resolve(addr, self._tcp)
        if not found:
            raise Unreachable(f"the name {endpoint.host} has no address; check its spelling and the resolver")
        race.add(found)

    def _same_endpoint(self, target: Multiaddr, expected: PeerId | None) -> Connection | None:
        for connection in self._pool.table.members(expected):
            if connection.path == "direct" and connection.remote == target and not connection.closing:
                return connection
        return None
