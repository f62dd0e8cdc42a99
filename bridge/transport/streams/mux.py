"""The streams of one connection above its engine: the tasks that wait on streams, and the protocol of each stream.

Turns what the engine tells into wake-ups and negotiates. Reads no socket, knows no frame and starts no task; the
connection arms its timer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import trio

from punchbridge.config import MuxedLimits
from punchbridge.errors import BridgeError, LimitExceeded, NegotiationFailed
from punchbridge.transport.base import Connection, OnRefused, OnStream, Supported
from punchbridge.transport.raw import BrokenConnection, BrokenStream
from punchbridge.transport.streams.engine import Streams, StreamState
from punchbridge.transport.streams.stream import Stream, fresh
from punchbridge.wire.multistream import Initiator, Responder


@dataclass
class _PingWait:
    answered: trio.Event
    rtt: float | None = None


class Mux:
    """The stream side of a connection. `blocked` holds the streams whose writer waits, in the order they began to."""

    def __init__(self, connection: Connection, streams: Streams[Any], limits: MuxedLimits) -> None:
        streams.events = self
        self.engine: Streams[Any] = streams
        self.burst: int = limits.send_burst
        self.blocked: dict[int, Stream] = {}
        self.on_stream: OnStream | None = None
        self.supported: Supported = tuple
        self.on_refused: OnRefused | None = None
        self.timer = trio.CancelScope()
        self._connection = connection
        self._timeout = limits.negotiate_timeout
        self._streams: dict[int, Stream] = {}
        self._negotiating: dict[Stream, float] = {}
        self._answers: dict[Stream, trio.Event] = {}
        self.openers = trio.lowlevel.ParkingLot()
        self._pings: dict[int, _PingWait] = {}

    # --- for the connection -----------------------------------------------------------------------------

    async def open(self, protocols: Sequence[str], *, lazy: bool) -> Stream:
        """See Connection.open_stream."""
        if lazy and len(protocols) != 1:
            raise ValueError("a stream can be opened lazily with one protocol only")
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._connection.closing and not self.engine.can_open:
            await self.openers.park()
        self._connection.check_alive()
        negotiation = Initiator(protocols)
        stream = Stream(self._connection, self, self.engine.open(), negotiation)
        self._adopt(stream)
        answered = self._answers[stream] = trio.Event()  # before the first write, which may end the connection
        try:
            self.engine.flush()
            self._say(stream, negotiation.start())
            if lazy:
                stream.protocol = protocols[0]
                await trio.lowlevel.cancel_shielded_checkpoint()
                return stream
            await answered.wait()
            if stream.failure is not None:
                raise fresh(stream.failure)
        except BaseException:
            stream.abort()
            raise
        finally:
            self._answers.pop(stream, None)
        return stream

    async def ping(self) -> float | None:
        """The round trip in seconds; None when the connection ended first. Raises LimitExceeded."""
        value = self.engine.ping()
        if self._connection.closed.is_set():  # by what the ping met on its way
            return None
        wait = self._pings[value] = _PingWait(trio.Event())
        try:
            await wait.answered.wait()
        finally:
            self._pings.pop(value, None)
        return wait.rtt

    def fail(self, lost: BrokenConnection) -> None:
        """The connection is gone: everybody who waits learns it."""
        streams, self._streams = tuple(self._streams.values()), {}
        for stream in streams:
            stream.fail(lost)
        for answered in self._answers.values():
            answered.set()
        for wait in self._pings.values():
            wait.answered.set()
        self._negotiating.clear()
        self.openers.unpark_all()

    def wake_writers(self) -> None:
        """The queue has room again."""
        for stream in tuple(self.blocked.values()):
            stream.wake_writer()

    def shed(self, since: float) -> bool:
        """Resets the stream that has most unread bytes of which none were taken since a moment; False for none."""
        stalled = (stream for stream in self._streams.values() if stream.state.moved <= since)
        largest = max(stalled, key=lambda stream: stream.state.buffered, default=None)
        if largest is None or not largest.state.buffered:
            return False
        self._refuse(largest, LimitExceeded("it was not read, and its memory was needed (limits.memory)"))
        return True

    # --- for the streams --------------------------------------------------------------------------------

    def finish(self, state: StreamState) -> None:
        """Ends our half of a stream."""
        self.engine.finish(state)
        if state.finished:
            self._release(state)

    def close(self, state: StreamState) -> None:
        """Ends our half, and nothing more is read."""
        self.engine.close(state)
        self._release(state)
        self._rearm()

    def reset(self, state: StreamState) -> None:
        """Ends both halves at once."""
        self.engine.reset(state)
        self._release(state)

    def _release(self, state: StreamState) -> None:
        """No event will concern the stream any more; a waiting open may take its place."""
        stream = self._streams.pop(state.id, None)
        if stream is not None:
            self._negotiating.pop(stream, None)
        if self.openers and self.engine.can_open:
            self.openers.unpark()

    # --- for the engine ---------------------------------------------------------------------------------

    def readable(self, state: StreamState) -> None:
        """See StreamEvents."""
        stream = self._streams.get(state.id)
        if stream is None:
            return
        # An inbound stream that was reset already is nobody's; of our own, what came before the reset is read first.
        if stream.negotiation is not None and not (state.reset and stream.inbound):
            self._negotiate(stream)
        if stream.negotiation is None:
            if state.buffered > stream.unread_most:
                self._refuse(stream, LimitExceeded(f"{stream.unread_most} bytes came that nobody has read"))
                return
            stream.wake_reader()
            if state.finished and not state.reset:  # a reset has its own event, still to come
                self._release(state)

    def writable(self, state: StreamState) -> None:
        """See StreamEvents."""
        stream = self._streams.get(state.id)
        if stream is not None:
            stream.wake_writer()

    def was_reset(self, state: StreamState) -> None:
        """See StreamEvents."""
        stream = self._streams.get(state.id)
        if stream is not None:
            self._fail_stream(stream, BrokenStream("the peer reset the stream"))

    def stopped(self, state: StreamState) -> None:
        """See StreamEvents."""
        stream = self._streams.get(state.id)
        if stream is not None:
            stream.unwanted = BrokenStream("the peer reads no more of the stream")
            stream.wake_writer()
            if state.finished:
                self._release(state)

    def opened(self, state: StreamState) -> None:
        """See StreamEvents."""
        # Not once an answer to an earlier frame has ended the connection: nobody would end the stream.
        if not self._connection.closed.is_set():
            self._adopt(Stream(self._connection, self, state, Responder(self.supported, self.on_refused)))

    def pong(self, value: int, rtt: float) -> None:
        """See StreamEvents."""
        wait = self._pings.get(value)
        if wait is not None:
            wait.rtt = rtt
            wait.answered.set()

    def may_open(self) -> None:
        """See StreamEvents."""
        if self.openers:
            self.openers.unpark_all()

    def dead(self) -> None:
        """See StreamEvents."""
        self._connection.abort("KEEPALIVE_TIMEOUT")

    # --- negotiation ------------------------------------------------------------------------------------

    def _adopt(self, stream: Stream) -> None:
        self._streams[stream.id] = stream
        self._negotiating[stream] = trio.current_time() + self._timeout
        self._rearm()

    def _negotiate(self, stream: Stream) -> None:
        """Feeds what arrived to the stream's negotiation; bytes behind it become readable."""
        negotiation, state = stream.negotiation, stream.state
        assert negotiation is not None
        try:
            reply = negotiation.receive(state.take(state.buffered)) if state.buffered else b""
            if reply and not state.reset:
                self._say(stream, reply)
            if negotiation.protocol is None:
                if state.fin_received and stream.inbound:
                    # A FIN, not a reset: that would overtake the `na` the peer has not read yet.
                    self.close(state)
                elif state.fin_received:
                    raise NegotiationFailed("the peer ended the stream before a protocol was agreed")
                else:
                    self.engine.consumed(state)
                return
        except trio.ClosedResourceError:
            # A lazily opened stream whose writing half has ended cannot propose another protocol.
            self._refuse(stream, NegotiationFailed("the peer refused the protocol"))
            return
        except BridgeError as problem:
            self._refuse(stream, problem)
            return
        state.put_back(negotiation.leftover)
        stream.negotiation = None
        stream.protocol = negotiation.protocol
        self._negotiating.pop(stream, None)
        self.engine.taken(state)
        if stream.inbound:
            assert self.on_stream is not None
            self.on_stream(stream, negotiation.protocol)
        elif stream in self._answers:
            self._answers[stream].set()

    def _say(self, stream: Stream, words: bytes) -> None:
        """Negotiation goes behind a full queue too: bulk of other streams must not keep this one from being opened.

        `send_queue_most` bounds what a peer that does not read can make us queue.
        """
        sent = stream.send_nowait(words)
        if sent < len(words):
            if stream.state.send_window < len(words) - sent:
                raise LimitExceeded("the peer does not read our answers")
            self.engine.data(stream.state, words[sent:])

    def _refuse(self, stream: Stream, problem: BridgeError) -> None:
        self.engine.reset(stream.state)
        self._fail_stream(stream, problem)

    def _fail_stream(self, stream: Stream, failure: BridgeError) -> None:
        stream.fail(failure)
        answered = self._answers.get(stream)
        if answered is not None:
            answered.set()
        self._release(stream.state)

    # --- time -------------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        self.timer.deadline = min(self.timer.deadline, self.next_timer())

    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        due = self.engine.next_timer()
        return min(due, next(iter(self._negotiating.values()), due))

    def on_timer(self, now: float) -> None:
        """Keepalive, lingering streams, and negotiations that nobody answered."""
        for stream in [one for one, until in self._negotiating.items() if until <= now]:
            self._refuse(stream, NegotiationFailed(f"no protocol was agreed within {self._timeout:g} s"))
        self.engine.on_timer(now)
