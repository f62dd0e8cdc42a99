"""The transports: which are spoken, the bounds of TCP, and of the upgrade of a byte stream to a connection."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import KIB, MIB, Bytes, Checked, Count, Seconds
from punchbridge.errors import ConfigError

__all__ = ["MuxedLimits", "TcpLimits", "Transports"]

_MOST = {"syn_ack_retries": 127, "backlog": 2**31 - 1, "unsent": 2**31 - 1, "user_timeout": (2**31 - 1) // 1000}
"""What Linux takes: TCP_SYNCNT up to 127, the others as a C integer, and the time in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Transports(Checked):
    """Which transports are spoken. TCP always is."""

    quic: bool = True
    """QUIC beside TCP, where its engine (`punchbridge[quic]`) is installed. Without, addresses with /quic-v1 are
    neither listened on nor dialled."""


@dataclass(frozen=True, kw_only=True)
class TcpLimits(Checked):
    """TCP sockets, and the names that lead to them."""

    connect_timeout: Seconds = 5.0
    """TCP connect of an ordinary dial: four SYNs (initial RTO 1 s, doubling) have gone out by then."""

    user_timeout: Seconds = 30.0
    """Unacknowledged data for this long ends the TCP connection (RFC 5482); 0 leaves it to the system."""

    unsent: Bytes = 256 * KIB
    """Bytes the kernel holds that are not on the wire yet (TCP_NOTSENT_LOWAT). What waits there delays the small frames
    of other streams, as `limits.muxed.send_queue` does."""

    resolve_timeout: Seconds = 5.0
    """One name lookup through the system resolver."""

    resolved: Count = 16
    """Addresses taken from one name."""

    listeners: Count = 16
    """Listening sockets: a few interfaces in both IP versions."""

    backlog: Count = 1024
    """Connections that the kernel has accepted for a listening socket and that were not taken yet. When there are more,
    it drops the next one's SYN, and an honest peer is a second late behind a stranger's burst. The system bounds it too
    (`net.core.somaxconn`)."""

    syn_ack_retries: Count = 2
    """A connection request whose SYN-ACK is not acknowledged leaves our listener after 7 s (the system's 5 retries:
    63 s). Until then its 4-tuple cannot be dialled (EADDRNOTAVAIL), which three attempts of a punch would not
    outlast."""

    accept_pause: Seconds = 0.1
    """Pause after accept() failed for want of descriptors or memory: long enough for some to be freed."""

    diverters: Count = 64
    """Punches that wait for accepted sockets at the same time."""

    diverted: Count = 16
    """Accepted sockets waiting for the puncher; one attempt yields one or two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ConfigError(f"{name} is {getattr(self, name)}; the system takes at most {most}")


@dataclass(frozen=True, kw_only=True)
class MuxedLimits(Checked):
    """Connections over any byte stream: security, what waits to be sent, and the negotiation of streams."""

    upgrade_timeout: Seconds = 10.0
    """Security and muxer together: 3 round trips, generous for 1 s of round trip over a slow relay."""

    negotiate_timeout: Seconds = 10.0
    """multistream-select on one stream; go and rust use 10 s."""

    close_timeout: Seconds = 2.0
    """How long closing a connection waits for queued frames to leave."""

    send_queue: Bytes = 256 * KIB
    """Bytes of frames waiting for a socket that would block; senders wait beyond it. What waits here delays the small
    frames of other streams, and the kernel has a buffer of its own."""

    send_queue_most: Bytes = 2 * MIB
    """With the answers that the peer's own frames demand: a peer that asks on and never reads is cut off."""

    send_timeout: Seconds = 60.0
    """A peer that has not taken one message of at most 64 KiB for this long is cut off: that is less than a modem's
    speed, and what waits for it is memory that others lack."""

    send_burst: Bytes = 256 * KIB
    """Bytes one call sends before the other tasks get their turn."""

    read: Bytes = 256 * KIB
    """One read of the socket: four full Noise messages."""

    turn_frames: Count = 256
    """Frames of one connection that are handled before other tasks run: about a millisecond. One that opens a stream
    counts for several (`limits.yamux.opening`). One read holds 20 000 of these. Bulk has four frames in a read."""

    turns: Count = 2
    """Connections that have opened streams, or sent more frames than a turn has, go on in turn: so many before all
    other tasks run, the addresses one after the other. So an address has no more turns for having more connections."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.send_queue_most < self.send_queue:
            least = self.send_queue
            raise ConfigError(f"send_queue_most is {self.send_queue_most}; give at least send_queue, {least}")
