"""Signals of a trio program: the first one cancels the work, the second one ends the process at once.

SIGTERM asks for a drain and gives 0, SIGINT gives 130. SIGHUP has two meanings: a server that has lists reads them
again, as daemons do; when its terminal has gone, and for every other program, it asks for a drain. Knows no program;
nothing is printed here.
"""

from __future__ import annotations

import os
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


def terminal() -> bool:
    """Whether this process has a controlling terminal now; one that was hung up can be opened no more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def until_signal(
    work: Callable[[trio.CancelScope], Awaitable[Exit]], drain: float, reload: Callable[[], None] | None = None
) -> Exit:
    """Runs `work(scope)` to its end. Call it in the main thread.

    reload: what SIGHUP asks for; without it, and when the terminal has been hung up, SIGHUP ends the program. A SIGHUP
    that is ignored from the start (nohup) stays so.

    The first signal cancels `scope`, which the work enters around what a signal may interrupt: what it opened outside
    of it is closed in good order. Returns the exit code of the signal or, without one, of the work. After a signal
    SIGALRM ends the process when what follows takes longer than `drain` seconds: a stuck cancellation can be ended no
    other way.
    """
    status: Exit | None = None

    had_terminal = terminal()
    watched = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN]

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        nonlocal status
        with trio.open_signal_receiver(*watched) as received:
            task_status.started()
            async for number in received:
                if number == signal.SIGHUP and reload is not None and terminal() == had_terminal:
                    reload()
                    continue
                status = SIGNALS[number]
                break
        for one in watched:
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
