"""The relay program: a host, the hop service on it, and its figures each few seconds; drained when it is stopped.

What the flags are called and where the events go is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.access.sources import Sources
from punchbridge.access.store import AccessFile
from punchbridge.addresses import Multiaddr, with_peer
from punchbridge.config import Limits, Punch, Transports
from punchbridge.errors import PortInUse
from punchbridge.eventhub import EventHub
from punchbridge.events import NodeStarted, TransportAbsent
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity, peer_text
from punchbridge.swarm.ports import together
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.tasks.signal import Signal
from punchbridge.version import AGENT
from punchbridge_relay.events import RelayListening
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.service import HopService


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """`listen`: addresses to listen on; `spared`: those of them that the relay does without when another program holds
    their port; `transports`: which are spoken; `announce`: addresses that clients are told
    beside those found; `limits`: what the relay grants; `access`: the lists of who may reserve; `connect`: who may open
    circuits beside those on the lists, by default anybody; `rooms`: the bounds of the rooms below, None for those that
    follow from `limits`;
    `stats_interval`: seconds between two RelayStats events; `allow_private`: announce private and loopback addresses
    too; `autonat`: tell others whether they can be reached."""

    identity: Identity
    listen: tuple[Multiaddr, ...]
    spared: tuple[Multiaddr, ...] = ()
    transports: Transports = field(default_factory=Transports)
    announce: tuple[Multiaddr, ...] = ()
    limits: RelayLimits = field(default_factory=RelayLimits)
    rooms: Limits | None = None
    access: Sources | Access = OPEN
    access_file: AccessFile | None = None
    connect: Access = OPEN
    stats_interval: float = 10.0
    allow_private: bool = False
    autonat: bool = True
    agent: str = AGENT

    @property
    def bounds(self) -> Limits:
        """The bounds of the rooms below."""
        return Limits(swarm=self.limits.swarm()) if self.rooms is None else self.rooms


async def run(
    config: RelayConfig,
    events: EventHub,
    *,
    reload: Signal | None = None,
    task_status: trio.TaskStatus[HopService] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a relay until cancelled; each time that `reload` is notified it reads its lists again.

    Cancelled, it drains within a bound, emits the last figures and leaves no socket.

    It has started, with the service, once it accepts reservations. Raises PortInUse, AddressError.
    """
    stop = trio.Event()

    async def wait_for_stop() -> None:
        try:
            await trio.sleep_forever()
        finally:
            stop.set()

    async with flat_nursery() as nursery:
        nursery.start_soon(wait_for_stop)
        # Cancellation would cut all connections at once; behind the shield they are told first. Every step below
        # has a bound of its own and ends soon after `stop`.
        with trio.CancelScope(shield=True):
            await _serve(config, events, stop, reload or Signal(), lambda service: task_status.started(service))
        nursery.cancel_scope.cancel()


async def _serve(
    config: RelayConfig, events: EventHub, stop: trio.Event, reload: Signal, started: Callable[[HopService], None]
) -> None:
    host_config = HostConfig(
        access=config.access,
        access_file=config.access_file,
        identity=config.identity,
        transports=config.transports,
        announce=config.announce,
        agent=config.agent,
        limits=config.bounds,
        allow_private=config.allow_private,
        punch=Punch(enabled=False),
        autonat=False,
        autonat_server=config.autonat,
        sessions=False,
    )
    async with open_host(host_config, events) as host, flat_nursery() as nursery:
        swarm = host.swarm
        service = HopService(swarm, config.limits, config.connect)
        await nursery.start(service.run)
        nursery.start_soon(_reread, host, reload)
        for addrs in together(config.listen):  # not before the hop protocol is there: the first client may be waiting
            await _listen(swarm, addrs, config, events)
        me = peer_text(swarm.peer)
        listening = tuple(dict.fromkeys((*swarm.listen_addrs(), *config.announce)))
        events.emit(NodeStarted(peer_id=me, listen=tuple(str(addr) for addr in listening)))
        events.emit(RelayListening(peer_id=me, addrs=tuple(str(with_peer(addr, swarm.peer)) for addr in listening)))
        started(service)
        while not stop.is_set():
            events.emit(service.stats())
            with trio.move_on_after(config.stats_interval):
                await stop.wait()
        events.emit(service.stats())
        await service.drain()
        nursery.cancel_scope.cancel()


async def _listen(swarm: Swarm, addrs: tuple[Multiaddr, ...], config: RelayConfig, events: EventHub) -> None:
    try:
        await swarm.listen(*addrs)
    except PortInUse as problem:
        if not set(addrs) <= set(config.spared):
            raise
        events.emit(TransportAbsent(transport="quic", message=str(problem)))


async def _reread(host: Host, reload: Signal) -> None:
    seen = reload.number
    while True:
        seen = await reload.beyond(seen)
        host.admission.reread()
