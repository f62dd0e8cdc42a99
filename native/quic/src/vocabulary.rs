//! What an engine tells: datagrams, attempts to connect, events, and what is known of a connection.

use std::net::{IpAddr, SocketAddr};

/// A datagram, or several of one size, for one `sendmsg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The bytes.
    pub data: Vec<u8>,
    /// The size of each datagram but the last; 0 when it is one.
    pub segment: usize,
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses, when that matters.
    pub from: Option<IpAddr>,
    /// The ECN bits.
    pub ecn: u8,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The peer speaks no version of ours.
    Version = 0,
    /// The peer broke QUIC or TLS, as seen here. With a code of RFC 9000 section 20.1.
    Violation = 1,
    /// The peer's QUIC gave up. With a code of the same kind.
    Aborted = 2,
    /// The peer's program closed. With a code of its own.
    Closed = 3,
    /// The peer does not know the connection any more.
    Reset = 4,
    /// Nothing was heard for too long.
    Silent = 5,
    /// It was closed here.
    Local = 6,
    /// No connection id is left.
    Exhausted = 7,
}

/// What happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The handshake is over; the peer has shown this certificate (DER), of which only the structure was checked.
    Connected(Vec<u8>),
    /// The peer opened a stream, which may have bytes already.
    Opened(u64),
    /// A stream may have bytes, its end or its reset.
    Readable(u64),
    /// A stream takes bytes again.
    Writable(u64),
    /// The peer reads no more of a stream; with its code.
    Stopped(u64, u64),
    /// The peer has acknowledged all of a stream that was finished.
    Finished(u64),
    /// The peer allows more streams.
    Available,
    /// A ping was answered.
    Pong(u64),
    /// The peer sends from another address.
    Moved,
    /// The connection ended; with a code and a reason.
    Lost(Cause, u64, Vec<u8>),
    /// Nothing more comes of the connection: its number is forgotten.
    Gone,
}

/// Somebody who asks for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, to decide by.
    pub number: u64,
    /// Where it comes from.
    pub from: SocketAddr,
    /// It has shown that it receives at that address, by a Retry token.
    pub proven: bool,
}

/// What is known of a connection and its path. Seconds and bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Info {
    /// The smoothed round trip.
    pub rtt: f64,
    /// The shortest one.
    pub rtt_least: f64,
    /// How much may be on the way.
    pub window: u64,
    /// Packets lost.
    pub lost: u64,
    /// Packets sent.
    pub packets: u64,
    /// Times that the controller was told of congestion.
    pub congested: u64,
    /// Bytes that arrived at the peer over this path.
    pub delivered: u64,
    /// Bytes of datagrams sent.
    pub bytes_sent: u64,
    /// Bytes of datagrams received.
    pub bytes_received: u64,
    /// Pieces of streams received, some of them twice perhaps.
    pub stream_frames: u64,
    /// The largest datagram of the path.
    pub mtu: u16,
    /// Times that the peer's address changed.
    pub moves: u64,
    /// Where the peer is.
    pub remote: SocketAddr,
    /// At which of our addresses it came in.
    pub local: Option<IpAddr>,
}
