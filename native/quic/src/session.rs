//! TLS below QUIC, by rustls, which is given up when the handshake is over.
//!
//! quinn-proto comes with such a session too, and keeps it: that is a fifth of what an idle connection takes. What is
//! needed later is little: the secrets that the next keys follow from, and the first bytes of what a server may still
//! say.

use std::any::Any;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{ClientConnection, Connection, KeyChange, Secrets, ServerConnection, Suite, Version};

/// The version of QUIC in the addresses of libp2p.
pub const V1: u32 = 1;

/// TLS alerts (RFC 8446 section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
const INTERNAL_ERROR: u8 = 80;
/// A message of TLS (RFC 8446 section 4) that a server may send when the handshake is over.
const NEW_SESSION_TICKET: u8 = 4;

/// Both sides of TLS for one certificate.
pub struct Tls {
    /// For dials.
    pub client: Arc<rustls::ClientConfig>,
    /// For newcomers.
    pub server: Arc<rustls::ServerConfig>,
    /// quinn-proto's form of `server`, for what precedes a session.
    pub before: QuicServerConfig,
    /// What first datagrams are encrypted with.
    pub initial: Suite,
}

impl Tls {
    fn session(self: Arc<Self>, side: Side, state: State) -> Box<dyn Session> {
        Box::new(Shaking { tls: self, side, state: Mutex::new(state), next: None })
    }
}

fn written(params: &TransportParameters) -> Vec<u8> {
    let mut out = Vec::new();
    params.write(&mut out);
    out
}

impl ClientConfig for Tls {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let refused = || ConnectError::InvalidServerName(server_name.into());
        if version != V1 {
            return Err(ConnectError::UnsupportedVersion);
        }
        let name = ServerName::try_from(server_name).map_err(|_| refused())?.to_owned();
        let inner = ClientConnection::new(Arc::clone(&self.client), Version::V1, name, written(params));
        let inner = inner.map_err(|_| refused())?;
        Ok(self.session(Side::Client, State::Running(Box::new(Connection::Client(inner)))))
    }
}

impl ServerConfig for Tls {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.before.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.before.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn Session> {
        let inner = ServerConnection::new(Arc::clone(&self.server), Version::V1, written(params));
        let state = inner.map_or(State::Failed, |inner| State::Running(Box::new(Connection::Server(inner))));
        self.session(Side::Server, state)
    }
}

enum State {
    Running(Box<Connection>),
    /// It could not begin.
    Failed,
    Over(Late),
}

/// The session of one connection. It is over when the peer's certificate was asked for: that is told once.
struct Shaking {
    tls: Arc<Tls>,
    side: Side,
    /// quinn-proto asks for the certificate by a shared reference, though one thread alone uses a connection.
    state: Mutex<State>,
    next: Option<Secrets>,
}

impl Shaking {
    fn state(&mut self) -> &mut State {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn alert(code: u8, reason: String) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(code), frame: None, reason }
}

fn keys(keys: rustls::quic::Keys) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
        packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
    }
}

impl Session for Shaking {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        keys(self.tls.initial.keys(dst_cid, side.into(), Version::V1))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.with(|state| {
            let State::Running(inner) = state else { return None };
            let shown: Vec<CertificateDer<'static>> =
                inner.peer_certificates()?.iter().map(|one| one.clone().into_owned()).collect();
            if !inner.is_handshaking() {
                *state = State::Over(Late::default());
            }
            Some(Box::new(shown) as Box<dyn Any>)
        })
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.side.is_client().then_some(false)
    }

    fn is_handshaking(&self) -> bool {
        self.with(|state| match state {
            State::Running(inner) => inner.is_handshaking(),
            State::Failed => true,
            State::Over(_) => false,
        })
    }

    fn read_handshake(&mut self, data: &[u8]) -> Result<bool, TransportError> {
        let side = self.side;
        match self.state() {
            State::Running(inner) => inner.read_hs(data).map_err(|why| match inner.alert() {
                Some(code) => alert(code.into(), why.to_string()),
                None => alert(INTERNAL_ERROR, why.to_string()),
            })?,
            State::Failed => return Err(alert(INTERNAL_ERROR, String::new())),
            State::Over(late) => late.take(data, side)?,
        }
        Ok(false)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.with(|state| {
            let State::Running(inner) = state else { return Ok(None) };
            let Some(said) = inner.quic_transport_parameters() else { return Ok(None) };
            Ok(Some(TransportParameters::read(self.side, &mut Cursor::new(said))?))
        })
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let State::Running(inner) = self.state() else { return None };
        match inner.write_hs(out)? {
            KeyChange::Handshake { keys: made } => Some(keys(made)),
            KeyChange::OneRtt { keys: made, next } => {
                self.next = Some(next);
                Some(keys(made))
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let made = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(made.local), remote: Box::new(made.remote) })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((token, tag)) = payload.split_last_chunk::<16>() else { return false };
        self.tls.before.retry_tag(V1, orig_dst_cid, &[header, token].concat()) == *tag
    }

    fn export_keying_material(&self, _: &mut [u8], _: &[u8], _: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// What comes when the handshake is over: a server's tickets, which are not kept, and nothing else (RFC 9001 section 6
/// forbids new keys of TLS).
#[derive(Debug, Default)]
pub struct Late {
    head: Vec<u8>,
    left: usize,
}

impl Late {
    /// Passes over what is allowed. Fails for anything else.
    pub fn take(&mut self, mut data: &[u8], side: Side) -> Result<(), TransportError> {
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let (_, behind) = data.split_at_checked(self.left).unwrap_or((data, &[]));
                self.left = self.left.saturating_sub(data.len() - behind.len());
                data = behind;
                continue;
            }
            self.head.push(*first);
            data = rest;
            match self.head.as_slice() {
                [kind, ..] if side.is_server() || *kind != NEW_SESSION_TICKET => {
                    return Err(alert(UNEXPECTED_MESSAGE, "a message of TLS after the handshake".into()));
                }
                [_, size @ ..] if size.len() == 3 => {
                    self.left = size.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                    self.head.clear();
                }
                _ => {}
            }
        }
        Ok(())
    }
}
