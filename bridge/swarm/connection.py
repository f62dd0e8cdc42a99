"""One secured, muxed connection: the I/O shell of a Noise cipher pair and a Yamux session.

Read, decrypt, feed, act; encrypt and send in the caller's task while the socket takes it, by the writer task when it
does not. Negotiates streams. Knows no table of peers, no dialling, and no meaning of a protocol.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import trio

from bridge.addresses import Multiaddr
from bridge.errors import BridgeError, ConnectionLost, LimitExceeded, NegotiationFailed, RemoteError
from bridge.identity import PeerId, peer_text
from bridge.limits import CLOSE_FLUSH, MAX_NOISE_PLAINTEXT, NEGOTIATE_TIMEOUT, RECEIVE_SIZE, SEND_QUEUE, SEND_QUEUE_HARD
from bridge.net.raw import BrokenConnection, BrokenStream
from bridge.protocol.multistream import Initiator, Responder
from bridge.protocol.noise import Opener, Sealer
from bridge.protocol.yamux import (
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
from bridge.swarm.link import Link
from bridge.swarm.stream import Stream

_LOST = (OSError, BridgeError, trio.BrokenResourceError, trio.ClosedResourceError)
_ids = itertools.count(1)

OnStream = Callable[[Stream, str], None]
Supported = Callable[[], Collection[str]]


class Connection:
    """A connection to one authenticated peer. Made by `upgrade`; works while `run` runs."""

    def __init__(
        self,
        link: Link,
        *,
        peer: PeerId,
        role: Literal["initiator", "responder"],
        sealer: Sealer,
        opener: Opener,
        early: bytes = b"",
    ) -> None:
        self.id = next(_ids)
        self.peer = peer
        self.link = link
        self.role = role
        self.opened_at = trio.current_time()
        self.identify: Any | None = None
        self.identified = trio.Event()
        self.closed = trio.Event()
        self.close_reason = ""
        self.bytes_sent = 0
        self.bytes_received = 0
        self.queued = 0
        self.blocked: OrderedDict[int, Stream] = OrderedDict()
        self._yamux = Yamux(client=role == "initiator", now=self.opened_at)
        self._sealer, self._opener, self._early = sealer, opener, early
        self._queue: deque[bytes] = deque()
        self._unsent = memoryview(b"")
        self._kick = trio.Event()
        self._flushed = trio.Event()
        self._streams: dict[int, Stream] = {}
        self._negotiating: dict[Stream, float] = {}
        self._answers: dict[Stream, trio.Event] = {}
        self._openers = trio.lowlevel.ParkingLot()
        self._pings: dict[int, trio.Event] = {}
        self._on_stream: OnStream | None = None
        self._supported: Supported = tuple
        self._timer = trio.CancelScope()
        self._scope: trio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.role} {self.path} {peer_text(self.peer)} {self.remote}>"

    @property
    def path(self) -> Literal["direct", "relay"]:
        return self.link.path

    @property
    def local(self) -> Multiaddr:
        return self.link.local

    @property
    def remote(self) -> Multiaddr:
        return self.link.remote

    @property
    def inbound(self) -> bool:
        return self.link.inbound

    @property
    def relay(self) -> PeerId | None:
        return self.link.relay

    @property
    def rtt(self) -> float | None:
        """The round trip measured last by a Yamux ping, in seconds."""
        return self._yamux.rtt

    @property
    def streams(self) -> int:
        """Streams that have not ended on both sides."""
        return len(self._yamux.streams)

    # --- for the swarm ----------------------------------------------------------------------------------

    async def run(
        self,
        on_stream: OnStream,
        supported: Supported,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves the connection until it is closed; never raises for the peer's faults (see `close_reason`).

        `on_stream` is called for each inbound stream once its protocol, one of `supported()`, is agreed. Cancelling
        aborts the connection.
        """
        self._on_stream, self._supported = on_stream, supported
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self.closed.is_set():
                    nursery.cancel_scope.cancel()
                nursery.start_soon(self._write_loop)
                nursery.start_soon(self._timer_loop)
                task_status.started()
                self._send(self._yamux.ping(trio.current_time())[1])
                await self._read_loop()
                nursery.cancel_scope.cancel()
        finally:
            self.abort("CANCELLED")

    async def open_stream(self, protocols: Sequence[str], *, lazy: bool = False) -> Stream:
        """Opens a stream and agrees on the first of `protocols` that the peer supports, in one round trip.

        With `lazy`, and one protocol only, returns at once: the proposal leaves together with the first data, and a
        refusal surfaces as NegotiationFailed on the first read. Waits while 256 own streams await their ACK. Raises
        NegotiationFailed (none supported, or no answer in NEGOTIATE_TIMEOUT), ConnectionLost, StreamReset. Cancelling
        resets the stream.
        """
        if lazy and len(protocols) != 1:
            raise ValueError("a stream can be opened lazily with one protocol only")
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.closed.is_set() and not self._yamux.remote_gone and not self._yamux.can_open:
            await self._openers.park()
        self._check_alive()
        negotiation = Initiator(protocols)
        stream = Stream(self, self._yamux.open(trio.current_time()), negotiation)
        self._streams[stream.id] = stream
        self._watch(stream)
        stream.send_nowait(negotiation.start())
        if lazy:
            stream.protocol = protocols[0]
            await trio.lowlevel.cancel_shielded_checkpoint()
            return stream
        answered = self._answers[stream] = trio.Event()
        try:
            await answered.wait()
            if stream.failure is not None:
                raise stream.failure
        except BaseException:
            stream.abort()
            raise
        finally:
            self._answers.pop(stream, None)
        return stream

    async def ping(self) -> float:
        """One Yamux ping; the round trip in seconds. Raises ConnectionLost, LimitExceeded. No deadline of its own."""
        self._check_alive()
        value, frame = self._yamux.ping(trio.current_time())
        answered = self._pings[value] = trio.Event()
        try:
            self._send(frame)
            await answered.wait()
        finally:
            self._pings.pop(value, None)
        self._check_alive()
        return self._yamux.rtt or 0.0

    async def aclose(self, reason: str = "NORMAL") -> None:
        """GoAway(0), what is queued leaves (at most CLOSE_FLUSH seconds), then the stream below is closed.

        Streams still open end with ConnectionLost. Cancelling closes at once.
        """
        if self.closed.is_set():
            await trio.lowlevel.checkpoint()
            return
        try:
            self._send(self._yamux.go_away(GoAwayCode.NORMAL))
            with trio.move_on_after(CLOSE_FLUSH):
                while self.queued and self._scope is not None and not self.closed.is_set():
                    await self._flushed.wait()
                await self.link.raw.send_eof()
        except _LOST:
            pass
        finally:
            self.abort(reason)

    def abort(self, reason: str) -> None:
        """Closes at once and ends every stream with ConnectionLost. The first reason stays."""
        if self.closed.is_set():
            return
        self.close_reason = reason
        self.closed.set()
        self.identified.set()
        lost = BrokenConnection(f"the connection to {peer_text(self.peer)} is gone ({reason})")
        streams, self._streams = tuple(self._streams.values()), {}
        for stream in streams:
            stream.fail(lost)
        for answered in (*self._answers.values(), *self._pings.values()):
            answered.set()
        self._negotiating.clear()
        self._openers.unpark_all()
        self._flushed.set()
        self._queue.clear()
        self._unsent = memoryview(b"")
        self.link.raw.abort()
        if self._scope is not None:
            self._scope.cancel()

    def _check_alive(self) -> None:
        if self.closed.is_set():
            raise BrokenConnection(f"the connection to {peer_text(self.peer)} is gone ({self.close_reason})")
        if self._yamux.remote_gone:
            raise ConnectionLost(f"{peer_text(self.peer)} is closing the connection")

    # --- for its streams --------------------------------------------------------------------------------

    def write_data(self, state: StreamState, payload: memoryview) -> None:
        """One Data frame, within the window and MAX_FRAME_PAYLOAD."""
        self._send(self._yamux.data(state, payload))

    def consumed(self, state: StreamState) -> None:
        """Bytes left the stream's inbox: credit goes back once it is worth a frame."""
        self._send(self._yamux.consumed(state, trio.current_time()))

    def finish(self, state: StreamState) -> None:
        """FIN."""
        self._send(self._yamux.finish(state))
        self._ended(state)

    def close_stream(self, state: StreamState) -> None:
        """FIN, and nothing more is read."""
        self._send(self._yamux.close(state, trio.current_time()))
        self._ended(state, detached=True)
        self._rearm()

    def reset_stream(self, state: StreamState) -> None:
        """RST."""
        self._send(self._yamux.reset(state))
        self._ended(state, detached=True)

    def _ended(self, state: StreamState, *, detached: bool = False) -> None:
        """Forgets the user's end of a stream that needs no more wake-ups; lets waiting opens go on."""
        if detached or state.finished:
            stream = self._streams.pop(state.id, None)
            if stream is not None and (detached or state.reset):
                self._negotiating.pop(stream, None)
        if self._openers and self._yamux.can_open:
            self._openers.unpark()

    # --- sending ----------------------------------------------------------------------------------------

    def _send(self, frames: bytes) -> None:
        """Encrypts and sends at once when nothing waits; queues otherwise. A dead socket aborts the connection."""
        if not frames or self.closed.is_set():
            return
        if self.queued:
            self._queue.append(frames)
            self.queued += len(frames)
            if self.queued > SEND_QUEUE_HARD:
                self.abort("PEER_NOT_READING")
            return
        try:
            message = self._sealer.seal(frames)
            sent = self.link.raw.send_nowait(message)
        except _LOST as problem:
            self._lost(problem)
            return
        self.bytes_sent += sent
        if sent < len(message):
            self._unsent = memoryview(message)[sent:]
            self.queued = len(self._unsent)
            self._flushed = trio.Event()
            self._kick.set()

    async def _write_loop(self) -> None:
        """Drains the queue whenever the socket would block. Small frames share one Noise message."""
        try:
            while True:
                if not self.queued:
                    self._yamux.flushed()
                    self._flushed.set()
                    self._kick = trio.Event()
                    await self._kick.wait()
                unsent = self._unsent or memoryview(self._sealer.seal(self._gather()))
                await self.link.raw.send_all(unsent)
                self.bytes_sent += len(unsent)
                self._unsent = memoryview(b"")
                self.queued = sum(map(len, self._queue))
                if self.queued <= SEND_QUEUE // 2 and self.blocked:
                    for stream in tuple(self.blocked.values()):
                        stream.wake_writer()
        except _LOST as problem:
            self._lost(problem)

    def _gather(self) -> bytes:
        queue = self._queue
        frames = [queue.popleft()]
        size = len(frames[0])
        while queue and size + len(queue[0]) <= MAX_NOISE_PLAINTEXT:
            size += len(queue[0])
            frames.append(queue.popleft())
        return b"".join(frames)

    # --- receiving --------------------------------------------------------------------------------------

    async def _read_loop(self) -> None:
        raw, opener, yamux = self.link.raw, self._opener, self._yamux
        try:
            self._feed([self._early] if self._early else [], trio.current_time())
            data = b""  # the first round opens what arrived with the handshake
            while not self.closed.is_set():
                self._feed(opener.receive(data), trio.current_time())
                data = await raw.receive_some(RECEIVE_SIZE)
                if not data:
                    self.abort("CLOSED_BY_PEER" if yamux.remote_gone or not yamux.streams else "CONNECTION_LOST")
                    return
                self.bytes_received += len(data)
        except _LOST as problem:
            self._send(yamux.take_outgoing())
            self._lost(problem)

    def _feed(self, plaintexts: list[bytes], now: float) -> None:
        yamux = self._yamux
        for plaintext in plaintexts:
            for event in yamux.receive(plaintext, now):
                self._act(event)
        self._send(yamux.take_outgoing())
        if self._openers and yamux.can_open:
            self._openers.unpark_all()

    def _lost(self, problem: BaseException) -> None:
        if isinstance(problem, RemoteError) and not isinstance(problem, BrokenStream | BrokenConnection):
            self.abort(problem.code)
        else:
            self.abort("CONNECTION_LOST")

    def _act(self, event: Event) -> None:
        if isinstance(event, Readable | Writable | Reset):
            stream = self._streams.get(event.stream.id)
            if stream is None:
                return
            if isinstance(event, Readable):
                if stream.negotiation is not None:
                    self._negotiate(stream)
                if stream.negotiation is None:
                    stream.wake_reader()
                if event.stream.finished:
                    self._ended(event.stream)
            elif isinstance(event, Writable):
                stream.wake_writer()
            else:
                self._fail_stream(stream, BrokenStream("the peer reset the stream"))
        elif isinstance(event, Opened):
            stream = Stream(self, event.stream, Responder(self._supported))
            self._streams[stream.id] = stream
            self._watch(stream)
        elif isinstance(event, Pong):
            answered = self._pings.get(event.value)
            if answered is not None:
                answered.set()
        elif isinstance(event, GoneAway):
            if event.code != GoAwayCode.NORMAL:
                raise BrokenConnection(f"the peer gave up the connection (GoAway {event.code})")
            self._openers.unpark_all()
        elif isinstance(event, Dead):
            self.abort("KEEPALIVE_TIMEOUT")

    # --- negotiation of streams -------------------------------------------------------------------------

    def _watch(self, stream: Stream) -> None:
        self._negotiating[stream] = trio.current_time() + NEGOTIATE_TIMEOUT
        self._rearm()

    def _negotiate(self, stream: Stream) -> None:
        """Feeds what arrived to the stream's negotiation; bytes behind it become readable."""
        negotiation, state = stream.negotiation, stream.state
        assert negotiation is not None
        try:
            reply = negotiation.receive(state.take(state.buffered)) if state.buffered else b""
            self.consumed(state)
            if reply and stream.send_nowait(reply) < len(reply):
                raise LimitExceeded("the peer does not read our answers")
            if negotiation.protocol is None:
                if state.fin_received:
                    raise NegotiationFailed("the peer ended the stream before a protocol was agreed")
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
        self._yamux.take(state)
        if stream.inbound:
            assert self._on_stream is not None
            self._on_stream(stream, negotiation.protocol)
        elif stream in self._answers:
            self._answers[stream].set()

    def _refuse(self, stream: Stream, problem: BridgeError) -> None:
        self._send(self._yamux.reset(stream.state))
        self._fail_stream(stream, problem)

    def _fail_stream(self, stream: Stream, failure: BridgeError) -> None:
        stream.fail(failure)
        answered = self._answers.get(stream)
        if answered is not None:
            answered.set()
        self._ended(stream.state, detached=True)

    # --- time -------------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        self._timer.deadline = min(self._timer.deadline, self._next_timer())

    def _next_timer(self) -> float:
        due = self._yamux.next_timer()
        return min(due, next(iter(self._negotiating.values()), due))

    async def _timer_loop(self) -> None:
        """One timer for keepalive, lingering streams and unfinished negotiations."""
        while True:
            with trio.CancelScope(deadline=self._next_timer()) as self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            for stream in [one for one, until in self._negotiating.items() if until <= now]:
                self._refuse(stream, NegotiationFailed(f"no protocol was agreed within {NEGOTIATE_TIMEOUT:g} s"))
            for event in self._yamux.on_timer(now):
                self._act(event)
            self._send(self._yamux.take_outgoing())
