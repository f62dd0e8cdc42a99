"""Cancellation at every await of opening, moving and resuming a session: nothing stays behind, no byte is lost.

Each run is cut one step of any task later than the one before, until it is no longer cut at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from punchbridge.config import Limits, SessionLimits
from punchbridge.session import SessionStream
from tests.support.session_lab import SERVICE, Pair, Route, pair, read_exactly, until
from tests.support.steps import cut_after


async def said(stream: SessionStream, text: bytes) -> None:
    with trio.fail_after(10):
        await stream.send_all(text)
        assert await read_exactly(stream, len(text)) == text


async def quiet(both: Pair) -> None:
    """No session and no carrier is left at either end."""
    await until(lambda: both.dialler.sessions.count == both.acceptor.sessions.count == 0)
    await until(
        lambda: not any(one.streams for host in (both.dialler, both.acceptor) for one in host.swarm.connections())
    )


async def test_opening() -> None:
    async with pair() as both:
        connection = await both.connect()
        await both.dialler.sessions.supported_by(connection)
        route = Route(both.peer, both.addr)
        for steps in range(1, 120):
            opened: list[SessionStream] = []

            async def open_one(into: list[SessionStream] = opened) -> None:
                into.append(await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any"))

            if not await cut_after(steps, open_one):
                assert steps > 5
                break
            assert not opened
            await quiet(both)
        else:
            raise AssertionError("opening never ended")
        await said(opened[0], b"whole")


async def test_moving() -> None:
    async with pair() as both:
        stream = await both.open()
        await said(stream, b"begin")
        for steps in range(1, 120):
            target = await both.connect()
            cut = await cut_after(
                steps, partial(lambda to: both.dialler.sessions.move(stream.live, to, "TRIED"), target)
            )
            await said(stream, b"after %d" % steps)
            await until(lambda: len(stream.live.carriers) == 1)
            for one in both.dialler.swarm.connections(both.peer):
                if stream.live.active is None or one is not stream.live.active.connection:
                    one.abort("UNUSED")
            if not cut:
                assert steps > 5
                return
        raise AssertionError("moving never ended")


@pytest.mark.parametrize("work", ["read", "write", "eof"])
async def test_using_it_while_it_resumes(work: str) -> None:
    async with pair(Limits(sessions=SessionLimits(resume_timeout=1.0))) as both:
        for steps in range(1, 20):
            stream = await both.open()
            await said(stream, b"begin")
            for one in both.dialler.swarm.connections(both.peer):
                one.abort("CUT")
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "read": stream.receive_some,
                "write": lambda s=stream: s.send_all(b"x"),  # type: ignore[misc]
                "eof": stream.send_eof,
            }
            cut = False
            with trio.move_on_after(0.3):
                cut = await cut_after(steps, calls[work])
            if work == "read":
                await said(stream, b"still whole")
            stream.abort()
            await until(lambda: both.dialler.sessions.count == 0)
            if not cut:
                break
        await until(lambda: both.acceptor.sessions.count == 0)


async def test_closing() -> None:
    async with pair() as both:
        for steps in range(1, 80):
            stream = await both.open()
            await said(stream, b"begin")
            cut = await cut_after(steps, stream.aclose)
            await quiet(both)
            if not cut:
                return
        raise AssertionError("closing never ended")
