//! QUIC packets for punchbridge: quinn-proto, with the socket, the clock and the decisions outside.
//!
//! An [`engine::Engine`] is one endpoint. It takes datagrams and a clock value, and yields datagrams and events. It
//! opens no socket, starts no thread and asks no clock. It knows nothing of identities: a peer's certificate is
//! accepted when TLS can use it, and told, so that whoever drives the engine judges it.
//!
//! The feature `python` makes the extension module `punchbridge_quic` of it.

#![deny(unsafe_code)]

pub mod engine;
pub mod error;
mod ids;
mod link;
#[cfg(feature = "python")]
mod python;
mod seen;
mod session;
pub mod settings;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
pub mod vocabulary;
