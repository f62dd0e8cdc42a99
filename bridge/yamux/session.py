"""One Yamux connection: bytes in, events out; frames to send are returned or wait in `take_outgoing()`.

Parses and builds the frames, keeps the rules between them, GoAway and the timers. Payloads go straight into the
stream's inbox, so that a whole read of the socket costs one call. Time is an argument, in seconds of any monotonic
clock. Spec: libp2p/specs yamux; the rules Y1 to Y10 stand in docs/wire-rules.md.
"""

from __future__ import annotations

from punchbridge.config import YamuxLimits
from punchbridge.errors import ConnectionLost, ProtocolViolation
from punchbridge.tasks.memory import Account, Memory
from punchbridge.yamux.events import Dead, Event, GoneAway, Opened, Pong, Readable, Reset, Writable
from punchbridge.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    HEADER_SIZE,
    INITIAL_WINDOW,
    MAX_CREDIT,
    MAX_ID,
    PING,
    RST,
    SYN,
    VERSION,
    WINDOW_UPDATE,
    GoAwayCode,
    header,
)
from punchbridge.yamux.liveness import Liveness
from punchbridge.yamux.stream import StreamState
from punchbridge.yamux.table import StreamTable


class Yamux:
    """The session. `client` is the logical dialer after any role override: it uses odd ids (Y1). `account`: the memory
    of this connection, one of its own when None."""

    def __init__(
        self, limits: YamuxLimits = YamuxLimits(), *, client: bool, now: float, account: Account | None = None
    ) -> None:
        self.account = Memory().account("") if account is None else account
        self._table = StreamTable(limits, self.account, client=client)
        self.streams = self._table.live
        self.liveness = Liveness(limits, now)
        self.remote_gone = False
        self.local_gone = False
        self._faulted = False
        self._client = client
        self._largest_window = max(INITIAL_WINDOW, limits.window_most)
        self._discarded_most, self._refusals_most = limits.discarded, limits.refusals
        self._refusals = 0
        self._opening = limits.opening
        self.opened = 0
        """Streams that the peer has opened since somebody set this."""
        self._outgoing = bytearray()
        self._events: list[Event] = []
        self.turn = MAX_ID
        """Frames that `receive` takes before it only keeps what comes."""
        self._partial = b""
        self._body = 0
        self._body_flags = 0
        self._body_stream: StreamState | None = None

    @property
    def rtt(self) -> float | None:
        """The round trip measured last, in seconds."""
        return self.liveness.rtt

    @property
    def behind(self) -> bool:
        """Frames that came are kept for the next turn."""
        return not self.turn and bool(self._partial)

    # --- receiving --------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes any piece of the byte stream. Never blocks, never holds more than the granted windows.

        Raises ProtocolViolation with GoAway(1) left in the outgoing bytes; the connection has to end then.
        """
        try:
            self._parse(data, now)
        except ProtocolViolation:
            self._outgoing += self.go_away(GoAwayCode.PROTOCOL_ERROR)
            raise
        events, self._events = self._events, []
        return events

    def _parse(self, data: bytes, now: float) -> None:
        self.liveness.received(now)
        if self._partial:
            data = self._partial + data
            self._partial = b""
        view, position, size = memoryview(data), 0, len(data)
        while position < size:
            if self._body:
                step = min(self._body, size - position)
                stream = self._body_stream
                if stream is not None:
                    self._payload(stream, view[position : position + step], size, now)
                position += step
                self._body -= step
                if not self._body and stream is not None and self._body_flags & FIN:
                    self._fin_received(stream)
                continue
            if size - position < HEADER_SIZE or not self.turn:
                self._partial = bytes(view[position:])
                return
            self.turn -= 1
            version, kind, flags, stream_id, length = HEADER.unpack_from(data, position)
            position += HEADER_SIZE
            if version != VERSION:
                raise ProtocolViolation(f"Yamux version {version}")
            if kind == DATA:
                self._data(flags, stream_id, length, now)
            elif kind == WINDOW_UPDATE:
                self._window_update(flags, stream_id, length, now)
            elif kind == PING:
                self._ping_received(flags, stream_id, length, now)
            elif kind == GO_AWAY:
                self._go_away_received(stream_id, length)
            else:
                raise ProtocolViolation(f"Yamux frame type {kind}")

    def _data(self, flags: int, stream_id: int, length: int, now: float) -> None:
        stream = self._flags(flags, stream_id, now) if flags else self._lookup(stream_id)
        self._body, self._body_stream, self._body_flags = length, stream, flags
        if stream is None:
            # Late data of a stream that ended here, or of one just refused: no window to count against (Y2), but
            # nobody was ever granted more than the largest window.
            if length > (INITIAL_WINDOW if flags & SYN else self._largest_window):
                raise ProtocolViolation(f"a frame of {length} bytes on stream {stream_id}")
            return
        if length > stream.receive_window:
            raise ProtocolViolation(f"{length} bytes into a window of {stream.receive_window} on stream {stream_id}")
        if length and stream.fin_received:
            raise ProtocolViolation(f"data after the end of stream {stream_id}")
        stream.receive_window -= length
        if not length and flags & FIN:
            self._fin_received(stream)

    def _payload(self, stream: StreamState, payload: memoryview, whole: int, now: float) -> None:
        if stream.reset:
            return
        if stream.closed:
            stream.discarded += len(payload)
            if stream.discarded > self._discarded_most:
                self._outgoing += self.reset(stream)
            return
        if not stream.buffered:
            stream.moved = now
        stream.put(payload, whole)
        events = self._events
        if not events or type(events[-1]) is not Readable or events[-1].stream is not stream:
            events.append(Readable(stream))

    def _window_update(self, flags: int, stream_id: int, length: int, now: float) -> None:
        stream = self._flags(flags, stream_id, now) if flags else self._lookup(stream_id)
        if stream is None:
            return
        if length:
            if stream.send_window + length > MAX_CREDIT:
                raise ProtocolViolation(f"the window of stream {stream_id} overflows 32 bits")
            stream.send_window += length
            self._events.append(Writable(stream))
        if flags & FIN:
            self._fin_received(stream)

    def _lookup(self, stream_id: int) -> StreamState | None:
        stream = self.streams.get(stream_id)
        if stream is None and not stream_id:
            raise ProtocolViolation("a stream frame on id 0")
        return stream

    def _flags(self, flags: int, stream_id: int, now: float) -> StreamState | None:
        """SYN, ACK and RST in any combination, FIN being applied behind the payload (Y2)."""
        stream = self._lookup(stream_id)
        if flags & SYN:
            stream = self._syn(stream, stream_id, now)
        if stream is None:
            return None
        if flags & ACK:
            self._table.acked(stream)
        if flags & RST:
            # What came before stays readable: rust-libp2p drops its DCUtR stream right behind SYNC.
            self._table.forget(stream)
            stream.reset = True
            self._events.append(Reset(stream))
            return None
        return stream

    def _syn(self, known: StreamState | None, stream_id: int, now: float) -> StreamState | None:
        if (stream_id % 2 == 1) == self._client:
            raise ProtocolViolation(f"the peer opened stream {stream_id}, an id of ours")
        if known is not None:
            raise ProtocolViolation(f"stream {stream_id} was opened twice")
        if self.local_gone or not self._table.can_accept:
            self._refusals += 1
            if self._refusals > self._refusals_most:
                raise ProtocolViolation("the peer opens streams faster than it reads their refusals")
            self._outgoing += header(WINDOW_UPDATE, RST, stream_id, 0)
            return None
        self._make_room()
        self.turn = max(0, self.turn - self._opening)
        self.opened += 1
        stream = self._table.accept(stream_id, now)
        self._events.append(Opened(stream))
        return stream

    def _fin_received(self, stream: StreamState) -> None:
        if stream.fin_received or stream.reset:
            return
        stream.fin_received = True
        if not stream.closed:
            self._events.append(Readable(stream))
        if stream.fin_sent:
            self._table.forget(stream)

    def _ping_received(self, flags: int, stream_id: int, value: int, now: float) -> None:
        if stream_id:
            raise ProtocolViolation(f"a ping on stream {stream_id}")
        if flags & ACK:
            rtt = self.liveness.answered(value, now)
            if rtt is not None:
                self._events.append(Pong(value, rtt))
                self._outgoing += self.liveness.sample(now)
        elif flags & SYN:
            self._outgoing += self.liveness.answer(value)

    def _go_away_received(self, stream_id: int, code: int) -> None:
        if stream_id:
            raise ProtocolViolation(f"a GoAway on stream {stream_id}")
        self.remote_gone = True
        self._events.append(GoneAway(code))

    # --- sending ----------------------------------------------------------------------------------------

    def take_outgoing(self) -> bytes:
        """Frames that answer what was received. To be sent before later frames."""
        if not self._outgoing:
            return b""
        out = bytes(self._outgoing)
        self._outgoing.clear()
        return out

    def flushed(self) -> None:
        """The shell says that nothing waits for the socket: the peer may ask again."""
        self.liveness.owed = 0
        self._refusals = 0

    @property
    def can_open(self) -> bool:
        """False while as many own streams as may wait for their ACK (Y7), or the table is full."""
        return self._table.can_open

    def _make_room(self) -> None:
        """A stream that only lingers gives up its place."""
        stream = self._table.in_the_way
        if stream is not None:
            self._outgoing += self.reset(stream)

    def open(self, now: float) -> StreamState:
        """A stream of ours; SYN goes with its first frame.

        Raises ConnectionLost after a GoAway of either side, LimitExceeded when the ids are used up or when not
        `can_open`.
        """
        if self.remote_gone or self.local_gone:
            raise ConnectionLost("the connection takes no more streams")
        if self._table.can_open:
            self._make_room()
        return self._table.open(now)

    def take(self, stream: StreamState) -> None:
        """The shell has handed out this inbound stream: it leaves the backlog."""
        self._table.take(stream)

    def data(self, stream: StreamState, *parts: bytes | bytearray | memoryview) -> bytes:
        """One Data frame, its payload in parts; the caller keeps to `send_window` and MAX_FRAME_PAYLOAD."""
        size = sum(map(len, parts))
        stream.send_window -= size
        flags, stream.pending_flags = stream.pending_flags, 0
        return b"".join((HEADER.pack(VERSION, DATA, flags, stream.id, size), *parts))

    def consumed(self, stream: StreamState, now: float) -> bytes:
        """Called after bytes left the inbox: the credit to send, once half a window has been read.

        The window doubles when the stream outgrows it, up to `window_most` and the budgets.
        """
        stream.moved = now
        credit = stream.max_window - stream.buffered - stream.receive_window
        if credit * 2 < stream.max_window or stream.fin_received or stream.reset or stream.closed:
            return b""
        if stream.outgrows(credit, self.liveness.believed, now):
            credit += self._table.grow(stream)
        stream.receive_window += credit
        flags, stream.pending_flags = stream.pending_flags, 0
        return header(WINDOW_UPDATE, flags, stream.id, credit)

    def finish(self, stream: StreamState) -> bytes:
        """FIN: our half ends. Repeated calls send nothing."""
        if stream.fin_sent or stream.reset:
            return b""
        stream.fin_sent = True
        out = b""
        if stream.pending_flags & ACK:
            # py-libp2p ignores FIN in a frame that carries ACK: never combine them.
            out = header(WINDOW_UPDATE, ACK, stream.id, 0)
            stream.pending_flags = 0
        flags, stream.pending_flags = stream.pending_flags | FIN, 0
        if stream.fin_received:
            self._table.forget(stream)
        return out + header(DATA, flags, stream.id, 0)

    def close(self, stream: StreamState, now: float) -> bytes:
        """Both halves end here: FIN now. What the peer still sends is dropped, up to `discarded` bytes, for `linger`.

        More unread than that bound is a reset at once: the peer may be waiting for a window that will never come.
        """
        if stream.closed:
            return b""
        stream.closed = True
        stream.discarded = stream.buffered
        self.take(stream)
        if stream.discarded > self._discarded_most and not stream.fin_received:
            return self.reset(stream)
        out = self.finish(stream)
        stream.drop()
        self._table.linger(stream, now)
        return out

    def reset(self, stream: StreamState) -> bytes:
        """RST: both halves end at once. Repeated calls, and calls on a finished stream, send nothing."""
        if stream.reset:
            stream.drop()
            return b""
        live = self._table.forget(stream)
        stream.reset = True
        stream.drop()
        unknown = stream.pending_flags & SYN
        stream.pending_flags = 0
        return header(WINDOW_UPDATE, RST, stream.id, 0) if live and not unknown else b""

    def ping(self, now: float) -> tuple[int, bytes]:
        """An opaque value and the frame; the answer comes as Pong. Raises LimitExceeded when too many are out."""
        return self.liveness.ping(now)

    def go_away(self, code: GoAwayCode) -> bytes:
        """No more streams from now on (Y10); sent once, and once more when a fault follows a normal one."""
        if self.local_gone and (code == GoAwayCode.NORMAL or self._faulted):
            return b""
        self.local_gone = True
        self._faulted = code != GoAwayCode.NORMAL
        return header(GO_AWAY, 0, 0, code)

    def end(self) -> None:
        """The connection is gone: nothing is kept of it. Whoever has a stream reads on what it has."""
        self.streams.clear()
        self._partial, self._body, self._body_stream = b"", 0, None

    # --- time -------------------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """When `on_timer` has something to do."""
        due, lingering = self.liveness.next_timer(), self._table.next_timer()
        return due if lingering is None else min(due, lingering)

    def on_timer(self, now: float) -> list[Event]:
        """Keepalive, round trip measurement, and streams that lingered too long. Frames are left in the outgoing."""
        for stream in self._table.overdue(now):
            self._outgoing += self.reset(stream)
        if self.liveness.dead(now):
            return [Dead()]
        self._outgoing += self.liveness.probe(now)
        return []
