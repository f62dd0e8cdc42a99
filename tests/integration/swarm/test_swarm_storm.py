"""Many things at once, in random order, cancelled at random moments or not at all: each ends, and nothing is left over.

STORM_SEEDS=500 runs more of them than the suite does.
"""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from punchbridge.addresses import Multiaddr, parse
from punchbridge.config import TcpLimits
from punchbridge.errors import BridgeError
from punchbridge.events import ConnectionClosed, ConnectionOpened
from punchbridge.identity import peer_text
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.link import Link
from punchbridge.transport.tcp import sockets as tcp
from punchbridge.transport.tcp.sockets import TcpStream
from tests.support.muxed import muxed
from tests.support.swarms import ECHO, Node, adopt, open_descriptors, open_node

VIA, CIRCUIT, TALK = "/test/via/1", "/test/circuit/1", "/test/talk/1"
LIMITS: dict[str, Any] = {"connections_per_peer": 3, "half_open": 8, "connections_per_address": 40}
ENDS = (BridgeError, trio.BrokenResourceError, trio.ClosedResourceError)
SEEDS = int(os.environ.get("STORM_SEEDS", "4"))


class Storm:
    """Three nodes that stay, one that comes and goes, and what may be done with them."""

    def __init__(self, seed: int, nodes: list[Node]) -> None:
        self.rng = random.Random(seed)
        self.nodes = nodes
        self.known = list(nodes)
        self.acts: tuple[Callable[[Node, Node], Awaitable[object]], ...] = (
            self.dial, self.connect, self.close, self.abort, self.crash, self.close_twice, self.ping, self.echo,
            self.echo, self.abuse_a_stream, self.over_a_circuit, self.over_a_circuit, self.talk, self.rename,
        )  # fmt: skip

    async def act(self) -> None:
        """One thing that a user may do; half of them are given up after a random moment."""
        me, other = self.rng.sample(self.nodes, 2)
        work = self.rng.choice(self.acts)
        patience = self.rng.choice([0, 0.0005, 0.001, 0.01, 0.05, *[float("inf")] * 5])
        with trio.move_on_after(patience):
            await survive(work, me, other)

    async def dial(self, me: Node, other: Node) -> None:
        await me.swarm.dial(other.addr, fresh=True)

    async def connect(self, me: Node, other: Node) -> None:
        await me.swarm.connect(other.peer, [parse("/ip4/127.0.0.1/tcp/1"), other.addr])

    async def close(self, me: Node, other: Node) -> None:
        standing = me.swarm.connections(other.peer)
        await me.swarm.close(other.peer)
        assert not set(standing) & set(me.swarm.connections(other.peer))

    async def abort(self, me: Node, other: Node) -> None:
        for connection in me.swarm.connections(other.peer)[:1]:
            connection.abort("TEST")

    async def crash(self, me: Node, other: Node) -> None:
        """The socket goes from under a connection; the peer meets a reset."""
        for connection in me.swarm.connections(other.peer)[:1]:
            raw = muxed(connection)._raw
            if isinstance(raw, TcpStream):
                raw.discard()

    async def close_twice(self, me: Node, other: Node) -> None:
        for connection in me.swarm.connections(other.peer)[:1]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.aclose)
                nursery.start_soon(me.swarm.close, connection)
                nursery.start_soon(connection.aclose)
                if self.rng.random() < 0.5:
                    await trio.lowlevel.checkpoint()
                    connection.abort("TEST")
            assert connection.closed.is_set()

    async def ping(self, me: Node, other: Node) -> None:
        for connection in me.swarm.connections(other.peer):
            await connection.ping()

    async def echo(self, me: Node, other: Node) -> None:
        await me.swarm.connect(other.peer, [other.addr])
        await self.round_trip(await me.swarm.open_stream(other.peer, [ECHO]))

    async def round_trip(self, stream: Stream) -> None:
        data = self.rng.randbytes(self.rng.choice([1, 1000, 300_000]))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, data)
                received = bytearray()
                while len(received) < len(data):
                    chunk = await stream.receive_some()
                    assert chunk
                    received += chunk
            assert received == data
        finally:
            await stream.aclose()

    async def abuse_a_stream(self, me: Node, other: Node) -> None:
        """Several tasks use and end one stream; a second reader or writer is refused, nobody waits for ever."""
        connection = await me.swarm.connect(other.peer, [other.addr])
        stream = await connection.open_stream([ECHO], lazy=self.rng.random() < 0.5)
        uses: list[Callable[[], Awaitable[object]]] = [
            partial(stream.send_all, bytes(self.rng.choice([1, 400_000]))), stream.wait_send_all_might_not_block,
            stream.receive_some, stream.receive_some, stream.send_eof, stream.aclose, stream.aclose,
        ]  # fmt: skip
        self.rng.shuffle(uses)
        if self.rng.random() < 0.3:
            stream.abort()

        async def use(work: Callable[[], Awaitable[object]]) -> None:
            try:
                await work()
            except (*ENDS, trio.BusyResourceError):
                pass

        async with trio.open_nursery() as nursery:
            for work in uses:
                nursery.start_soon(use, work)

    async def over_a_circuit(self, me: Node, other: Node) -> None:
        """A connection inside streams that a third node, or the target itself, passes on."""
        relay = self.rng.choice([node for node in self.nodes if node is not me])
        await me.swarm.connect(relay.peer, [relay.addr])
        if relay is other:
            stream = await me.swarm.open_stream(relay.peer, [CIRCUIT])
        else:
            stream = await me.swarm.open_stream(relay.peer, [VIA])
            await stream.send_all(bytes([self.known.index(other)]))
        link = Link(stream, circuit(relay), circuit(relay), "relay", False, relay.peer)
        connection = await adopt(me.swarm, link, role="initiator", expected=other.peer)
        await connection.ping()
        await self.round_trip(await me.swarm.open_stream(connection, [ECHO]))
        if self.rng.random() < 0.5:
            await me.swarm.close(connection)

    async def talk(self, me: Node, other: Node) -> None:
        """Bulk that nobody waits for, ended in good order: all of it arrives, unless the connection went."""
        await me.swarm.connect(other.peer, [other.addr])
        stream = await me.swarm.open_stream(other.peer, [TALK])
        try:
            size = self.rng.choice([0, 100_000, 1_000_000])
            await stream.send_all(bytes(size))
            await stream.send_eof()
            told = b""
            while data := await stream.receive_some():
                told += data
            assert int(told) == size
        finally:
            stream.abort()

    async def rename(self, me: Node, _: Node) -> None:
        name = f"/test/other/{self.rng.random()}"
        await me.swarm.handle(name, count, max_streams=1, max_per_peer=1)
        await me.swarm.unhandle(name)

    async def serve(self, node: Node) -> None:
        """The handlers of one node."""

        async def via(stream: Stream) -> None:
            target = self.known[(await stream.receive_some(1))[0]]
            await node.swarm.connect(target.peer, [target.addr])
            onward = await node.swarm.open_stream(target.peer, [CIRCUIT])
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(copy, stream, onward)
                    nursery.start_soon(copy, onward, stream)
            finally:
                onward.abort()
                stream.abort()

        async def accept(stream: Stream) -> None:
            relay = parse(f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(stream.connection.peer)}/p2p-circuit")
            link = Link(stream, relay, relay, "relay", True, stream.connection.peer)
            connection: Connection = await adopt(node.swarm, link, role="responder", expected=None)
            await connection.closed.wait()

        for protocol, handler in ((VIA, via), (CIRCUIT, accept), (TALK, count)):
            await node.swarm.handle(protocol, handler, max_streams=64, max_per_peer=64)


