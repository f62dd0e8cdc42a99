//! What can go wrong in a call. What a peer does wrong is an event of its connection, once there is one.

use crate::vocabulary::Cause;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting, key, address, code or clock value that cannot be used: the caller's fault.
    #[error("{0}")]
    Unusable(String),
    /// There is no such connection, or it has ended and its last event was taken.
    #[error("there is no such connection")]
    NoConnection,
    /// There is no such attempt: it was decided already.
    #[error("there is no such attempt to connect")]
    NoAttempt,
    /// The stream was never opened, or this half of it has ended.
    #[error("there is no such stream, or it has ended")]
    NoStream,
    /// The peer will send no more on the stream, and what came before is dropped. The value is its code.
    #[error("the peer reset the stream ({0})")]
    StreamReset(u64),
    /// The peer reads no more of the stream. The value is its code.
    #[error("the peer stopped the stream ({0})")]
    StreamStopped(u64),
    /// The first datagram of an attempt led to nothing: why, the code and the reason. Nothing is left of it.
    #[error("the handshake failed at once")]
    Failed(Cause, u64, Vec<u8>),
    /// No connection can be tried: too many, or an address that nobody can have.
    #[error("cannot connect: {0}")]
    CannotConnect(String),
}

impl Error {
    /// An error of the caller, with what a library says about it.
    pub(crate) fn unusable(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Unusable(format!("{what}: {why}"))
    }
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;
