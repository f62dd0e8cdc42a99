"""One stream to one peer at work: a reader that routes, a writer with a bounded queue, a session, and one ending.

It knows messages and routes, not what they mean; not who the peer is; not gRPC. `run` is the whole life: whatever
ends first (peer, session, a rule of the router, the caller) becomes the `Ending`, a Reject leaves if there is one to
send, and nothing stays behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from . import fixed, wire
from .config import NodeLimits
from .errors import (
    AnswerTimeout,
    ConnectionOver,
    DisconnectReason,
    Ending,
    ProtocolViolation,
)
from .router import Outcome, Route, RouteTable
from .transport import STREAM_ERRORS, Stream

log = logging.getLogger(__name__)


class Inbox:
    """The reading end of a route. One reader at a time; cancelling a read loses no message."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._filled = asyncio.Event()
        route.on_message = self._filled.set

    async def get(self) -> pb.KaspadMessage:
        """The next message; waits without limit."""
        while not self.route.queue:
            self._filled.clear()
            await self._filled.wait()
        return self.route.take()

    async def answer(self, seconds: float, what: str) -> pb.KaspadMessage:
        """The next message, which the peer owes us. Raises AnswerTimeout after `seconds`."""
        if self.route.queue:
            return self.route.take()
        try:
            async with asyncio.timeout(seconds):
                return await self.get()
        except TimeoutError as error:
            raise AnswerTimeout(f"no {what} within {seconds:g} s") from error

    def drain(self) -> list[pb.KaspadMessage]:
        """Take what waits here, without waiting."""
        return [self.route.take() for _ in range(len(self.route.queue))]


