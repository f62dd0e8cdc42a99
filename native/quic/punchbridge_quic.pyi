"""QUIC packets without sockets, clock or runtime: quinn-proto behind one class.

An `Engine` is one endpoint. It takes datagrams and a clock value, and yields datagrams and events. `now` is always a
number of seconds that does not go back, whatever it counts from. One thread at a time uses an engine.

Connections, attempts and streams are numbers; those of connections and attempts are never given twice. Calls about a
connection raise NoConnection once its GONE was taken. After `receive`, `accept`, `on_timer` and `close` the `events` of
the connection are to be taken; after these and after whatever was done to it, `transmit` is to be called until it has
no more, and `timer` to be asked. ValueError is raised for values that cannot be, such as an address that is none.

A peer's certificate is accepted by its structure alone, when its key has signed the handshake: whom it stands for is to
be checked, with what CONNECTED brings, before anything of the connection is used.
"""

from typing import Final, final

__version__: Final[str]

Packet = tuple[bytes, int, str, int, str | None, int]
"""The bytes for one sendmsg; the size of each datagram in them but the last, or 0 when they are one (UDP_SEGMENT); the
IP and port to send to; which of our addresses to send from, None for any; the ECN bits."""

Attempt = tuple[int, str, int, bool]
"""Number, IP and port of somebody who asks for a connection; whether it has shown that it receives there."""

Event = tuple[int, int, int, bytes]
"""One of the kinds below, and what stands with it; 0 and b"" where nothing does."""

CONNECTED: Final[int]
"""The handshake is over. The bytes: the peer's certificate (DER)."""
OPENED: Final[int]
"""The peer opened a stream, the number. It may have bytes already; no READABLE tells of the first ones."""
READABLE: Final[int]
"""A stream, the number, may have bytes, its end or its reset."""
WRITABLE: Final[int]
"""A stream, the number, that took fewer bytes than it was given takes some again."""
STOPPED: Final[int]
"""The peer reads no more of a stream, the number; its code."""
FINISHED: Final[int]
"""The peer has all of a stream, the number, that was finished."""
AVAILABLE: Final[int]
"""The peer allows more streams."""
PONG: Final[int]
"""A ping, the number, was answered."""
MOVED: Final[int]
"""The peer sends from another address; `Engine.info` has it."""
LOST: Final[int]
"""The connection ended. The number: why, one of BY_…; the code; the bytes: the peer's reason."""
GONE: Final[int]
"""Nothing more comes: the connection is forgotten."""

BY_VERSION: Final[int]
"""The peer speaks no version of ours."""
BY_VIOLATION: Final[int]
"""The peer broke QUIC or TLS; a code of RFC 9000 section 20.1."""
BY_ABORT: Final[int]
"""The peer's QUIC gave up; a code of the same kind."""
BY_CLOSE: Final[int]
"""The peer's program closed; a code of its own."""
BY_RESET: Final[int]
"""The peer does not know the connection any more: it was started again."""
BY_SILENCE: Final[int]
"""Nothing was heard for the idle time."""
BY_US: Final[int]
"""It was closed here."""
BY_EXHAUSTION: Final[int]
"""No connection id is left."""

class QuicError(Exception):
    """Why a call failed; one of the classes below."""

class NoConnection(QuicError):
    """There is no such connection, or its GONE was taken."""

class NoAttempt(QuicError):
    """The attempt was decided already."""

class NoStream(QuicError):
    """The stream was never opened, or this half of it has ended."""

class StreamReset(QuicError):
    """The peer reset the stream; the argument is its code. Told once, then NoStream."""

class StreamStopped(QuicError):
    """The peer reads no more of the stream; the argument is its code."""

class CannotConnect(QuicError):
    """No connection can be tried there."""

class HandshakeFailed(QuicError):
    """The arguments: why, one of BY_…; the code; the reason, as bytes."""

@final
class Settings:
    """How the connections of an engine behave. Bytes, and seconds."""

    def __new__(
        cls,
        *,
        streams: int,
        first_streams: int,
        stream_window: int,
        window: int,
        unsent: int,
        idle: float,
        keepalive: float,
        first_mtu: int,
        largest_mtu: int,
        congestion: str,
        first_window: int,
        largest_window: int,
        acknowledge_every: int,
        handshake_bytes: int,
        attempts: int,
        attempt_bytes: int,
        reset_pause: float,
        retry_lifetime: float,
        first_round_trip: float,
    ) -> Settings:
        """Raises ValueError for an unknown controller; the rest is judged by `Engine`.

        Args:
            streams: streams that a peer may have open at once
            first_streams: as many at first; four times as many when half of those that are allowed are open
            stream_window: unread bytes that a peer may send on one stream
            window: the same on one connection; see `Engine.set_window`
            unsent: bytes that `Engine.write` takes beyond those that may be on the way
            idle: silence that ends a connection
            keepalive: silence after which a packet is sent to keep it; 0 for none
            first_mtu: the size of datagrams at first, 1200 to 65527
            largest_mtu: the largest that is tried; `first_mtu` for no trying
            congestion: the controller, "cubic", "new-reno" or "bbr"
            first_window: bytes that may be on the way at first; 0 leaves it to the controller
            largest_window: bytes that may be on the way at most; 0 leaves it to the controller
            acknowledge_every: packets that the peer is asked to acknowledge together; 0 leaves it to the peer
            handshake_bytes: bytes of a handshake that may come out of order
            attempts: attempts that may wait for a decision; further ones are dropped
            attempt_bytes: bytes kept of one that waits, beyond its first datagram
            reset_pause: time between two stateless resets
            retry_lifetime: how long a Retry token is good
            first_round_trip: that to a peer that came to us, where none was measured: at first, and at another IP
        """

