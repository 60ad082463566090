//! TLS 1.3 behind the handshake: one connection's records, in about 250 bytes of plain data.
//!
//! rustls shakes hands (`handshake.rs`, with `secret_log.rs` to catch the traffic secrets); then its state,
//! 3.5 KB a connection, is let go, and a [`RecordLayer`] takes its place:
//!
//! - `record_layer.rs`: bytes in, plaintext out; plaintext in, records out.
//! - `traffic_keys.rs`: the keys of one direction, their count and their next generation; `suite.rs`: the
//!   three cipher suites.
//! - `record.rs`: headers and padding; `post_handshake.rs`: alerts, key updates, tickets.
//! - `frozen.rs`: the layer as bytes, so that a connection moves to another core or process.
//! - `alert.rs`, `error.rs`, `limits.rs`.
//!
//! It serves both ends ([`Role`]). TLS 1.2 stays with rustls.

mod alert;
mod error;
mod frozen;
mod handshake;
pub mod limits;
mod post_handshake;
mod record;
mod record_layer;
mod secret_log;
mod suite;
mod traffic_keys;

pub use alert::Alert;
pub use error::{RecordError, SealError, SecretLengthError, ThawError};
pub use handshake::{
    ClientHandshake, Endpoint, Established, GATHERED_BYTES_MAX, HELLO_GATHERED_BYTES_MAX, Handshake,
    HandshakeError, ServerHandshake,
};
pub use record_layer::{Direction, Heap, Opened, RecordLayer, RecordMemory};
pub use secret_log::{SecretLog, with_client_secrets, with_server_secrets};
pub use suite::{SECRET_BYTES_MAX, Suite};

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes only `KeyUpdate` behind the handshake.
    Server,
    /// Takes `NewSessionTicket` too, and lets it go.
    Client,
}
