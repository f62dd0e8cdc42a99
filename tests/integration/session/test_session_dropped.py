"""A peer that takes every carrier and drops it at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from punchbridge.config import PathLimits
from punchbridge.session import SESSION_PROTOCOL
from punchbridge.sessions.frames import Attach, AttachedFrame, FrameReader, Kind
from punchbridge.transport.base import Stream
from tests.support.session_lab import SERVICE, Route, pair, until


@pytest.mark.parametrize("crumbs", [0, 1], ids=["nothing", "a byte each time"])
async def test_it_is_attached_to_twice_and_then_once_a_second(crumbs: int) -> None:
    taken: list[float] = []
    owed = bytes(100_000)

    async def take_and_drop(stream: Stream) -> None:
        reader = FrameReader()
        frames: list[tuple[Kind, int, memoryview]] = []
        while not frames:
            frames = reader.feed(await stream.receive_some())
        _, value, body = frames[0]
        attach = Attach.decode(value, bytes(body))
        received = crumbs * len(taken)
        await stream.send_all(AttachedFrame(attach.generation, received, len(owed), alive=False).encode())
        taken.append(trio.current_time())
        # The dialling end reads the answer, and has sent something that can be acknowledged, before the reset.
        await stream.receive_some()
        stream.abort()

    async with pair() as both:
        await both.acceptor.swarm.unhandle(SESSION_PROTOCOL)
        await both.acceptor.swarm.handle(SESSION_PROTOCOL, take_and_drop, max_streams=9, max_per_peer=9)
        connection = await both.connect()
        route = Route(both.peer, both.addr)
        stream = await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any")
        await stream.send_all(owed)
        await until(lambda: len(taken) >= 4, 15.0)
        # The first loss is mended at once. Each later pause is a second, however busy the machine is.
        gaps = [round(second - first, 2) for first, second in pairwise(taken)]
        assert min(gaps[1:]) >= 0.95, gaps
        stream.abort()


async def test_a_carrier_that_brought_much_is_replaced_at_once() -> None:
    """A relay's cap may end carriers faster than once a second; those are no reason to pause."""
    taken: list[float] = []

    async def take_much_and_drop(stream: Stream) -> None:
        reader, attach, got = FrameReader(), None, 0
        while got < 4 * PathLimits().fruitful:
            for kind, value, body in reader.feed(await stream.receive_some()):
                if kind is Kind.ATTACH:
                    attach = Attach.decode(value, bytes(body))
                    frame = AttachedFrame(
                        attach.generation, 2 * PathLimits().fruitful * len(taken), 1 << 20, alive=False
                    )
                    taken.append(trio.current_time())
                    await stream.send_all(frame.encode())
                else:
                    got += len(body)
        stream.abort()

    async with pair() as both:
        await both.acceptor.swarm.unhandle(SESSION_PROTOCOL)
        await both.acceptor.swarm.handle(SESSION_PROTOCOL, take_much_and_drop, max_streams=9, max_per_peer=9)
        connection = await both.connect()
        route = Route(both.peer, both.addr)
        stream = await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any")
        await stream.send_all(bytes(400_000))
        await until(lambda: len(taken) >= 8, 15.0)
        gaps = sorted(second - first for first, second in pairwise(taken))
        assert gaps[len(gaps) // 2] < 0.9
        stream.abort()
