"""A host: the swarm with its behaviours, wired in order. What programs and the gRPC side open.

The only place that composes. Order: swarm, identify, ping, relay client, DCUtR, AutoNAT, sessions, then listening, then
the relays to keep, so that no connection comes before its handlers and no address is told before it holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace

# multiaddr loads this with the first /p2p that it reads, which takes 20 to 40 ms: in the first connection of a program.
import multiaddr.codecs.cid  # noqa: F401

from punchbridge.access.policy import NOBODY, Access
from punchbridge.access.sources import Sources
from punchbridge.access.store import AccessFile
from punchbridge.addresses import Multiaddr, Proto, peer_of
from punchbridge.behaviours.admission import Admission, Invitations
from punchbridge.behaviours.autonat import Autonat, Outside
from punchbridge.behaviours.dcutr import Dcutr
from punchbridge.behaviours.identify import IdentifyService
from punchbridge.behaviours.ping import PingService
from punchbridge.behaviours.relay_client import RelayClient
from punchbridge.config import AccessLimits, Limits, Punch, Times, Transports
from punchbridge.errors import AddressError
from punchbridge.eventhub import EventHub
from punchbridge.events import TransportAbsent
from punchbridge.identity import Identity
from punchbridge.session.around import Around
from punchbridge.session.service import SessionService
from punchbridge.swarm.ports import together
from punchbridge.swarm.swarm import Swarm, SwarmConfig, open_swarm
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection, Transport
from punchbridge.transport.muxed.upgrade import MuxedUpgrader
from punchbridge.transport.tcp.listener import Listeners
from punchbridge.transport.tcp.transport import TcpTransport
from punchbridge.version import AGENT

__all__ = ["Host", "HostConfig", "StreamHost", "open_host"]


@dataclass(frozen=True)
class HostConfig:
    """What a host is made of. `listen`: addresses of an IP and TCP or QUIC to listen on, those of one IP that leave
    their port open at the same number; `transports`: which are spoken; `relays`: relay addresses ending in
    /p2p/ID where a reservation is kept; `punch`: how DCUtR runs, if it does; else peers on circuits are told no address
    that they could dial back; `autonat`: ask AutoNAT v2 servers about us; `autonat_server`: be one;
    `sessions`: streams are sessions where the peer knows them; `allow_private`: announce, and punch to, private and
    loopback addresses; `limits`: the bounds of every room below; `times`: how long calls wait; `announce`: addresses
    that others are told beside those found; `access`: the lists of who may call, or where they come from;
    `access_file`: where invitations are kept."""

    identity: Identity
    listen: tuple[Multiaddr, ...] = ()
    transports: Transports = field(default_factory=Transports)
    relays: tuple[Multiaddr, ...] = ()
    agent: str = AGENT
    allow_private: bool = False
    punch: Punch = field(default_factory=Punch)
    autonat: bool = True
    autonat_server: bool = False
    sessions: bool = True
    limits: Limits = field(default_factory=Limits)
    times: Times = field(default_factory=Times)
    announce: tuple[Multiaddr, ...] = ()
    access: Sources | Access = NOBODY
    access_file: AccessFile | None = None


@dataclass(frozen=True, kw_only=True)
class StreamHost:
    """The parts of a host that open and take streams; a host that is not ours may stand behind them as well.

    sessions: always there; whether streams are sessions is a flag inside. dcutr: None when there is no punching here.
    times: how long calls on this host wait.
    """

    swarm: Swarm
    sessions: SessionService
    dcutr: Dcutr | None = None
    times: Times = field(default_factory=Times)
    invitations: Invitations = field(default_factory=lambda: Invitations(AccessLimits().invite_timeout))
    """Those that were shown to others."""


@dataclass(frozen=True, kw_only=True)
class Host(StreamHost):
    """A running host. Everything else is asked of its parts."""

    identify: IdentifyService
    ping: PingService
    relay_client: RelayClient
    autonat: Autonat | None = None
    admission: Admission

    async def dial(self, target: Multiaddr) -> Connection:
        """Connects to a TARGET: a direct or circuit address ending in /p2p/ID. Errors as `Swarm.dial`."""
        if peer_of(target) is None:
            raise AddressError(f"{target} does not say which peer to expect; append /p2p/ID")
        self.swarm.named_relays.add_targets((target,))
        return await self.swarm.dial(target)

    def network_changed(self) -> None:
        """The addresses of this machine, or its way out, are others now: what was learned about them is forgotten.

        Observed addresses, AutoNAT's findings, the external addresses that were announced and the dials that wait for
        the next attempt of a punch go. Peers are told what is announced now, AutoNAT servers are asked anew, and where
        punches had failed the next run begins at once. Reservations that another program with our key has taken over
        are asked for again. Connections stay: those that still work need not break, and the
        others end by themselves. Nothing here watches the network: whoever does calls this, in the trio thread.
        """
        self.swarm.observed.clear()
        self.swarm.announcements.network_changed()
        self.relay_client.network_changed()
        if self.dcutr is not None:
            self.dcutr.network_changed()
        if self.autonat is not None:
            self.autonat.network_changed()


@asynccontextmanager
async def open_host(config: HostConfig, events: EventHub) -> AsyncIterator[Host]:
    """A running host that listens on all its addresses; the relays are still being asked when this yields.

    Raises PortInUse, AddressError. At the end the sessions are reset first, then the behaviours stop, then the swarm
    says goodbye.
    """
    settings = SwarmConfig(
        config.identity, config.agent, config.allow_private, config.limits, config.announce, NOBODY, config.transports
    )
    async with open_swarm(settings, events) as swarm, flat_nursery() as nursery:
        dcutr = Dcutr(swarm, config.punch) if config.punch.enabled else None
        autonat = None
        if config.autonat or config.autonat_server:
            autonat = Autonat(swarm, _outside(swarm, events), client=config.autonat, server=config.autonat_server)
        relay_client = RelayClient(swarm)
        around = Around(swarm, lambda: relay_client.kept)
        if dcutr is not None:
            around = replace(around, verdict=dcutr.verdict)
        sources = config.access
        if isinstance(sources, Access):
            sources = Sources(config.limits.access, given=sources)
        host = Host(
            swarm=swarm,
            identify=IdentifyService(swarm, dial_back=config.punch.enabled),
            ping=PingService(swarm),
            relay_client=relay_client,
            dcutr=dcutr,
            autonat=autonat,
            times=config.times,
            admission=Admission(swarm, sources, config.access_file),
            invitations=Invitations(config.limits.access.invite_timeout),
            sessions=SessionService(around, enabled=config.sessions),
        )
        await nursery.start(host.identify.run)
        await nursery.start(host.ping.run)
        await nursery.start(host.admission.run)
        await nursery.start(host.relay_client.run)
        for behaviour in (dcutr, autonat):
            if behaviour is not None:
                await nursery.start(behaviour.run)
        async with flat_nursery() as uppermost:
            await uppermost.start(host.sessions.run)
            if config.transports.quic and "quic-v1" in swarm.ports.missing:
                events.emit(TransportAbsent(transport="quic", message=swarm.ports.missing["quic-v1"]))
            for addrs in together(config.listen):
                await swarm.listen(*addrs)
            host.relay_client.keep(config.relays)
            yield host
            uppermost.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def _outside(swarm: Swarm, events: EventHub) -> Mapping[Proto, Outside]:
    """Whoever asks an AutoNAT server is dialled by a stranger, from a port that nobody has seen (A8)."""
    limits, stranger = swarm.config.limits, Identity.generate()
    upgrader = MuxedUpgrader(stranger, limits.muxed, limits.yamux, swarm.memory, swarm.turns)
    tcp = TcpTransport(upgrader, Listeners(lambda: None, events, limits.tcp), limits.tcp)

    @asynccontextmanager
    async def over_quic() -> AsyncIterator[Transport]:
        from punchbridge.transport.quic.transport import QuicTransport

        transport = QuicTransport(stranger, limits=limits.quic, muxed=limits.muxed, memory=swarm.memory)
        async with flat_nursery() as nursery:
            transport.nursery = nursery
            yield transport
            nursery.cancel_scope.cancel()

    found: dict[Proto, Outside] = {"tcp": lambda: nullcontext(tcp)}
    return found if swarm.ports.quic is None else {**found, "udp": over_quic}
