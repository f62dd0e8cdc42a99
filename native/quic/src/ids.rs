//! Connection ids and keys that follow from a seed, and the clock that tokens are dated by.
//!
//! Nothing here asks the system for random bytes or for the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid, TimeSource};
use ring::{hkdf, hmac};

/// The half of a connection id that says nothing, and the half that proves it to be ours.
const NONCE: usize = 4;
const PROOF: usize = 4;
/// The connection id that a dial begins with is random to others; RFC 9000 section 7.2 asks for at least 8 bytes.
const FIRST: usize = 16;

/// A key for one use, made from a secret.
pub fn key(secret: &[u8; 32], name: &[u8]) -> hmac::Key {
    let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, name).as_ref())
}

/// The key of Retry tokens. It lives as long as the seed, so tokens of an earlier run are refused.
pub fn token_key(seed: &[u8; 32]) -> Arc<hkdf::Prk> {
    Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"punchbridge retry").extract(seed))
}

fn start<const SIZE: usize>(tag: &hmac::Tag) -> [u8; SIZE] {
    let mut out = [0; SIZE];
    for (to, from) in out.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    out
}

/// Makes our connection ids, and tells those of this node from others: only they are worth a stateless reset.
///
/// The proof is made with the reset key, which outlives the process, so that an id of an earlier run is known.
pub struct Ids {
    nonces: hmac::Key,
    proofs: hmac::Key,
    made: u64,
}

impl Ids {
    /// A generator whose ids follow from `seed`, and are proven by `reset_key`.
    pub fn new(seed: &[u8; 32], reset_key: &[u8; 32]) -> Self {
        Self { nonces: key(seed, b"connection ids"), proofs: key(reset_key, b"connection ids"), made: 0 }
    }

    fn proof(&self, nonce: &[u8]) -> [u8; PROOF] {
        start(&hmac::sign(&self.proofs, nonce))
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made = self.made.wrapping_add(1);
        let nonce: [u8; NONCE] = start(&hmac::sign(&self.nonces, &self.made.to_be_bytes()));
        let mut id = nonce.to_vec();
        id.extend_from_slice(&self.proof(&nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(NONCE) {
            Some((nonce, proof)) if self.proof(nonce) == proof => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        NONCE + PROOF
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The ids that our dials begin with, until the server has chosen one.
pub fn first_ids(seed: &[u8; 32]) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
    let (key, made) = (key(seed, b"first ids"), AtomicU64::new(0));
    Arc::new(move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        let id: [u8; FIRST] = start(&hmac::sign(&key, &number.to_be_bytes()));
        ConnectionId::new(&id)
    })
}

/// The clock value of the last call, in nanoseconds.
#[derive(Debug, Default)]
pub struct Told(AtomicU64);

impl Told {
    /// The time is at least this now; it never goes back.
    pub fn advance(&self, since_start: Duration) -> Duration {
        let nanos = u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.0.fetch_max(nanos, Ordering::Relaxed).max(nanos))
    }
}

impl TimeSource for Told {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
