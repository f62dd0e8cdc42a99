"""What peers make a swarm hold: what nobody reads, and what they do not take, ends at the bounds and is counted."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from punchbridge.config import KIB, MIB, Limits, MemoryLimits
from punchbridge.errors import ConnectionLost, StreamReset
from punchbridge.events import ConnectionClosed
from punchbridge.identity import peer_text
from punchbridge.transport.base import Stream
from tests.support.swarms import ECHO, open_node

HELD = "/test/held/1"


async def unread(stream: Stream) -> None:
    """A handler that never reads."""
    try:
        await trio.sleep_forever()
    finally:
        stream.reset()


async def echoes(stream: Stream) -> None:
    await stream.send_all(b"alive")
    assert await stream.receive_some() == b"alive"


async def test_a_stream_of_a_small_protocol_that_nobody_reads_is_reset() -> None:
    async with open_node(limits=Limits(), unread=64 * KIB) as a, open_node() as b:
        await a.swarm.handle(HELD, unread, max_streams=4, max_per_peer=4, small=True)
        connection = await b.swarm.dial(a.addr)
        echo = await connection.open_stream([ECHO])
        stream = await connection.open_stream([HELD])
        await stream.send_all(bytes(64 * KIB))
        await connection.ping()
        await stream.send_all(b"more")
        with pytest.raises(StreamReset):
            await stream.receive_some()
        await echoes(echo)
        assert a.swarm.memory.held < 64 * KIB


async def test_of_stalled_streams_the_largest_goes_and_the_connection_stays() -> None:
    memory = MemoryLimits(stalled_per_address=300 * KIB, stalled=0.0)
    async with open_node(limits=Limits(memory=memory)) as a, open_node() as b:
        await a.swarm.handle(HELD, unread, max_streams=4, max_per_peer=4)
        connection = await b.swarm.dial(a.addr)
        echo = await connection.open_stream([ECHO])
        small, large = [await connection.open_stream([HELD]) for _ in range(2)]
        await small.send_all(bytes(100 * KIB))
        await large.send_all(bytes(250 * KIB))
        with pytest.raises(StreamReset):
            await large.receive_some()
        await echoes(echo)
        assert small.failure is None
        (one,) = (one for one in a.swarm.refusals.most(9) if one.reason == "memory")
        assert (one.prefix, one.peer, one.times) == ("127.0.0.1", peer_text(b.peer), 1)
        await connection.aclose()
        with trio.fail_after(10):
            while a.swarm.connections():  # noqa: ASYNC110 - the far end's close has no event here
                await trio.sleep(0.01)
        assert (a.swarm.memory.held, a.swarm.memory.granted) == (0, 0)


async def test_what_is_read_may_be_slow() -> None:
    memory = MemoryLimits(stalled_per_address=300 * KIB, stalled=30.0)
    async with open_node(limits=Limits(memory=memory)) as a, open_node() as b:
        await a.swarm.handle(HELD, unread, max_streams=4, max_per_peer=4)
        connection = await b.swarm.dial(a.addr)
        streams = [await connection.open_stream([HELD]) for _ in range(4)]
        for stream in streams:
            await stream.send_all(bytes(200 * KIB))
        await connection.ping()
        assert [stream.failure for stream in streams] == [None] * 4
        assert a.swarm.memory.held > 800 * KIB


async def test_windows_of_all_connections_grow_from_the_budget_of_the_swarm() -> None:
    memory = MemoryLimits(windows=MIB, windows_per_address=MIB)
    async with open_node(limits=Limits(memory=memory)) as a, open_node() as b:
        most = 0
        for _ in range(2):
            connection = await b.swarm.dial(a.addr, fresh=True)
            stream = await connection.open_stream([ECHO])
            async with trio.open_nursery() as nursery:

                async def drain(stream: Stream = stream) -> None:
                    while await stream.receive_some():
                        pass

                nursery.start_soon(drain)
                for _ in range(300):
                    await stream.send_all(bytes(64 * KIB))
                    for one in a.swarm.connections():
                        one._streams.session.liveness.believed = 1.0  # type: ignore[attr-defined]
                    most = max(most, a.swarm.memory.granted)
                await stream.send_eof()
        assert most == MIB
        assert a.swarm.memory.granted == 0


async def test_a_connection_with_more_open_streams_than_their_memory_allows_goes() -> None:
    memory = MemoryLimits(stalled_per_address=160 * KIB, stalled=0.0)
    async with open_node(limits=Limits(memory=memory)) as a, open_node() as b:
        connection = await b.swarm.dial(a.addr)
        with suppress(ConnectionLost):
            for _ in range(30):
                await connection.open_stream([ECHO])
        closed = await a.record.wait(ConnectionClosed)
        assert closed.reason == "MEMORY"
        assert a.swarm.refusals.counts["memory"] == 1
