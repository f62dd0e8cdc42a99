"""Direct connections over QUIC: the initiator dials, the responder opens its NAT with datagrams of random bytes.

The initiator aims again at the source of such a datagram that it hears: the responder's NAT may have another port for
us than for those who told us of it. The first connection of the initiator whose round trip is done is kept, and the
others are closed. The responder takes the connections of the peer that its listener has accepted, whatever address they
came from, since the handshake has proven whose they are. This module knows no message of DCUtR and no packet of QUIC.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Final, Literal, Protocol

import trio

from punchbridge.addresses import Endpoint, Multiaddr, addr_of
from punchbridge.behaviours.dcutr.attempts import Attempt, Won
from punchbridge.behaviours.dcutr.budget import Budget
from punchbridge.behaviours.dcutr.direct import answered
from punchbridge.behaviours.dcutr.record import Records
from punchbridge.config import Punch
from punchbridge.errors import DialTimeout
from punchbridge.events import Role
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.candidates import endpoints_of
from punchbridge.reach.datagrams import Aims, pause_after
from punchbridge.reach.dials import AttemptDials
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection
from punchbridge.transport.tcp.simultaneous import How

__all__ = ["Heard", "QuicOpener", "QuicOpening", "UdpDoor"]

_DIAL_PACKETS: Final = 6
"""What a dial that nobody answers sends within an attempt: the first packet, two after 1 s, two after 3 s, and the word
that it is given up. Each has 1200 bytes."""
_PLAIN_PACKETS: Final = 2
"""The same within the head start of a plain dial."""
_TRIP_SHARE: Final = 0.75
"""An answer to a dial is awaited for this share of the relayed round trip: the direct one is hardly ever longer."""
_TRIP_LEAST: Final = 0.05
"""Seconds; a handshake's CPU on two busy machines."""


class Heard(Protocol):
    """A datagram that is not QUIC, and where it came from."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class UdpDoor(Protocol):
    """QUIC as a punch uses it: all of it goes through the listening socket."""

    async def dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        """See `punchbridge.transport.base.Transport`."""
        ...

    def send_stray(self, data: bytes, to: Endpoint) -> bool:
        """Sends a datagram that is not QUIC; False when there is no socket for it."""
        ...

    def divert(
        self, version: int, matches: Callable[[str, int], bool]
    ) -> AbstractContextManager[trio.MemoryReceiveChannel[Heard]]:
        """While open, datagrams of that IP version that are not QUIC and whose source matches come out of the channel.
        Raises LimitExceeded."""
        ...


class QuicOpener:
    """Opens direct QUIC connections for all punches of one node, where QUIC is spoken."""

    def __init__(self, swarm: Swarm, records: Records, budget: Budget, punch: Punch, rng: random.Random) -> None:
        self.swarm = swarm
        self.records = records
        self.punch = punch
        self.limits = swarm.config.limits.punch
        self.rng = rng
        self._budget = budget

    def able(self, attempt: Attempt, role: Role) -> bool:
        """Whether there is anything to try: an address of the peer to dial, or one of ours that it may dial."""
        return bool(self.targets(attempt)) and (role == "initiator" or bool(endpoints_of(attempt.local, "udp")))

    def targets(self, attempt: Attempt) -> list[Endpoint]:
        """The peer's endpoints for which we have a listening socket."""
        wanted = endpoints_of(attempt.remote, "udp")
        return [one for one in wanted if self.swarm.listen_port(one.ip.version, "udp") is not None]

    def prepare(self, attempt: Attempt, role: Role, circuit: Connection) -> QuicOpening:
        """See `DirectOpener`."""
        return QuicOpening(self, attempt, role, circuit, self._budget.of(attempt, circuit))

    async def dial(self, attempt: Attempt, circuit: Connection) -> Won | None:
        """Dials the attempt's addresses, as the peer announces them, within its budget and the head start that a plain
        dial has; None when an exchange follows."""
        opening = QuicOpening(self, attempt, "initiator", circuit, self._budget.of(attempt, circuit), plain=True)
        opening.go()
        return await opening.run()


