"""The connections of a py-libp2p host behind the questions that sessions and the gateway ask of a swarm.

It watches the host's connections, hands inbound streams of served protocols on, and dials through the host. What the
host does besides (its addresses, its security, its relays, its own services) is none of its business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import trio
from libp2p.abc import IHost, INetConn, INetStream, INetwork, INotifee
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from multiaddr import Multiaddr as TheirMultiaddr

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import Multiaddr, is_relayed, parse, peer_of, without_peer
from punchbridge.config import Limits
from punchbridge.errors import AddressError, BridgeError, Unreachable, WrongPeer
from punchbridge.eventhub import EventHub
from punchbridge.identity import PeerId, peer_text
from punchbridge.libp2p.connection import HostConnection
from punchbridge.libp2p.stream import HostStream
from punchbridge.swarm.gater import Audience, Gater
from punchbridge.swarm.named import NamedRelays
from punchbridge.swarm.news import closed, opened
from punchbridge.swarm.registry import Registration, Registry
from punchbridge.tasks.refusals import Refusals
from punchbridge.tasks.supervise import supervise
from punchbridge.transport.origin import origin_of

__all__ = ["HostSwarm", "Settings"]

Handler = Callable[[HostStream], Awaitable[None]]


@dataclass(frozen=True)
class Settings:
    """What sessions ask of a swarm's settings. `allow_private`: relays that a peer names may be private addresses;
    `limits`: the bounds of sessions and of what runs beside them; `access`: the lists of who may call."""

    allow_private: bool = False
    limits: Limits = field(default_factory=Limits)
    access: Access = OPEN


class _Watch(INotifee):
    """The host tells of its connections."""

    def __init__(self, swarm: HostSwarm) -> None:
        self._swarm = swarm

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._swarm.seen(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._swarm.lost(conn)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: TheirMultiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: TheirMultiaddr) -> None: ...


class HostSwarm:
    """A py-libp2p host as a swarm. Works while `run` runs, in the host's own trio run."""

    def __init__(self, host: IHost, events: EventHub, settings: Settings) -> None:
        self.config = settings
        self.events = events
        self.peer = PeerId(host.get_id().to_bytes())
        self._host = host
        self._network: Any = host.get_network()
        self._registry = Registry(lambda: None)
        self.gater = Gater(settings.access)
        """Who may open which protocols of the bridge; the host's own protocols are the host's affair."""
        self.named_relays = NamedRelays(settings.limits.punch.named_relays)
        """See `Swarm`; the host makes its circuits itself."""
        self.refusals = Refusals()
        """What bounds and lists of ours have turned away since the start, and whom."""
        self._connections: dict[int, HostConnection] = {}
        self._nursery: trio.Nursery | None = None
        self._watch = _Watch(self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then the streams that it carried are reset, and the host's connections stay."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._network.register_notifee(self._watch)
                try:
                    for raw in self._network.get_connections():
                        self.seen(raw)
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    self._leave()
                    nursery.cancel_scope.cancel()
        finally:
            for connection in self._connections.values():
                connection.writes.leave()

    def _leave(self) -> None:
        self._network.remove_notifee(self._watch)
        for protocol in self._registry:
            self._host.remove_stream_handler(TProtocol(protocol))
        for connection in self._connections.values():
            connection.writes.hurry()
        self._nursery = None

    def _spawn(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(supervise, what, work, _let_be)

    # --- connections --------------------------------------------------------------------------------------

    def seen(self, raw: Any) -> HostConnection:
        """The connection of ours that stands for one of the host's; a new one is told of and asked who is there."""
        known = self._connections.get(id(raw))
        if known is not None and known.raw is raw:
            return known
        connection = self._connections[id(raw)] = HostConnection(raw, self._spawn)
        self._spawn("identify over py-libp2p", connection.ask_identify)
        self.events.emit(opened(connection))
        return connection

    def lost(self, raw: Any) -> None:
        """The host says that a connection has ended."""
        connection = self._connections.pop(id(raw), None)
        if connection is None:
            return
        connection.gone("CONNECTION_LOST")
        self.events.emit(closed(connection))

    def connections(self, peer: PeerId | None = None) -> tuple[HostConnection, ...]:
        """A snapshot, oldest first."""
        return tuple(one for one in self._connections.values() if peer in (None, one.peer) and not one.closing)

    def connection(self, id: int) -> HostConnection | None:
        """The connection that events name by this number; None once it is closed."""
        return next((one for one in self._connections.values() if one.id == id), None)

    def best(self, peer: PeerId) -> HostConnection | None:
        """A live connection to the peer: direct before relayed, then the newest."""
        return max(self.connections(peer), key=lambda one: (one.path == "direct", one.id), default=None)

    async def connect(
        self, peer: PeerId, addrs: Sequence[Multiaddr] = (), *, path: Literal["any", "direct", "relay"] = "any"
    ) -> HostConnection:
        """The best live connection on the path, else the first that a dial of `addrs`, one after another, makes;
        with no address what the host's peer store has. Raises Unreachable with one line for each address."""
        standing = [one for one in self.connections(peer) if path in ("any", one.path)]
        if standing:
            return max(standing, key=lambda one: (one.path == "direct", one.id))
        attempts = []
        for addr in addrs or self._stored(peer):
            if path == "any" or is_relayed(addr) == (path == "relay"):
                try:
                    return await self.dial(addr, expected=peer)
                except BridgeError as problem:
                    attempts.append(f"{addr}: {problem}")
        raise Unreachable(f"py-libp2p's host reached {peer_text(peer)} at no address", tuple(attempts))

    def _stored(self, peer: PeerId) -> list[Multiaddr]:
        try:
            found = self._host.get_peerstore().addrs(ID(peer.to_bytes()))
        except BaseLibp2pError:
            return []
        return [parse(str(addr)) for addr in found]

    async def dial(self, addr: Multiaddr, *, expected: PeerId | None = None, fresh: bool = False) -> HostConnection:
        """Has the host dial one address. The peer must prove the id in the address or `expected`; one is needed.

        `fresh` is left to the host, which may return a connection that stands. Raises AddressError, Unreachable,
        WrongPeer. Circuits are dialled as far as the host's own transports dial them.
        """
        peer = expected if expected is not None else peer_of(addr)
        if peer is None:
            raise AddressError(f"{addr} does not say which peer to expect; append /p2p/ID")
        if peer_of(addr) not in (None, peer):
            raise WrongPeer(f"{addr} names another peer than {peer_text(peer)}")
        theirs = TheirMultiaddr(str(addr if is_relayed(addr) else without_peer(addr)))
        try:
            raw = await self._network.dial_addr(theirs, ID(peer.to_bytes()))
        except (BaseLibp2pError, OSError, ValueError) as problem:
            raise Unreachable(f"py-libp2p's host: {addr}: {problem}") from problem
        return self.seen(raw)

    async def close(self, target: PeerId | HostConnection, reason: str = "NORMAL") -> None:
        """Has the host close one connection, or all to a peer."""
        chosen = self.connections(target) if isinstance(target, PeerId) else (target,)
        for connection in chosen:
            await connection.aclose(reason)

    def listen_addrs(self) -> tuple[Multiaddr, ...]:
        """Where the host says that it can be reached, without its peer id."""
        return tuple(dict.fromkeys(without_peer(parse(str(addr))) for addr in self._host.get_addrs()))

    announced = listen_addrs

    # --- streams ------------------------------------------------------------------------------------------

    async def handle(
        self,
        protocol: str,
        handler: Handler,
        *,
        max_streams: int,
        max_per_peer: int,
        relayed: bool = True,
        audience: Audience | None = None,
    ) -> None:
        """Accepts inbound streams of a protocol; `handler` owns the stream. Beyond the limits, and of peers outside of
        the audience, streams are reset: the host has agreed on the protocol before it asks us. Raises ConfigError when
        the protocol has a handler of ours already."""
        await trio.lowlevel.checkpoint()
        served = cast(Any, handler)
        registration = Registration(protocol, served, max_streams, max_per_peer, relayed, audience or self.gater.listed)
        self._registry.add(registration)
        self._host.set_stream_handler(TProtocol(protocol), partial(self._came, registration))

    async def unhandle(self, protocol: str) -> None:
        """Accepts no further stream of the protocol; open ones go on."""
        await trio.lowlevel.checkpoint()
        self._registry.remove(protocol)
        self._host.remove_stream_handler(TProtocol(protocol))

    async def _came(self, registration: Registration, net: Any) -> None:
        """The host's handler: runs until the stream has ended, since the host forgets it then."""
        connection = self.seen(net.swarm_conn)
        refused = None
        if self._nursery is not None:
            if not registration.open_to(cast(Any, connection)):
                refused = "not_allowed"
            elif not registration.enter(connection.peer):
                refused = "streams"
            if refused is not None:
                self.refusals.add(refused, origin_of(cast(Any, connection)), peer_text(connection.peer))
        if self._nursery is None or refused is not None:
            await net.reset()
            return
        stream = HostStream(connection, net, registration.protocol, inbound=True)
        ended = trio.Event()

        async def work() -> None:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.run)
                    await supervise(
                        f"the handler of {registration.protocol}",
                        lambda: registration.handler(stream),  # type: ignore[arg-type]
                        lambda _: stream.abort(),
                    )
            finally:
                registration.leave(connection.peer)
                ended.set()

        self._spawn("an inbound stream of py-libp2p", work)
        await ended.wait()


def _let_be(_reason: str) -> None:
    """The task's own clean-up has done what there is to do."""
