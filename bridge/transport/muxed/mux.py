"""The streams of one connection: a Yamux session, the sender below it, and the tasks that wait on streams.

Turns session events into wake-ups and negotiates the protocol of each stream. Reads no socket and starts no task; the
connection feeds it and arms its timer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from punchbridge.errors import BridgeError, LimitExceeded, NegotiationFailed
from punchbridge.limits.swarm import NEGOTIATE_TIMEOUT, TURN_FRAMES
from punchbridge.transport.muxed.sender import Sender
from punchbridge.transport.muxed.stream import Stream
from punchbridge.transport.raw import BrokenConnection, BrokenStream, Buffer
from punchbridge.wire.multistream import Initiator, Responder
from punchbridge.yamux import (
    Dead,
    Event,
    GoAwayCode,
    GoneAway,
    Opened,
    Pong,
    Readable,
    Reset,
    StreamState,
    Writable,
    Yamux,
)

if TYPE_CHECKING:
    from punchbridge.transport.muxed.connection import Connection

OnStream = Callable[[Stream, str], None]
Supported = Callable[[], Collection[str]]


@dataclass
class _PingWait:
    answered: trio.Event
    rtt: float | None = None


class Mux:
    """The stream side of a connection. `blocked` holds the streams whose writer waits, in the order they began to."""

    def __init__(self, connection: Connection, sender: Sender, *, client: bool) -> None:
        self.session = Yamux(client=client, now=trio.current_time())
        self.sender = sender
        self.blocked: dict[int, Stream] = {}
        self.on_stream: OnStream | None = None
        self.supported: Supported = tuple
        self.timer = trio.CancelScope()
        self._connection = connection
        self._send = sender.send
        self._streams: dict[int, Stream] = {}
        self._negotiating: dict[Stream, float] = {}
        self._answers: dict[Stream, trio.Event] = {}
        self._openers = trio.lowlevel.ParkingLot()
        self._pings: dict[int, _PingWait] = {}

    # --- for the connection -----------------------------------------------------------------------------

    def feed(self, plaintexts: Sequence[bytes], now: float) -> None:
        """Takes decrypted bytes and wakes whoever waits for them. Raises ProtocolViolation, BrokenConnection.

        After TURN_FRAMES frames the session is `behind`: call again, without bytes, before giving it more.
        """
        session = self.session
        if session.behind:
            plaintexts = (b"", *plaintexts)
        session.turn = TURN_FRAMES
        for number, plaintext in enumerate(plaintexts):
            over = not session.turn
            for event in session.receive(b"".join(plaintexts[number:]) if over else plaintext, now):
                self._act(event)
            if over:
                break
        self._send(session.take_outgoing())
        if not self.sender.queued:
            session.flushed()
        if self._openers and session.can_open:
            self._openers.unpark_all()

    async def open(self, protocols: Sequence[str], *, lazy: bool) -> Stream:
        """See Connection.open_stream."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._connection.closing and not self.session.can_open:
            await self._openers.park()
        self._connection.check_alive()
        negotiation = Initiator(protocols)
        stream = Stream(self._connection, self, self.session.open(trio.current_time()), negotiation)
        self._adopt(stream)
        answered = self._answers[stream] = trio.Event()  # before the first write, which may end the connection
        try:
            self._send(self.session.take_outgoing())
            self._say(stream, negotiation.start())
            if lazy:
                stream.protocol = protocols[0]
                await trio.lowlevel.cancel_shielded_checkpoint()
                return stream
            await answered.wait()
            if stream.failure is not None:
                raise stream.fresh_failure()
        except BaseException:
            stream.abort()
            raise
        finally:
            self._answers.pop(stream, None)
        return stream

    async def ping(self) -> float | None:
        """The round trip in seconds; None when the connection ended first. Raises LimitExceeded."""
        value, frame = self.session.ping(trio.current_time())
        wait = self._pings[value] = _PingWait(trio.Event())
        try:
            self._send(frame)
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
        self._openers.unpark_all()

    def wake_writers(self) -> None:
        """The queue has room again."""
        for stream in tuple(self.blocked.values()):
            stream.wake_writer()

    # --- for the streams --------------------------------------------------------------------------------

    def write_data(self, state: StreamState, *parts: Buffer) -> None:
        """One Data frame, its payload in parts, within the window and MAX_FRAME_PAYLOAD."""
        self._send(self.session.data(state, *parts))

    def consumed(self, state: StreamState) -> None:
        """Bytes left the stream's inbox: credit goes back once it is worth a frame."""
        self._send(self.session.consumed(state, trio.current_time()))

    def finish(self, state: StreamState) -> None:
        """FIN."""
        self._send(self.session.finish(state))
        if state.finished:
            self._release(state)

    def close(self, state: StreamState) -> None:
        """FIN, and nothing more is read."""
        self._send(self.session.close(state, trio.current_time()))
        self._release(state)
        self._rearm()

    def reset(self, state: StreamState) -> None:
        """RST."""
        self._send(self.session.reset(state))
        self._release(state)

    def _release(self, state: StreamState) -> None:
        """No event will concern the stream any more; a waiting open may take its place."""
        stream = self._streams.pop(state.id, None)
        if stream is not None:
            self._negotiating.pop(stream, None)
        if self._openers and self.session.can_open:
            self._openers.unpark()

    # --- events -----------------------------------------------------------------------------------------

    def _act(self, event: Event) -> None:
        match event:
            case Readable(state):
                self._readable(state)
            case Writable(state):
                stream = self._streams.get(state.id)
                if stream is not None:
                    stream.wake_writer()
            case Reset(state):
                stream = self._streams.get(state.id)
                if stream is not None:
                    self._fail_stream(stream, BrokenStream("the peer reset the stream"))
            case Opened(state):
                # Not once an answer to an earlier frame has ended the connection: nobody would end the stream.
                if not self._connection.closed.is_set():
                    self._adopt(Stream(self._connection, self, state, Responder(self.supported)))
            case Pong(value, rtt):
                wait = self._pings.get(value)
                if wait is not None:
                    wait.rtt = rtt
                    wait.answered.set()
            case GoneAway(code):
                if code != GoAwayCode.NORMAL:
                    raise BrokenConnection(f"the peer gave up the connection (GoAway {code})")
                self._openers.unpark_all()
            case Dead():
                self._connection.abort("KEEPALIVE_TIMEOUT")

    def _readable(self, state: StreamState) -> None:
        stream = self._streams.get(state.id)
        if stream is None:
            return
        # An inbound stream that was reset already is nobody's; of our own, what came before the reset is read first.
        if stream.negotiation is not None and not (state.reset and stream.inbound):
            self._negotiate(stream)
        if stream.negotiation is None:
            stream.wake_reader()
            if state.finished and not state.reset:  # a reset has its own event, still to come
                self._release(state)

    def _adopt(self, stream: Stream) -> None:
        self._streams[stream.id] = stream
        self._negotiating[stream] = trio.current_time() + NEGOTIATE_TIMEOUT
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
                    self.consumed(state)
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
        self.session.take(state)
        if stream.inbound:
            assert self.on_stream is not None
            self.on_stream(stream, negotiation.protocol)
        elif stream in self._answers:
            self._answers[stream].set()

    def _say(self, stream: Stream, words: bytes) -> None:
        """Negotiation goes behind a full queue too: bulk of other streams must not keep this one from being opened.

        SEND_QUEUE_HARD bounds what a peer that does not read can make us queue.
        """
        sent = stream.send_nowait(words)
        if sent < len(words):
            if stream.state.send_window < len(words) - sent:
                raise LimitExceeded("the peer does not read our answers")
            self.write_data(stream.state, words[sent:])

    def _refuse(self, stream: Stream, problem: BridgeError) -> None:
        self._send(self.session.reset(stream.state))
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
        due = self.session.next_timer()
        return min(due, next(iter(self._negotiating.values()), due))

    def on_timer(self, now: float) -> None:
        """Keepalive, lingering streams, and negotiations that nobody answered."""
        for stream in [one for one, until in self._negotiating.items() if until <= now]:
            self._refuse(stream, NegotiationFailed(f"no protocol was agreed within {NEGOTIATE_TIMEOUT:g} s"))
        for event in self.session.on_timer(now):
            self._act(event)
        self._send(self.session.take_outgoing())
