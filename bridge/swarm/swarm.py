"""The swarm: one node's listeners, connections and streams behind one object. The API of this room.

Changes go through the actor as commands; questions are answered from the table at once. Used from one trio thread.
It knows nothing of identify, relays or punching: those are behaviours that use it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import Multiaddr, Proto
from punchbridge.config import Limits, Transports
from punchbridge.eventhub import EventHub
from punchbridge.identity import Identity, PeerId, peer_text
from punchbridge.reach.observed import ObservedAddresses
from punchbridge.swarm.actor import Actor
from punchbridge.swarm.announce import Announcements
from punchbridge.swarm.commands import Adopt, Close, Connect, Dial, Handle, Listen, OpenStream, Reserve, Unhandle
from punchbridge.swarm.dialer import Dialer
from punchbridge.swarm.gater import Audience, Gater
from punchbridge.swarm.named import NamedRelays
from punchbridge.swarm.pool import Pool
from punchbridge.swarm.ports import Ports
from punchbridge.swarm.registry import Registry
from punchbridge.tasks.fair import FairQueue
from punchbridge.tasks.heap import give_back
from punchbridge.tasks.memory import Account, Memory
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection, Reservation, Stream, Transport, Upgrader
from punchbridge.transport.muxed.upgrade import MuxedUpgrader
from punchbridge.transport.tcp.sockets import TcpStream
from punchbridge.version import AGENT

__all__ = ["Swarm", "SwarmConfig", "open_swarm"]


@dataclass(frozen=True)
class SwarmConfig:
    """Who we are and what we accept. `allow_private`: announce private and loopback addresses too; `limits`: those of
    every room that works for this swarm; `announce`: addresses that others are told beside those found; `access`: the
    lists of who may call, at first; `transports`: which are spoken."""

    identity: Identity
    agent: str = AGENT
    allow_private: bool = False
    limits: Limits = field(default_factory=Limits)
    announce: tuple[Multiaddr, ...] = ()
    access: Access = OPEN
    transports: Transports = field(default_factory=Transports)


@asynccontextmanager
async def open_swarm(config: SwarmConfig, events: EventHub) -> AsyncIterator[Swarm]:
    """A running swarm. At the end it says GoAway, and leaves no task, socket or pending command behind.

    Leaving takes at most twice `close_timeout` seconds, also when cancelled.
    """
    swarm = Swarm(config, events)
    async with flat_nursery() as nursery:
        await nursery.start(swarm.actor.run)
        nursery.start_soon(swarm.turns.run)
        nursery.start_soon(give_back, swarm.memory, config.limits.memory.give_back)
        try:
            yield swarm
        finally:
            with trio.CancelScope(shield=True):
                await swarm.actor.stop()
            nursery.cancel_scope.cancel()


class Swarm:
    """A running node; made by `open_swarm`. Unless said otherwise calls raise SwarmStopped once it has ended."""

    def __init__(self, config: SwarmConfig, events: EventHub) -> None:
        self.config = config
        self.events = events
        self.identity = config.identity
        self.peer: PeerId = config.identity.peer_id
        self.observed = ObservedAddresses(config.limits.nat)
        self.named_relays = NamedRelays(config.limits.punch.named_relays)
        """The relays whose word on where a peer is seen is taken."""
        self.announcements = Announcements(self.peer, config.allow_private, config.announce)
        changed = self.announcements.revision.notify
        self.registry = Registry(changed)
        limits = config.limits
        self.gater = Gater(config.access)
        """Who may open which of our protocols."""
        self.gater.follow(changed)
        self._pool = Pool(config.identity, limits.swarm, self.registry, self.gater, events)
        self.watchers = self._pool.watchers
        """The parts of this node that are told of connections with the connection itself."""
        self.refusals = self._pool.table.refusals
        """What each limit has turned away since the start, and whom. Behaviours add what they refuse."""
        self.keepers = self._pool.table.keepers
        """Each says whether a connection is of use to it: such a one gives way to nobody when places are short."""
        self.memory = Memory(limits.memory, self._held_too_much)
        """What all connections hold together."""
        self.turns: FairQueue[str] = FairQueue(limits.muxed.turns)
        """In which order connections go on that have much to do."""
        self.upgrader: Upgrader = MuxedUpgrader(config.identity, limits.muxed, limits.yamux, self.memory, self.turns)
        self.ports = Ports(
            config.identity,
            self.upgrader,
            limits,
            config.transports,
            changed=changed,
            events=events,
            memory=self.memory,
            crowded=self._crowded,
            moved=self._pool.moved,
            turns=self.turns,
            dropped=self._pool.table.dropped,
        )
        """The transports with ports of their own: for whoever needs the sockets themselves."""
        self._transports: list[Transport] = [*self.ports.serving]
        self._served = len(self._transports)
        self._dialer = Dialer(limits, self._pool, self._transports, self.ports.missing)
        self.actor = Actor(limits.swarm, self._pool, self._dialer, self._transports, self.ports)

    def _crowded(self, host: str) -> bool:
        crowded = self._pool.table.crowded(host, trio.current_time())
        if crowded:
            self._pool.table.unproven(host)
        return crowded

    def _held_too_much(self, account: Account) -> None:
        peer = "" if account.peer is None else peer_text(account.peer)
        self.refusals.add("memory", account.origin, peer)

    async def listen(self, addr: Multiaddr, *beside: Multiaddr) -> tuple[Multiaddr, ...]:
        """Listens on an IP and a port of TCP or QUIC (0 = any; 0.0.0.0 and :: = every interface), or reserves at a
        relay when the address is a circuit. beside: see `ports.together`; all get the port number that the first picks.

        Returns the addresses in force. Raises AddressError, PortInUse, LimitExceeded."""
        return await self.actor.submit(Listen(addrs=(addr, *beside)))

    async def dial(self, addr: Multiaddr, *, expected: PeerId | None = None, fresh: bool = False) -> Connection:
        """Connects to one address: IP, name or circuit. With `fresh` always a further connection, else a live one
        of the same kind may be returned.

        The peer must prove the id in the address or `expected`; with neither, whoever answers is accepted. Raises
        Unreachable, DialTimeout, AddressError, AuthenticationFailed, WrongPeer, RelayRefused, LimitExceeded.
        A cancelled call leaves no socket; a connection that stood already stays in the swarm.
        """
        return await self.actor.submit(Dial(addr=addr, expected=expected, fresh=fresh))

    async def connect(
        self, peer: PeerId, addrs: Sequence[Multiaddr] = (), *, path: Literal["any", "direct", "relay"] = "any"
    ) -> Connection:
        """The best live connection to the peer on the path, else the first that stands of a race over those of `addrs`
        that lead there. Errors as `dial`; Unreachable.attempts has one line for each address."""
        return await self.actor.submit(Connect(peer=peer, addrs=tuple(addrs), path=path))

    async def open_stream(self, target: PeerId | Connection, protocols: Sequence[str]) -> Stream:
        """Opens a stream on a connection, or on the peer's best one. Raises Unreachable when not connected,
        NegotiationFailed when the peer speaks none of the protocols, ConnectionLost. Cancellation resets the stream."""
        if not protocols:
            raise ValueError("a stream needs a protocol to propose")
        return await self.actor.submit(OpenStream(target=target, protocols=tuple(protocols)))

    async def handle(
        self,
        protocol: str,
        handler: Callable[[Stream], Awaitable[None]],
        *,
        max_streams: int,
        max_per_peer: int,
        relayed: bool = True,
        audience: Audience | None = None,
        small: bool = False,
    ) -> None:
        """Accepts inbound streams of a protocol; `handler` runs in a task of the swarm and owns the stream, so it
        closes it. When the handler raises, the stream is reset. Streams beyond the limits are reset at once.
        `relayed=False`: not on relayed connections. `audience`: who may open it, by default whoever is known to the
        gater; a stream of somebody whom the audience loses is reset. `small`: its messages are short; a stream with
        more than `limits.swarm.unread` bytes unread is reset, unless the handler sets another bound. Raises
        ConfigError when the protocol has a handler already."""
        await self.actor.submit(
            Handle(
                protocol=protocol,
                handler=handler,
                max_streams=max_streams,
                max_per_peer=max_per_peer,
                relayed=relayed,
                audience=audience or self.gater.known,
                small=small,
            )
        )

    async def unhandle(self, protocol: str) -> None:
        """Accepts no further stream of the protocol; open ones go on."""
        await self.actor.submit(Unhandle(protocol=protocol))

    async def reserve(self, relay: Multiaddr) -> Reservation:
        """Asks a relay (address ending in /p2p/ID) for a reservation. Raises RelayRefused and as `dial`."""
        return await self.actor.submit(Reserve(relay=relay))

    async def close(self, target: PeerId | Connection, reason: str = "NORMAL") -> None:
        """Closes a connection, or all to a peer: GoAway, flush, at most `close_timeout` seconds, then cut."""
        await self.actor.submit(Close(target=target, reason=reason))

    async def adopt(self, connection: Connection) -> Connection:
        """Takes in a connection that a behaviour made (a circuit, a punched socket); it runs when this returns.
        Raises LimitExceeded. On failure and on cancellation it is cut."""
        command = Adopt(connection=connection)
        try:
            return await self.actor.submit(command)
        finally:
            if command.reply.abandoned() is None:
                connection.abort("NOT_TAKEN_IN")

    def connections(self, peer: PeerId | None = None) -> tuple[Connection, ...]:
        """A snapshot, oldest first."""
        return self._pool.table.members(peer)

    def connection(self, id: int) -> Connection | None:
        """The connection that events name by this number; None once it is closed."""
        return self._pool.table.get(id)

    def best(self, peer: PeerId) -> Connection | None:
        """The connection that `open_stream` would use: direct before relayed, then the newest."""
        live = self._pool.live(peer)
        return live[0] if live else None

    def listen_addrs(self) -> tuple[Multiaddr, ...]:
        """The bound addresses, wildcards expanded to what the interfaces have now; TCP first, loopback last."""
        return self.ports.addrs()

    def listen_port(self, version: int, proto: Proto) -> tuple[str, int] | None:
        """The (ip, port) that dials of an IP version and a protocol come from; None when not listening on it."""
        return self.ports.port(version, proto)

    def announced(self) -> tuple[Multiaddr, ...]:
        """What identify tells others."""
        return self.announcements.addresses(self.listen_addrs())

    def set_circuit_addrs(self, relay: PeerId, addrs: tuple[Multiaddr, ...]) -> None:
        """Our circuit addresses at a relay; empty removes them. A change is pushed to connected peers."""
        self.announcements.set_circuit_addrs(relay, addrs)

    def set_external(self, addr: Multiaddr, confirmed: bool) -> None:
        """An address at which others were seen to reach us, or no longer are. A change is pushed."""
        self.announcements.set_external(addr, confirmed)

    def add_transport(self, transport: Transport) -> None:
        """Asked before TCP and QUIC for every address, in the order of adding."""
        self._transports.insert(len(self._transports) - self._served, transport)

    def divert(
        self, matches: Callable[[Multiaddr], bool]
    ) -> AbstractContextManager[trio.MemoryReceiveChannel[TcpStream]]:
        """While open, accepted sockets whose remote address matches come out of the channel, untouched; the taker
        owns them. At most `diverted` wait; those left at the end are cut."""
        return self.ports.tcp.divert(matches)
