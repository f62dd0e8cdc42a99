"""What every connecting command does around its work: signals, the bridge's events, the order of the first line.

`serve` opens the bridge, emits `node.started` before anything that the bridge has to tell, runs the command's
coroutine on asyncio until it ends or a signal comes, and closes: what `punchbridge.cli.service` does in trio for the
commands that need no asyncio. It knows no command and no node.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from punchbridge.cli.exits import Exit
from punchbridge.cli.gate import Gate
from punchbridge.cli.process import fitted, open_files
from punchbridge.cli.service import started
from punchbridge.cli.signals import SIGNALS, terminal
from punchbridge.config import Config, Programs
from punchbridge.events import Event

if TYPE_CHECKING:
    from punchbridge import Bridge
    from punchbridge.cli.report import Reporter

Work = Callable[["Bridge", "Feed"], Awaitable[int]]


class Feed:
    """Events of other threads as an asyncio queue. `most` of them wait; a reader that is too slow loses the oldest."""

    def __init__(self, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue(most)

    def __call__(self, event: Event) -> None:
        # The loop may be closed already when the bridge tells its last events.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: Event) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    async def get(self) -> Event:
        return await self._queue.get()


@contextlib.asynccontextmanager
async def for_duration(seconds: float) -> AsyncIterator[None]:
    """Ends its body after so many seconds, without an error; 0: never."""
    try:
        async with asyncio.timeout(seconds or None) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise


def serve(report: Reporter, config: Config, work: Work, *, reloads: bool = False) -> Exit:
    """Runs `work(bridge, feed)` on asyncio between opening and closing the bridge. Returns the exit code.

    SIGTERM cancels the work, which gets `programs.drain` seconds to end in good order, and gives 0; SIGINT likewise
    gives 130. SIGHUP is as SIGTERM; with `reloads` it has the lists read again unless the terminal was hung up. A
    second signal ends the process at once. Raises what `punchbridge.open` and the work raise.
    """
    # Before interruptions can be raised: one inside an import is easily swallowed.
    from punchbridge import open as open_bridge

    report.follow(config.programs)
    config = replace(config, limits=fitted(config.limits, open_files()))
    gate = Gate(report.emit, config.programs.events)
    with (
        _until_closed(),
        open_bridge(config, events=gate) as opened,
    ):
        return asyncio.run(_supervise(report, opened, gate, config.programs, work, reloads))


async def _supervise(
    report: Reporter, opened: Bridge, gate: Gate, programs: Programs, work: Work, reloads: bool
) -> Exit:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[Exit] = loop.create_future()

    def request(status: Exit) -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        if not stop.done():
            stop.set_result(status)

    def stdout_broke() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(request, Exit.ERROR)

    feed = Feed(programs.events)
    unsubscribe = report.hub.subscribe(feed)
    report.on_broken = stdout_broke
    had_terminal = terminal()

    def hung_up() -> None:
        if reloads and terminal() == had_terminal:
            opened.reread_lists()
        else:
            request(SIGNALS[signal.SIGHUP])

    for number, status in SIGNALS.items():
        if number != signal.SIGHUP:
            loop.add_signal_handler(number, request, status)
        elif signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, hung_up)
    gate.open(started(opened))
    task = asyncio.ensure_future(work(opened, feed))
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return Exit(task.result())
        report.progress(None)
        task.cancel("stopped by a signal")
        await asyncio.wait((task,), timeout=programs.drain)
        return stop.result()
    finally:
        unsubscribe()
        if task.done() and not task.cancelled():
            task.exception()  # told already, or of no interest during a drain


@contextlib.contextmanager
def _until_closed() -> Iterator[None]:
    """Signals while the bridge opens: as an interruption, so that what was opened is closed again."""

    def interrupt(number: int, frame: object) -> None:
        raise SystemExit(int(SIGNALS[number]))

    handlers = {signal.SIGTERM: interrupt, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number])
