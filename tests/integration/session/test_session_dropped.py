"""A peer that takes every carrier and drops it at once."""

from __future__ import annotations

import trio

from punchbridge.session import SESSION_PROTOCOL
from punchbridge.sessions.frames import Attach, AttachedFrame, FrameReader
from punchbridge.transport.base import Stream
from tests.support.session_lab import SERVICE, Route, pair


async def test_it_is_attached_to_with_growing_pauses() -> None:
    taken = 0

    async def take_and_drop(stream: Stream) -> None:
        nonlocal taken
        reader, frames = FrameReader(), []
        while not frames:
            frames = reader.feed(await stream.receive_some())
        _, value, body = frames[0]
        attach = Attach.decode(value, bytes(body))
        await stream.send_all(AttachedFrame(attach.generation, 0, attach.edge, alive=False).encode())
        taken += 1
        await trio.sleep(0.002)  # the answer is read before the reset
        stream.abort()

    async with pair() as both:
        await both.acceptor.swarm.unhandle(SESSION_PROTOCOL)
        await both.acceptor.swarm.handle(SESSION_PROTOCOL, take_and_drop, max_streams=9, max_per_peer=9)
        connection = await both.connect()
        route = Route(both.peer, both.addr)
        stream = await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any")
        await trio.sleep(3)
        # Without pauses it would be hundreds; 0.05 s, doubling up to a second, leave room for about nine.
        assert 2 <= taken <= 20
        stream.abort()
