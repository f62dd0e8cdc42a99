"""Bounds of QUIC: what its connections and streams may hold, its datagrams, and its handshakes."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import KIB, MIB, Bytes, Checked, Count, Seconds
from punchbridge.errors import ConfigError

__all__ = ["QuicLimits"]

_MTU_LEAST, _MTU_MOST = 1200, 65527
"""What a path has to take (RFC 9000 section 14), and what a UDP datagram can hold."""


@dataclass(frozen=True, kw_only=True)
class QuicLimits(Checked):
    """Connections over QUIC, and the UDP sockets below them."""

    handshake_timeout: Seconds = 10.0
    """One handshake: two round trips, lost packets, and a Retry. As `limits.muxed.upgrade_timeout`."""

    retry_above: Count = 128
    """With so many handshakes of others under way, a newcomer has to show first that it receives at its address. That
    costs it a round trip, and us nothing until it has. So it has to when half of what `limits.swarm` has for newcomers
    is taken, in all or around its address."""

    attempts: Count = 64
    """Newcomers of one read of the socket; further ones have to ask again."""

    attempt_bytes: Bytes = 16 * KIB
    """Bytes kept of one of them, beyond its first datagram, until it is decided on."""

    streams: Count = 256
    """Streams that the peer may have open on one connection (go: 256)."""

    streams_first: Count = 6
    """As many at first, and four times as many when half of those that are allowed are open. The engine has a place for
    each that is allowed: with 256 from the start, an idle connection takes more than twice the memory."""

    stream_window: Bytes = 4 * MIB
    """Unread bytes of one stream: 40 MB/s at 100 ms. The engine has no window of a stream that grows."""

    window_first: Bytes = MIB
    """Unread bytes of one connection at first: 25 MB/s at 40 ms. It doubles while the reader keeps up."""

    window: Bytes = 16 * MIB
    """Unread bytes of one connection at most (go: 15 MiB). What is above the first figure counts for `limits.memory`,
    and so does the room for streams that nobody reads, which leave the others theirs."""

    unsent: Bytes = 256 * KIB
    """Bytes of a connection that wait, beyond what may be on the way. As `limits.tcp.unsent`."""

    lingering: Seconds = 30.0
    """A stream that was closed here, and whose last bytes the peer does not take for so long, is reset."""

    idle: Seconds = 30.0
    """Silence that ends a connection (go, rust and RFC 9308 section 3.2: 30 s)."""

    keepalive: Seconds = 15.0
    """Silence after which a packet is sent (go: 15 s). A NAT keeps a UDP mapping for 30 s, often no longer, and only
    packets from behind it keep it everywhere; so both ends send."""

    first_round_trip: Seconds = 0.1
    """The round trip to a peer that came to us, where none was measured: at first (go: 0.1 s), and when it is seen at
    another IP. With the 0.333 s of RFC 9002 section 6.2.2 what was lost on the way there is sent again so late that a
    session has left for the relay. Our own dials have those 0.333 s: nobody may be there."""

    moved_after: Seconds = 3.5
    """A peer that sends from another address has moved there when that has held for so long, and for twelve round
    trips. The engine goes back to the old address when nobody answers at the new one within three probe timeouts, at
    another IP about 1 s or three of the old path's: with less, an address may count that somebody else wrote on a
    datagram."""

    moved_most: Seconds = 60.0
    """A peer that has gone to another IP and not stayed anywhere for so long has its connection closed (reason
    MOVES). Until then it is judged by the address that it has left."""

    first_mtu: Count = 1200
    """Bytes of a datagram at first: what every path of QUIC takes."""

    largest_mtu: Count = 1452
    """Bytes of the largest datagram that is tried: an Ethernet frame over IPv6."""

    congestion: str = "bbr"
    """The controller: `cubic`, `new-reno` or `bbr`. At a round trip of 40 ms two engines in memory carried 34 MB/s with
    cubic and 28 with bbr; with one packet in a thousand lost, 3 and 21; with one in a hundred, 0.4 and 17."""

    in_flight: Bytes = 4 * MIB
    """Bytes on the way at most: 100 MB/s at 40 ms. `bbr` grows on as long as more arrives, and would fill the sockets
    of two programs on one machine until they drop a third of what is sent."""

    close_timeout: Seconds = 2.0
    """How long closing waits for what was written to streams that were ended. As `limits.muxed.close_timeout`."""

    buffers: Bytes = 4 * MIB
    """The kernel's buffers of one socket; it gives no more than `net.core.rmem_max` and `wmem_max`."""

    reads: Count = 16
    """Reads of the socket before what they brought is acted on. Each brings up to 64 KiB; a datagram counts for 1 KiB
    at least, since a small one takes as long as that."""

    waiting: Bytes = 4 * MIB
    """What was read from one socket and is not handled yet, counted like that. The sources have their turns, one read
    each; when half of this is used, what one sends beyond an equal part of the half is dropped. So a peer that sends
    many small datagrams holds up itself."""

    sends: Count = 16
    """Sends for one connection before the others get their turn. Each takes up to 64 KiB."""

    diverters: Count = 64
    """Punches that wait for datagrams that are not QUIC at the same time."""

    diverted: Count = 64
    """Such datagrams that wait for one of them; further ones are dropped."""

    sockets: Count = 16
    """Bound addresses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first_mtu", "largest_mtu"):
            if not _MTU_LEAST <= getattr(self, name) <= _MTU_MOST:
                raise ConfigError(f"{name} is {getattr(self, name)}; give {_MTU_LEAST} to {_MTU_MOST}")
        if self.largest_mtu < self.first_mtu:
            raise ConfigError(f"largest_mtu is {self.largest_mtu}; give at least first_mtu, {self.first_mtu}")
        if self.window < self.window_first:
            raise ConfigError(f"window is {self.window}; give at least window_first, {self.window_first}")
        if self.congestion not in ("cubic", "new-reno", "bbr"):
            raise ConfigError(f"congestion is {self.congestion!r}; give cubic, new-reno or bbr")
        if not 0 < self.keepalive < self.idle:
            raise ConfigError(f"keepalive is {self.keepalive:g}; give more than 0 and less than idle, {self.idle:g}")
