"""Swarms and hosts on loopback, for the tests of every room."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from typing import TypeVar

import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import Multiaddr, endpoint_of, parse, with_peer
from punchbridge.config import Limits, SwarmLimits, Transports
from punchbridge.eventhub import EventHub
from punchbridge.events import Event, Role
from punchbridge.identity import Identity, PeerId
from punchbridge.swarm.ports import together
from punchbridge.swarm.swarm import Swarm, SwarmConfig, open_swarm
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.link import Link

LOOPBACK = parse("/ip4/127.0.0.1/tcp/0")
UDP = parse("/ip4/127.0.0.1/udp/0/quic-v1")
ECHO = "/test/echo/1"
E = TypeVar("E", bound=Event)


async def adopt(swarm: Swarm, link: Link, *, role: Role, expected: PeerId | None) -> Connection:
    """Secures a link and has the swarm take it in, as behaviours do."""
    return await swarm.adopt(await swarm.upgrader.upgrade(link, role=role, expected=expected))


class Recorder:
    """Keeps the events of a hub and lets a test wait for one."""

    def __init__(self, hub: EventHub) -> None:
        self.events: list[Event] = []
        self._more = trio.Event()
        hub.subscribe(self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(self, kind: type[E], count: int = 1) -> E:
        """The `count`-th event of a kind, waiting for it at most 10 s."""
        with trio.fail_after(10):
            while len(self.of(kind)) < count:
                self._more = trio.Event()
                await self._more.wait()
        return self.of(kind)[count - 1]


@dataclass
class Node:
    """A swarm that listens on loopback, with its events. `addr` is its first address, ending in /p2p/ID."""

    swarm: Swarm
    record: Recorder
    identity: Identity = field(init=False)
    addr: Multiaddr = field(init=False)

    def __post_init__(self) -> None:
        self.identity = self.swarm.identity
        self.addr = with_peer(self.swarm.listen_addrs()[0], self.swarm.peer)

    @property
    def peer(self) -> PeerId:
        return self.swarm.peer


@asynccontextmanager
async def open_node(
    *listen: Multiaddr,
    identity: Identity | None = None,
    access: Access = OPEN,
    transports: Transports = Transports(),
    limits: Limits | None = None,
    **swarm_limits: float,
) -> AsyncIterator[Node]:
    """A swarm with an echo handler, listening on the addresses given (none: on a loopback port), those of TCP and QUIC
    at one number.

    `swarm_limits`: fields of its SwarmLimits."""
    hub = EventHub()
    bounds = replace(limits or Limits(), swarm=SwarmLimits(**swarm_limits))  # type: ignore[arg-type]
    config = SwarmConfig(
        identity or Identity.generate(), allow_private=True, limits=bounds, access=access, transports=transports
    )
    async with open_swarm(config, hub) as swarm:
        await swarm.handle(ECHO, echo, max_streams=64, max_per_peer=64)
        for group in together(listen or (LOOPBACK,)):
            await swarm.listen(*group)
        yield Node(swarm, Recorder(hub))


async def echo(stream: Stream) -> None:
    """Sends everything back until the other side ends."""
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


def port_of(addr: Multiaddr) -> int:
    """The port in an address of TCP or UDP."""
    endpoint = endpoint_of(addr)
    assert endpoint is not None
    return endpoint.port


def closed_port() -> Multiaddr:
    """A TCP address at which nobody listens any more."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return parse(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")


def open_descriptors() -> dict[str, str]:
    """The process's open descriptors and what they lead to."""
    out = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            out[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed the directory
    return out
