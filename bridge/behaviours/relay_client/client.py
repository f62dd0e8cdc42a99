"""The relay client: the circuit transport of a swarm, its inbound circuits, and the reservations it keeps.

A circuit is a stream through a relay on which security and muxer run end to end, by the upgrader that sockets have
too. Which relays to use is told from outside. Punching and the choice of paths are other behaviours' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from punchbridge.addresses import (
    Multiaddr,
    circuit_of,
    endpoint_of,
    is_relayed,
    peer_of,
    spoken_endpoint,
    with_peer,
    without_peer,
)
from punchbridge.behaviours.relay_client.exchange import Reservation, request_circuit
from punchbridge.behaviours.relay_client.keeper import ReservationKeeper
from punchbridge.behaviours.relay_client.notices import Notices
from punchbridge.errors import AddressError, LimitExceeded, ProtocolViolation, SwarmStopped, Unreachable
from punchbridge.identity import PeerId, peer_text
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Accept, Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.transport.link import Link
from punchbridge.wire.circuit import (
    MAX_RELAY_ADDRS,
    STOP,
    Connect,
    Status,
    UnexpectedMessage,
    decode_stop_request,
    encode_stop_answer,
)


class RelayClient:
    """Circuit v2's client on one swarm; it is a Transport. Registered with the swarm when made, working once `run`.

    Public methods raise SwarmStopped outside of `run`.
    """

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._limits = swarm.config.limits.relay_client
        self._held: dict[PeerId, Reservation] = {}
        self._asked: dict[PeerId, int] = {}
        """For each relay that is kept, the connection over which it was last asked for a reservation."""
        self._keepers: list[ReservationKeeper] = []
        self._notices = Notices(swarm, self._live, self._asked)
        self._nursery: trio.Nursery | None = None
        swarm.add_transport(self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled. Cancelled, it withdraws the circuit addresses and ends the keepers."""
        await self._swarm.handle(
            STOP,
            self._on_offer,
            max_streams=self._limits.inbound_circuits,
            max_per_peer=self._limits.inbound_circuits_per_relay,
            relayed=False,
        )
        await self._notices.serve()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it is closed and takes no more tasks

    # --- reservations ---------------------------------------------------------------------------------------

    def reservations(self) -> tuple[Reservation, ...]:
        """Those in force, oldest relay first."""
        return tuple(self._held.values())

    @property
    def kept(self) -> tuple[Multiaddr, ...]:
        """The addresses of all relays that are kept."""
        return tuple(addr for keeper in self._live() for addr in keeper.addrs)

    def keep(self, relays: Sequence[Multiaddr]) -> None:
        """Keeps a reservation at each relay from now on, trying again for ever; events tell how it goes.

        Several addresses with one peer id are one relay, reached at whichever answers.
        Raises AddressError for an address that is no relay's, LimitExceeded beyond `limits.relays`.
        """
        self._swarm.named_relays.add(relays)
        for relay in map(_relay_part, relays):
            keeper = self._keeper_of(relay)
            if keeper is None:
                keeper = self._start(relay)
            keeper.kept = True
            if relay not in keeper.addrs and len(keeper.addrs) < MAX_RELAY_ADDRS:
                keeper.addrs.append(relay)

    async def reserve(self, relay: Multiaddr) -> Reservation:
        """Returns once the relay accepted; the reservation is then kept until `release`.

        Raises RelayRefused, Unreachable, AddressError, NegotiationFailed and so on when the first try fails; then
        nothing is kept. So it is when this call is cancelled, unless others asked for this relay too. Raises
        ReplacedBySameKey while another program with our key has the reservation that was kept there.
        """
        relay = _relay_part(relay)
        keeper = self._keeper_of(relay) or self._start(relay)
        self._swarm.named_relays.add((relay,))
        keeper.waiters += 1
        try:
            await keeper.until_settled()
            keeper.kept = keeper.kept or keeper.reservation is not None
        finally:
            keeper.waiters -= 1
            if not keeper.waiters and not keeper.kept:
                keeper.scope.cancel()
        if keeper.reservation is not None:
            return keeper.reservation
        if keeper.error is not None:
            raise keeper.error
        raise SwarmStopped("the relay client stopped before the relay answered")

    def release(self, relay: PeerId) -> None:
        """Keeps the relay no longer and withdraws its addresses. The relay forgets us at the expiry, or when we
        disconnect; circuits go on."""
        for keeper in self._keepers:
            if keeper.peer == relay:
                keeper.scope.cancel()

    def network_changed(self) -> None:
        """Reservations that another program with our key has taken over are asked for again."""
        for keeper in self._live():
            keeper.network_changed()

    def _live(self) -> list[ReservationKeeper]:
        """Those that were not let go; they need a moment to end."""
        return [keeper for keeper in self._keepers if not keeper.scope.cancel_called]

    def _keeper_of(self, relay: Multiaddr) -> ReservationKeeper | None:
        """The one at work for that relay: by peer id where it is known, else by address."""
        peer = peer_of(relay)
        for keeper in self._live():
            if relay in keeper.addrs or (peer is not None and keeper.peer == peer):
                return keeper
        return None

    def _start(self, relay: Multiaddr) -> ReservationKeeper:
        if self._nursery is None:
            raise SwarmStopped("the relay client is not running")
        if len(self._live()) >= self._limits.relays:
            raise LimitExceeded(f"{self._limits.relays} relays are kept already; release one first")
        keeper = ReservationKeeper(self._swarm, relay, self._held, self._asked)
        self._keepers.append(keeper)
        self._nursery.start_soon(self._run_keeper, keeper)
        return keeper

    async def _run_keeper(self, keeper: ReservationKeeper) -> None:
        try:
            await keeper.run()
        finally:
            self._keepers.remove(keeper)
            if keeper.peer is not None and all(one.peer != keeper.peer for one in self._keepers):
                self._asked.pop(keeper.peer, None)

    # --- transport ------------------------------------------------------------------------------------------

    def handles(self, addr: Multiaddr) -> bool:
        return is_relayed(addr)

    async def listen(self, addr: Multiaddr, accept: Accept) -> tuple[Multiaddr, ...]:
        """Listening on `<relay>/p2p-circuit` is a reservation; returns our circuit addresses. Raises as `reserve`.

        Circuits come in on the connection to the relay, which was admitted already: `accept` is not asked.
        """
        return (await self.reserve(addr)).addrs

    async def dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        """Opens a circuit to `<relay>/p2p-circuit/p2p/TARGET`, and secures it.

        Raises AddressError, RelayRefused (the relay's status), Unreachable, and as `Upgrader.upgrade`. A
        cancelled call leaves no circuit; the connection to the relay stays.
        """
        circuit = circuit_of(addr)
        if circuit is None or circuit.target is None:
            raise AddressError(f"{addr} names no target; a circuit address ends in /p2p-circuit/p2p/ID")
        if circuit.target in (self._swarm.peer, circuit.relay_peer):
            whose = "this node itself" if circuit.target == self._swarm.peer else "the relay itself"
            raise AddressError(f"the target of {addr} is {whose}; give the listener's id behind /p2p-circuit")
        relay = await self._relay_connection(circuit.relay, circuit.relay_peer)
        stream, answer = await request_circuit(relay, circuit.target, seconds=self._limits.circuit_timeout)
        base = with_peer(circuit.relay if endpoint_of(circuit.relay) is not None else relay.remote, relay.peer)
        link = Link(
            raw=stream,
            local=Multiaddr(f"{base}/p2p-circuit"),
            remote=Multiaddr(f"{base}/p2p-circuit/p2p/{peer_text(circuit.target)}"),
            path="relay",
            inbound=False,
            relay=relay.peer,
            limit=answer.limit,
            attested=answer.seen if self._swarm.named_relays.holds(circuit) else None,
        )
        return await self._swarm.upgrader.upgrade(link, role="initiator", expected=expected or circuit.target)

    async def _relay_connection(self, addr: Multiaddr, peer: PeerId | None) -> Connection:
        """A direct connection to the relay; R7: never one through another relay."""
        if peer is not None:
            for connection in self._swarm.connections(peer):
                if connection.path == "direct" and not connection.closed.is_set():
                    return connection
        if not list(without_peer(addr).items()):
            raise Unreachable(
                f"not connected to the relay of {addr}; give its address: /ip4/…/tcp/…/p2p/ID/p2p-circuit"
            )
        return await self._swarm.dial(addr, expected=peer)

    # --- inbound circuits -----------------------------------------------------------------------------------

    async def _on_offer(self, stream: Stream) -> None:
        """One STOP stream, until the connection that it carries has ended (R10, R11)."""
        relay = stream.connection
        with trio.fail_after(self._limits.offer_timeout):
            request = await self._read_offer(stream)
            if request is None:
                return
            await write_message(stream, encode_stop_answer(Status.OK))
        base = with_peer(relay.remote, relay.peer)
        link = Link(
            raw=stream,
            local=Multiaddr(f"{base}/p2p-circuit"),
            remote=Multiaddr(f"{base}/p2p-circuit/p2p/{peer_text(request.peer)}"),
            path="relay",
            inbound=True,
            relay=relay.peer,
            limit=request.limit,
            attested=request.seen,  # R12: the relay is one that we keep, so our user named it
        )
        secured = await self._swarm.upgrader.upgrade(link, role="responder", expected=request.peer)
        connection = await self._swarm.adopt(secured)
        await connection.closed.wait()

    async def _read_offer(self, stream: Stream) -> Connect | None:
        """The offer, or None when it was refused; the refusal is then sent."""
        status: Status = Status.CONNECTION_FAILED
        try:
            request = decode_stop_request(await read_message(stream))
            for keeper in self._live():
                if stream.connection.peer not in self._held:
                    await keeper.until_answered(stream.connection.peer)  # its grant may have come along with this offer
            # R12: only a relay that we asked may offer circuits, and nobody can offer us to ourselves.
            if stream.connection.peer in self._held and request.peer != self._swarm.peer:
                return request
        except UnexpectedMessage:
            status = Status.UNEXPECTED_MESSAGE
        except ProtocolViolation:
            status = Status.MALFORMED_MESSAGE
        await write_message(stream, encode_stop_answer(status))
        await stream.aclose()
        return None


def _relay_part(addr: Multiaddr) -> Multiaddr:
    """The relay's own address of `<relay>[/p2p-circuit[/p2p/…]]`. Raises AddressError when that is not dialable."""
    circuit = circuit_of(addr)
    relay = addr if circuit is None else circuit.relay
    if is_relayed(relay):
        raise AddressError(f"{addr} leads to a relay through another relay; write /ip4/…/tcp/…/p2p/ID")
    try:
        spoken_endpoint(relay)
    except AddressError as problem:
        raise AddressError(f"{addr} is no relay's address: {problem}") from None
    return relay
