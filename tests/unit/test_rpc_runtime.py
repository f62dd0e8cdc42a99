"""The network thread: calls, errors, interrupts and its end."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager

import pytest
import trio

from punchbridge.api.runtime import NetworkThread
from punchbridge.errors import AddressError, ConfigError, DialTimeout, SwarmStopped


class Resource:
    def __init__(self) -> None:
        self.closed = threading.Event()


def make(problem: BaseException | None = None) -> tuple[NetworkThread[Resource], Resource]:
    resource = Resource()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Resource]:
        if problem is not None:
            async with trio.open_nursery():
                raise problem
        try:
            yield resource
        finally:
            resource.closed.set()

    return NetworkThread(opened), resource


async def answer() -> int:
    await trio.lowlevel.checkpoint()
    return 42


def test_calls_return_and_stop_closes_the_resource() -> None:
    thread, resource = make()
    assert thread.start() is resource
    assert thread.call(answer) == 42
    assert not resource.closed.is_set()
    thread.stop()
    thread.stop()
    assert resource.closed.is_set()
    with pytest.raises(SwarmStopped):
        thread.call(answer)


def test_errors_at_start_reach_the_caller_as_they_are() -> None:
    thread, _ = make(AddressError("bad"))
    with pytest.raises(AddressError, match="bad"):
        thread.start()
    with pytest.raises(SwarmStopped):
        thread.call(answer)


def test_errors_of_a_call_reach_its_caller_only() -> None:
    thread, _ = make()
    thread.start()

    async def fail() -> int:
        async with trio.open_nursery():
            raise KeyError("x")

    with pytest.raises(KeyError):
        thread.call(fail)
    assert thread.call(answer) == 42
    thread.stop()


def test_a_call_with_a_bound_is_cancelled_there() -> None:
    thread, _ = make()
    thread.start()
    ended = threading.Event()

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    with pytest.raises(DialTimeout):
        thread.call(wait, 0.05)
    assert ended.wait(5)
    thread.stop()


def test_cancelling_a_future_cancels_the_work() -> None:
    thread, _ = make()
    thread.start()
    began, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    future = thread.submit(wait)
    assert began.wait(5)
    assert future.cancel()
    assert ended.wait(5)
    with pytest.raises(CancelledError):
        future.result(1)
    assert thread.call(answer) == 42
    thread.stop()


def test_pending_calls_end_with_the_thread() -> None:
    thread, _ = make()
    thread.start()
    began = threading.Event()

    async def wait() -> None:
        began.set()
        await trio.sleep_forever()

    future = thread.submit(wait)
    assert began.wait(5)
    thread.stop()
    with pytest.raises(SwarmStopped):
        future.result(5)


def test_a_call_from_the_thread_itself_is_refused() -> None:
    thread, _ = make()
    thread.start()

    async def nested() -> None:
        thread.call(answer)

    with pytest.raises(ConfigError, match="would wait for itself"):
        thread.call(nested)
    thread.stop()


def test_a_forked_child_gets_an_error_and_not_a_hang() -> None:
    thread, _ = make()
    thread.start()
    reader, writer = os.pipe()
    # Python 3.12 warns about fork beside threads; that very case is tested here.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            thread.call(answer)
        except SwarmStopped as problem:
            os.write(writer, str(problem).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        assert "forked" in told.read()
    thread.stop()


def test_an_error_beside_a_cancellation_ends_its_call_only() -> None:
    """A task of the work fails while the work is being cancelled: trio makes one group of both."""
    thread, _ = make()
    thread.start()
    began, ended = threading.Event(), threading.Event()

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
            raise KeyError("on the way out")

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            began.set()

    future = thread.submit(work)
    assert began.wait(5)
    assert future.cancel()
    assert ended.wait(5)
    assert thread.call(answer) == 42
    thread.stop()


def test_a_call_while_a_failed_resource_still_closes_does_not_break_its_closing() -> None:
    fail, closing, go_on, closed = (threading.Event() for _ in range(4))

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async def break_down() -> None:
            await trio.to_thread.run_sync(fail.wait, abandon_on_cancel=True)
            raise KeyError("the resource failed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_down)
            try:
                yield
            finally:
                closing.set()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(go_on.wait)
                closed.set()

    thread = NetworkThread(opened)
    thread.start()
    fail.set()
    assert closing.wait(5)
    try:
        future = thread.submit(answer)
    finally:
        go_on.set()
    with pytest.raises(SwarmStopped):
        future.result(5)
    assert closed.wait(5)
    thread.stop()