def circuit(relay: Node) -> Multiaddr:
    return parse(f"{relay.addr}/p2p-circuit")


async def copy(source: Stream, sink: Stream) -> None:
    while data := await source.receive_some():
        await sink.send_all(data)
    await sink.send_eof()


async def count(stream: Stream) -> None:
    size = 0
    while data := await stream.receive_some():
        size += len(data)
    await stream.send_all(b"%d" % size)
    await stream.aclose()


async def come_and_go(storm: Storm) -> None:
    """Nodes that end in the middle of what they do, and of what is done to them."""
    for _ in range(2):
        async with trio.open_nursery() as nursery, open_node(**LIMITS) as node:
            await storm.serve(node)
            storm.known.append(node)
            for act in storm.rng.sample(storm.acts, 8):
                me, other = storm.rng.sample([node, storm.rng.choice(storm.nodes)], 2)
                nursery.start_soon(survive, act, me, other)
            await trio.sleep(storm.rng.choice([0, 0.01, 0.05]))


async def survive(act: Callable[[Node, Node], Awaitable[object]], me: Node, other: Node) -> None:
    try:
        await act(me, other)
    except* ENDS:
        pass


def narrow(sock: trio.socket.SocketType, _limits: TcpLimits) -> None:
    """In the place of `tune`: bulk meets a full socket, and messages leave it in pieces."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_storm_leaves_nothing_behind(
    seed: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        monkeypatch.setattr(tcp, "tune", narrow)
    await trio.testing.wait_all_tasks_blocked()
    before, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
    async with open_node(**LIMITS) as a, open_node(**LIMITS) as b, open_node(**LIMITS) as c:
        storm = Storm(seed, [a, b, c])
        for node in storm.nodes:
            await storm.serve(node)
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_and_go, storm)
                for _ in range(150):
                    nursery.start_soon(storm.act)
                    if storm.rng.random() < 0.3:
                        await trio.lowlevel.checkpoint()
        for node in storm.nodes:
            assert all(len(node.swarm.connections(other.peer)) <= 3 for other in storm.nodes)
            opened, closed = node.record.of(ConnectionOpened), node.record.of(ConnectionClosed)
            assert len({event.connection for event in closed}) == len(closed)
            alive = {event.connection for event in opened} - {event.connection for event in closed}
            assert alive == {connection.id for connection in node.swarm.connections()}
            assert await still_works(node, storm.nodes)
        with trio.fail_after(20):
            while any(map(busy, storm.nodes)):  # a handler may still be connecting
                for node in storm.nodes:
                    for connection in node.swarm.connections():
                        await node.swarm.close(connection)
                await trio.testing.wait_all_tasks_blocked(0.01)
        for node in storm.nodes:
            assert len(node.record.of(ConnectionOpened)) == len(node.record.of(ConnectionClosed))
            assert node.swarm._pool.table.half_open == 0
            assert not node.swarm._pool.table._accepted
            assert not node.swarm._dialer._races
    await trio.testing.wait_all_tasks_blocked()
    assert open_descriptors() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def busy(node: Node) -> bool:
    """A connection, a handler or a command is left."""
    handlers = [one for one in node.swarm.registry._by_protocol.values() if one.total]
    return bool(node.swarm.connections() or handlers or node.swarm.actor._pending)


async def still_works(node: Node, nodes: list[Node]) -> bool:
    with trio.fail_after(10):
        for other in nodes:
            if other is not node:
                connection = await node.swarm.dial(other.addr, fresh=True)
                stream = await node.swarm.open_stream(connection, [ECHO])
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
                await stream.aclose()
    return True
