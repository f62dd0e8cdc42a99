//! One connection: quinn-proto's, and what is noted beside it. Turns quinn-proto's events into ours.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn_proto::{ConnectionError, ConnectionHandle, Dir, StreamEvent};
use rustls::pki_types::CertificateDer;

use crate::seen::{Seen, seen};
use crate::vocabulary::{Cause, Event};

/// A connection, and what the engine notes of it.
pub struct Link {
    pub handle: ConnectionHandle,
    pub inner: quinn_proto::Connection,
    pub remote: SocketAddr,
    pub moves: u64,
    pub moved: bool,
    pub drained: bool,
    /// Pings that are out, each with the packet that carries it, once that is known.
    pub pings: VecDeque<(u64, Option<u64>)>,
    pub next_ping: u64,
    /// Streams that the peer may have open.
    pub allowed: u32,
}

impl Link {
    /// A connection that has just begun.
    pub fn new(handle: ConnectionHandle, inner: quinn_proto::Connection, allowed: u32) -> Self {
        let remote = inner.remote_address();
        let pings = VecDeque::new();
        Self { handle, inner, remote, moves: 0, moved: false, drained: false, pings, next_ping: 0, allowed }
    }

    /// Allows the peer more streams, `most` in the end, before those that are allowed are used up.
    pub fn allow(&mut self, most: u32) {
        let open = self.inner.streams().remote_open_streams(Dir::Bi);
        while self.allowed < most && open.saturating_mul(2) >= u64::from(self.allowed) {
            self.allowed = self.allowed.saturating_mul(4).min(most);
            self.inner.set_max_concurrent_streams(Dir::Bi, self.allowed.into());
        }
    }

    /// Notes whether the peer sends from another address than before.
    pub fn look_for_move(&mut self) {
        let remote = self.inner.remote_address();
        if remote != self.remote {
            self.remote = remote;
            self.moves += 1;
            self.moved = true;
        }
    }

    /// What may wait to be sent: what may be on the way, and a little more, since the rest only grows old here.
    pub fn pace(&mut self, unsent: u64) {
        let window = self.inner.congestion_state().window();
        self.inner.set_send_window(window.saturating_add(unsent));
    }

    /// What its path has seen.
    pub fn seen(&self) -> Option<Arc<Seen>> {
        seen(self.inner.congestion_state())
    }
}

/// Adds what an event of quinn-proto means to those told.
pub fn tell(connection: &mut quinn_proto::Connection, event: quinn_proto::Event, events: &mut Vec<Event>) {
    use quinn_proto::Event as Theirs;
    match event {
        Theirs::Connected => events.push(Event::Connected(certificate(connection))),
        Theirs::ConnectionLost { reason } => {
            let (cause, code, reason) = why(reason);
            events.push(Event::Lost(cause, code, reason));
        }
        Theirs::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
            while let Some(id) = connection.streams().accept(Dir::Bi) {
                events.push(Event::Opened(id.into()));
            }
        }
        Theirs::Stream(StreamEvent::Readable { id }) => {
            // One for each datagram: bulk would have fifty in a row.
            if events.last() != Some(&Event::Readable(id.into())) {
                events.push(Event::Readable(id.into()));
            }
        }
        Theirs::Stream(StreamEvent::Writable { id }) => events.push(Event::Writable(id.into())),
        Theirs::Stream(StreamEvent::Stopped { id, error_code }) => {
            events.push(Event::Stopped(id.into(), error_code.into()));
        }
        Theirs::Stream(StreamEvent::Finished { id }) => events.push(Event::Finished(id.into())),
        Theirs::Stream(StreamEvent::Available { dir: Dir::Bi }) => events.push(Event::Available),
        // Streams in one direction and datagrams are not offered.
        Theirs::Stream(StreamEvent::Opened { .. } | StreamEvent::Available { .. })
        | Theirs::HandshakeDataReady
        | Theirs::DatagramReceived
        | Theirs::DatagramsUnblocked => {}
    }
}

/// What the peer has shown; nothing, which is no certificate, should TLS not know it.
fn certificate(connection: &quinn_proto::Connection) -> Vec<u8> {
    let shown = connection.crypto_session().peer_identity();
    let chain = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.and_then(|chain| chain.first().map(|first| first.to_vec())).unwrap_or_default()
}

/// Why a connection ended: the cause, the code and the reason.
pub fn why(reason: ConnectionError) -> (Cause, u64, Vec<u8>) {
    match reason {
        ConnectionError::VersionMismatch => (Cause::Version, 0, Vec::new()),
        ConnectionError::TransportError(error) => (Cause::Violation, error.code.into(), error.reason.into_bytes()),
        ConnectionError::ConnectionClosed(close) => (Cause::Aborted, close.error_code.into(), close.reason.to_vec()),
        ConnectionError::ApplicationClosed(close) => (Cause::Closed, close.error_code.into(), close.reason.to_vec()),
        ConnectionError::Reset => (Cause::Reset, 0, Vec::new()),
        ConnectionError::TimedOut => (Cause::Silent, 0, Vec::new()),
        ConnectionError::LocallyClosed => (Cause::Local, 0, Vec::new()),
        ConnectionError::CidsExhausted => (Cause::Exhausted, 0, Vec::new()),
    }
}