class QuicOpening:
    """One attempt over QUIC. Nothing is left of it but the connection that won. `plain`: a dial before the exchange,
    which has its head start only, and hears no datagrams."""

    def __init__(
        self,
        opener: QuicOpener,
        attempt: Attempt,
        role: Role,
        circuit: Connection,
        budget: AttemptDials,
        *,
        plain: bool = False,
    ) -> None:
        self._opener = opener
        self._attempt = attempt
        assert opener.swarm.ports.quic is not None  # what there is to try was asked before
        self._door: UdpDoor = opener.swarm.ports.quic
        self._peer = attempt.peer
        self._role = role
        self._budget = budget
        self._targets = opener.targets(attempt)
        self._trip = max(_TRIP_LEAST, _TRIP_SHARE * (circuit.rtt or 0.0))
        self._plain = plain
        self._how: How | Literal["dial"] = "dial" if plain else "connect" if role == "initiator" else "accept"
        self._start = trio.Event()
        self._busy = 0
        self._scope = trio.CancelScope()
        self.evidence = attempt.udp
        self.won: Won | None = None
        """Known here first: what is done behind a win may be cancelled, the connection stands."""

    def go(self) -> None:
        """See `Opening`."""
        self._start.set()

    async def run(self) -> Won | None:
        """See `Opening`."""
        try:
            with self._scope:
                async with flat_nursery() as nursery:
                    nursery.start_soon(self._expire)
                    if self._role == "initiator":
                        await self._dial_all(nursery)
                    else:
                        await self._be_dialled(nursery)
        finally:
            self._tell_withheld()
        return self.won

    async def _expire(self) -> None:
        limits = self._opener.limits
        patience, grace = self._opener.punch.attempt_timeout, limits.upgrade_grace
        if self._plain:
            patience, grace = limits.reversal_head_start, limits.reversal_timeout
        await self._start.wait()
        await trio.sleep(patience)
        if self._busy:
            await trio.sleep(grace)
        self._scope.cancel()

    def _tell_withheld(self) -> None:
        if self._budget.withheld:
            self._attempt.detail = self._budget.withheld
            self._opener.swarm.refusals.add("punch_dials", str(self._budget.origin), peer_text(self._peer))

    # --- the initiator ------------------------------------------------------------------------------------

    async def _dial_all(self, nursery: trio.Nursery) -> None:
        limits = self._opener.limits
        hosts = {endpoint.host for endpoint in self._targets}
        aims = Aims(hosts, self._trip, limits)
        with ExitStack() as stack:
            for version in () if self._plain else sorted({endpoint.ip.version for endpoint in self._targets}):
                channel = stack.enter_context(self._door.divert(version, lambda host, _: aims.hears(host)))
                nursery.start_soon(self._listen, channel, version, aims, nursery)
            await self._start.wait()
            for endpoint in self._targets:
                aims.dialled(endpoint, trio.current_time())
                nursery.start_soon(self._dial, endpoint)
            await trio.sleep_forever()

    async def _listen(
        self, channel: trio.MemoryReceiveChannel[Heard], version: int, aims: Aims, nursery: trio.Nursery
    ) -> None:
        """Aims at the sources of datagrams, also of those that come before we dial."""
        async for datagram in channel:
            self.evidence.heard += 1
            source = Endpoint(f"ip{version}", datagram.host, datagram.port, "udp")
            if not self._start.is_set() and source in self._targets:
                continue  # it is dialled in a moment
            at = aims.heard(source, trio.current_time())
            self.evidence.remote_dependent = self.evidence.remote_dependent or bool(aims.moved)
            if at is not None:
                nursery.start_soon(self._dial, source, at)

    async def _dial(self, endpoint: Endpoint, at: float | None = None) -> None:
        """One dial, as soon as the budget lets it leave."""
        await self._start.wait()
        if at is not None:
            await trio.sleep_until(at)
            if self._busy:  # an answer came meanwhile
                return
        if not await self._permitted(endpoint, _PLAIN_PACKETS if self._plain else _DIAL_PACKETS):
            return
        self.evidence.dials += 1
        answered = False
        try:
            connection = await self._door.dial(addr_of(endpoint), self._peer)
            answered = True
            self._busy += 1
            try:
                connection.punched = True
                with self._opener.records.making(self._peer, connection.id):
                    await self._opener.swarm.adopt(connection)
                await self._judge(connection)
            finally:
                self._busy -= 1
        except trio.Cancelled:
            if not answered and self.won is None:
                self.evidence.failed.append("SILENT")
            raise
        except NETWORK_FAILURES as problem:
            self._failed(endpoint, problem)

    async def _permitted(self, endpoint: Endpoint, packets: int = 1) -> bool:
        while True:
            permit = self._budget.ask(endpoint, trio.current_time(), packets)
            if permit != "later":
                return permit == "yes"
            await trio.sleep(self._opener.limits.redial_most)

    def _failed(self, endpoint: Endpoint, problem: BaseException) -> None:
        code = "SILENT" if isinstance(problem, DialTimeout) else getattr(problem, "code", type(problem).__name__)
        self.evidence.failed.append(code)
        if code != "SILENT":
            self._budget.refused(endpoint, code)

    # --- the responder ------------------------------------------------------------------------------------

    async def _be_dialled(self, nursery: trio.Nursery) -> None:
        with self._opener.records.arriving(self._peer, _over_quic) as connections:
            for endpoint in self._targets:
                nursery.start_soon(self._open_nat, endpoint)
            async for connection in connections:
                self.evidence.arrived += 1
                nursery.start_soon(self._take, connection)

    async def _open_nat(self, endpoint: Endpoint) -> None:
        """Sends datagrams to an address of the peer until the budget or the attempt ends."""
        limits, rng = self._opener.limits, self._opener.rng
        await self._start.wait()
        sent = 0
        while await self._permitted(endpoint):
            # The first byte says that it is not QUIC. The rest means nothing to anybody.
            data = bytes((rng.randrange(0x40),)) + rng.randbytes(limits.datagram_bytes - 1)
            if not self._door.send_stray(data, endpoint):
                self._budget.unused(endpoint)
                self.evidence.no_route = True
                return
            sent += 1
            self.evidence.datagrams += 1
            await trio.sleep(pause_after(sent, rng.random(), limits))

    async def _take(self, connection: Connection) -> None:
        connection.punched = True
        self._busy += 1
        try:
            await self._judge(connection)
        except NETWORK_FAILURES as problem:
            self.evidence.failed.append(getattr(problem, "code", type(problem).__name__))
        finally:
            self._busy -= 1

    # --- both ---------------------------------------------------------------------------------------------

    async def _judge(self, connection: Connection) -> None:
        """Makes a round trip on a connection; the first one that has it wins, and the initiator closes the others."""
        closes = self._role == "initiator"
        try:
            await answered(connection)
        except trio.Cancelled:
            if closes:
                connection.abort("REPLACED")
            raise
        except NETWORK_FAILURES:
            connection.abort("NO_ROUND_TRIP")
            raise
        if self.won is None:
            self.won = Won(connection, self._how, connection.rtt)
            self._attempt.won = self._attempt.won or self.won
            self._scope.cancel()
        elif closes:
            connection.abort("REPLACED")


def _over_quic(connection: Connection) -> bool:
    return connection.transport == "quic" and connection.path == "direct" and connection.inbound
