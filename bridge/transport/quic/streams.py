"""QUIC as an engine of streams: what the mux wants done, in calls of the engine, and the engine's events, told to it.

Bytes are read from the engine when there is room for them here, and the peer gets credit for these alone. It negotiates
nothing and wakes nobody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import punchbridge_quic as quic
import trio

from punchbridge.config import QuicLimits
from punchbridge.errors import LimitExceeded
from punchbridge.tasks.memory import STREAM, Account
from punchbridge.transport.quic.endpoint import Line
from punchbridge.transport.quic.state import FRAME, INBOX, QuicState, Waiting
from punchbridge.transport.quic.window import Window
from punchbridge.transport.raw import BrokenConnection, Buffer
from punchbridge.transport.streams.engine import Queue, StreamEvents

__all__ = ["QuicStreams"]

_CODE: Final = 0
"""Of resets: libp2p gives none a meaning yet."""

_PINGS: Final = 16
"""Pings that are out at once; as many as Yamux lets be."""


@dataclass
class _Queue:
    """Nothing waits for all streams together: the engine sends from each in turn, and bounds what it takes."""

    queued: int = 0
    full: int = FRAME


class QuicStreams:
    """See `streams.engine.Streams`."""

    events: StreamEvents
    frame = FRAME

    def __init__(self, line: Line, limits: QuicLimits, account: Account) -> None:
        self.states: dict[int, QuicState] = {}
        self.queue: Queue = _Queue()
        self._line, self._engine, self._number = line, line.engine, line.number
        self._account = account
        self._window = Window(line, limits, account, trio.current_time())
        self._lingering = limits.lingering
        self._waiting = Waiting()
        self._spare: int | None = None
        self._pings: set[int] = set()
        self._closing: dict[int, float] = {}
        self._unacknowledged: set[int] = set()
        self._drained = trio.Event()
        self._telling: QuicState | None = None
        self.over = False
        """The connection takes and opens no more streams."""

    # --- for the connection ---------------------------------------------------------------------------------

    def happened(self, event: quic.Event) -> None:
        """What the engine tells of streams."""
        kind, number, _, _ = event
        if kind == quic.READABLE:
            state = self.states.get(number)
            if state is not None:
                self._readable(state)
        elif kind == quic.WRITABLE:
            self._writable(number)
        elif kind == quic.OPENED:
            self._opened(number)
        elif kind == quic.STOPPED:
            self._stopped(number)
        elif kind == quic.FINISHED:
            self._acknowledged(number)
        elif kind == quic.AVAILABLE:
            self.events.may_open()
        elif kind == quic.PONG:
            self._pings.discard(number)
            self.events.pong(number, self._engine.info(self._number).rtt)

    def held(self) -> int:
        """What the account does not know by itself: bytes that wait here or in the engine, and the streams."""
        return STREAM * len(self.states) + self._waiting.bytes + self._window.held()

    async def drain(self) -> None:
        """Returns once the peer has everything of the streams whose half was ended here, or the connection is gone."""
        while self._unacknowledged or self._ending():
            await self._drained.wait()

    def _ending(self) -> bool:
        return any(state.ending for state in self.states.values())

    def end(self, *, by_peer: bool) -> None:
        """The connection is gone. What the peer had sent before it ended it is still there to be read."""
        self.over = True
        for state in self.states.values():
            if by_peer and state.more:
                self._fill(state, self._window.size + INBOX)
            state.drop_outbox()
            state.more = False
        self.states.clear()
        self._closing.clear()
        self._unacknowledged.clear()
        self._drained.set()

    # --- events ---------------------------------------------------------------------------------------------

    def _opened(self, number: int) -> None:
        state = QuicState(number, self._account, self._waiting, inbound=True, now=trio.current_time())
        self.states[number] = state
        if self.over:
            self.reset(state)
            return
        self.events.opened(state)
        self._readable(state)

    def _readable(self, state: QuicState) -> None:
        """Reads and tells, until the reader leaves something or nothing more is there."""
        before, self._telling = self._telling, state
        try:
            while self._fill(state):
                if state.reset:
                    self.events.was_reset(state)
                    self._forget(state)
                    return
                self.events.readable(state)
                if not state.more or state.buffered or state.reset:
                    break
        finally:
            self._telling = before
        if state.finished:
            self._forget(state)
        elif state.more and not state.stalled:
            state.stalled = True
            state.reserved = self._window.stalls()

    def _moves(self, state: QuicState) -> None:
        """Nothing of the stream waits in the engine."""
        if state.stalled:
            state.stalled = False
            self._window.moves(state.reserved)
            state.reserved = 0

    def _fill(self, state: QuicState, most: int = INBOX) -> bool:
        """Reads until `most` bytes are there; whether something has come: bytes, the end or a reset."""
        room = most - state.buffered
        if state.closed or state.fin_received or state.reset or self._line.gone:
            return False
        try:
            if room <= 0:
                if self._engine.take_reset(self._number, state.id) is None:
                    return False
                self._was_reset(state)
                return True
            data, state.fin_received, owed = self._engine.read(self._number, state.id, room)
        except quic.StreamReset:
            self._was_reset(state)
            return True
        except quic.NoStream:
            return False
        state.more = len(data) == room and not state.fin_received
        if not state.more:
            self._moves(state)
        if data:
            now = trio.current_time()
            state.put(data, now)
            self._window.read(len(data), now)
        if owed:
            self._line.flush()
        return bool(data) or state.fin_received

    def _was_reset(self, state: QuicState) -> None:
        """The peer's half is gone. libp2p knows no half resets, so ours goes as well."""
        state.reset = True
        state.more = False
        self._moves(state)
        if not state.fin_sent:
            self._reset_ours(state)
        state.drop_outbox()

    def _writable(self, number: int) -> None:
        state = self.states.get(number)
        if state is not None and self._write(state) and not state.fin_sent:
            self.events.writable(state)

    def _stopped(self, number: int) -> None:
        self._acknowledged(number)
        state = self.states.get(number)
        if state is None:
            return
        waited = state.ending
        state.drop_outbox()
        state.ending = False
        if waited or not state.fin_sent:
            state.fin_sent = True
            self._reset_ours(state)
            self.events.stopped(state)
        if state.finished:
            self._forget(state)

    def _acknowledged(self, number: int) -> None:
        self._unacknowledged.discard(number)
        self._note_drained()

    def _note_drained(self) -> None:
        if not self._unacknowledged and not self._ending():
            self._drained.set()
            self._drained = trio.Event()

    def _forget(self, state: QuicState) -> None:
        """Nothing of the stream is left to do here. Its unread bytes stay with whoever has it."""
        if not state.outbox:
            self.states.pop(state.id, None)
            if self._closing.pop(state.id, None) is not None:
                self._note_drained()

    # --- for the streams ------------------------------------------------------------------------------------

    @property
    def can_open(self) -> bool:
        """See Streams. The engine tells it by opening one, which is kept for the next call of `open`."""
        if self._spare is None and not self.over and not self._line.gone:
            self._spare = self._engine.open(self._number)
        return self._spare is not None and not self.over

    def open(self) -> QuicState:
        """See Streams."""
        if self.over or self._line.gone:
            raise BrokenConnection("the connection is closing")
        if not self.can_open:
            raise LimitExceeded("the peer takes no more streams on this connection")
        assert self._spare is not None
        state = QuicState(self._spare, self._account, self._waiting, inbound=False, now=trio.current_time())
        self._spare = None
        self.states[state.id] = state
        return state

    def taken(self, state: QuicState) -> None:
        """See Streams. QUIC bounds the streams that are open, so there is no backlog."""

    def data(self, state: QuicState, *parts: Buffer) -> None:
        """See Streams."""
        if state.fin_sent or state.reset:
            return
        blocked = bool(state.outbox)
        for part in parts:
            taken = 0 if blocked else self._engine_write(state, part)
            if taken < 0:
                break
            if taken < len(part):
                state.keep(memoryview(part)[taken:])
                blocked = True
        self._line.flush()

    def _engine_write(self, state: QuicState, part: Buffer) -> int:
        """How many bytes were taken; -1 when the peer takes no more, which an event tells as well."""
        try:
            return self._engine.write(self._number, state.id, part)
        except quic.QuicError:
            return -1

    def _write(self, state: QuicState) -> bool:
        """Hands the outbox to the engine; whether it is empty now."""
        while state.outbox:
            taken = self._engine_write(state, state.outbox[0])
            if taken < 0:
                state.drop_outbox()
                break
            whole = taken == len(state.outbox[0])
            if taken:
                state.left(taken)
            if not whole:
                return False
        state.send_window = FRAME
        if state.ending:
            state.ending = False
            self._finish(state)
            if state.finished:
                self._forget(state)
        return True

    def consumed(self, state: QuicState) -> None:
        """See Streams."""
        if state.more and state is not self._telling and state.buffered <= INBOX // 2 and self._fill(state):
            # Whoever took these bytes may not look again by itself, and must not be called from here.
            self._line.later(lambda: self._tell_more(state))

    def _tell_more(self, state: QuicState) -> None:
        if state.reset:
            self.events.was_reset(state)
            self._forget(state)
        elif not state.closed and not self.over:
            self.events.readable(state)
            if state.finished:
                self._forget(state)

    def finish(self, state: QuicState) -> None:
        """See Streams."""
        if state.fin_sent or state.reset:
            return
        state.fin_sent = True
        if state.outbox:
            state.ending = True
        else:
            self._finish(state)
        if state.finished:
            self._forget(state)

    def _finish(self, state: QuicState) -> None:
        try:
            self._engine.finish(self._number, state.id)
        except quic.QuicError:
            return  # stopped by the peer, or the connection is gone
        self._unacknowledged.add(state.id)
        self._line.flush()

    def close(self, state: QuicState) -> None:
        """See Streams."""
        if state.closed:
            return
        self.finish(state)
        self._stop(state)
        if state.outbox:
            self._closing[state.id] = trio.current_time() + self._lingering
        else:
            self._forget(state)

    def reset(self, state: QuicState) -> None:
        """See Streams."""
        state.drop_outbox()
        if not state.reset:
            state.reset = True
            self._reset_ours(state)
        self._stop(state)
        self._forget(state)

    def _reset_ours(self, state: QuicState) -> None:
        self._unacknowledged.discard(state.id)
        try:
            self._engine.reset(self._number, state.id, _CODE)
        except quic.QuicError:
            return
        self._line.flush()

    def _stop(self, state: QuicState) -> None:
        """Nothing of the peer is read any more."""
        if state.closed:
            return
        state.closed, state.more = True, False
        self._moves(state)
        state.drop()
        if not state.fin_received:
            state.fin_received = True
            try:
                self._engine.stop(self._number, state.id, _CODE)
            except quic.QuicError:
                return
            self._line.flush()

    def ping(self) -> int:
        """See Streams."""
        if len(self._pings) >= _PINGS:
            raise LimitExceeded(f"{_PINGS} pings are unanswered")
        if self._line.gone:
            raise BrokenConnection("the connection is gone")
        value = self._engine.ping(self._number)
        self._pings.add(value)
        self._line.flush()
        return value

    def flush(self) -> None:
        """See Streams."""
        self._line.flush()

    # --- time -----------------------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """See Streams. The engine's own times are kept by the endpoint."""
        return next(iter(self._closing.values()), math.inf)

    def on_timer(self, now: float) -> None:
        """See Streams."""
        for number in [one for one, until in self._closing.items() if until <= now]:
            state = self.states.get(number)
            if state is None:
                del self._closing[number]
            else:
                self.reset(state)
