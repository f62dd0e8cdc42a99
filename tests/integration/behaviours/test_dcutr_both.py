"""Two ways to a direct connection tried at once: the first wins, and what becomes of the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from punchbridge.behaviours.dcutr.attempts import Won
from punchbridge.behaviours.dcutr.both import BothOpeners
from punchbridge.config import PunchLimits
from punchbridge.errors import LimitExceeded

FIRST, SECOND = cast(Won, "first"), cast(Won, "second")
GRACE = 2.0


class Way:
    """One way; it ends when it is told to."""

    def __init__(self, prize: Won | None = None, problem: Exception | None = None) -> None:
        self.may_end, self.began = trio.Event(), trio.Event()
        self.cancelled = False
        self._prize, self._problem = prize, problem

    async def __call__(self) -> Won | None:
        self.began.set()
        try:
            await self.may_end.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        if self._problem is not None:
            raise self._problem
        return self._prize


async def race(nursery: trio.Nursery, ways: list[Way], results: list[Any], *, keep: bool) -> None:
    both = BothOpeners(cast(Any, SimpleNamespace(limits=PunchLimits(loser_grace=GRACE))), cast(Any, None))
    both.nursery = nursery
    try:
        results.append(await both.race(ways, keep=keep))
    except LimitExceeded as problem:
        results.append(problem)


async def test_the_other_one_is_ended_before_the_win_is_told() -> None:
    ways, results = [Way(FIRST), Way(SECOND)], list[Any]()
    async with trio.open_nursery() as nursery:
        ways[1].may_end.set()
        await race(nursery, ways, results, keep=False)
        assert (results, ways[0].cancelled) == ([SECOND], True)


async def test_the_other_one_may_end_within_its_grace(autojump_clock: trio.testing.MockClock) -> None:
    for waits, cancelled in ((GRACE / 2, False), (2 * GRACE, True)):
        ways, results = [Way(FIRST), Way(SECOND)], list[Any]()
        async with trio.open_nursery() as nursery:
            ways[0].may_end.set()
            await race(nursery, ways, results, keep=True)
            assert results == [FIRST]
            await trio.sleep(waits)
            ways[1].may_end.set()
        assert ways[1].cancelled is cancelled


async def test_none_wins_when_all_have_ended_without() -> None:
    ways, results = [Way(), Way(problem=LimitExceeded("too many"))], list[Any]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: race(nursery, ways, results, keep=True))
        for way in ways:
            await trio.testing.wait_all_tasks_blocked()
            assert results == []
            way.may_end.set()
    assert results == [None]


async def test_what_all_refuse_is_raised() -> None:
    problem = LimitExceeded("too many")
    ways, results = [Way(problem=problem), Way(problem=problem)], list[Any]()
    for way in ways:
        way.may_end.set()
    async with trio.open_nursery() as nursery:
        await race(nursery, ways, results, keep=True)
    assert results == [problem]


@pytest.mark.parametrize("keep", [False, True])
async def test_cancelling_ends_both(keep: bool) -> None:
    ways, results = [Way(FIRST), Way(SECOND)], list[Any]()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(lambda: race(nursery, ways, results, keep=keep))
                for way in ways:
                    await way.began.wait()
                scope.cancel()
        assert [way.cancelled for way in ways] == [True, True]
    assert results == []
