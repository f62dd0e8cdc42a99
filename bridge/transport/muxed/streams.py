"""Yamux as an engine of streams: its session, and the sender that takes its frames.

It turns decrypted bytes into what happened to streams, and what is done to streams into frames. It negotiates nothing
and wakes nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from punchbridge.config import MuxedLimits, YamuxLimits
from punchbridge.errors import NotAllowed
from punchbridge.tasks.memory import STREAM, Account
from punchbridge.transport.muxed.sender import Sender
from punchbridge.transport.raw import BrokenConnection, Buffer
from punchbridge.transport.streams.engine import Queue, StreamEvents
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
from punchbridge.yamux.frames import MAX_FRAME_PAYLOAD

__all__ = ["YamuxStreams"]


class YamuxStreams:
    """See `streams.engine.Streams`."""

    events: StreamEvents
    frame = MAX_FRAME_PAYLOAD

    def __init__(
        self, sender: Sender, limits: MuxedLimits, yamux: YamuxLimits, account: Account, *, client: bool
    ) -> None:
        self.session = Yamux(yamux, client=client, now=trio.current_time(), account=account)
        self._settle = account.settle
        self._turn = limits.turn_frames
        self.queue: Queue = sender
        self._send = sender.send

    # --- for the connection -----------------------------------------------------------------------------

    def feed(self, plaintexts: Sequence[bytes], now: float) -> None:
        """Takes decrypted bytes and tells what they did. Raises ProtocolViolation, BrokenConnection, NotAllowed.

        After `turn_frames` frames the session is `behind`: call again, without bytes, before giving it more.
        """
        session = self.session
        if session.behind:
            plaintexts = (b"", *plaintexts)
        session.turn, session.opened = self._turn, 0
        for number, plaintext in enumerate(plaintexts):
            over = not session.turn
            for event in session.receive(b"".join(plaintexts[number:]) if over else plaintext, now):
                self._tell(event)
            if over:
                break
        self._send(session.take_outgoing())
        if not self.queue.queued:
            session.flushed()
        if self.events.openers and session.can_open:
            self.events.may_open()
        self._settle(now)

    @property
    def busy(self) -> bool:
        """Whether others have their turn before this connection goes on: it is `behind`, or has opened streams."""
        session = self.session
        return session.opened > 0 or session.behind

    def held(self) -> int:
        """What the account does not know by itself: bytes that wait to be sent, and the streams."""
        return self.queue.queued + STREAM * len(self.session.streams)

    def end(self) -> None:
        """The connection is gone."""
        self.session.end()

    def _tell(self, event: Event) -> None:
        match event:
            case Readable(state):
                self.events.readable(state)
            case Writable(state):
                self.events.writable(state)
            case Reset(state):
                self.events.was_reset(state)
            case Opened(state):
                self.events.opened(state)
            case Pong(value, rtt):
                self.events.pong(value, rtt)
            case GoneAway(code):
                if code == GoAwayCode.GATED:
                    raise NotAllowed("the peer does not let us in")
                if code != GoAwayCode.NORMAL:
                    raise BrokenConnection(f"the peer gave up the connection (GoAway {code})")
                self.events.may_open()
            case Dead():
                self.events.dead()

    def go_away(self, code: GoAwayCode) -> None:
        """No more streams."""
        self._send(self.session.go_away(code))

    # --- for the streams --------------------------------------------------------------------------------

    @property
    def can_open(self) -> bool:
        return self.session.can_open

    def open(self) -> StreamState:
        return self.session.open(trio.current_time())

    def taken(self, state: StreamState) -> None:
        self.session.take(state)

    def data(self, state: StreamState, *parts: Buffer) -> None:
        self._send(self.session.data(state, *parts))

    def consumed(self, state: StreamState) -> None:
        self._send(self.session.consumed(state, trio.current_time()))

    def finish(self, state: StreamState) -> None:
        self._send(self.session.finish(state))

    def close(self, state: StreamState) -> None:
        self._send(self.session.close(state, trio.current_time()))

    def reset(self, state: StreamState) -> None:
        self._send(self.session.reset(state))

    def ping(self) -> int:
        value, frame = self.session.ping(trio.current_time())
        self._send(frame)
        return value

    def flush(self) -> None:
        self._send(self.session.take_outgoing())

    # --- time -------------------------------------------------------------------------------------------

    def next_timer(self) -> float:
        return self.session.next_timer()

    def on_timer(self, now: float) -> None:
        for event in self.session.on_timer(now):
            self._tell(event)
        self.flush()
