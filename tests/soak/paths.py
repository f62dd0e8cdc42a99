"""One stream and a few callers on one session, while somebody else breaks and mends the paths below it."""

from __future__ import annotations

import time
from typing import Any

import grpc
import trio
from common import say
from load import SMALL, Load

import punchbridge
from punchbridge.session.live import LiveSession

WAY: tuple[tuple[str, frozenset[str]], ...] = (
    ("relay", frozenset({"circuit"})),
    ("tcp", frozenset({"tcp"})),
    ("quic", frozenset({"quic"})),
    ("relay", frozenset({"circuit"})),
    ("direct", frozenset({"tcp", "quic"})),
)
"""What is to carry it, one after the other, and which transports count as that."""

CALLERS = 4
PATIENCE = 90.0
LAST = 30.0


class Watched:
    """The one session of a bridge."""

    def __init__(self, b: punchbridge.Bridge) -> None:
        self._b = b

    @property
    def _session(self) -> LiveSession:
        (session,) = self._b._control.host.sessions.opened
        return session

    def _kinds(self) -> tuple[str, set[str]]:
        active, host = self._session.active, self._b._control.host
        standing: set[str] = {one.transport for one in host.swarm.connections(self._session.peer) if not one.closing}
        return "" if active is None else active.connection.transport, standing

    def kinds(self) -> tuple[str, set[str]]:
        """What carries it now, and all that stands."""

        async def look() -> tuple[str, set[str]]:
            await trio.lowlevel.checkpoint()
            return self._kinds()

        return self._b._thread.call(look, 20.0)


def paths(b: punchbridge.Bridge, circuit: str, count: int) -> dict[str, Any]:
    """Each stage of the way begins once its path carries the session, and ends after `count` more messages there."""
    load, stages = Load(), list[dict[str, Any]]()
    with b.channel(circuit, fresh=True) as channel:
        grpc.channel_ready_future(channel).result(20)
        load.start(load.echoes, channel, "small", SMALL, 50, 0.005)
        for number in range(CALLERS):
            load.start(load.asks, channel, number * 1_000_000)
        watched = Watched(b)
        for name, kinds in WAY:
            deadline, began, first = time.monotonic() + PATIENCE, 0.0, 0
            while not load.failures and time.monotonic() < deadline:
                now, standing = watched.kinds()
                # The slower transport of the punch may still be on its way when the session is there.
                if now in kinds and (name != "tcp" or "quic" in standing):
                    began, first = began or time.monotonic(), first or load.counts["small"]
                elif began:
                    began = first = 0
                if began and load.counts["small"] - first >= count:
                    break
                time.sleep(0.02)
            messages = load.counts["small"] - first if began else 0
            seconds = round(time.monotonic() - began, 1) if began else 0.0
            stages.append({"kind": name, "messages": messages, "seconds": seconds})
            if messages < count:
                load.failures.append(f"{name}: {messages} messages, wanted {count}; on {now!r}, standing {standing}")
                break
            say("carried", **stages[-1])
        load.stop(LAST)
    return {"failures": load.failures, "messages": load.counts, "stages": stages, "count": count}
