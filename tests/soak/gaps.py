"""The longest time without an arrival while a stream of small messages runs and its session is moved or cut."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import trio
from common import FLOW, SERVICE, say

import punchbridge
from punchbridge.addresses import parse
from punchbridge.session.live import LiveSession
from punchbridge.transport.base import Connection

RATE = 500
AROUND = 1.0
"""Seconds after an act within which the longest gap counts as its."""

Path = Literal["direct", "relay"]


class Arrivals:
    """Reads the stream in a thread and remembers when each message came."""

    def __init__(self, channel: Any) -> None:
        self.at: list[float] = []
        self.problem = ""
        self._call = channel.unary_stream(f"/{SERVICE}/{FLOW}")(str(RATE).encode())
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for number, data in enumerate(self._call):
                if int.from_bytes(data[:8], "big") != number:
                    self.problem = f"message {number} is not the one sent"
                self.at.append(time.monotonic())
        except Exception as problem:  # noqa: BLE001 - told in the result
            self.problem = self.problem or str(problem)[:300]

    def longest(self, since: float, until: float) -> float:
        """Seconds; a gap counts when it ended after `since`."""
        at = [one for one in self.at if since - 0.2 <= one <= until]
        return max((b - a for a, b in itertools.pairwise(at) if b > since), default=until - since)

    def end(self) -> str:
        problem = self.problem
        self._call.cancel()
        return problem


class Mover:
    """Acts on the one session of a bridge, in its network thread."""

    def __init__(self, b: punchbridge.Bridge, circuit: str, direct: str) -> None:
        self._b = b
        self._addrs = {"relay": parse(circuit), "direct": parse(direct)}
        self._host = b._control.host

    @property
    def _session(self) -> LiveSession:
        (session,) = self._host.sessions.opened
        return session

    def _hold(self, path: Path) -> None:
        # The policy keeps the session where the measurement wants it.
        assert self._session.paths is not None
        self._session.paths.policy = path

    async def _on(self, path: Path) -> Connection:
        """A measured connection on the path."""
        for one in self._host.swarm.connections(self._session.peer):
            if one.path == path:
                return one
        made = await self._host.swarm.dial(self._addrs[path], expected=self._session.peer, fresh=True)
        await made.ping()
        return made

    def go(self, path: Path) -> tuple[float, float]:
        """Moves the session; returns when, and the round trip of the path taken."""

        async def work() -> tuple[float, float]:
            target = await self._on(path)
            self._hold(path)
            at = time.monotonic()
            active = self._session.active
            if active is None or active.connection is not target:
                await self._host.sessions.move(self._session, target, "MEASURED")
            return at, target.rtt or 0.0

        return self._run(work)

    def kill(self, path: Path, other: Path) -> tuple[float, float]:
        """Kills the carrier's connection on `path`; one on `other` stands."""

        async def work() -> tuple[float, float]:
            target = await self._on(other)
            self._hold(other)
            active = self._session.active
            assert active is not None
            assert active.connection.path == path
            at = time.monotonic()
            active.connection.abort("MEASURED")
            await trio.lowlevel.checkpoint()
            return at, target.rtt or 0.0

        return self._run(work)

    def _run(self, work: Callable[[], Awaitable[tuple[float, float]]]) -> tuple[float, float]:
        return self._b._thread.call(work, 20.0)


def gaps(b: punchbridge.Bridge, circuit: str, direct: str, count: int) -> dict[str, Any]:
    """`count` acts of each kind; gaps in milliseconds, bounds in round trips of the paths as measured."""
    with b.channel(circuit, fresh=True) as channel:
        arrivals, mover = Arrivals(channel), Mover(b, circuit, direct)
        while len(arrivals.at) < RATE:
            time.sleep(0.1)
        kinds: dict[str, list[float]] = {}
        trips: dict[str, list[float]] = {}

        def note(kind: str, at: float, trip: float) -> None:
            time.sleep(max(0.0, at + AROUND - time.monotonic()))
            kinds.setdefault(kind, []).append(1000 * arrivals.longest(at, at + AROUND))
            trips.setdefault(kind, []).append(1000 * trip)
            say("gap", kind=kind, ms=round(kinds[kind][-1], 1), round_trip_ms=round(1000 * trip, 1))

        for _ in range(count):
            mover.go("relay")
            time.sleep(0.5)
            note("nothing done, relay", time.monotonic(), 0.0)
            note("relay to direct, planned", *mover.go("direct"))
            note("direct to relay, planned", *mover.go("relay"))
            note("relay killed, direct taken", *mover.kill("relay", "direct"))
            mover.go("direct")
            time.sleep(0.3)
            note("direct killed, relay taken", *mover.kill("direct", "relay"))
        problem = arrivals.end()
    rows = [
        {
            "kind": kind,
            "median_ms": round(sorted(values)[len(values) // 2], 1),
            "longest_ms": round(max(values), 1),
            "round_trip_ms": round(max(trips[kind]), 1),
        }
        for kind, values in kinds.items()
    ]
    return {"failures": [problem] if problem else [], "gaps": rows, "count": count}
