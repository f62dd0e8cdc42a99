"""What a command of the bridge does around its work: signals, the bridge's events, the order of the first line.

`serve` opens the bridge, emits `node.started` before anything that the bridge has to tell, and runs the command's
coroutine in trio until it ends or a signal comes. The node's commands, which run on asyncio, have a `serve` of their
own in `punchbridge_node.commands.service`. It knows no command.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import trio

from punchbridge.addresses import is_relayed, parse, without_peer
from punchbridge.api.trio import TrioBridge, open_trio
from punchbridge.cli.exits import Exit
from punchbridge.cli.gate import Gate
from punchbridge.cli.process import fitted, open_files
from punchbridge.cli.signals import until_signal
from punchbridge.config import Config
from punchbridge.events import Event, NodeStarted

if TYPE_CHECKING:
    from punchbridge.cli.report import Reporter


class TrioFeed:
    """Events for one reader of the same trio run. `most` of them wait; a reader that is too slow loses the oldest."""

    def __init__(self, most: int) -> None:
        self._waiting: deque[Event] = deque(maxlen=most)
        self._filled = trio.Event()

    def __call__(self, event: Event) -> None:
        self._waiting.append(event)
        self._filled.set()

    async def get(self) -> Event:
        """The next event, waited for without limit. Cancelling a wait loses none."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._filled = trio.Event()
            await self._filled.wait()
        return self._waiting.popleft()

    def drain(self) -> list[Event]:
        """What waits, without waiting."""
        found = list(self._waiting)
        self._waiting.clear()
        return found


Work = Callable[[TrioBridge, TrioFeed], Awaitable[Exit]]


class Reachable(Protocol):
    """A bridge of either form, as far as it says who and where it is."""

    peer_id: str

    @property
    def addrs(self) -> tuple[str, ...]: ...


def direct_addrs(bridge: Reachable) -> list[str]:
    """The bridge's own addresses without circuits, each ending in /p2p/ID."""
    return [addr for addr in bridge.addrs if not is_relayed(parse(addr))]


def started(bridge: Reachable) -> NodeStarted:
    """The first event of every program that opens a bridge."""
    bound = tuple(str(without_peer(parse(addr))) for addr in direct_addrs(bridge))
    return NodeStarted(peer_id=bridge.peer_id, listen=bound)


def serve(report: Reporter, config: Config, work: Work, *, reloads: bool = False) -> Exit:
    """Runs `work(bridge, feed)` in trio with an open bridge around it. reloads: SIGHUP has the lists read again."""
    report.follow(config.programs)
    config = replace(config, limits=fitted(config.limits, open_files()))
    most = config.programs.events
    gate = Gate(report.emit, most)
    opened: list[TrioBridge] = []

    def reread() -> None:
        for bridge in opened:
            bridge.host.admission.reread()

    async def open_and_work(scope: trio.CancelScope) -> Exit:
        feed = TrioFeed(most)
        async with open_trio(config, events=gate) as bridge:
            with _subscribed(report, feed):
                gate.open(started(bridge))
                opened.append(bridge)
                with scope:
                    return await work(bridge, feed)
        return Exit.DONE

    return trio.run(until_signal, open_and_work, config.programs.drain, reread if reloads else None)


@contextlib.contextmanager
def _subscribed(report: Reporter, feed: TrioFeed) -> Iterator[None]:
    unsubscribe = report.hub.subscribe(feed)
    try:
        yield
    finally:
        unsubscribe()
