"""A relay and its peers on loopback, and raw hop and stop messages, for the relay's tests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import Multiaddr, parse, with_peer
from punchbridge.behaviours.relay_client import RelayClient
from punchbridge.config import Limits
from punchbridge.eventhub import EventHub
from punchbridge.events import Event
from punchbridge.identity import Identity, PeerId
from punchbridge.swarm.swarm import Swarm, SwarmConfig, open_swarm
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.circuit import (
    HOP,
    STOP,
    Answer,
    Connect,
    Grant,
    Status,
    decode_hop_answer,
    decode_stop_request,
    encode_hop_answer,
    encode_hop_connect,
    encode_reserve,
    encode_stop_answer,
)
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.service import HopService

E = TypeVar("E", bound=Event)
ANY_PORT = parse("/ip4/127.0.0.1/tcp/0")
ECHO = "/test/echo/1.0.0"


@dataclass
class Log:
    """The events of one swarm, and waiting for them."""

    events: list[Event] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(self, kind: type[E], count: int = 1, where: Callable[[E], bool] = lambda _: True) -> E:
        """The `count`-th matching event; fails after 10 s."""
        with trio.fail_after(10):
            while True:
                news = self._news
                found = [event for event in self.of(kind) if where(event)]
                if len(found) >= count:
                    return found[count - 1]
                await news.wait()


@dataclass
class Node:
    """A peer: its swarm, what happened there, and a relay client when it has one."""

    swarm: Swarm
    log: Log
    client: RelayClient | None = None

    @property
    def peer(self) -> PeerId:
        return self.swarm.peer

    @property
    def relays(self) -> RelayClient:
        assert self.client is not None
        return self.client


@dataclass
class Relay:
    """A relay: its swarm, service and address."""

    swarm: Swarm
    service: HopService
    addr: Multiaddr
    log: Log


@dataclass
class Network:
    """Makes relays and nodes that live until the test ends."""

    nursery: trio.Nursery

    async def node(
        self, *, client: bool = True, identity: Identity | None = None, limits: Limits | None = None
    ) -> Node:
        swarm, log = await self._swarm(identity, limits)
        node = Node(swarm, log, RelayClient(swarm) if client else None)
        if node.client is not None:
            await self.nursery.start(node.client.run)
        return node

    async def relay(
        self, access: Access = OPEN, *, identity: Identity | None = None, connect: Access = OPEN, **limits: Any
    ) -> Relay:
        swarm, log = await self._swarm(identity)
        (addr,) = await swarm.listen(ANY_PORT)
        swarm.gater.access = access
        service = HopService(swarm, RelayLimits(**limits), connect)
        await self.nursery.start(service.run)
        return Relay(swarm, service, with_peer(addr, swarm.peer), log)

    async def _swarm(self, identity: Identity | None, limits: Limits | None = None) -> tuple[Swarm, Log]:
        log = Log()
        hub = EventHub()
        hub.subscribe(log)
        config = SwarmConfig(identity or Identity.generate(), limits=limits or Limits())

        async def live(*, task_status: trio.TaskStatus[Swarm]) -> None:
            async with open_swarm(config, hub) as swarm:
                task_status.started(swarm)
                await trio.sleep_forever()

        return await self.nursery.start(live), log

    async def pair(self, relay: Relay) -> tuple[Node, Node, Multiaddr]:
        """(dialer, listener with a reservation and an echo handler, the listener's circuit address)."""
        dialer, listener = await self.node(), await self.node()
        await listener.swarm.handle(ECHO, echo, max_streams=8, max_per_peer=8)
        reservation = await listener.relays.reserve(relay.addr)
        return dialer, listener, reservation.addrs[0]


@asynccontextmanager
async def network() -> AsyncIterator[Network]:
    """Everything in it ends with the block, within 55 s."""
    with trio.fail_after(55):
        async with trio.open_nursery() as nursery:
            await trio.lowlevel.checkpoint()
            yield Network(nursery)
            nursery.cancel_scope.cancel()


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


async def read_all(stream: Stream, size: int | None = None) -> bytes:
    """Up to the end of the stream, or `size` bytes."""
    data = bytearray()
    while size is None or len(data) < size:
        more = await stream.receive_some()
        if not more:
            break
        data += more
    return bytes(data)


async def hop(connection: Connection, payload: bytes) -> Answer:
    """One raw hop request and its answer."""
    stream = await connection.open_stream([HOP])
    await write_message(stream, payload)
    answer = decode_hop_answer(await read_message(stream))
    stream.abort()
    return answer


async def reserve(node: Node, relay: Relay) -> Answer:
    return await hop(await node.swarm.dial(relay.addr), encode_reserve())


async def connect_raw(node: Node, relay: Relay, target: PeerId) -> tuple[Stream, Answer]:
    """CONNECT without an upgrade behind it: the stream is the bare circuit."""
    connection = await node.swarm.dial(relay.addr)
    stream = await connection.open_stream([HOP])
    await write_message(stream, encode_hop_connect(target))
    return stream, decode_hop_answer(await read_message(stream))


@dataclass
class Target:
    """A peer that answers STOP by hand: the bare circuits come out of `circuits`."""

    node: Node
    circuits: trio.MemoryReceiveChannel[tuple[Stream, Connect]]

    async def circuit(self) -> tuple[Stream, Connect]:
        return await self.circuits.receive()


async def raw_target(
    net: Network,
    relay: Relay,
    *,
    status: Status = Status.OK,
    answer: Callable[[Stream], Awaitable[None]] | None = None,
) -> Target:
    """A target with a reservation; `answer` replaces the plain answer with `status`."""
    node = await net.node(client=False)
    send, receive = trio.open_memory_channel[tuple[Stream, Connect]](64)

    async def on_stop(stream: Stream) -> None:
        request = decode_stop_request(await read_message(stream))
        if answer is not None:
            await answer(stream)
        else:
            await write_message(stream, encode_stop_answer(status))
        send.send_nowait((stream, request))
        await stream.connection.closed.wait()

    await node.swarm.handle(STOP, on_stop, max_streams=64, max_per_peer=64)
    assert (await reserve(node, relay)).status == Status.OK
    return Target(node, receive)


async def circuit(net: Network, relay: Relay) -> tuple[Stream, Stream, Node, Target]:
    """A bare circuit: (source stream, target stream, source, target)."""
    target = await raw_target(net, relay)
    source = await net.node(client=False)
    near, answer = await connect_raw(source, relay, target.node.peer)
    assert answer.status == Status.OK
    far, _ = await target.circuit()
    return near, far, source, target


async def fake_relay(net: Network, *answers: bytes) -> tuple[Node, Multiaddr]:
    """A peer that answers each hop request with the next of `answers` (the last one again and again)."""
    node = await net.node(client=False)
    (addr,) = await node.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))
    left = list(answers)

    async def on_hop(stream: Stream) -> None:
        await read_message(stream)
        await write_message(stream, left.pop(0) if len(left) > 1 else left[0])
        await stream.aclose()

    await node.swarm.handle(HOP, on_hop, max_streams=64, max_per_peer=64)
    return node, with_peer(addr, node.peer)


async def mute_relay(net: Network) -> tuple[Node, Multiaddr, trio.Event]:
    """A peer that takes hop requests and never answers; the event tells of the first."""
    node = await net.node(client=False)
    (addr,) = await node.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))
    asked = trio.Event()

    async def on_hop(stream: Stream) -> None:
        asked.set()
        await trio.sleep_forever()

    await node.swarm.handle(HOP, on_hop, max_streams=4, max_per_peer=4)
    return node, with_peer(addr, node.peer), asked


def grant(expires_in: int, voucher: bytes = b"", addrs: tuple[Multiaddr, ...] = ()) -> bytes:
    return encode_hop_answer(Status.OK, Grant(int(time.time()) + expires_in, addrs, voucher))
