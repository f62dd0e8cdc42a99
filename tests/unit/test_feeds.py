"""The events that a command reads at its own pace: both forms keep the newest when the reader is too slow."""

from __future__ import annotations

import asyncio

import pytest
import trio

from punchbridge.cli.options import PROTOCOL
from punchbridge.cli.service import TrioFeed
from punchbridge.events import ErrorEvent, Event
from punchbridge.local.target import GRPC_PROTOCOL
from punchbridge_node.commands.service import Feed

KEPT, MORE = 30, 7


def numbered() -> list[ErrorEvent]:
    return [ErrorEvent(code=str(number), message="") for number in range(KEPT + MORE)]


async def test_a_slow_reader_in_trio_loses_the_oldest() -> None:
    feed = TrioFeed(KEPT)
    for event in numbered():
        feed(event)
    assert await feed.get() == numbered()[MORE]
    assert feed.drain() == numbered()[MORE + 1 :]
    assert feed.drain() == []


def test_a_slow_reader_in_asyncio_loses_the_oldest() -> None:
    async def read() -> list[Event]:
        feed = Feed(KEPT)
        for event in numbered():
            feed(event)
        for _ in range(2):
            await asyncio.sleep(0)  # what was handed over from a thread is put into the queue
        return [await feed.get() for _ in range(KEPT)]

    assert asyncio.run(read()) == numbered()[MORE:]


async def test_a_wait_that_is_cancelled_loses_no_event(autojump_clock: trio.testing.MockClock) -> None:
    feed, event = TrioFeed(KEPT), ErrorEvent(code="X", message="")
    with trio.move_on_after(1) as limit:
        await feed.get()
    assert limit.cancelled_caught
    feed(event)
    with trio.CancelScope() as gone:
        gone.cancel()
        await feed.get()
    with trio.fail_after(1):
        assert await feed.get() == event


@pytest.mark.parametrize("late", [0.0, 2.0])
async def test_a_reader_gets_what_comes_while_it_waits(autojump_clock: trio.testing.MockClock, late: float) -> None:
    feed, event = TrioFeed(KEPT), ErrorEvent(code="X", message="")

    async def tell() -> None:
        await trio.sleep(late)
        feed(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        with trio.fail_after(5):
            assert await feed.get() == event


def test_the_protocol_that_help_names_is_the_one_of_the_library() -> None:
    assert PROTOCOL == GRPC_PROTOCOL
