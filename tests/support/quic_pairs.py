"""Two QUIC transports over loopback, and running connections between them.

Whoever imports it has made sure that the engine is built (`pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from punchbridge.addresses import Multiaddr, parse
from punchbridge.config import QuicLimits
from punchbridge.errors import BridgeError
from punchbridge.identity import Identity
from punchbridge.tasks.fair import FairQueue
from punchbridge.transport.base import Connection, Incoming, Stream
from punchbridge.transport.quic.connection import QuicConnection
from punchbridge.transport.quic.transport import QuicTransport

LOOPBACK = parse("/ip4/127.0.0.1/udp/0/quic-v1")


@dataclass
class Node:
    """One transport, and what came in there: connections, failures, streams."""

    transport: QuicTransport
    identity: Identity
    protocols: set[str]
    addr: Multiaddr = LOOPBACK
    failures: list[BridgeError] = field(default_factory=list)
    arrived: list[Incoming] = field(default_factory=list)
    judge: Callable[[Incoming], bool] = lambda incoming: True
    _connections: Any = field(default_factory=lambda: trio.open_memory_channel[Connection](64))
    _streams: Any = field(default_factory=lambda: trio.open_memory_channel[Stream](1024))

    def accepted(self, incoming: Incoming) -> None:
        self.arrived.append(incoming)
        if self.judge(incoming):
            self.transport.nursery.start_soon(self._secure, incoming)
        else:
            incoming.abort()

    async def _secure(self, incoming: Incoming) -> None:
        try:
            connection = await incoming.secure()
        except BridgeError as problem:
            self.failures.append(problem)
            return
        await self.run(connection)
        await self._connections[0].send(connection)

    async def run(self, connection: Connection) -> QuicConnection:
        await self.transport.nursery.start(connection.run, self._on_stream, self._supported)
        assert isinstance(connection, QuicConnection)
        return connection

    def _on_stream(self, stream: Stream, protocol: str) -> None:
        self._streams[0].send_nowait(stream)

    def _supported(self) -> Collection[str]:
        return self.protocols

    async def accept(self) -> QuicConnection:
        """The next connection that came in; it runs."""
        connection: QuicConnection = await self._connections[1].receive()
        return connection

    async def accept_stream(self) -> Any:
        """The next stream that came in."""
        return await self._streams[1].receive()

    async def dial(self, other: Node) -> QuicConnection:
        """A running connection to another node."""
        return await self.run(await self.transport.dial(other.addr, other.identity.peer_id))

    def close(self) -> None:
        for channel in (*self._connections, *self._streams):
            channel.close()


@asynccontextmanager
async def quic_nodes(
    count: int = 2,
    protocols: Collection[str] = ("/test/1.0.0",),
    limits: QuicLimits | None = None,
    turns: FairQueue[str] | None = None,
) -> AsyncIterator[tuple[Node, ...]]:
    """So many transports that listen at loopback."""
    nodes = []
    async with trio.open_nursery() as nursery:
        if turns is not None:
            nursery.start_soon(turns.run)
        for _ in range(count):
            identity = Identity.generate()
            transport = QuicTransport(identity, limits=limits or QuicLimits(), turns=turns)
            transport.nursery = nursery
            node = Node(transport, identity, set(protocols))
            (node.addr,) = await transport.listen(LOOPBACK, node.accepted)
            nodes.append(node)
        try:
            yield tuple(nodes)
        finally:
            nursery.cancel_scope.cancel()
            for node in nodes:
                node.close()


@dataclass
class QuicPair:
    """A dialled connection and the one that was accepted for it."""

    nodes: tuple[Node, ...]
    first: QuicConnection
    second: QuicConnection

    async def streams(self, protocol: str = "/test/1.0.0") -> tuple[Any, Any]:
        """A stream opened by the first, and the same as the second has it."""
        stream = await self.first.open_stream([protocol])
        return stream, await self.nodes[1].accept_stream()


@asynccontextmanager
async def quic_pair(limits: QuicLimits | None = None) -> AsyncIterator[QuicPair]:
    """Two nodes that are connected."""
    async with quic_nodes(limits=limits) as nodes:
        first = await nodes[0].dial(nodes[1])
        yield QuicPair(nodes, first, await nodes[1].accept())
