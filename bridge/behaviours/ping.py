"""Ping in both directions: echoes what peers send, and measures round trips at the application level.

The yamux ping of a connection is another thing (`Connection.ping`); this one is what other implementations answer.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio

from punchbridge.errors import DialTimeout, LimitExceeded, Unreachable
from punchbridge.identity import PeerId, peer_text
from punchbridge.swarm.gater import anyone
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.rates import Buckets
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.origin import origin_of
from punchbridge.wire.ping import PING, PING_SIZE, PingExchange

__all__ = ["PingService"]


class PingService:
    """The ping behaviour of a swarm; `run` it in a nursery, `ping` at any time."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._limits = swarm.config.limits.ping
        self._asking: set[PeerId] = set()
        limits = self._limits
        self._rate = Buckets(limits.burst, limits.every, limits.streams)
        self._strangers_rate = Buckets(limits.stranger_burst, limits.stranger_every, limits.streams)
        self._strangers: set[PeerId] = set()
        """Peers that are not known here and have a ping stream."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answers pings until the swarm ends."""
        await self._swarm.handle(
            PING,
            self._echo,
            max_streams=self._limits.streams,
            max_per_peer=self._limits.streams_per_peer,
            audience=anyone,
        )
        task_status.started()
        await trio.sleep_forever()

    async def _echo(self, stream: Stream) -> None:
        if self._swarm.gater.known(stream.connection):
            await self._answer(stream, self._rate)
        elif stream.connection.peer in self._strangers:
            stream.reset()
        else:
            self._strangers.add(stream.connection.peer)
            try:
                await self._answer(stream, self._strangers_rate)
            finally:
                self._strangers.discard(stream.connection.peer)

    async def _answer(self, stream: Stream, rate: Buckets) -> None:
        """Echoes what comes. Bytes that wait for their turn are not read, so the stream's window does not grow.

        Each ping gives the stream `idle_timeout` seconds more, for its echo and for the next ping. Raises
        trio.TooSlowError when they are over.
        """
        origin = origin_of(stream.connection)
        with trio.fail_after(self._limits.idle_timeout) as patience:
            while data := await stream.receive_some(PING_SIZE):
                now = trio.current_time()
                due = max(now, rate.due(origin, now))
                patience.deadline = due + self._limits.idle_timeout
                if due > now:
                    await trio.sleep_until(due)
                await stream.send_all(data)
            await stream.aclose()

    async def ping(
        self, target: PeerId | Connection, count: int | None = None, interval: float = 1.0
    ) -> AsyncIterator[float]:
        """Yields round trips in seconds, `interval` seconds apart, `count` of them (None: until closed).

        Raises DialTimeout after its `timeout` without an echo, ProtocolViolation on a wrong one, StreamReset,
        LimitExceeded when a ping to that peer runs already (specs/ping: one outbound stream), Unreachable when not
        connected. Leaving the loop resets the stream; use `contextlib.aclosing` when leaving early.
        """
        peer = target if isinstance(target, PeerId) else target.peer
        if peer in self._asking:
            raise LimitExceeded(f"a ping to {peer_text(peer)} is running; wait for its end")
        self._asking.add(peer)
        stream: Stream | None = None
        try:
            stream = await self._swarm.open_stream(target, (PING,))
            done = 0
            while count is None or done < count:
                yield await self._once(stream)
                done += 1
                if count is None or done < count:
                    await trio.sleep(interval)
            await stream.aclose()
        finally:
            self._asking.discard(peer)
            if stream is not None:
                stream.reset()

    async def _once(self, stream: Stream) -> float:
        with trio.move_on_after(self._limits.timeout):
            payload = os.urandom(PING_SIZE)
            exchange = PingExchange(payload, trio.current_time())
            await stream.send_all(payload)
            while True:
                data = await stream.receive_some(exchange.missing)
                if not data:
                    raise Unreachable("the peer closed the ping stream")
                elapsed = exchange.receive(bytes(data), trio.current_time())
                if elapsed is not None:
                    return elapsed
        raise DialTimeout(f"no echo within {self._limits.timeout:g} s")
