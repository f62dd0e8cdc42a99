"""Keeps the node of `dial` connected to one peer, on the best path there is.

Over a session the path changes below the node, which is only told. Over a plain stream (a peer without sessions) the
link is made before it is broken: when a direct connection stands, the node shakes hands over it and then leaves the
relay; when it dies, the node goes back to the relay. Flags and signals are not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from punchbridge.errors import (
    AuthenticationFailed,
    BridgeError,
    DialTimeout,
    DirectRequired,
    NegotiationFailed,
    NotAllowed,
    Unreachable,
)
from punchbridge.events import (
    ConnectionOpened,
    Event,
    P2pFallback,
    P2pUpgrade,
    PunchFailed,
    PunchStarted,
    PunchSucceeded,
    SessionSwitched,
)
from punchbridge.local.peer import synthesized_address
from punchbridge.verdict import Code, Verdict
from punchbridge_node.commands.application import final, open_node, refused
from punchbridge_node.commands.flags import NodeSettings
from punchbridge_node.commands.paths import Paths
from punchbridge_node.commands.service import for_duration
from punchbridge_node.errors import Ending, HandshakeError, HandshakeFailure
from punchbridge_node.link import PeerLink
from punchbridge_node.node import Node
from punchbridge_node.transport import CHANNEL_OPTIONS, PeerInfo

if TYPE_CHECKING:
    from punchbridge import Bridge
    from punchbridge.cli.report import Reporter
    from punchbridge_node.commands.service import Feed

_LOOK: Final = 0.25
"""How often it is looked whether the first stream was refused, while gRPC still tries."""


@dataclass(frozen=True)
class Goal:
    """What the user asked for. `timeout` in seconds; `peer` is the id at the end of `target`.

    relay_only: a circuit target with --no-p2p; the node stays on the relay even when the peer dials us directly.
    """

    target: str
    peer: str
    timeout: float
    require_direct: bool
    relay_only: bool = False


@dataclass
class PeerKeeper:
    """Keeps one peer connected over the best path. Made for one run; `close` closes the channels it opened."""

    bridge: Bridge
    node: Node
    report: Reporter
    paths: Paths
    goal: Goal
    settings: NodeSettings
    verdict: Verdict = field(default_factory=lambda: Verdict(Code.TIMEOUT))
    """Of the last attempt to become direct since the peer was connected."""
    link: PeerLink | None = None
    _channel: Any = None
    _retired: set[asyncio.Task[None]] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _next_run: float | None = None
    """When the next run of punches begins, infinity when none follows; None while one may be under way."""

    @property
    def path(self) -> str:
        return self.paths.of(self.goal.peer)

    async def run(self, feed: Feed) -> None:
        """Connects, then moves with the path until cancelled. Raises what makes going on senseless."""
        watcher = asyncio.create_task(self._watch(feed))
        try:
            await self._first()
            if self.goal.require_direct:
                await self._until_direct()
            while True:
                await self._step()
        finally:
            watcher.cancel()
            self.report.progress(None)

    async def close(self) -> None:
        """Closes all channels; streams on them end."""
        for task in tuple(self._retired):
            task.cancel()
        if self._retired:
            await asyncio.wait(tuple(self._retired))
        if self._channel is not None:
            await self._channel.close(None)

    # --- steps --------------------------------------------------------------------------------------------

    async def _first(self) -> None:
        """The first connection: a definite refusal ends the program, silence ends it at the time-out."""
        self.report.progress("connecting")
        deadline = time.monotonic() + self.goal.timeout
        info = await self.bridge.aio_connect(self.goal.target, self.goal.timeout)
        opening = asyncio.create_task(self._open(self._allowed(info.path), "connected"))
        try:
            while not opening.done():
                left = deadline - time.monotonic()
                cause = self.bridge.last_error(self.goal.peer)
                if isinstance(cause, NegotiationFailed):
                    # gRPC would ask again and again; who does not serve the node now is somebody else.
                    raise NegotiationFailed(f"{cause}; is TARGET the whole line that the listener printed?")
                if isinstance(cause, NotAllowed):
                    raise cause  # nor will it be let in by asking again
                if left <= 0:
                    raise cause or DialTimeout(f"no handshake with {self.goal.peer} within {self.goal.timeout:g} s")
                await asyncio.wait({opening}, timeout=min(left, _LOOK))
            opening.result()
        finally:
            opening.cancel()
            await asyncio.wait({opening})
        self._await_punch()

    def _allowed(self, path: Literal["direct", "relay"]) -> Literal["direct", "relay"]:
        return "relay" if self.goal.relay_only else path

    def _await_punch(self) -> None:
        waiting = self.path == "relay" and not self.goal.relay_only
        self.report.progress("waiting for the punch" if waiting else None)

    async def _until_direct(self) -> None:
        """Raises DirectRequired with the verdict when no direct path stands in time."""
        began = time.monotonic()
        deadline = began + self.goal.timeout
        while self.path != "direct":
            now = time.monotonic()
            left = deadline - now
            if left <= 0:
                raise DirectRequired(f"no direct path to {self.goal.peer} within {self.goal.timeout:g} s", self.verdict)
            if self._next_run is not None and self._next_run > deadline:
                raise DirectRequired(
                    f"no direct path to {self.goal.peer} after {now - began:.1f} s, and {self._rest()}", self.verdict
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._step(), left)

    def _rest(self) -> str:
        """Why it is of no use to wait for the rest of the time."""
        if self.verdict.retry_in is None:
            return "no other run of punches follows by itself"
        return (
            f"the next run of punches, {self.verdict.retry_in:.0f} s after this one, "
            f"begins after the {self.goal.timeout:g} s of --timeout"
        )

    async def _step(self) -> None:
        """Waits until something happened to the paths or the link, and acts on it."""
        assert self.link is not None
        over = asyncio.create_task(self.link.closed())
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait((over, woken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            ended = over.result() if over.done() and not over.cancelled() else None
            over.cancel()
        self._wake.clear()
        if ended is not None:
            await self._recover(ended)
        elif self.path != "direct" and not self.goal.relay_only and not self._moves() and self._stands_direct():
            await self._upgrade()

    def _moves(self) -> bool:
        """Whether a session carries the node, so that the path changes by itself."""
        info = None if self._channel is None else self._channel.info
        return info is not None and info.moves

    def _stands_direct(self) -> bool:
        return any(one.peer_id == self.goal.peer and one.path == "direct" for one in self.bridge.connections())

    async def _upgrade(self) -> None:
        """Over to the direct connection, made before the relayed stream is left."""
        try:
            await self._open("direct", "punched through")
        except (BridgeError, HandshakeError) as problem:
            # The relayed stream goes on; the puncher tries again by its own cadence.
            self.report.note(f"the direct connection did not carry the node: {problem}", "warn")

    async def _recover(self, ended: Ending) -> None:
        """The link is gone: back over whatever path answers, with back-off, until the time-out."""
        before = self.path
        reason = ended.reason.value
        deadline = time.monotonic() + self.goal.timeout
        pause = self.settings.redial_first
        self.report.progress(f"the {before} path is gone ({reason}), reconnecting")
        # What an earlier connection has seen says nothing of the one that comes.
        self.verdict, self._next_run = Verdict(Code.TIMEOUT), None
        while True:
            left = deadline - time.monotonic()
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    info = await self.bridge.aio_connect(self.goal.target, max(left, 0.1))
                    await self._open(self._allowed(info.path), f"{before} path lost: {reason}")
                break
            except (AuthenticationFailed, DirectRequired, NotAllowed):
                raise
            except HandshakeError as problem:
                if final(problem):
                    raise refused(problem) from None
                seen: Exception = problem
            except (BridgeError, TimeoutError) as problem:
                seen = problem
            self.paths.note(self.goal.peer, "none", reason)
            if time.monotonic() + pause > deadline:
                raise Unreachable(
                    f"{self.goal.peer} did not come back within {self.goal.timeout:g} s: {seen}"
                ) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.settings.redial_most)
        self._await_punch()
        if self.path == "relay" and self.goal.require_direct:
            await self._until_direct()

    async def _open(self, path: Literal["direct", "relay"], reason: str) -> None:
        """A stream of the node over a channel of its own on that path. The channel before is closed after its use."""
        channel = self.bridge.aio_channel(
            self.goal.target,
            path=self._policy(path),
            fresh=True,
            direct_wait=self.settings.upgrade_wait,
            options=CHANNEL_OPTIONS,
        )
        host, port = synthesized_address(self.goal.peer)
        info = PeerInfo(
            host, port, self.goal.peer, lambda: path if self.path == "none" else self.path, self.goal.target
        )
        try:
            await self._shake_hands(channel, info)
        except BaseException:
            await channel.close(None)
            raise
        before, self._channel = self._channel, channel
        carried = channel.info
        if carried is not None:
            path = carried.path
        self.paths.note(self.goal.peer, path, reason)
        self.report.path = path
        if path == "direct":
            self.report.progress(None)
        if before is not None:
            task = asyncio.create_task(_close_later(before, self.node.config.limits.retire_timeout))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)

    def _policy(self, path: Literal["direct", "relay"]) -> Literal["any", "direct", "relay"]:
        """A session starts on any path and moves; on plain streams the direct one must be asked for."""
        if self.goal.relay_only:
            return "relay"
        return "direct" if path == "direct" and self._channel is not None and not self._moves() else "any"

    async def _shake_hands(self, channel: Any, info: PeerInfo) -> None:
        try:
            if self.link is None:
                self.link = await self.node.connect(channel, info)
            else:
                await self.link.reopen(channel, info)
        except HandshakeError as problem:
            cause = self.bridge.last_error(self.goal.peer)
            if cause is not None and problem.failure is HandshakeFailure.UNREACHABLE:
                raise cause from None
            if self.link is None or final(problem):
                raise refused(problem) from None
            raise

    # --- events -------------------------------------------------------------------------------------------

    async def _watch(self, feed: Feed) -> None:
        while True:
            self._take(await feed.get())

    def _take(self, event: Event) -> None:
        if getattr(event, "peer", None) != self.goal.peer:
            return
        if isinstance(event, (P2pUpgrade, PunchSucceeded)) or (
            isinstance(event, ConnectionOpened) and event.path == "direct" and not event.punched
        ):
            self._wake.set()
        elif isinstance(event, SessionSwitched):
            self.paths.follow(event)
            self.report.path = self.path if self.path != "none" else self.report.path
            if event.to == "direct":
                self.report.progress(None)
            self._wake.set()
        elif isinstance(event, PunchStarted):
            self._next_run = None
            self.report.progress(f"punching, attempt {event.attempt}")
        elif isinstance(event, PunchFailed):
            self.verdict = event.verdict
            if event.final:
                if event.code is not Code.RELAY_LOST:  # after that a fresh circuit begins the next run at once
                    self._next_run = time.monotonic() + (float("inf") if event.retry_in is None else event.retry_in)
                self.report.progress(None)
                self._wake.set()
        elif isinstance(event, P2pFallback):
            self.verdict = event.verdict
            self._wake.set()


async def _close_later(channel: Any, seconds: float) -> None:
    """Closes a channel once the node has had the time to serve what was under way on it."""
    try:
        await asyncio.sleep(seconds)
    finally:
        await channel.close(None)


async def dial_peer(bridge: Bridge, feed: Feed, report: Reporter, settings: NodeSettings, goal: Goal) -> int:
    """Runs the node against one peer until cancelled or for --duration. Raises what `PeerKeeper.run` raises."""
    paths = Paths(report.emit)
    async with open_node(settings, report.emit) as node:
        keeper = PeerKeeper(bridge, node, report, paths, goal, settings)
        try:
            async with for_duration(settings.duration):
                await keeper.run(feed)
        finally:
            report.path = keeper.path if keeper.path != "none" else report.path
            await node.close()
            await keeper.close()
    if goal.require_direct and report.path != "direct":
        raise DirectRequired(f"--duration is over and {goal.peer} was reached over a relay only", keeper.verdict)
    return 0
