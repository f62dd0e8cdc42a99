"""The longest time without an arrival while a stream of small messages runs and its session is moved or cut."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from common import FLOW, SERVICE, kind_of, say

import punchbridge
from punchbridge.addresses import parse
from punchbridge.reach.path import Candidate, Decision
from punchbridge.session.live import LiveSession
from punchbridge.transport.base import Connection

RATE = 500
AROUND = 1.0
"""Seconds after an act within which the longest gap counts as its."""


class Held:
    """In the place of the session's own decision: it stays where it is, and goes on over one kind when that is lost."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def decide(self, active: Candidate | None, live: Sequence[Candidate], now: float) -> Decision:
        if active is not None:
            return Decision(None, "STAY")
        wanted = [one.id for one in live if one.kind == self._kind]
        return Decision(max(wanted), "RESUME") if wanted else Decision(None, "NO_PATH")


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

    def __init__(self, b: punchbridge.Bridge, circuit: str, direct: Sequence[str]) -> None:
        self._b = b
        self._addrs = {"relay": parse(circuit)} | {kind_of(parse(one)): parse(one) for one in direct}
        self._host = b._control.host

    @property
    def _session(self) -> LiveSession:
        (session,) = self._host.sessions.opened
        return session

    def _hold(self, kind: str) -> None:
        assert self._session.paths is not None
        self._session.paths.decide = Held(kind).decide  # type: ignore[method-assign]

    async def _on(self, kind: str) -> Connection:
        """A measured connection of the kind: a circuit, or one over the transport."""
        for one in self._host.swarm.connections(self._session.peer):
            if kind == (one.transport if one.path == "direct" else "relay") and not one.closing:
                return one
        made = await self._host.swarm.dial(self._addrs[kind], expected=self._session.peer, fresh=True)
        await made.ping()
        return made

    def go(self, kind: str) -> tuple[float, float]:
        """Moves the session; returns when, and the round trip of the path taken."""

        async def work() -> tuple[float, float]:
            target = await self._on(kind)
            self._hold(kind)
            at = time.monotonic()
            active = self._session.active
            if active is None or active.connection is not target:
                await self._host.sessions.move(self._session, target, "MEASURED")
            return at, target.rtt or 0.0

        return self._run(work)

    def kill(self, kind: str, other: str) -> tuple[float, float]:
        """Kills the carrier's connection of a kind; one of the other kind stands."""

        async def work() -> tuple[float, float]:
            target = await self._on(other)
            self._hold(other)
            active = self._session.active
            assert active is not None
            assert active.connection.transport == {"relay": "circuit"}.get(kind, kind)
            at = time.monotonic()
            active.connection.abort("MEASURED")
            await trio.lowlevel.checkpoint()
            return at, target.rtt or 0.0

        return self._run(work)

    def _run(self, work: Callable[[], Awaitable[tuple[float, float]]]) -> tuple[float, float]:
        return self._b._thread.call(work, 20.0)


def gaps(b: punchbridge.Bridge, circuit: str, direct: Sequence[str], count: int) -> dict[str, Any]:
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
            for one, other in (("relay", "tcp"), ("relay", "quic"), ("tcp", "quic")):
                mover.go(one)
                time.sleep(0.3)
                note(f"{one} to {other}, planned", *mover.go(other))
                note(f"{other} to {one}, planned", *mover.go(one))
                note(f"{one} killed, {other} taken", *mover.kill(one, other))
                mover.go(other)
                time.sleep(0.3)
                note(f"{other} killed, {one} taken", *mover.kill(other, one))
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
