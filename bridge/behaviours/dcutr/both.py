"""TCP and QUIC beside each other: both are tried at once, and the first round trip wins.

The one that was slower may go on for a moment with a peer that is a node of ours: both connections stand then, and
whoever uses them decides which is the better one. Other implementations keep one connection of a punch and close the
others, so with them the slower one is given up. Knows neither transport; each is an opener of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from punchbridge.behaviours.dcutr.attempts import Attempt, Won
from punchbridge.behaviours.dcutr.direct import Opening
from punchbridge.behaviours.dcutr.quic import QuicOpener
from punchbridge.behaviours.dcutr.tcp import TcpOpener
from punchbridge.errors import BridgeError
from punchbridge.events import Role
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Connection

__all__ = ["BothOpeners", "is_ours"]


def is_ours(circuit: Connection) -> bool:
    """True when the peer is a node like this one, by what it tells on the circuit."""
    told = circuit.identify
    if told is None:
        return False
    # An application may give another agent; a node of ours without sessions has no protocol of ours.
    return told.agent.startswith("punchbridge/") or any(one.startswith("/punchbridge/") for one in told.protocols)


class BothOpeners:
    """See `DirectOpener`."""

    nursery: trio.Nursery

    def __init__(self, tcp: TcpOpener, quic: QuicOpener) -> None:
        self._tcp = tcp
        self._quic = quic

    def prepare(self, attempt: Attempt, role: Role, circuit: Connection) -> Opening:
        """See `DirectOpener`."""
        openings: list[Opening] = []
        if self._quic.able(attempt, role):
            openings.append(self._quic.prepare(attempt, role, circuit))
            attempt.tried["quic"] = None
        if not openings or self._tcp.able(attempt):
            openings.append(self._tcp.prepare(attempt, role, circuit))
            attempt.tried["tcp"] = None
        return _Openings(self, openings, keep=is_ours(circuit))

    async def dial(self, attempt: Attempt, circuit: Connection) -> Won | None:
        """Dials the addresses that the peer announces, each plainly, within the budget; None when an exchange
        follows."""
        dials: list[Callable[[], Awaitable[Won | None]]] = []
        if self._quic.able(attempt, "initiator"):
            dials.append(lambda: self._quic.dial(attempt, circuit))
            attempt.tried["quic"] = None
        if self._tcp.able(attempt):
            dials.append(lambda: self._tcp.dial(attempt, circuit))
            attempt.tried["tcp"] = None
        return await self.race(dials, keep=is_ours(circuit))

    async def race(self, ways: Sequence[Callable[[], Awaitable[Won | None]]], *, keep: bool) -> Won | None:
        """The first that wins; None when all have ended without. Raises what the last one raised, if none did better.

        With `keep` the others have `limits.loser_grace` seconds more, else they are cancelled. Cancelling cancels all,
        and waits for their end.
        """
        runs, changed = [_Run(way) for way in ways], Signal()
        for run in runs:
            self.nursery.start_soon(run.perform, changed)
        try:
            while True:
                number = changed.number
                won = next((run.won for run in runs if run.won is not None), None)
                if won is not None or all(run.ended.is_set() for run in runs):
                    break
                await changed.beyond(number)
        except BaseException:  # cancelled: no way goes on behind its race
            await _end(runs)  # noqa: ASYNC102 - shielded there
            raise
        if won is None:
            problems = [run.problem for run in runs if run.problem is not None]
            if len(problems) == len(runs) and problems:
                raise problems[-1]
            return None
        if keep:
            for run in runs:
                run.scope.deadline = trio.current_time() + self._tcp.limits.loser_grace
        else:
            await _end(runs)
        return won


class _Run:
    """One way under way. `problem`: what it raised, of what an opening may raise."""

    def __init__(self, way: Callable[[], Awaitable[Won | None]]) -> None:
        self._way = way
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.won: Won | None = None
        self.problem: BridgeError | None = None

    async def perform(self, changed: Signal) -> None:
        """Performs it; news go to `changed`. Raises what is a defect."""
        try:
            with self.scope:
                self.won = await self._way()
        except BridgeError as problem:
            self.problem = problem
        finally:
            self.ended.set()
            changed.notify()


async def _end(runs: Sequence[_Run]) -> None:
    for run in runs:
        run.scope.cancel()
    with trio.CancelScope(shield=True):
        for run in runs:
            await run.ended.wait()


class _Openings:
    """See `Opening`."""

    def __init__(self, both: BothOpeners, openings: Sequence[Opening], *, keep: bool) -> None:
        self._both = both
        self._openings = openings
        self._keep = keep

    def go(self) -> None:
        """See `Opening`."""
        for opening in self._openings:
            opening.go()

    async def run(self) -> Won | None:
        """See `Opening`."""
        return await self._both.race([opening.run for opening in self._openings], keep=self._keep)
