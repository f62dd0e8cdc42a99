"""The fair queue: whoever comes once is not behind those who come in crowds."""

from __future__ import annotations

from itertools import pairwise

import trio
import trio.testing

from punchbridge.tasks.fair import FairQueue


async def test_one_is_served_among_the_first_however_many_stand_before_it() -> None:
    queue, served = FairQueue[str](2), []

    async def come(key: str) -> None:
        await queue.turn(key)
        served.append(key)

    async with trio.open_nursery() as nursery:
        for key in ["crowd"] * 50 + ["one"]:
            nursery.start_soon(come, key)
        await trio.testing.wait_all_tasks_blocked()
        assert served == []
        nursery.start_soon(queue.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(served) == 51
    assert served.index("one") < 3


async def test_other_tasks_run_between_two_batches() -> None:
    queue, served, seen = FairQueue[int](4), [], []

    async def come(key: int) -> None:
        await queue.turn(key)
        served.append(key)

    async def look() -> None:
        while len(served) < 40:
            seen.append(len(served))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for key in range(40):
            nursery.start_soon(come, key)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(look)
        nursery.start_soon(queue.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert max(after - before for before, after in pairwise(seen)) <= 8
