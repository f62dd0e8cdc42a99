"""What a Yamux session reports to its shell. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.yamux.stream import StreamState


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream. It counts against the backlog until `taken`."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class Readable:
    """The stream has more bytes, or its end."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class Writable:
    """The stream's send window grew."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream was reset, by the peer or by a rule. What came before it may still be read."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class Pong:
    """Our ping `value` was answered after `rtt` seconds."""

    value: int
    rtt: float


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer opens and accepts no more streams; with a code other than 0 it gave up the connection."""

    code: int


@dataclass(frozen=True, slots=True)
class Dead:
    """Nothing arrived for `keepalive_timeout` after a ping."""


Event = Opened | Readable | Writable | Reset | Pong | GoneAway | Dead
