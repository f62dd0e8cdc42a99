"""One UDP socket and the engine behind it: datagrams in and out, timers, and who is told of what.

The engine decides what is sent; here is when, and through which socket. It knows no peer id and no stream.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import punchbridge_quic as quic
import trio

from punchbridge.config import QuicLimits
from punchbridge.errors import LimitExceeded
from punchbridge.tasks.supervise import report
from punchbridge.transport.quic.arrivals import Arrivals, cost
from punchbridge.transport.quic.sockets import MOST, Packet, UdpSocket

__all__ = ["Line", "Owner", "Stray", "UdpEndpoint"]

_log = logging.getLogger(__name__)

_FETCHED: Final = 256
"""Reads of one turn at most. What the kernel holds is taken faster than it can be sent to us, so that nobody waits
there behind what others send."""


class Owner(Protocol):
    """Who is told of a connection. Calls neither block nor raise; they may use the line."""

    def happened(self, event: quic.Event) -> None:
        """One event, in order."""
        ...

    def settled(self) -> None:
        """The events that were there are told."""
        ...

    def broken(self, reason: str) -> None:
        """The line is of no more use: the socket is gone, or a defect has shown."""
        ...


class Line:
    """One connection of the engine at its endpoint. `gone`: the engine has forgotten it. `local`: at which of our
    addresses its last datagram came in."""

    __slots__ = ("bytes_received", "bytes_sent", "endpoint", "gone", "local", "number", "owner", "scheduled")

    def __init__(self, endpoint: UdpEndpoint, number: int, owner: Owner) -> None:
        self.endpoint = endpoint
        self.number = number
        self.owner = owner
        self.gone = False
        self.local: str | None = None
        self.bytes_received = self.bytes_sent = 0
        self.scheduled = math.inf

    @property
    def engine(self) -> quic.Engine:
        return self.endpoint.engine

    def flush(self) -> None:
        """Sends what there is to send, at once or at the end of what is being done."""
        self.endpoint.flush(self)

    def later(self, call: Callable[[], None]) -> None:
        """Has something called soon, in a task of the endpoint."""
        self.endpoint.later(call)

    def close(self, code: int, reason: bytes) -> None:
        """Ends the connection and tells the peer. Repeated calls do nothing."""
        if not self.gone:
            self.engine.close(self.number, code, reason, trio.current_time())
            self.flush()


@dataclass(frozen=True)
class Stray:
    """A datagram that is nothing to the engine, and where it came from."""

    data: bytes
    host: str
    port: int


@dataclass(eq=False)
class _Diverter:
    matches: Callable[[str, int], bool]
    channel: trio.MemorySendChannel[Stray]


class UdpEndpoint:
    """A bound socket, and every connection over it. It works while `run` runs.

    `attempted` is called for each newcomer, and decides on it: the engine's `accept`, `retry`, `refuse` or `ignore`.
    `dropped` is called with the IP of a source for each read of it that finds no room.
    """

    def __init__(
        self,
        socket: UdpSocket,
        engine: quic.Engine,
        limits: QuicLimits,
        attempted: Callable[[UdpEndpoint, quic.Attempt], None],
        dropped: Callable[[str], None],
    ) -> None:
        self.socket = socket
        self.engine = engine
        self._limits = limits
        self._attempted, self._dropped = attempted, dropped
        self._lines: dict[int, Line] = {}
        self._dirty: dict[Line, None] = {}
        self._calls: list[Callable[[], None]] = []
        self._stuck: Packet | None = None
        self._full, self._soon = trio.Event(), trio.Event()
        self._busy = False
        self._timers: list[tuple[float, int, Line]] = []
        self._order = itertools.count()
        self._alarm = trio.CancelScope()
        self._diverters: list[_Diverter] = []
        self._arrivals = Arrivals(limits.waiting)
        self.closed = False

    # --- connections ----------------------------------------------------------------------------------------

    def connect(self, host: str, port: int, owner: Owner) -> Line:
        """Begins to dial. Raises quic.CannotConnect."""
        line = self.adopt(self.engine.connect(host, port, trio.current_time()), owner)
        line.flush()
        return line

    def adopt(self, number: int, owner: Owner) -> Line:
        """A connection that the engine has just made; its events go to `owner` from now on."""
        line = self._lines[number] = Line(self, number, owner)
        self._dirty[line] = None
        self.later(lambda: self._tell(line))
        return line

    @property
    def lines(self) -> int:
        """Connections that the engine has not forgotten, closed ones among them."""
        return len(self._lines)

    def flush(self, line: Line) -> None:
        """See Line."""
        if self._busy:
            self._dirty[line] = None
        else:
            self._transmit(line)

    def later(self, call: Callable[[], None]) -> None:
        """See Line."""
        self._calls.append(call)
        self._soon.set()

    def send_replies(self) -> None:
        """Sends what the engine answers outside of connections, after a decision on a newcomer."""
        for packet in self.engine.replies():
            self._put(packet)

    def send_stray(self, data: bytes, host: str, port: int) -> None:
        """Sends a datagram that is not QUIC; it may be lost. Its first byte must be below 0x40 (RFC 9443)."""
        self._put((data, 0, host, port, None, 0))

    @contextmanager
    def divert(self, matches: Callable[[str, int], bool]) -> Iterator[trio.MemoryReceiveChannel[Stray]]:
        """While open, datagrams that are nothing to the engine and whose source matches go into the channel; the first
        diverter wins, and what finds it full is dropped. Raises LimitExceeded.

        They need not look like anything else than QUIC: other implementations open a NAT with random bytes, of which
        three quarters have a bit of QUIC (RFC 9000 section 17) in the first of them."""
        if len(self._diverters) >= self._limits.diverters:
            raise LimitExceeded(f"{self._limits.diverters} punches are in progress; try later")
        send, receive = trio.open_memory_channel[Stray](self._limits.diverted)
        diverter = _Diverter(matches, send)
        self._diverters.append(diverter)
        try:
            yield receive
        finally:
            self._diverters.remove(diverter)
            send.close()
            receive.close()

    # --- the tasks ------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Works until it is cancelled. Then connections end without a word, and the socket is closed."""
        try:
            async with trio.open_nursery() as nursery:
                for task in (self._keep_time, self._catch_up, self._unclog):
                    nursery.start_soon(task)
                task_status.started()
                while True:
                    if self._arrivals.sources:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.lowlevel.wait_readable(self.socket.raw)
                    self._fetch()
                    self._handle()
        finally:
            self.closed = True
            self.socket.close()
            for line in tuple(self._lines.values()):
                self._forget(line)
                line.owner.broken("ENDPOINT_CLOSED")

    def _fetch(self) -> None:
        """Takes what has come. Of one source alone the kernel keeps what a turn does not handle."""
        arrivals, enough = self._arrivals, self._limits.reads * MOST
        for _ in range(_FETCHED):
            if arrivals.cost >= enough and arrivals.sources == 1:
                break
            got = self.socket.receive()
            if got is None:
                break
            if got.data and not arrivals.put(got):
                self._dropped(got.host)

    def _handle(self) -> None:
        """Hands a part of it to the engine, the sources in turn, then serves each connection that it concerns once."""
        engine, now = self.engine, trio.current_time()
        touched: dict[Line, None] = {}
        room = self._limits.reads * MOST
        while room > 0 and (got := self._arrivals.take()) is not None:
            room -= cost(got)
            numbers = engine.receive(got.data, got.segment, got.host, got.port, got.local, got.ecn, now)
            for number in numbers:
                line = self._lines.get(number)
                if line is not None:
                    line.bytes_received += len(got.data)
                    line.local = got.local
                    touched[line] = None
            attempts = engine.attempts()
            for attempt in attempts:  # at once: the engine ignores those that find many undecided
                self._attempted(self, attempt)
            if self._diverters and not numbers and not attempts:
                self._stray(Stray(got.data, got.host, got.port))
        self.send_replies()
        self._serve(touched)

    async def _keep_time(self) -> None:
        while True:
            due = self._timers[0][0] if self._timers else math.inf
            with trio.CancelScope(deadline=due) as self._alarm:
                await trio.sleep_forever()
            now = trio.current_time()
            expired: dict[Line, None] = {}
            while self._timers and self._timers[0][0] <= now:
                at, _, line = heapq.heappop(self._timers)
                if not line.gone and at == line.scheduled:
                    line.scheduled = math.inf
                    self.engine.on_timer(line.number, now)
                    expired[line] = None
            self._serve(expired)

    async def _catch_up(self) -> None:
        """What was put off, and the connections that have more to send than one turn takes."""
        while True:
            await self._soon.wait()
            self._soon = trio.Event()
            calls, self._calls = self._calls, []
            with self._working():
                for call in calls:
                    try:
                        call()
                    except Exception as problem:  # noqa: BLE001 - the named supervisor: one call, not the socket
                        report("what was put off for a QUIC connection", problem)
            await trio.lowlevel.checkpoint()

    async def _unclog(self) -> None:
        while True:
            await self._full.wait()
            self._full = trio.Event()
            while self._stuck is not None:
                await trio.lowlevel.wait_writable(self.socket.raw)
                packet, self._stuck = self._stuck, None
                self._put(packet)
            with self._working():
                pass

    # --- serving --------------------------------------------------------------------------------------------

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Puts off what is to be sent until the end of the block, where each connection has one turn."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            dirty, self._dirty = self._dirty, {}
            for line in dirty:
                self._transmit(line)

    def _serve(self, lines: dict[Line, None]) -> None:
        with self._working():
            for line in lines:
                self._dirty[line] = None
                self._tell(line)

    def _tell(self, line: Line) -> None:
        if line.gone:
            return
        owner, events = line.owner, self.engine.events(line.number)
        if events and events[-1][0] == quic.GONE:
            # The engine knows it no more, and whoever is told of the rest may not ask it.
            self._forget(line)
            events.pop()
        for event in events:
            try:
                owner.happened(event)
            except Exception as problem:  # noqa: BLE001 - the named supervisor: it costs one connection, not the socket
                report("a QUIC connection", problem)
                owner.broken("INTERNAL")
        owner.settled()

    def _forget(self, line: Line) -> None:
        line.gone = True
        self._lines.pop(line.number, None)
        self._dirty.pop(line, None)

    def _transmit(self, line: Line) -> None:
        if line.gone or self.closed:
            return
        now, segments = trio.current_time(), self.socket.segments
        for _ in range(self._limits.sends):
            if self._stuck is not None:
                break
            packet = self.engine.transmit(line.number, segments, now)
            if packet is None:
                self._arm(line)
                return
            line.bytes_sent += len(packet[0])
            self._put(packet)
        self._dirty[line] = None
        if self._stuck is None:
            self._soon.set()
        self._arm(line)

    def _put(self, packet: Packet) -> None:
        """Sends, or keeps one packet for when the socket takes it. What comes while one is kept is lost."""
        if self._stuck is None and not self.closed and not self.socket.send(packet):
            self._stuck = packet
            self._full.set()

    def _arm(self, line: Line) -> None:
        """One entry a connection: a time that moves back is asked for again when the earlier one has come."""
        due = self.engine.timer(line.number)
        if due is not None and due < line.scheduled:
            line.scheduled = due
            heapq.heappush(self._timers, (due, next(self._order), line))
            if due < self._alarm.deadline:
                self._alarm.deadline = due

    def _stray(self, stray: Stray) -> None:
        for diverter in self._diverters:
            if diverter.matches(stray.host, stray.port):
                try:
                    diverter.channel.send_nowait(stray)
                except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                    _log.debug("a datagram from %s was dropped", stray.host)
                return
