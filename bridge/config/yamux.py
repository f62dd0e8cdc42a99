"""Bounds of the streams that Yamux carries over one connection, and of what keeps the connection alive.

What the specification fixes (the header, the initial window) stands beside the codec.
"""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import KIB, MIB, Bytes, Checked, Count, Seconds
from punchbridge.errors import ConfigError

__all__ = ["YamuxLimits"]

_WINDOW_MOST = 2**32 - 1
"""What a window update can say."""


@dataclass(frozen=True, kw_only=True)
class YamuxLimits(Checked):
    """Yamux: the streams of each connection, their windows, and its pings."""

    streams: Count = 1024
    """Streams of one connection, those of both sides."""

    backlog: Count = 256
    """Inbound streams not yet taken; beyond it they are reset (rust-yamux: 256)."""

    unacked: Count = 256
    """Own streams the peer has not acknowledged yet (Y7; rust resets beyond)."""

    window_most: Bytes = 16 * MIB
    """A stream's receive window never grows beyond (go: 16 MiB): 160 MB/s at 100 ms. It begins with 256 KiB."""

    window_budget: Bytes = 32 * MIB
    """What all streams of one connection may have granted above their initial windows; `limits.memory` has the bound of
    all connections together."""

    discarded: Bytes = 128 * KIB
    """Data that arrives after we closed a stream is dropped up to here, then the stream is reset."""

    linger: Seconds = 30.0
    """How long a stream we closed waits for the peer's end before it is reset."""

    refusals: Count = 1024
    """Refused streams whose reset waits for the socket; a peer that goes on is cut off."""

    opening: Count = 16
    """Frames that the one counts for that opens a stream: its protocol is agreed and its task is started, or refused,
    in the same turn (`limits.muxed.turn_frames`)."""

    pings: Count = 16
    """Own pings waiting for their answer."""

    ping_answers: Count = 64
    """Answers waiting for the socket; further pings stay unanswered until they are sent."""

    keepalive_interval: Seconds = 15.0
    """Ping on an idle connection: below the shortest common NAT time-outs, finds silent deaths."""

    keepalive_timeout: Seconds = 10.0
    """A ping unanswered for this long: the connection is dead."""

    rtt_samples: Count = 4
    """Round trips measured one after another on a fresh connection; the lowest counts for the window growth."""

    rtt_interval: Seconds = 60.0
    """A busy connection measures its round trip this often, for the window growth."""

    rtt_most: Seconds = 1.0
    """A longer round trip counts as this for the window growth: a peer that answers our pings late makes its path look
    as long as it likes. A path through a satellite takes 0.6 s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_most > _WINDOW_MOST:
            raise ConfigError(f"window_most is {self.window_most}; give at most {_WINDOW_MOST}")
        for name in ("keepalive_interval", "keepalive_timeout", "rtt_interval"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is 0, which would leave a peer no time to answer; give some seconds")
