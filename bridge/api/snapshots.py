"""What both forms of the public API do in the trio thread: open the host and the gateway, and ask them things.

The sync form calls these from other threads, the trio form awaits them. No thread and no grpc here.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import trio

from punchbridge.addresses import is_relayed, with_peer
from punchbridge.api.configuration import host_config
from punchbridge.client_keys import client_identity
from punchbridge.config import Config
from punchbridge.errors import ConfigError, DialTimeout, IdentityError, NotAllowed
from punchbridge.eventhub import EventHub
from punchbridge.events import AccessOpen, ErrorEvent, Event, ReservationAccepted, TransportName
from punchbridge.host.host import Host, open_host
from punchbridge.identity import PeerId, parse_peer_id, peer_text
from punchbridge.local.gateway import Gateway, open_gateway
from punchbridge.local.paths import wait_direct
from punchbridge.local.target import Target
from punchbridge.reach.autonat import Reachability

if TYPE_CHECKING:
    from punchbridge.transport.base import Connection

log = logging.getLogger(__name__)

__all__ = ["ConnectionInfo", "Control", "Status", "open_control"]


@dataclass(frozen=True)
class ConnectionInfo:
    """A snapshot of one connection. `rtt`: seconds, None before it was measured; bytes are payload; `transport`: what
    carries it, tcp or quic, or circuit when it runs through a relay."""

    id: int
    peer_id: str
    path: Literal["direct", "relay"]
    local: str
    remote: str
    role: Literal["initiator", "responder"]
    inbound: bool
    relay: str | None
    punched: bool
    rtt: float | None
    streams: int
    bytes_sent: int
    bytes_received: int
    transport: TransportName = "tcp"


@dataclass(frozen=True)
class Status:
    """A snapshot of a bridge. `relays`: ids of the relays that hold a reservation for us; `reachability`: what AutoNAT
    servers found when they dialled us, `reachability_by_transport` what they found over each (tcp, quic); `refused`:
    how often each limit has turned somebody away since the start."""

    peer_id: str
    addrs: tuple[str, ...]
    relays: tuple[str, ...]
    reachability: Reachability
    refused: Mapping[str, int]
    connections: tuple[ConnectionInfo, ...]
    reachability_by_transport: Mapping[TransportName, Reachability] = field(default_factory=dict)


class Control:
    """Host and gateway of one bridge. All methods run in the trio thread."""

    def __init__(self, host: Host, gateway: Gateway) -> None:
        self.host = host
        self.gateway = gateway
        self.peer_id = peer_text(host.swarm.peer)

    @property
    def events(self) -> EventHub:
        return self.host.swarm.events

    def addrs(self) -> tuple[str, ...]:
        """Where we can be reached now: bound and announced addresses, circuits included, each ending in /p2p/ID."""
        swarm = self.host.swarm
        known = dict.fromkeys((*swarm.listen_addrs(), *swarm.announced()))
        return tuple(dict.fromkeys(str(with_peer(addr, swarm.peer)) for addr in known))

    async def connect(self, target: Target) -> ConnectionInfo:
        """The best connection to the target, dialled if there is none; the peer is shown the secret of a ticket.

        Raises as `Swarm.connect` does, and NotAllowed.
        """
        self.host.swarm.named_relays.add_targets(target.addrs)
        connection = await self.host.swarm.connect(target.peer, target.addrs)
        if connection.closed.is_set():
            connection.check_alive()
        if target.secret is not None:
            await self.host.invitations.show(connection, target.secret)
        return _snapshot(connection)

    async def invite(self, uses: int, expires: float | None, label: str) -> str:
        """See `Bridge.invite`."""
        ticket = await self.host.admission.invite(self.host.relay_client.kept, uses=uses, expires=expires, label=label)
        return ticket.encode()

    def labels(self, peer: str | PeerId) -> frozenset[str]:
        """See `Bridge.labels`. From any thread: the lists are one value, and it is replaced as a whole."""
        return self.host.swarm.gater.labels(parse_peer_id(peer) if isinstance(peer, str) else peer)

    def connections(self) -> tuple[ConnectionInfo, ...]:
        return tuple(_snapshot(one) for one in self.host.swarm.connections())

    def status(self) -> Status:
        host = self.host
        return Status(
            peer_id=self.peer_id,
            addrs=self.addrs(),
            relays=tuple(peer_text(one.relay) for one in host.relay_client.reservations()),
            reachability="unknown" if host.autonat is None else host.autonat.reachability,
            refused=dict(host.swarm.refusals.counts),
            connections=self.connections(),
            reachability_by_transport={} if host.autonat is None else host.autonat.reachability_by_transport,
        )

    async def wait_direct(self, target: Target, wait: float) -> ConnectionInfo:
        """See `paths.wait_direct`."""
        return _snapshot(await wait_direct(self.host, target.peer, wait))

    async def wait_reservation(self, wait: float) -> tuple[str, ...]:
        """Our circuit addresses, as soon as a relay has accepted a reservation. Raises DialTimeout after `wait` s,
        ConfigError when the bridge keeps no relay."""
        if not self.host.relay_client.kept:
            raise ConfigError("this bridge was given no relay; open it with relays=[…]")
        accepted = trio.Event()
        told: list[str] = []

        def notice(event: Event) -> None:
            if isinstance(event, ReservationAccepted):
                told.extend(event.addrs)
                accepted.set()

        unsubscribe = self.events.subscribe(notice)
        try:
            with trio.move_on_after(wait):
                if not self._circuits():
                    await accepted.wait()
        finally:
            unsubscribe()
        if circuits := self._circuits() or tuple(told):
            return circuits
        raise DialTimeout(f"no relay accepted a reservation within {wait:g} s; see the reservation.lost events")

    def _circuits(self) -> tuple[str, ...]:
        swarm = self.host.swarm
        return tuple(str(with_peer(addr, swarm.peer)) for addr in swarm.announced() if is_relayed(addr))


def _warn(event: Event) -> None:
    """What an application that takes no events is told all the same."""
    if isinstance(event, AccessOpen):
        log.warning("open: anybody who knows an address may call %s", event.protocol or "all that is served")


def _snapshot(connection: Connection) -> ConnectionInfo:
    return ConnectionInfo(
        id=connection.id,
        peer_id=peer_text(connection.peer),
        path=connection.path,
        local=str(connection.local),
        remote=str(connection.remote),
        role=connection.role,
        inbound=connection.inbound,
        relay=None if connection.relay is None else peer_text(connection.relay),
        punched=connection.punched,
        rtt=connection.rtt,
        streams=connection.streams,
        bytes_sent=connection.bytes_sent,
        bytes_received=connection.bytes_received,
        transport=connection.transport,
    )


@asynccontextmanager
async def open_control(config: Config, events: Callable[[Event], None] | None) -> AsyncIterator[Control]:
    """Runs a host, with or without sessions, and its gateway. Raises AddressError, ConfigError, IdentityError.

    At the end streams are reset, connections closed, sockets and files gone."""
    hub = EventHub()
    hub.subscribe(_warn if events is None else events)
    others = 0
    with ExitStack() as stack:
        if config.key is None and not config.ephemeral:
            try:
                identity, others = stack.enter_context(client_identity())
                config = replace(config, key=identity)
            except IdentityError as problem:
                hub.emit(ErrorEvent(code=problem.code, message=f"{problem}; this identity is for this run alone"))
        async with open_host(host_config(config), hub) as host, open_gateway(host) as gateway:
            try:
                yield Control(host, gateway)
            except NotAllowed as problem:
                if others:
                    problem.add_note(
                        "another program of this user runs with the identity that is taken first, and two programs at "
                        f"once are two peers: this one is {peer_text(host.swarm.peer)}"
                    )
                raise
