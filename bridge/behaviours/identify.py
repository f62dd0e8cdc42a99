"""Identify on every connection: asks, answers, pushes our changes, and records how others see our listening port.

It decides nothing about punching or reachability; those read `connection.identify`, `swarm.observed` and events.
"""

from __future__ import annotations

import logging
from functools import partial

import trio

from punchbridge.addresses import Multiaddr, circuit_of, endpoint_of, is_public, is_relayed
from punchbridge.errors import BridgeError
from punchbridge.events import ConnectionMoved, Event, Identified, ObservedAddress
from punchbridge.identity import peer_text
from punchbridge.swarm.gater import anyone
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.rates import Buckets
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import write_message
from punchbridge.wire import varint
from punchbridge.wire.identify import IDENTIFY, PUSH, decode_update, encode_info

__all__ = ["IdentifyService"]

_log = logging.getLogger(__name__)

_Contents = tuple[frozenset[Multiaddr], frozenset[str]]
"""What a peer may know of us: addresses and protocols."""
_NOTHING: _Contents = frozenset(), frozenset()


_UNLIMITED = 1 << 16
"""Connections whose pushes are counted when the swarm bounds their number not at all."""


class IdentifyService:
    """The identify behaviour of a swarm; `run` it in a nursery.

    `dial_back`: tell peers on circuits our direct addresses too. Without, they can only come over a relay.
    """

    def __init__(self, swarm: Swarm, *, dial_back: bool = True) -> None:
        self._swarm = swarm
        self._limits = swarm.config.limits.identify
        self._dial_back = dial_back
        self._pushes = trio.CapacityLimiter(self._limits.parallel_pushes)
        self._nursery: trio.Nursery | None = None
        self._told: dict[int, _Contents] = {}
        self._pushed = Buckets(
            self._limits.pushes_taken,
            self._limits.push_taken_every,
            swarm.config.limits.swarm.connections or _UNLIMITED,
        )
        """What each connection may push."""
        self._taking: set[int] = set()
        """Connections with a push that waits until it may be taken."""
        self._waiting: set[int] = set()
        """Connections with a push whose message is not made yet: it will tell later changes too."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled. Connections that stand already are asked too."""
        total, per_peer = self._limits.streams, self._limits.streams_per_peer
        handle = partial(self._swarm.handle, max_streams=total, max_per_peer=per_peer, small=True)
        await handle(IDENTIFY, self._answer, audience=anyone)
        await handle(PUSH, self._take_push)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            leave = self._swarm.watchers.add(self)
            unsubscribe = self._swarm.events.subscribe(self._on_event)
            try:
                for connection in self._swarm.connections():
                    self._told[connection.id] = _NOTHING
                    nursery.start_soon(self._ask, connection)
                task_status.started()
                await self._push_changes()
            finally:
                unsubscribe()
                leave()

    def _on_event(self, event: Event) -> None:
        """A peer that is at another address now is told so: it cannot know that a NAT in front of it has moved it."""
        connection = self._swarm.connection(event.connection) if isinstance(event, ConnectionMoved) else None
        if connection is not None and self._wants_push(connection):
            self._push_soon(connection)

    def _push_soon(self, connection: Connection) -> None:
        if self._nursery is not None and connection.id not in self._waiting:
            self._waiting.add(connection.id)
            self._nursery.start_soon(self._push, connection)

    def on_connected(self, connection: Connection) -> None:
        """The swarm's word on a connection: it is asked who it is."""
        if self._nursery is not None:
            self._told[connection.id] = self._contents(connection)
            self._nursery.start_soon(self._ask, connection)

    def on_disconnected(self, connection: Connection) -> None:
        """The swarm's word on a connection: nothing is kept about it."""
        self._told.pop(connection.id, None)
        self._pushed.forget(connection.id)
        if connection.path == "direct":
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        """With the last connection from that observer the mapping it saw may go (the NAT's timers run out). A NAT maps
        TCP and UDP apart."""
        gone = endpoint_of(connection.remote)
        left = (endpoint_of(c.remote) for c in self._swarm.connections(connection.peer) if c.path == "direct")
        if gone is not None and gone.place not in {one.place for one in left if one is not None}:
            self._swarm.observed.forget(
                observer_peer=connection.peer, now=trio.current_time(), observer=gone.host, proto=gone.proto
            )

    # --- asking ---------------------------------------------------------------------------------------

    async def _ask(self, connection: Connection) -> None:
        """One query; a connection whose peer does not answer stays usable, just unidentified."""
        stream: Stream | None = None
        try:
            with trio.fail_after(self._limits.timeout):
                stream = await connection.open_stream((IDENTIFY,))
                await self._read(connection, stream, push=False)
                await stream.aclose()
        except NETWORK_FAILURES as problem:
            _log.debug("identify of %s failed: %s", peer_text(connection.peer), problem)
        finally:
            if stream is not None:
                stream.reset()  # does nothing to a stream that was closed
            connection.identified.set()

    async def _take_push(self, stream: Stream) -> None:
        connection, now = stream.connection, trio.current_time()
        if connection.id in self._told and not self._pushed.take(connection.id, now):  # it was not closed meanwhile
            if connection.id in self._taking:
                seen = _host(connection.remote) or ""
                self._swarm.refusals.add("identify_pushes", seen, peer_text(connection.peer))
                stream.reset()
                return
            self._taking.add(connection.id)
            try:
                with trio.fail_after(self._limits.timeout):
                    await trio.sleep_until(self._pushed.due(connection.id, now))
            finally:
                self._taking.discard(connection.id)
        with trio.fail_after(self._limits.timeout):
            await self._read(connection, stream, push=True)
            await stream.aclose()

    async def _read(self, connection: Connection, stream: Stream, *, push: bool) -> None:
        """Reads to the end of the stream, merging what arrives (I4: go splits its answer)."""
        buffer = bytearray()
        for _ in range(self._limits.messages):
            while (found := varint.split(buffer, self._limits.read)) is None:
                chunk = await stream.receive_some(self._limits.read)  # what is behind it stays in the stream's window
                if not chunk:
                    return
                buffer += chunk
            raw, end = found
            del buffer[:end]
            update = decode_update(raw, connection.peer)
            connection.identify = update.merged_into(connection.identify)
            self._tell(connection, update.observed, push=push)
            await trio.lowlevel.checkpoint()

    def _tell(self, connection: Connection, observed: Multiaddr | None, *, push: bool) -> None:
        """What a push says of our own address is of use where that may change under a connection: over QUIC."""
        info = connection.identify
        assert info is not None
        if observed is not None and (not push or connection.transport == "quic"):
            self._observe(connection, observed)
        connection.identified.set()
        self._swarm.events.emit(
            Identified(
                connection=connection.id,
                peer=peer_text(connection.peer),
                agent=info.agent,
                protocols=info.protocols,
                listen=tuple(str(addr) for addr in info.listen),
                observed=str(info.observed) if info.observed is not None else None,
                push=push,
            )
        )

    def _uninvited(self, connection: Connection) -> bool:
        """True when the peer came to us: on this connection, or on a circuit after which we dialled its address."""
        circuits = (one for one in self._swarm.connections(connection.peer) if one.path == "relay")
        return connection.inbound or any(one.inbound for one in circuits)

    def _observe(self, connection: Connection, observed: Multiaddr) -> None:
        """Only a direct connection from the listening port shows the mapping that a punch needs."""
        local, remote = endpoint_of(connection.local), endpoint_of(connection.remote)
        if connection.path != "direct" or local is None or remote is None or is_relayed(observed):
            return
        listening = (endpoint_of(addr) for addr in self._swarm.listen_addrs())
        mine = local.kind, local.port, local.proto
        if not any(item is not None and (item.kind, item.port, item.proto) == mine for item in listening):
            return
        changed = self._swarm.observed.record(
            observer=remote.host,
            observer_port=remote.port,
            observer_peer=connection.peer,
            local=connection.local,
            observed=observed,
            now=trio.current_time(),
            inbound=self._uninvited(connection),
        )
        if changed is not None:
            version = 6 if local.kind == "ip6" else 4
            mapping = self._swarm.observed.mapping(version, local.proto)
            seen = ObservedAddress(addr=str(observed), observer=peer_text(connection.peer), mapping=mapping)
            self._swarm.events.emit(seen)

    # --- answering and pushing ------------------------------------------------------------------------

    def _message(self, connection: Connection) -> bytes:
        relayed = connection.path == "relay"
        listen, protocols = self._tellable(connection)
        if relayed and not self._dial_back:
            listen = tuple(addr for addr in listen if is_relayed(addr))
        if connection.id in self._told:  # not closed meanwhile
            self._told[connection.id] = self._contents(connection)
        return encode_info(
            self._swarm.identity,
            agent=self._swarm.config.agent,
            protocols=protocols,
            listen=listen,
            observed=None if relayed else connection.remote,
        )

    async def _answer(self, stream: Stream) -> None:
        with trio.fail_after(self._limits.timeout):
            await write_message(stream, self._message(stream.connection))
            await stream.aclose()

    async def _push_changes(self) -> None:
        """Pushes to direct connections only: a push must not disturb a punch that runs over a circuit."""
        revision = self._swarm.announcements.revision
        seen = revision.number
        while True:
            with trio.move_on_after(self._limits.interface_check):
                await revision.beyond(seen)
                await trio.sleep(self._limits.push_delay)
            seen = revision.number
            announced = self._swarm.announced()  # once: it asks the system for the interfaces
            for connection in self._swarm.connections():
                contents = self._contents(connection, announced)
                # One that is in the table, but not announced by its event yet, asks for what holds by then.
                if self._told.get(connection.id, contents) == contents or connection.path != "direct":
                    continue
                self._told[connection.id] = contents
                if self._wants_push(connection):
                    self._push_soon(connection)

    def _tellable(
        self, connection: Connection, announced: tuple[Multiaddr, ...] | None = None
    ) -> tuple[tuple[Multiaddr, ...], tuple[str, ...]]:
        """The addresses and protocols that the peer may know of: no private address for who is not known here, not that
        of a relay either."""
        listen = self._swarm.announced() if announced is None else announced
        if not self._swarm.gater.known(connection):
            listen = tuple(addr for addr in listen if _public(addr))
        return listen, self._swarm.registry.supported(connection)

    def _contents(self, connection: Connection, announced: tuple[Multiaddr, ...] | None = None) -> _Contents:
        listen, protocols = self._tellable(connection, announced)
        return frozenset(listen), frozenset(protocols)

    @staticmethod
    def _wants_push(connection: Connection) -> bool:
        return connection.identify is None or PUSH in connection.identify.protocols

    async def _push(self, connection: Connection) -> None:
        stream: Stream | None = None
        try:
            async with self._pushes:
                with trio.fail_after(self._limits.timeout):
                    stream = await connection.open_stream((PUSH,))
                    self._waiting.discard(connection.id)
                    await write_message(stream, self._message(connection))
                    await stream.aclose()
        except NETWORK_FAILURES as problem:
            _log.debug("push to %s failed: %s", peer_text(connection.peer), problem)
        finally:
            self._waiting.discard(connection.id)
            if stream is not None:
                stream.reset()


def _public(addr: Multiaddr) -> bool:
    """Whether an address of ours, or of the relay in it, is a public one."""
    circuit = circuit_of(addr)
    return is_public(addr if circuit is None else circuit.relay)


def _host(addr: Multiaddr) -> str | None:
    try:
        endpoint = endpoint_of(addr)
    except BridgeError:
        return None
    return endpoint.host if endpoint is not None else None
