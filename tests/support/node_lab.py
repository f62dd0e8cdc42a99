"""Nodes and raw peers on loopback, for the node's tests. No test here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio

from punchbridge.events import Event
from punchbridge_node import transport, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.config import HandshakeTimes, NodeConfig
from punchbridge_node.node import Node
from punchbridge_node.transport import PeerInfo, tcp_peer

T = TypeVar("T")
E = TypeVar("E", bound=Event)

HOST = "127.0.0.1"
PATIENCE = 20.0  # longer than anything takes; a test that hangs fails here and says where


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function on asyncio (pytest's own mode is trio's)."""

    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(bounded())


class Recorder:
    """Collects a node's events and lets a test wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[E], accept: Callable[[E], bool] = lambda _: True) -> E:
        while True:
            for event in self.of(kind):
                if accept(event):
                    return event
            self._more.clear()
            await self._more.wait()


@asynccontextmanager
async def serving(node: Node, identify: transport.Identify = transport.identify_tcp) -> AsyncIterator[int]:
    """The node on a loopback port."""
    server = grpc.aio.server(options=transport.SERVER_OPTIONS)
    node.add_to_server(server, identify)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield port
    finally:
        await node.close()
        await server.stop(0.5)


@asynccontextmanager
async def channel_to(port: int, **options: Any) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(
        f"{HOST}:{port}", options=[*transport.CHANNEL_OPTIONS, *options.items()]
    ) as channel:
        yield channel


@asynccontextmanager
async def pair(
    server_config: NodeConfig | None = None, client_config: NodeConfig | None = None, **server_kw: Any
) -> AsyncIterator[tuple[Node, Node, int, Recorder, Recorder]]:
    """A serving node and a dialling node, not yet connected."""
    there, here = Recorder(), Recorder()
    async with (
        Node(server_config or NodeConfig(), emit=there, **server_kw) as server,
        Node(client_config or NodeConfig(), emit=here) as client,
        serving(server) as port,
    ):
        yield server, client, port, there, here


def at(port: int) -> PeerInfo:
    return tcp_peer(HOST, port)


def quick(**changes: Any) -> NodeConfig:
    """A config whose handshake does not wait long."""
    return NodeConfig(handshake=HandshakeTimes(0.2, 0.2, 0.3), **changes)


def version(config: NodeConfig | None = None, **changes: Any) -> pb.VersionMessage:
    """A Version a node with that config accepts, then changed."""
    config = config or NodeConfig()
    base = {
        "protocolVersion": config.protocol_version,
        "id": os.urandom(16),
        "userAgent": "/raw:1/",
        "network": config.network,
        "timestamp": 1,
    }
    return pb.VersionMessage(**{**base, **changes})


class RawPeer:
    """A peer made by hand over one gRPC stream: sends and reads what a test says."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = channel.stream_stream(
            wire.PATH,
            request_serializer=pb.KaspadMessage.SerializeToString,
            response_deserializer=pb.KaspadMessage.FromString,
        )(None, compression=grpc.Compression.Gzip)

    async def send(self, kind: wire.PayloadType, body: Any, **ids: int) -> None:
        await self.call.write(wire.message(kind, body, **ids))

    async def read(self) -> pb.KaspadMessage | None:
        msg = await self.call.read()
        return msg if isinstance(msg, pb.KaspadMessage) else None

    async def expect(self, kind: wire.PayloadType) -> pb.KaspadMessage:
        """The next message of that kind; others are passed over."""
        while True:
            msg = await self.read()
            assert msg is not None, f"the stream ended before a {kind}"
            if wire.payload_type(msg) == kind:
                return msg

    async def shake_hands(self, **changes: Any) -> pb.VersionMessage:
        """A whole handshake in the order a strict peer has it; returns the node's Version."""
        await self.send(wire.VERSION, version(**changes))
        theirs = await self.expect(wire.VERSION)
        await self.send(wire.VERACK, pb.VerackMessage())
        await self.expect(wire.VERACK)
        await self.send(wire.READY, pb.ReadyMessage())
        await self.expect(wire.READY)
        return theirs.version

    async def ended(self) -> list[pb.KaspadMessage]:
        """Everything until the node ends the stream."""
        seen = []
        while (msg := await self.read()) is not None:
            seen.append(msg)
        return seen


@asynccontextmanager
async def raw_to(port: int) -> AsyncIterator[RawPeer]:
    async with channel_to(port) as channel:
        await channel.channel_ready()
        peer = RawPeer(channel)
        try:
            yield peer
        finally:
            peer.call.cancel()


@asynccontextmanager
async def raw_server(behaviour: Callable[[Any], Awaitable[None]]) -> AsyncIterator[int]:
    """A server whose MessageStream handler is the test's; it gets the servicer context."""

    async def handler(_requests: Any, context: Any) -> None:
        await behaviour(context)

    server = grpc.aio.server(options=transport.SERVER_OPTIONS)
    method = grpc.stream_stream_rpc_method_handler(
        handler, pb.KaspadMessage.FromString, pb.KaspadMessage.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: method}),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0.5)
