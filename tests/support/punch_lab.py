"""A relay and two hosts on loopback that can punch, for the DCUtR and AutoNAT tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import Multiaddr, parse, with_peer
from punchbridge.behaviours.dcutr import Dcutr
from punchbridge.config import Limits, Punch, PunchLimits
from punchbridge.eventhub import EventHub
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity, PeerId
from punchbridge.transport.base import Connection
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.dcutr import PROTOCOL, encode_connect
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.service import HopService
from tests.support.swarms import LOOPBACK, Recorder

QUICK = Punch(attempt_timeout=1.0, pause_least=0.01, pause_most=0.02, reversal=False)
LIMITS = PunchLimits()


@dataclass
class Peer:
    """A host with its events and, when it punches, its DCUtR behaviour."""

    host: Host
    record: Recorder
    dcutr: Dcutr | None

    @property
    def peer(self) -> PeerId:
        return self.host.swarm.peer

    @property
    def puncher(self) -> Dcutr:
        assert self.dcutr is not None
        return self.dcutr


@asynccontextmanager
async def open_relay(
    limits: RelayLimits | None = None,
    *,
    listen: tuple[Multiaddr, ...] = (LOOPBACK,),
    announce: tuple[Multiaddr, ...] = (),
) -> AsyncIterator[Multiaddr]:
    """A relay on loopback; yields its first address with /p2p/ID."""
    config = HostConfig(
        Identity.generate(),
        listen,
        access=OPEN,
        allow_private=True,
        announce=announce,
        punch=Punch(enabled=False),
        autonat=False,
    )
    async with open_host(config, EventHub()) as host, trio.open_nursery() as nursery:
        await nursery.start(HopService(host.swarm, limits).run)
        yield with_peer(host.swarm.listen_addrs()[0], host.swarm.peer)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_peer(
    punch: Punch | None = QUICK,
    *,
    identity: Identity | None = None,
    allow_private: bool = True,
    listen: tuple[Multiaddr, ...] = (LOOPBACK,),
    agent: str = HostConfig.agent,
    sessions: bool = True,
    access: Access = OPEN,
    limits: Limits | None = None,
) -> AsyncIterator[Peer]:
    """A host on loopback; with `punch` None it does not punch at all."""
    hub = EventHub()
    record = Recorder(hub)
    config = HostConfig(
        identity or Identity.generate(),
        listen,
        agent=agent,
        access=access,
        allow_private=allow_private,
        punch=punch or Punch(enabled=False),
        autonat=False,
        sessions=sessions,
        limits=limits or Limits(),
    )
    async with open_host(config, hub) as host:
        yield Peer(host, record, host.dcutr)


async def over_relay(relay: Multiaddr, dialer: Peer, listener: Peer) -> Connection:
    """Reserves for the listener and dials it from the other peer through the relay."""
    await listener.host.swarm.reserve(relay)
    return await dialer.host.swarm.dial(parse(f"{relay}/p2p-circuit/p2p/{listener.peer.to_base58()}"))


async def say_connect(peer: Peer, connection: Connection) -> bytes:
    """Opens an exchange and returns the answer."""
    stream = await peer.host.swarm.open_stream(connection, [PROTOCOL])
    await write_message(stream, encode_connect([parse("/ip4/127.0.0.1/tcp/1")]))
    return await read_message(stream)


def lie(peer: Peer, *addrs: str) -> None:
    """Makes this peer offer other addresses than its own."""
    peer.puncher.candidates.offered = tuple(map(parse, addrs))


def tell_the_truth(peer: Peer) -> None:
    """Makes this peer offer its own addresses again."""
    peer.puncher.candidates.offered = None
