"""Everything a swarm, a connection and a stream can be asked, cut at every step: cancelled, or the connection ends.

Cancelled, it leaves nothing behind; when the connection ends under it, it ends too, whoever ended it and however.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Literal

import pytest
import trio
import trio.testing

from punchbridge.addresses import parse
from punchbridge.errors import BridgeError
from punchbridge.events import ConnectionClosed, ConnectionOpened
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.link import Link
from punchbridge.transport.tcp.sockets import TcpStream
from tests.support.muxed import muxed
from tests.support.steps import Steps, cut_after
from tests.support.swarms import ECHO, Node, adopt, open_descriptors, open_node

ENDS = (BridgeError, trio.BrokenResourceError, trio.ClosedResourceError)
MUTE, CIRCUIT = "/test/mute/1", "/test/circuit/1"
CIRCUIT_ADDR = parse("/ip4/127.0.0.1/tcp/1/p2p-circuit")
Path = Literal["direct", "relay"]
MOST = 150
"""Steps of the longest work, with room."""


async def mute(stream: Stream) -> None:
    """Reads nothing, until the connection ends."""
    await stream.connection.closed.wait()


async def echoed(stream: Stream) -> None:
    await stream.send_all(b"x")
    assert await stream.receive_some() == b"x"
    await stream.aclose()


async def open_one(a: Node, b: Node, connection: Connection) -> None:
    await echoed(await connection.open_stream([ECHO]))


async def open_lazily(a: Node, b: Node, connection: Connection) -> None:
    await echoed(await connection.open_stream([ECHO], lazy=True))


async def open_in_the_swarm(a: Node, b: Node, connection: Connection) -> None:
    await echoed(await a.swarm.open_stream(b.peer, ["/test/unknown/1", ECHO]))


async def ping(a: Node, b: Node, connection: Connection) -> None:
    await connection.ping()


async def send_more_than_is_read(a: Node, b: Node, connection: Connection) -> None:
    stream = await connection.open_stream([MUTE], lazy=True)
    with trio.move_on_after(0.02):
        await stream.send_all(bytes(400_000))
    with trio.move_on_after(0.02):
        await stream.wait_send_all_might_not_block()
    await stream.aclose()


async def half_close(a: Node, b: Node, connection: Connection) -> None:
    stream = await connection.open_stream([ECHO])
    await stream.send_eof()
    assert await stream.receive_some() == b""


async def close(a: Node, b: Node, connection: Connection) -> None:
    await a.swarm.close(connection)


async def close_itself(a: Node, b: Node, connection: Connection) -> None:
    await connection.aclose()


async def dial(a: Node, b: Node, connection: Connection) -> None:
    await a.swarm.dial(b.addr, fresh=True)


async def connect(a: Node, b: Node, connection: Connection) -> None:
    connection.abort("TEST")
    await a.swarm.connect(b.peer, [b.addr])


async def serve(a: Node, b: Node, connection: Connection) -> None:
    await b.swarm.unhandle("/test/other/1")
    await b.swarm.handle("/test/other/1", mute, max_streams=1, max_per_peer=1)
    await (await connection.open_stream(["/test/other/1"])).aclose()


Work = Callable[[Node, Node, Connection], Awaitable[None]]
ON_A_CONNECTION: list[Work] = [
    open_one, open_lazily, open_in_the_swarm, ping, send_more_than_is_read, half_close, close, close_itself,
]  # fmt: skip
WORKS: list[tuple[Work, Path]] = [(work, "direct") for work in (*ON_A_CONNECTION, dial, connect, serve)]
WORKS += [(work, "relay") for work in ON_A_CONNECTION]


async def prepared(a: Node, b: Node, path: Path) -> tuple[Connection, TcpStream, TcpStream]:
    """A connection that stands on both sides and is at rest, and the two sockets below it."""
    connection = await a.swarm.dial(b.addr, fresh=True)
    await connection.ping()
    accepted = next(one for one in b.swarm.connections() if one.remote == connection.local)
    near, far = muxed(connection)._raw, muxed(accepted)._raw
    assert isinstance(near, TcpStream)
    assert isinstance(far, TcpStream)
    if path == "relay":  # inside a stream of the first one
        link = Link(await connection.open_stream([CIRCUIT]), CIRCUIT_ADDR, CIRCUIT_ADDR, "relay", False, a.peer)
        connection = await adopt(a.swarm, link, role="initiator", expected=b.peer)
        await connection.ping()
    await trio.testing.wait_all_tasks_blocked()
    return connection, near, far


async def open_pair(stack: AsyncExitStack) -> tuple[Node, Node]:
    a, b = [await stack.enter_async_context(open_node()) for _ in range(2)]

    async def take(stream: Stream) -> None:
        link = Link(stream, CIRCUIT_ADDR, CIRCUIT_ADDR, "relay", True, a.peer)
        connection = await adopt(b.swarm, link, role="responder", expected=a.peer)
        await connection.closed.wait()

    await b.swarm.handle(MUTE, mute, max_streams=64, max_per_peer=64)
    await b.swarm.handle(CIRCUIT, take, max_streams=64, max_per_peer=64)
    await trio.testing.wait_all_tasks_blocked()
    return a, b


async def emptied(*nodes: Node) -> None:
    """All connections closed, and nothing of them left; what is under way in the kernel is waited for."""
    with trio.fail_after(10):
        while any(map(left_over, nodes)):
            for node in nodes:
                for connection in node.swarm.connections():
                    await node.swarm.close(connection)
            await trio.testing.wait_all_tasks_blocked(0.002)


def left_over(node: Node) -> bool:
    swarm, record = node.swarm, node.record
    return bool(
        swarm.connections()
        or swarm.actor._pending
        or swarm._dialer._races
        or swarm._pool.table.half_open
        or any(one.total for one in swarm.registry._by_protocol.values())
        or len(record.of(ConnectionOpened)) != len(record.of(ConnectionClosed))
    )


@pytest.mark.parametrize(("work", "path"), WORKS)
async def test_cancelled_at_every_step(work: Work, path: Path) -> None:
    async with AsyncExitStack() as stack:
        a, b = await open_pair(stack)
        before = open_descriptors()
        for step in range(1, MOST):
            connection, *_ = await prepared(a, b, path)
            with trio.fail_after(10):
                cut = await cut_after(step, partial(work, a, b, connection))
            await emptied(a, b)
            with trio.fail_after(10):
                while open_descriptors() != before:
                    await trio.testing.wait_all_tasks_blocked(0.002)
                    await emptied(a, b)
            if not cut:
                return
        raise AssertionError("it never ended")


def abort(connection: Connection, near: TcpStream, far: TcpStream) -> None:
    connection.abort("TEST")


def lose_the_socket(connection: Connection, near: TcpStream, far: TcpStream) -> None:
    near.discard()


def crash(connection: Connection, near: TcpStream, far: TcpStream) -> None:
    far.discard()


@pytest.mark.parametrize("end", [abort, lose_the_socket, crash])
@pytest.mark.parametrize(("work", "path"), WORKS)
async def test_the_connection_ends_at_every_step(work: Work, end: Callable[..., None], path: Path) -> None:
    async with AsyncExitStack() as stack:
        a, b = await open_pair(stack)
        for step in range(1, MOST):
            connection, near, far = await prepared(a, b, path)
            instrument = Steps(step, partial(end, connection, near, far))
            trio.lowlevel.add_instrument(instrument)
            try:
                with trio.fail_after(10):
                    await work(a, b, connection)
            except ENDS:
                pass
            finally:
                trio.lowlevel.remove_instrument(instrument)
            await emptied(a, b)
            if not instrument.acted:
                return
        raise AssertionError("it never ended")
