"""The hop service: answers RESERVE and CONNECT, has circuits offered to their targets, joins the streams.

The tables decide, this carries out (specs/relay/circuit-v2; rules R1 to R14 of docs/wire-rules.md). It reads no byte
of a circuit and dials nobody: a target is reached on a connection that the target itself holds (R9).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import endpoint_of, is_relayed, with_peer
from punchbridge.errors import AddressError, ProtocolViolation
from punchbridge.identity import PeerId, peer_text
from punchbridge.swarm.gater import anyone
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.circuit import (
    HOP,
    MAX_RELAY_ADDRS,
    Connect,
    Grant,
    Status,
    UnexpectedMessage,
    decode_hop_request,
    encode_hop_answer,
)
from punchbridge.wire.voucher import seal_voucher
from punchbridge_relay.access import Address, RelayAccess, address_key, network_key
from punchbridge_relay.circuits import Circuit, CircuitTable
from punchbridge_relay.events import CircuitClosed, CircuitOpened, RelayStats
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.offer import Offers
from punchbridge_relay.refusal import HopRefusal
from punchbridge_relay.requests import Requests
from punchbridge_relay.reservations import ReservationTable
from punchbridge_relay.same_key import Holders
from punchbridge_relay.splice import splice

_REFUSED_TOLD: Final = 8
"""Prefixes named in one relay.stats event."""


class HopService:
    """The relay's side of circuit v2 on one swarm. Public tables: `reservations`, `circuits`."""

    def __init__(self, swarm: Swarm, limits: RelayLimits | None = None, connect: Access = OPEN) -> None:
        """connect: who may open circuits beside those on the swarm's lists, who alone may reserve."""
        self.limits = limits or RelayLimits()
        self._hop = self.limits.hop
        self._rules = RelayAccess(lambda: swarm.gater.access, connect)
        self.reservations = ReservationTable(self.limits, self._rules)
        self.circuits = CircuitTable(self.limits, self._rules)
        self._joined: dict[Circuit, trio.CancelScope] = {}
        self._swarm = swarm
        self._draining = False
        self._requests = Requests(self.limits)
        self._offers = Offers(self._reserved_over, self.limits.circuit_limit, self._hop)
        self._holders = Holders(self._hop, self._offers.arrived)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled. Started once the hop protocol is registered. Cancelled, it refuses what comes;
        circuits go on until the swarm ends."""
        leave = self._swarm.watchers.add(self)
        unfollow = self._swarm.gater.follow(self._access_changed)
        self._swarm.keepers.append(self._uses)
        try:
            # Handlers live as long as their circuits, so the registry's bound is on both together; requests under
            # way are counted here. relayed=False: R7, no reservation and no CONNECT over a circuit.
            most = self._hop.handlers
            await self._swarm.handle(
                HOP, self._serve, max_streams=most, max_per_peer=most, relayed=False, audience=anyone, small=True
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(self._holders.run)
                task_status.started()
                await self._dismiss_strangers()
        finally:
            leave()
            unfollow()
            self._swarm.keepers.remove(self._uses)
            self._draining = True

    def _uses(self, connection: Connection) -> bool:
        """Whether a connection is what the relay is there for: it stays when places are short."""
        peer = connection.peer
        held = self.reservations.holds(peer, trio.current_time())
        return held or self.circuits.involves(peer) or self._requests.asks(peer)

    def _access_changed(self) -> None:
        """Reservations of peers that may not hold one any more end, and so do circuits that would not be opened now:
        without caps they would go on for ever. Their connections stay for a while."""
        for peer in self.reservations.peers():
            if self._lost(peer, self._swarm.gater.listed):
                self.reservations.end(peer)
        for circuit, scope in self._joined.items():
            if not self._may_go_on(circuit):
                scope.cancel()

    def _may_go_on(self, circuit: Circuit) -> bool:
        """Whether the lists still let the target be called here, and the source call."""

        def calls(connection: Connection) -> bool:
            return self._rules.may_connect(connection.peer, _ip(connection))

        return not (self._lost(circuit.target, self._swarm.gater.listed) or self._lost(circuit.source, calls))

    def _lost(self, peer: PeerId, may: Callable[[Connection], bool]) -> bool:
        """Whether a connected peer may no more, over any of its connections."""
        connections = self._direct(peer)
        return bool(connections) and not any(map(may, connections))

    async def _dismiss_strangers(self) -> None:
        """Closes the connections of peers that are on no list once they have had no circuit for a while, whatever
        streams they keep open. An open relay has no strangers."""
        idle: dict[int, float] = {}
        while True:
            await trio.sleep(self._hop.stranger_seconds / 4)
            now, gater = trio.current_time(), self._swarm.gater
            strange = [one for one in self._swarm.connections() if one.inbound and not gater.listed(one)]
            idle = {one.id: idle.get(one.id, now) for one in strange if not self.circuits.involves(one.peer)}
            for one in strange:
                if now - idle.get(one.id, now) >= self._hop.stranger_seconds:
                    self._swarm.refusals.add("stranger_idle", address_key(_ip(one)), peer_text(one.peer))
                    one.abort("STRANGER")

    def stats(self) -> RelayStats:
        """The counters now. Reservations that have run out are dropped first."""
        now = trio.current_time()
        self.reservations.expire(now)
        return RelayStats(
            reservations=len(self.reservations),
            circuits=len(self.circuits),
            bytes_=self.circuits.bytes,
            refused=dict(self.refused),
            per_circuit=self.circuits.per_circuit(now),
            refused_from=tuple(one.as_dict() for one in self._swarm.refusals.most(_REFUSED_TOLD)),
        )

    @property
    def refused(self) -> Counter[str]:
        """How often each rule has refused a request or a connection since the start."""
        return self._swarm.refusals.counts

    async def drain(self) -> None:
        """Takes no more requests, ends all reservations, and closes every connection with GOAWAY, within a bound."""
        self._draining = True
        self.reservations.clear()
        with trio.move_on_after(self._hop.drain):
            async with trio.open_nursery() as nursery:
                for connection in self._swarm.connections():
                    nursery.start_soon(self._close, connection)

    async def _close(self, connection: Connection) -> None:
        try:
            await self._swarm.close(connection, "RELAY_STOPPED")
        except NETWORK_FAILURES:
            connection.abort("RELAY_STOPPED")

    def on_connected(self, connection: Connection) -> None:
        """The swarm's word on a connection: offers that wait for a fresh one to this peer learn of it."""
        if connection.path == "direct":
            self._offers.arrived(connection.peer)

    def on_disconnected(self, connection: Connection) -> None:
        """The swarm's word on a connection. R5: a reservation ends with the peer's last direct connection; of a peer
        that is two programs, with that of the program which has it."""
        if connection.path == "direct" and self._holders.ended(connection, last=not self._direct(connection.peer)):
            self.reservations.end(connection.peer)

    def _direct(self, peer: PeerId) -> list[Connection]:
        """The peer's live direct connections, newest first."""
        alive = [c for c in self._swarm.connections(peer) if c.path == "direct" and not c.closed.is_set()]
        return sorted(alive, key=lambda connection: connection.id, reverse=True)

    def _reserved_over(self, peer: PeerId) -> list[Connection]:
        """The connections that lead to the program which has the peer's reservation, newest first."""
        only = self._holders.only(peer)
        return [one for one in self._direct(peer) if only is None or one is only]

    # --- one request ----------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        """One hop stream, from its request to the end of its circuit. Each phase has its own deadline."""
        peer, network = stream.connection.peer, network_key(_ip(stream.connection))
        circuit: Circuit | None = None
        target: Stream | None = None
        try:
            with self._requests.under_way(peer, network):
                request = await self._read(stream)
                if isinstance(request, Connect):
                    circuit = self._open_circuit(stream, request.peer)
                    # R16: each end is told where the other one was seen.
                    target = await self._offers.make(circuit, stream.connection.remote)
                    stream.unread_most = target.unread_most
                    where, limit = target.connection.remote, self.limits.circuit_limit
                    answer = encode_hop_answer(Status.OK, None, limit, target=circuit.target, seen=where)
                    await self._answer(stream, answer)
                else:
                    await self._answer(stream, self._grant(stream))
                    await self._finish(stream)
        except HopRefusal as refusal:
            self._swarm.refusals.add(refusal.reason, address_key(_ip(stream.connection)), peer_text(peer))
            with self._requests.refusing(network) as heard:
                await self._refuse(stream, refusal.status if heard else None)
        except BaseException:
            stream.abort()
            if target is not None:
                target.abort()
            raise
        else:
            if circuit is not None and target is not None:
                await self._join(circuit, stream, target)
        finally:
            if circuit is not None:
                self.circuits.close(circuit)

    async def _read(self, stream: Stream) -> object:
        try:
            with trio.fail_after(self._hop.request_timeout):
                request = decode_hop_request(await read_message(stream))
        except UnexpectedMessage:
            raise HopRefusal(Status.UNEXPECTED_MESSAGE, "unexpected_message") from None
        except ProtocolViolation:
            raise HopRefusal(Status.MALFORMED_MESSAGE, "malformed_message") from None
        except trio.TooSlowError:
            raise HopRefusal(Status.MALFORMED_MESSAGE, "request_timeout") from None
        if stream.connection.path != "direct":
            raise HopRefusal(Status.PERMISSION_DENIED, "relayed")
        if self._draining:
            status = Status.RESOURCE_LIMIT_EXCEEDED if isinstance(request, Connect) else Status.RESERVATION_REFUSED
            raise HopRefusal(status, "draining")
        return request

    def _grant(self, stream: Stream) -> bytes:
        """The answer to RESERVE: for the peer that the connection authenticated (R12).

        Refused when it has gone meanwhile: what it sent can still be read, but the end of its last connection, which
        ends its reservation (R5), has been told already.
        """
        peer = stream.connection.peer
        if not self._direct(peer):
            raise HopRefusal(Status.RESERVATION_REFUSED, "reserve_gone")
        held = self.reservations.reserve(peer, _ip(stream.connection), trio.current_time(), time.time())
        self._holders.granted(stream.connection)
        me = self._swarm.peer
        addrs = [with_peer(addr, me) for addr in self._swarm.announced() if not is_relayed(addr)]
        voucher = seal_voucher(self._swarm.identity, peer, held.expire)
        return encode_hop_answer(
            Status.OK, Grant(held.expire, tuple(addrs[:MAX_RELAY_ADDRS]), voucher), self.limits.circuit_limit
        )

    def _open_circuit(self, stream: Stream, target: PeerId) -> Circuit:
        """Takes the slot, or raises the HopRefusal of the first rule that fails (R8)."""
        source, now = stream.connection.peer, trio.current_time()
        self.circuits.admit(source, target, _ip(stream.connection), now)
        if not self.reservations.holds(target, now):
            raise HopRefusal(Status.NO_RESERVATION, "connect_no_reservation")
        return self.circuits.open(source, target, now, _ip(stream.connection))

    async def _join(self, circuit: Circuit, source: Stream, target: Stream) -> None:
        self.circuits.join(circuit, trio.current_time())
        names = {"source": peer_text(circuit.source), "target": peer_text(circuit.target)}
        self._swarm.events.emit(CircuitOpened(circuit=circuit.id, **names))
        reason = "CANCELLED"
        try:
            with trio.CancelScope() as struck_out:
                self._joined[circuit] = struck_out
                if not self._may_go_on(circuit):  # the lists have changed since it was asked for
                    struck_out.cancel()
                reason = await splice(circuit, source, target, seconds=self.limits.circuit_seconds, hop=self._hop)
            if struck_out.cancelled_caught:
                reason = "NOT_ALLOWED"
        finally:
            del self._joined[circuit]
            self.circuits.close(circuit)
            to_target, to_source = circuit.passed.values()
            self._swarm.events.emit(
                CircuitClosed(
                    circuit=circuit.id,
                    **names,
                    reason=reason,
                    bytes_to_target=to_target,
                    bytes_to_source=to_source,
                    seconds=round(trio.current_time() - circuit.opened_at, 3),
                )
            )

    # --- answers --------------------------------------------------------------------------------------------

    async def _answer(self, stream: Stream, payload: bytes) -> None:
        with trio.fail_after(self._hop.answer_timeout):
            await write_message(stream, payload)

    async def _finish(self, stream: Stream) -> None:
        """Ends a stream whose answer must still arrive."""
        with trio.move_on_after(self._hop.close_timeout):
            await stream.aclose()
            return
        stream.abort()

    async def _refuse(self, stream: Stream, status: Status | None) -> None:
        """None: by a reset alone."""
        if status is None:
            stream.abort()
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._answer(stream, encode_hop_answer(status))
            await self._finish(stream)
        except NETWORK_FAILURES:
            stream.abort()
        except BaseException:
            stream.abort()
            raise


def _ip(connection: Connection) -> Address | None:
    endpoint = endpoint_of(connection.remote)
    try:
        return None if endpoint is None else endpoint.ip
    except AddressError:
        return None
