"""The room of tasks: signals that are announced again and again."""

from __future__ import annotations

import trio
import trio.testing

from punchbridge.tasks.signal import Signal


async def test_a_signal_wakes_all_its_waiters_once_beyond(autojump_clock: object) -> None:
    signal = Signal()
    seen: list[int] = []

    async def wait() -> None:
        seen.append(await signal.beyond(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        signal.notify()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        signal.notify()
    assert seen == [2, 2]


async def test_an_announcement_before_the_wait_is_not_lost() -> None:
    signal = Signal()
    seen = signal.number
    signal.notify()
    signal.notify()
    with trio.fail_after(5), trio.testing.assert_checkpoints():
        assert await signal.beyond(seen) == 2


async def test_a_cancelled_wait_leaves_nothing_behind(autojump_clock: object) -> None:
    signal = Signal()
    with trio.move_on_after(1) as scope:
        await signal.beyond(signal.number)
    assert scope.cancelled_caught
    signal.notify()
    assert await signal.beyond(0) == 1