@final
class Info:
    """What is known of a connection and its path. Seconds and bytes."""

    rtt: float
    """The smoothed round trip."""
    rtt_least: float
    """The shortest one."""
    window: int
    """Bytes that may be on the way."""
    lost: int
    """Packets lost."""
    packets: int
    """Packets sent."""
    congested: int
    """Times that the controller was told of congestion."""
    delivered: int
    """Bytes of packets that the peer has acknowledged on this path."""
    bytes_sent: int
    bytes_received: int
    """Bytes of datagrams."""
    stream_frames: int
    """Pieces of streams received, repeated ones too; none is larger than a datagram."""
    mtu: int
    """The largest datagram that the path is known to take."""
    moves: int
    """Times that the peer's address changed."""
    host: str
    port: int
    """Where the peer is."""
    local: str | None
    """At which of our IPs it came in; None for a connection that we dialled."""

@final
class Engine:
    """One endpoint."""

    def __new__(cls, certificate: bytes, key: bytes, settings: Settings, seed: bytes, reset_key: bytes) -> Engine:
        """For a certificate and its private key (PKCS #8), both in DER.

        `seed`, 32 secret bytes that are fresh in each run, decides connection ids and Retry tokens; TLS takes random
        bytes of its own. With `reset_key`, 32 secret bytes that outlive the process, peers of an earlier run learn that
        their connection is over. Raises ValueError for what cannot be used.
        """

    def connect(self, host: str, port: int, now: float) -> int:
        """Begins to dial; the number of the connection. Raises CannotConnect."""

    def receive(
        self, data: bytes, segment: int, host: str, port: int, local: str | None, ecn: int, now: float
    ) -> list[int]:
        """Takes what one recvmsg brought: datagrams of `segment` bytes (UDP_GRO), or one when that is 0, from an IP and
        port, to one of our IPs when that is known. Returns the connections that it concerns; then `attempts` and
        `replies` are to be asked. Nothing that a peer may send makes it raise."""

    def attempts(self) -> list[Attempt]:
        """Who has asked for a connection since the last call. Each is to be decided once: accepted, sent a Retry,
        refused or ignored. Raises, as these do, nothing for what a peer did."""

    def replies(self) -> list[Packet]:
        """What is to be sent outside of connections: Retry, refusals, stateless resets, version negotiation."""

    def accept(self, attempt: int, now: float) -> int:
        """Goes on with an attempt: the number of the connection, whose events and datagrams are to be taken. Raises
        NoAttempt, and HandshakeFailed when its first datagram leads to nothing; `replies` may have an answer then."""

    def retry(self, attempt: int) -> None:
        """Has it show that it receives at its address; nothing is kept of it. Refuses one that has shown that. Raises
        NoAttempt."""

    def refuse(self, attempt: int) -> None:
        """Turns it away and says so. Raises NoAttempt."""

    def ignore(self, attempt: int) -> None:
        """Forgets it without a word. Raises NoAttempt."""

    def transmit(self, connection: int, most: int, now: float) -> Packet | None:
        """The next datagrams for one sendmsg, at most `most` and at most what the kernel takes; None when there are
        none now."""

    def timer(self, connection: int) -> float | None:
        """When `on_timer` has something to do, as `now` counts; None when it never has."""

    def on_timer(self, connection: int, now: float) -> None:
        """The time of `timer` has come. Calls that come too early do nothing."""

    def events(self, connection: int) -> list[Event]:
        """What happened since the last call."""

    def close(self, connection: int, code: int, reason: bytes, now: float) -> None:
        """Ends a connection; what waits to be sent is dropped. Its GONE comes a few round trips later."""

    def ping(self, connection: int) -> int:
        """Asks for a sign of life; the number that PONG will have. One that is lost is answered with what follows."""

    def moved(self, connection: int) -> None:
        """Our own address has changed: the peer is to learn it at once, under a connection id not used before."""

    def set_window(self, connection: int, window: int) -> None:
        """How many unread bytes the peer may send on the connection. What it was allowed stays allowed."""

    def info(self, connection: int) -> Info:
        """What is known of the connection and its path."""

    def connections(self) -> int:
        """Connections whose GONE was not taken yet."""

    def open(self, connection: int) -> int | None:
        """Opens a stream, of which the peer learns with its first bytes; None until it allows one more."""

    def read(self, connection: int, stream: int, most: int) -> tuple[bytes, bool, bool]:
        """At most `most` bytes that have come; whether the stream ends behind them; whether `transmit` has now to tell
        the peer what it may send again. What is read is allowed to the peer again. Raises StreamReset, once, and
        NoStream after that or after the end."""

    def take_reset(self, connection: int, stream: int) -> int | None:
        """The code with which the peer has reset the stream, told once; None when it has not. For whoever has no room
        to read. Raises NoStream."""

    def write(self, connection: int, stream: int, data: bytes | bytearray | memoryview) -> int:
        """Takes bytes for sending; how many fit now. When that is not all, WRITABLE comes. Raises StreamStopped,
        NoStream."""

    def finish(self, connection: int, stream: int) -> None:
        """Our half ends behind what was written. Raises StreamStopped, NoStream."""

    def reset(self, connection: int, stream: int, code: int) -> None:
        """Our half ends at once; what was written may be lost. Raises NoStream."""

    def stop(self, connection: int, stream: int, code: int) -> None:
        """Nothing more is read: what has come is dropped, and allowed to the peer again. Raises NoStream."""
