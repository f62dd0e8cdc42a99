"""Signals of a trio program: the first one cancels the work, the second one ends the process at once.

SIGTERM and SIGHUP ask for a drain and give 0, SIGINT gives 130. Knows no program; nothing is printed here.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from punchbridge.cli.exits import Exit

SIGNALS: Final[Mapping[int, Exit]] = {
    signal.SIGTERM: Exit.DONE,
    signal.SIGHUP: Exit.DONE,
    signal.SIGINT: Exit.INTERRUPTED,
}


async def until_signal(work: Callable[[trio.CancelScope], Awaitable[Exit]], drain: float) -> Exit:
    """Runs `work(scope)` to its end. Call it in the main thread.

    The first signal cancels `scope`, which the work enters around what a signal may interrupt: what it opened outside
    of it is closed in good order. Returns the exit code of the signal or, without one, of the work. After a signal
    SIGALRM ends the process when what follows takes longer than `drain` seconds: a stuck cancellation can be ended no
    other way.
    """
    status: Exit | None = None

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        nonlocal status
        with trio.open_signal_receiver(*SIGNALS) as received:
            task_status.started()
            async for number in received:
                status = SIGNALS[number]
                break
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, drain)
        scope.cancel()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        result = await work(scope)
        status = result if status is None else status
        nursery.cancel_scope.cancel()
    return Exit.ERROR if status is None else status
