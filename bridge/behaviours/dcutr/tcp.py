"""Direct connections over TCP: a simultaneous open with its upgrade, and the plain dial before it.

The initiator decides which of several sockets is kept: the first whose ping came back; it closes the others. The
responder keeps what answers and lets the rest run on for a moment, since the initiator may have chosen one of them.
A frame of the initiator is an answer too: it had to read the responder's Noise message to send it. This module knows
no message of DCUtR.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field

import trio

from punchbridge.addresses import Endpoint, Proto, endpoint_of
from punchbridge.behaviours.dcutr.attempts import Attempt, Won
from punchbridge.behaviours.dcutr.budget import Budget
from punchbridge.behaviours.dcutr.direct import answered
from punchbridge.behaviours.dcutr.kept import KeptSockets, PeerSockets
from punchbridge.behaviours.dcutr.record import Records
from punchbridge.config import Punch, TcpLimits
from punchbridge.errors import DialTimeout, LimitExceeded
from punchbridge.events import Role
from punchbridge.iana import kind_of
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.candidates import endpoints_of
from punchbridge.reach.dials import AttemptDials
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection
from punchbridge.transport.link import Link
from punchbridge.transport.tcp.dial import Dial
from punchbridge.transport.tcp.simultaneous import How, SimultaneousOpen
from punchbridge.transport.tcp.sockets import TcpStream

__all__ = ["TcpOpener"]


class TcpOpener:
    """Opens direct TCP connections for all punches of one node."""

    def __init__(
        self, swarm: Swarm, kept: KeptSockets, records: Records, budget: Budget, punch: Punch, rng: random.Random
    ) -> None:
        self.nursery: trio.Nursery
        self.kept = kept
        self.swarm = swarm
        self.punch = punch
        self.limits = swarm.config.limits.punch
        self.budget = budget
        self.rng = rng
        self._records = records

    def able(self, attempt: Attempt) -> bool:
        """Whether there is anything to try: an address of the peer, and a listening port to dial it from."""
        wanted = endpoints_of(attempt.remote, "tcp")
        return any(self.swarm.listen_port(one.ip.version, "tcp") is not None for one in wanted)

    def prepare(self, attempt: Attempt, role: Role, circuit: Connection) -> TcpOpening:
        """See `DirectOpener`."""
        return TcpOpening(self, attempt, role, circuit)

    async def adopt(self, link: Link, role: Role, peer: PeerId) -> Connection:
        """Secures a socket of a punch and has the swarm take it in. Raises as these do."""
        with self._records.making(peer, (str(link.local), str(link.remote))):
            return await self.swarm.adopt(await self.swarm.upgrader.upgrade(link, role=role, expected=peer))

    def source(self, endpoint: Endpoint) -> tuple[str, int] | None:
        """The listening (ip, port) to dial an endpoint from (D17)."""
        bound = self.swarm.listen_port(endpoint.ip.version, endpoint.proto)
        if bound is None:
            return None
        here = Endpoint(endpoint.kind, *bound, endpoint.proto)
        usable = kind_of(here.ip) == "unspecified" or here.on_loopback == endpoint.on_loopback
        return bound if usable else None

    def hosts_of_others(self, peer: PeerId) -> set[tuple[Proto, str]]:
        """The IPs at which we are directly connected with anybody else, by protocol."""
        others = (c for c in self.swarm.connections() if c.path == "direct" and c.peer != peer)
        return {endpoint.place for endpoint in (endpoint_of(c.remote) for c in others) if endpoint is not None}

    # --- the plain dial first (D2) -----------------------------------------------------------------------

    async def dial(self, attempt: Attempt, circuit: Connection) -> Won | None:
        """Dials the attempt's addresses, as the peer announces them, within its budget; None when an exchange follows.

        After the head start only a connected one may finish its upgrade. Those still in the air go on as dials of
        the punch (`punchbridge.transport.tcp.dial`), whose role is another one.
        """
        try:
            sockets = self.kept.take(attempt.peer)
        except LimitExceeded:
            return None  # the exchange meets the same limit and tells of it
        plain, ended = _Plain(sockets, self.budget.of(attempt, circuit)), trio.Event()
        try:
            async with trio.open_nursery() as nursery:

                async def all_dials() -> None:
                    async with trio.open_nursery() as dials:
                        for endpoint in endpoints_of(attempt.remote, "tcp"):
                            if plain.budget.ask(endpoint, trio.current_time()) == "yes":
                                dials.start_soon(self._dial, endpoint, plain, dials.cancel_scope)
                    ended.set()

                nursery.start_soon(all_dials)
                with trio.move_on_after(self.limits.reversal_head_start):
                    await ended.wait()
                if plain.connected.is_set() and not ended.is_set():
                    with trio.move_on_after(self.limits.reversal_timeout):
                        await ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.kept.keep(sockets)
        return plain.wins[0] if plain.wins else None

    async def _dial(self, endpoint: Endpoint, plain: _Plain, scope: trio.CancelScope) -> None:
        try:
            stream = await plain.connect(endpoint, self.source(endpoint), self.swarm.config.limits.tcp)
            link = Link(raw=stream, local=stream.local, remote=stream.remote, path="direct", inbound=False)
            connection = await self.adopt(link, "initiator", plain.sockets.peer)
            try:
                plain.wins.append(Won(connection, "dial", await connection.ping()))
            except BaseException:  # nobody will tell of a connection that did not win
                connection.abort("NO_ROUND_TRIP")
                raise
            scope.cancel()
        except NETWORK_FAILURES:
            return  # the exchange follows; its verdict counts


@dataclass(eq=False)
class _Plain:
    """The plain dials before one exchange, with what they have come to."""

    sockets: PeerSockets
    budget: AttemptDials
    connected: trio.Event = field(default_factory=trio.Event)
    wins: list[Won] = field(default_factory=list)

    async def connect(self, endpoint: Endpoint, source: tuple[str, int] | None, limits: TcpLimits) -> TcpStream:
        """One dial. Raises OSError; cancelled, the dial in the air is kept for the punch."""
        self.sockets.dials.drop(endpoint)
        try:
            dial = Dial(endpoint, source, limits)
        except OSError:
            self.budget.unused(endpoint)
            raise
        try:
            stream = await dial.wait()
        except trio.Cancelled:
            self.sockets.dials.keep(dial, plain=True)
            raise
        except OSError as problem:
            self.budget.refused(endpoint, errno.errorcode.get(problem.errno or 0, "OSError"))
            raise
        self.connected.set()
        return stream


class TcpOpening:
    """One simultaneous open. Without a connection, also when cancelled, the dials in the air are kept for the peer."""

    def __init__(self, opener: TcpOpener, attempt: Attempt, role: Role, circuit: Connection) -> None:
        self._opener = opener
        self._attempt = attempt
        self.peer = attempt.peer
        self._role = role
        self._budget = opener.budget.of(attempt, circuit)
        self._patience = opener.limits.socket_patience + 4 * (circuit.rtt or 0.0)
        self._start = trio.Event()
        self._choosing = trio.Lock()

    def go(self) -> None:
        """See `Opening`."""
        self._start.set()

    async def run(self) -> Won | None:
        """See `Opening`.

        Accepted sockets from the candidates' IPs are ours while this runs, whatever their port: behind a symmetric
        NAT the peer's port cannot be known. An IP that other peers of ours have as well (the relay's, or a NAT they
        share) counts with the exact port only, so that a peer cannot catch their connections by naming their IP.
        """
        opener = self._opener
        endpoints = frozenset(endpoints_of(self._attempt.remote, "tcp"))
        remote = tuple(addr for addr in self._attempt.remote if endpoint_of(addr) in endpoints)
        hosts = {endpoint.place for endpoint in endpoints} - opener.hosts_of_others(self.peer)
        sockets = opener.kept.take(self.peer)
        opening: SimultaneousOpen[Won] = SimultaneousOpen(
            remote,
            source=opener.source,
            kept=sockets.dials,
            take=self.judge,
            evidence=self._attempt.evidence,
            nursery=opener.nursery,
            keep_losers=self._role == "responder",
            rng=opener.rng,
            limits=opener.limits,
            tcp=opener.swarm.config.limits.tcp,
            budget=self._budget,
        )
        try:
            sockets.expect(endpoints, frozenset(hosts))
            async with flat_nursery() as nursery:
                nursery.start_soon(self._expire, opening, nursery.cancel_scope)
                await opening.run(sockets.accepted, self._start)
                nursery.cancel_scope.cancel()
        finally:
            # Asked for here, since the deadline or a cancellation may come between the win and the end of `run`.
            self._attempt.won = self._attempt.won or opening.prize
            self._tell_withheld()
            if self._attempt.won is None:
                opener.kept.keep(sockets)
            else:
                sockets.close()
        return opening.prize

    def _tell_withheld(self) -> None:
        if self._budget.withheld:
            self._attempt.detail = self._budget.withheld
            self._opener.swarm.refusals.add("punch_dials", str(self._budget.origin), peer_text(self.peer))

    async def _expire(self, opening: SimultaneousOpen[Won], scope: trio.CancelScope) -> None:
        await self._start.wait()
        await trio.sleep(self._opener.punch.attempt_timeout)
        if opening.busy:
            await trio.sleep(self._opener.limits.upgrade_grace)
        scope.cancel()

    async def judge(self, stream: TcpStream, how: How) -> Won | None:
        """Upgrades a socket in the role of the exchange (D5), then makes a round trip on it."""
        asked_for = self._role == "responder"
        upgrades = self._attempt.evidence.upgrades
        # A black-holed half of a connection must not hold its 4-tuple against the next dial.
        stream.unproven = True
        link = Link(
            raw=stream, local=stream.local, remote=stream.remote, path="direct", inbound=asked_for, punched=True
        )
        connection: Connection | None = None
        try:
            with trio.move_on_after(self._patience):
                connection = await self._opener.adopt(link, self._role, self.peer)
        except trio.Cancelled:  # the attempt ended
            upgrades.append("SILENT")
            raise
        except NETWORK_FAILURES as problem:
            silent = isinstance(problem, DialTimeout)
            upgrades.append("SILENT" if silent else getattr(problem, "code", type(problem).__name__))
            return None
        if connection is None:  # out of patience; unless it stood at that very moment
            ends, standing = (link.local, link.remote), self._opener.swarm.connections(self.peer)
            connection = next((one for one in standing if (one.local, one.remote) == ends), None)
        if connection is None:
            upgrades.append("SILENT")
            return None
        return await self._round_trip(connection, how)

    async def _round_trip(self, connection: Connection, how: How) -> Won | None:
        try:
            async with self._choosing:  # one at a time: the first that answers wins
                await self._answer(connection)
        except trio.Cancelled:
            connection.abort("REPLACED")
            raise
        except NETWORK_FAILURES as problem:
            self._attempt.evidence.upgrades.append(getattr(problem, "code", type(problem).__name__))
            connection.abort("NO_ROUND_TRIP")
            return None
        connection.prove()
        return Won(connection, how, connection.rtt)

    async def _answer(self, connection: Connection) -> None:
        """Until a round trip above Noise is done. Raises as `Connection.ping`."""
        if self._role == "initiator":
            await connection.ping()
            return
        await answered(connection)
