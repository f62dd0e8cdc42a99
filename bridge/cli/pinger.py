"""Round trips to a peer over the best connection of the moment, each told with its path.

Asks the swarm anew for each ping, so that the lines show the change from relay to direct. Knows no flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from punchbridge.api.trio import TrioBridge
from punchbridge.cli.events import PingResult
from punchbridge.cli.exits import Exit
from punchbridge.cli.lines import spot
from punchbridge.errors import BridgeError, DialTimeout, DirectRequired, NotAllowed
from punchbridge.identity import peer_text
from punchbridge.local.target import parse_target
from punchbridge.transport.base import Connection
from punchbridge.verdict import Code, Verdict

if TYPE_CHECKING:
    from punchbridge.cli.report import Reporter
    from punchbridge.cli.service import TrioFeed


@dataclass(frozen=True)
class Plan:
    """What the user asked for. `count` None: for ever. Times in seconds."""

    target: str
    count: int | None
    interval: float
    timeout: float
    until_direct: bool


@dataclass
class Pinger:
    """Made for one run."""

    bridge: TrioBridge
    feed: TrioFeed
    report: Reporter
    plan: Plan
    sent: int = 0
    times: list[float] = field(default_factory=list)

    async def run(self) -> Exit:
        """Connects and pings. Raises DialTimeout when nothing answers, DirectRequired when no path becomes direct,
        NotAllowed when the peer does not let us in."""
        plan = self.plan
        deadline = trio.current_time() + plan.timeout
        self.report.progress("connecting")
        with trio.move_on_at(deadline) as limit:
            await self.bridge.connect(plan.target)
        self.report.progress(None)
        if limit.cancelled_caught:
            where = parse_target(plan.target).text  # without the secret
            raise DialTimeout(f"no connection to {where} within {plan.timeout:g} s; is the other side running?")
        while plan.count is None or self.sent < plan.count:
            if self.sent:
                await trio.sleep(plan.interval)
            if plan.until_direct and trio.current_time() >= deadline:
                raise DirectRequired(f"no direct path within {plan.timeout:g} s", self._verdict())
            if await self._once() and plan.until_direct:
                break
        return self._end()

    async def _once(self) -> bool:
        """One ping. Whether it was a direct round trip."""
        self.sent += 1
        connection: Connection | None = None
        took: float | None = None
        try:
            connection = await self._connection()
            async for seconds in self.bridge.host.ping.ping(connection, 1):
                took = 1000 * seconds
        except NotAllowed:
            raise  # nor will it be let in by asking again
        except BridgeError as problem:
            self.report.note(f"no answer: {problem}", "warn")
        if connection is None:
            return False
        path, remote, peer = connection.path, str(connection.remote), peer_text(connection.peer)
        self.report.path = path
        self.report.emit(
            PingResult(
                peer=peer, count=self.sent, path=path, remote=remote, rtt_ms=took, transport=connection.transport
            )
        )
        self.report.data(f"{path} {spot(remote)} " + ("lost" if took is None else f"{took:.1f} ms"))
        if took is not None:
            self.times.append(took)
        return took is not None and path == "direct"

    async def _connection(self) -> Connection:
        peer = parse_target(self.plan.target).peer
        standing = self.bridge.host.swarm.best(peer)
        if standing is None:
            await self.bridge.connect(self.plan.target)
            standing = self.bridge.host.swarm.best(peer)
        if standing is None:
            raise DialTimeout("the connection was lost again at once")
        return standing

    def _end(self) -> Exit:
        self.report.detail.update(sent=self.sent, received=len(self.times))
        if not self.times:
            raise DialTimeout(f"no answer to {self.sent} pings")
        ordered = sorted(self.times)
        self.report.detail.update(min_ms=ordered[0], median_ms=ordered[len(ordered) // 2], max_ms=ordered[-1])
        return Exit.DONE

    def _verdict(self) -> Verdict:
        """Why no direct path stands."""
        dcutr = self.bridge.host.dcutr
        return Verdict(Code.DISABLED) if dcutr is None else dcutr.verdict(parse_target(self.plan.target).peer)