class PeerConnection:
    """A running message stream. Methods are called in the node's event loop only."""

    def __init__(self, stream: Stream, limits: NodeLimits, *, capacity: int = fixed.OUTGOING_CAPACITY) -> None:
        self.outbound = stream.outbound
        self.table = RouteTable(limits.waiting)
        self._limits = limits
        self._high_water = limits.outgoing_high_water
        # Replaced by the peer record's counters as soon as it is known who this is.
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.ending: Ending | None = None
        self.retiring = False
        self.awaited = 0  # answers the peer owes us on this stream
        self.confirmed = False  # a flow message came: the peer has admitted this stream
        self._successor: PeerConnection | None = None
        self._predecessor: PeerConnection | None = None
        self._stream = stream
        self._capacity = capacity
        self._queue: deque[tuple[str, bytes]] = deque()
        self._queued_bytes = 0
        self._queue_filled = asyncio.Event()
        self._queue_drained = asyncio.Event()
        self._over = asyncio.Event()
        self._finishing = False
        self._timers: list[asyncio.TimerHandle] = []

    # --- sending ---

    def send_now(self, msg: pb.KaspadMessage) -> None:
        """Queue a message. A full queue ends the connection; after the end it raises ConnectionOver."""
        if self.ending is not None:
            raise ConnectionOver(self.ending)
        data = msg.SerializeToString()
        too_large = self._queue and self._queued_bytes + len(data) > 2 * self._high_water
        if len(self._queue) >= self._capacity or too_large:
            self.end(Ending(DisconnectReason.OUTGOING_FULL, f"{len(self._queue)} messages wait to be sent"))
            assert self.ending is not None
            raise ConnectionOver(self.ending)
        self._enqueue(msg, data)

    async def send(self, msg: pb.KaspadMessage) -> None:
        """Queue an answer, waiting while the queue is half full or heavy.

        Raises ConnectionOver, also when the peer takes nothing for `outgoing_stall` seconds.
        """
        while self.ending is None and self._crowded():
            self._queue_drained.clear()
            try:
                async with asyncio.timeout(self._limits.outgoing_stall):
                    await self._queue_drained.wait()
            except TimeoutError:
                self.end(Ending(DisconnectReason.OUTGOING_FULL, "the peer takes no messages"))
        self.send_now(msg)

    def _crowded(self) -> bool:
        return len(self._queue) >= self._capacity // 2 or self._queued_bytes > self._high_water

    def _enqueue(self, msg: pb.KaspadMessage, data: bytes) -> None:
        self._queue.append((msg.WhichOneof("payload") or "", data))
        self._queued_bytes += len(data)
        self._queue_filled.set()

    # --- routes ---

    def subscribe(self, types: Iterable[wire.PayloadType], capacity: int = fixed.ROUTE_CAPACITY) -> Inbox:
        """A route for these payload types, and its reading end. See RouteTable.subscribe."""
        return Inbox(self.table.subscribe(types, capacity))

    def unsubscribe(self, inbox: Inbox) -> None:
        """Drop a route; what it holds stays readable."""
        self.table.unsubscribe(inbox.route)

    # --- ending ---

    def end(self, ending: Ending) -> None:
        """End the connection with this ending, unless it has one. Returns at once; `run` does the rest."""
        if self.ending is None:
            self.ending = ending
            self._over.set()
            self._queue_drained.set()

    def retire(self, successor: PeerConnection) -> None:
        """`successor` took over: serve what is under way for a short time, then end as REPLACED.

        The dialler ends first, so that its half-close comes after everything it sent, and not before the peer has
        admitted the successor: made before broken, on both sides.
        """
        if self.retiring or self.ending is not None:
            return
        self.retiring = True
        self._successor, successor._predecessor = successor, self
        wait = self._limits.retire_timeout * (1 if self.outbound else 2)
        self._timers.append(asyncio.get_running_loop().call_later(wait, self.end, REPLACED))
        self.expect(0)

    def expect(self, answers: int) -> None:
        """The peer owes us so many answers more (or less, when negative). A retired stream ends at none."""
        self.awaited += answers
        replaced = self._successor is not None and self._successor.confirmed
        if replaced and self.outbound and self.awaited <= 0:
            self.end(REPLACED)

    def _confirm(self) -> None:
        self.confirmed = True
        if self._predecessor is not None:
            self._predecessor.expect(0)
            self._predecessor = None

    async def wait_over(self) -> Ending:
        """Wait for the ending. The stream may still flush its last messages then."""
        await self._over.wait()
        assert self.ending is not None
        return self.ending

    async def run(self, session: Callable[[], Awaitable[None]]) -> Ending:
        """Run the stream until its ending; returns it. `session` runs beside reader and writer.

        Cancellation drops the stream at once and leaves no task; `ending` is then TRANSPORT if it was not set.
        """
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self.guard(self._read()))
                writer = group.create_task(self.guard(self._write()))
                work = group.create_task(self.guard(session()))
                await self._over.wait()
                assert self.ending is not None
                work.cancel()
                if self.ending.reject is not None:
                    reason = self.ending.reject[: fixed.REJECT_REASON_CHARS]
                    reject = wire.message(wire.REJECT, pb.RejectMessage(reason=reason))
                    self._enqueue(reject, reject.SerializeToString())
                self._finishing = True
                self._queue_filled.set()
                await asyncio.wait({writer}, timeout=self._limits.flush_timeout)
                if self.outbound and writer.done():
                    await asyncio.wait({reader}, timeout=self._limits.close_timeout)
                writer.cancel()
                reader.cancel()
        finally:
            self.end(Ending(DisconnectReason.TRANSPORT, "the stream was cut"))
            for timer in self._timers:
                timer.cancel()
            self._successor = self._predecessor = None
            self._stream.cancel()
        return self.ending or REPLACED

    async def guard(self, work: Awaitable[None]) -> None:
        """Supervisor of one task of this stream: whatever it raises becomes the ending, never a crash of the node."""
        try:
            await work
        except ConnectionOver as error:
            self.end(error.ending)
        except AnswerTimeout as error:
            self.end(Ending(DisconnectReason.ANSWER_TIMEOUT, str(error), reject=str(error)))
        except (ProtocolViolation, wire.MalformedMessage) as error:
            self.end(Ending(DisconnectReason.PROTOCOL_ERROR, str(error), reject=str(error)))
        except STREAM_ERRORS as error:
            self.end(Ending(DisconnectReason.TRANSPORT, describe(error)))
        except Exception as error:  # named supervisor: a bug in a flow costs one peer, and says so
            log.exception("a task of a peer connection failed")
            self.end(Ending(DisconnectReason.INTERNAL, f"{type(error).__name__}: {error}", reject="internal error"))

    async def _read(self) -> None:
        while (data := await self._stream.read()) is not None:
            if self.ending is not None:
                continue  # to the peer's end: a half-read stream would be reset and lose our last messages
            msg = wire.parse(data)
            outcome = self.table.route(msg, len(data))
            self.received[msg.WhichOneof("payload") or ""] += 1
            if outcome not in (Outcome.DELIVERED, Outcome.DROPPED):
                self.end(ending_for(outcome, msg))
            elif not self.confirmed and wire.payload_type(msg) not in wire.HANDSHAKE:
                self._confirm()
        self.end(REPLACED if self.retiring else Ending(DisconnectReason.PEER_CLOSED, "the peer ended the stream"))

    async def _write(self) -> None:
        await self._stream.open()
        while True:
            while not self._queue:
                if self._finishing:
                    await self._stream.finish()
                    return
                self._queue_filled.clear()
                await self._queue_filled.wait()
            kind, data = self._queue[0]
            try:
                await self._stream.write(data)
            except STREAM_ERRORS as error:
                # The peer's last words (a Reject) may still wait to be read: the reader finds the ending, or time does.
                lost = Ending(DisconnectReason.TRANSPORT, describe(error))
                loop = asyncio.get_running_loop()
                self._timers.append(loop.call_later(self._limits.close_timeout, self.end, lost))
                return
            self._queue.popleft()
            self._queued_bytes -= len(data)
            self.sent[kind] += 1
            if not self._crowded():
                self._queue_drained.set()


REPLACED = Ending(DisconnectReason.REPLACED, "a successor of this stream took over")


def ending_for(outcome: Outcome, msg: pb.KaspadMessage) -> Ending:
    """The ending that a rule of the router demands. Only an error inside a flow is told to the peer."""
    kind = msg.WhichOneof("payload")
    if outcome is Outcome.REJECTED:
        return Ending(DisconnectReason.PEER_REJECTED, msg.reject.reason[: fixed.REJECT_REASON_CHARS])
    if outcome is Outcome.FULL:
        return Ending(DisconnectReason.ROUTE_FULL, f"too many {kind} wait")
    if outcome is Outcome.EMPTY:
        return Ending(DisconnectReason.PROTOCOL_ERROR, "message without a payload we know")
    if outcome is Outcome.NO_ROUTE:
        return Ending(DisconnectReason.NO_ROUTE, f"no route for {kind} (response id {msg.responseId})")
    raise ValueError(f"{outcome} does not end a connection")


def describe(error: BaseException) -> str:
    """A gRPC error in a line: its status and details where it has them."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if callable(code) and callable(details):
        return f"{getattr(code(), 'name', code())}: {details()}"
    return f"{type(error).__name__}: {error}"
