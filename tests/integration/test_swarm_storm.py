"""Many things at once, in random order, cancelled at random moments: afterwards nothing is left over."""

from __future__ import annotations

import random

import pytest
import trio

from bridge.addresses import parse
from bridge.errors import BridgeError
from bridge.events import ConnectionClosed, ConnectionOpened
from bridge.swarm.table import ConnectionLimits
from tests.support.swarms import ECHO, Node, open_descriptors, open_node


async def act(rng: random.Random, nodes: list[Node]) -> None:
    """One thing that a user may do, given up after a random moment."""
    me, other = rng.sample(nodes, 2)
    with trio.move_on_after(rng.choice([0, 0.001, 0.01, 0.05, 2])):
        try:
            kind = rng.randrange(6)
            if kind == 0:
                await me.swarm.dial(other.addr, fresh=True)
            elif kind == 1:
                await me.swarm.connect(other.peer, [parse("/ip4/127.0.0.1/tcp/1"), other.addr])
            elif kind == 2:
                await me.swarm.close(other.peer)
            elif kind == 3:
                for connection in me.swarm.connections(other.peer)[:1]:
                    connection.abort("TEST")
            else:
                await me.swarm.connect(other.peer, [other.addr])
                stream = await me.swarm.open_stream(other.peer, [ECHO])
                data = rng.randbytes(rng.choice([1, 1000, 300_000]))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, data)
                    received = b""
                    while len(received) < len(data):
                        chunk = await stream.receive_some()
                        assert chunk
                        received += chunk
                assert received == data
                await stream.aclose()
        except* (BridgeError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_leaves_nothing_behind(seed: int) -> None:
    rng = random.Random(seed)
    limits = ConnectionLimits(per_peer=3, half_open=8, per_address=20)
    await trio.testing.wait_all_tasks_blocked()
    before, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
    async with open_node(limits=limits) as a, open_node(limits=limits) as b, open_node(limits=limits) as c:
        nodes = [a, b, c]
        async with trio.open_nursery() as nursery:
            for _ in range(120):
                nursery.start_soon(act, rng, nodes)
                if rng.random() < 0.3:
                    await trio.lowlevel.checkpoint()
        for node in nodes:
            assert all(len(node.swarm.connections(other.peer)) <= 3 for other in nodes)
            opened, closed = node.record.of(ConnectionOpened), node.record.of(ConnectionClosed)
            alive = {event.connection for event in opened} - {event.connection for event in closed}
            assert alive == {connection.id for connection in node.swarm.connections()}
            assert len(node.swarm.actor._pending) == 0
        for node in nodes:
            for other in nodes:
                await node.swarm.close(other.peer)
        with trio.fail_after(5):
            for node in nodes:
                await node.record.wait(ConnectionClosed, len(node.record.of(ConnectionOpened)))
    await trio.testing.wait_all_tasks_blocked()
    assert open_descriptors() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks
