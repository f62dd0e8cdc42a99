"""Two QUIC engines in memory, and a network between them that loses, delays, repeats and moves, by a virtual clock.

Whoever imports it has made sure that the engine is built (`pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)`).
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any, Final

import punchbridge_quic as quic

from punchbridge.identity import Identity
from punchbridge.wire.tls_credentials import Credentials, make_credentials

SETTINGS: Final[dict[str, Any]] = {
    "streams": 8,
    "first_streams": 8,
    "stream_window": 65536,
    "window": 98304,
    "unsent": 16384,
    "idle": 30.0,
    "keepalive": 10.0,
    "first_mtu": 1200,
    "largest_mtu": 1452,
    "congestion": "cubic",
    "first_window": 0,
    "largest_window": 0,
    "acknowledge_every": 0,
    "handshake_bytes": 16384,
    "attempts": 16,
    "attempt_bytes": 65536,
    "reset_pause": 0.02,
    "retry_lifetime": 15.0,
    "first_round_trip": 0.1,
}
"""Small windows, so that a test fills them."""

DIALLER, ACCEPTER = "192.0.2.1", "192.0.2.2"
PORT: Final = 4001


@cache
def credentials(number: int) -> tuple[Identity, Credentials]:
    """One identity and its certificate for each number."""
    identity = Identity.generate()
    return identity, make_credentials(identity, datetime(2026, 7, 1, tzinfo=UTC))


def engine(number: int, **changes: Any) -> quic.Engine:
    """The engine of one side. What it does follows from the number, but for what TLS draws."""
    shown, settings = credentials(number)[1], quic.Settings(**{**SETTINGS, **changes})
    return quic.Engine(shown.certificate, shown.key, settings, bytes((number,)) * 32, bytes((number,)) * 32)


@dataclass(eq=False)
class Side:
    """One end: its engine, where it is, and what it was told."""

    engine: quic.Engine
    host: str
    connection: int | None = None
    events: list[quic.Event] = field(default_factory=list)
    kinds: dict[int, list[quic.Event]] = field(default_factory=lambda: defaultdict(list))
    got: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    """What was read, by stream."""
    ended: set[int] = field(default_factory=set)
    reads: bool = True
    """Whether it reads whatever comes at once."""

    def read(self, stream: int, most: int = 1 << 30) -> None:
        """Takes what has come on a stream."""
        assert self.connection is not None
        if stream not in self.ended:
            data, end, _ = self.engine.read(self.connection, stream, most)
            self.got[stream] += data
            if end:
                self.ended.add(stream)


@dataclass
class Fate:
    """What becomes of datagrams: the shares that are lost and repeated, and the most that one is late, in seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0


class Pair:
    """A side that dials and one that accepts, 20 ms apart."""

    def __init__(self, fate: Fate | None = None, seed: int = 0, **changes: Any) -> None:
        self.dialler = Side(engine(1, **changes), DIALLER)
        self.accepter = Side(engine(2, **changes), ACCEPTER)
        self.sides = (self.dialler, self.accepter)
        self.fate = fate or Fate()
        self.now = 1.0
        self.sent = self.received = 0
        self.bytes_to: dict[str, int] = defaultdict(int)
        self.accept: Callable[[quic.Attempt], None] = self._accept
        self._random = Random(seed)
        self._air: list[tuple[float, int, str, str, bytes]] = []
        self._numbers = itertools.count()

    # --- what a test does -----------------------------------------------------------------------------------

    def connect(self) -> Pair:
        """Shakes hands. Fails when that takes half a minute."""
        self.dialler.connection = self.dialler.engine.connect(ACCEPTER, PORT, self.now)
        self.run(30, until=lambda: all(side.kinds[quic.CONNECTED] for side in self.sides))
        assert all(side.kinds[quic.CONNECTED] for side in self.sides)
        return self

    def write(self, side: Side, stream: int, data: bytes) -> int:
        """How many of the bytes were taken."""
        assert side.connection is not None
        return side.engine.write(side.connection, stream, data)

    def open(self, side: Side) -> int | None:
        assert side.connection is not None
        return side.engine.open(side.connection)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Lets virtual time pass."""
        end = self.now + seconds
        self.poll()
        while not until() and self.now < end:
            due = [self._air[0][0]] if self._air else []
            for side in self.sides:
                if side.connection is not None and (timer := side.engine.timer(side.connection)) is not None:
                    due.append(timer)
            self.now = min([end, *(max(one, self.now) for one in due)])
            self._deliver()
            for side in self.sides:
                if side.connection is not None:
                    timer = side.engine.timer(side.connection)
                    if timer is not None and timer <= self.now:
                        side.engine.on_timer(side.connection, self.now)
            self.poll()

    def poll(self) -> None:
        """Takes events and sends what is to be sent, on both sides."""
        for side in self.sides:
            self.take_events(side)
            self.transmit(side)

    def take_events(self, side: Side) -> None:
        if side.connection is None:
            return
        for event in side.engine.events(side.connection):
            side.events.append(event)
            side.kinds[event[0]].append(event)
            if event[0] in (quic.OPENED, quic.READABLE) and side.reads:
                side.read(event[1])
            if event[0] == quic.GONE:
                side.connection = None
                return

    def transmit(self, side: Side, most: int = 64) -> None:
        for packet in side.engine.replies():
            self._send(side, packet)
        while side.connection is not None and (made := side.engine.transmit(side.connection, most, self.now)):
            self._send(side, made)

    def still_works(self) -> None:
        """Fails when a stream of the dialler carries nothing any more, or either side was told of an end."""
        stream = self.open(self.dialler)
        assert stream is not None
        assert self.write(self.dialler, stream, b"still here") == 10
        self.run(5, until=lambda: bool(self.accepter.got[stream]))
        assert bytes(self.accepter.got[stream]) == b"still here"
        assert not any(side.kinds[quic.LOST] for side in self.sides)

    # --- the network ----------------------------------------------------------------------------------------

    def _accept(self, attempt: quic.Attempt) -> None:
        with suppress(quic.HandshakeFailed):
            made = self.accepter.engine.accept(attempt[0], self.now)
            if self.accepter.connection is None:
                self.accepter.connection = made

    def _send(self, side: Side, packet: quic.Packet) -> None:
        data, segment, host, port, _, _ = packet
        assert port == PORT
        for start in range(0, len(data), segment or len(data)):
            self.put(data[start : start + (segment or len(data))], side.host, host)

    def put(self, datagram: bytes, source: str, to: str) -> None:
        """One datagram on its way."""
        self.sent += 1
        fate = self.fate
        copies = (self._random.random() >= fate.loss) + (self._random.random() < fate.repeat)
        for _ in range(copies):
            due = self.now + 0.02 + self._random.random() * fate.late
            heapq.heappush(self._air, (due, next(self._numbers), source, to, datagram))

    def _deliver(self) -> None:
        while self._air and self._air[0][0] <= self.now:
            _, _, source, to, datagram = heapq.heappop(self._air)
            self.bytes_to[to] += len(datagram)
            for side in self.sides:
                if side.host == to:  # an address that was left has nobody
                    self.received += 1
                    side.engine.receive(datagram, 0, source, PORT, None, 0, self.now)
                    for attempt in side.engine.attempts():
                        self.accept(attempt)
