//! Why a TLS connection cannot go on, and the alert that tells the peer.

use super::alert::Alert;
use super::limits::{CIPHERTEXT_BYTES_MAX, FRUITLESS_RECORDS_MAX, PLAINTEXT_BYTES_MAX};
use crate::byte_cursor::Truncated;

/// What ends the receiving side. The alert that is due waits in the record layer; nothing else is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The peer found fault with us, or gave up.
    #[error("the peer ended the connection with the alert {0}")]
    PeerAlert(Alert),
    /// A header announces more than a record may hold.
    #[error("a record of {0} bytes; {CIPHERTEXT_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// What a record holds, padding included, is more than a record may hold.
    #[error("a record with more than {PLAINTEXT_BYTES_MAX} bytes in it")]
    PlaintextTooLong,
    /// Damaged, forged, replayed, or sealed with another key.
    #[error("a record that its key does not open")]
    Undecryptable,
    /// A record of a type that does not belong here, such as one in the clear.
    #[error("a record of type {0} where there can be none")]
    UnexpectedType(u8),
    /// An alert or handshake message of no byte, or a record of padding alone.
    #[error("a record without content that must have some")]
    Empty,
    /// An alert must fill one record.
    #[error("an alert of {0} bytes; it has two")]
    AlertLength(usize),
    /// A record between two pieces of one handshake message.
    #[error("a record of type {0} in the middle of a handshake message")]
    Interleaved(u8),
    /// A handshake message that this role does not take after the handshake.
    #[error("a handshake message of type {0} behind the handshake")]
    UnexpectedMessage(u8),
    /// `KeyUpdate` has one byte.
    #[error("a KeyUpdate of {0} bytes; it has one")]
    KeyUpdateLength(usize),
    /// `KeyUpdate` asks for an answer or does not.
    #[error("a KeyUpdate that says {0}; it says 0 or 1")]
    KeyUpdateValue(u8),
    /// What lies behind a `KeyUpdate` is sealed with the next key, so it begins a record.
    #[error("more in a record behind a KeyUpdate")]
    MessageSpansKeys,
    /// A peer that makes us work for nothing.
    #[error("more than {FRUITLESS_RECORDS_MAX} records in a row without data")]
    Fruitless,
    /// 2^64 records were opened with one key.
    #[error("the peer's key is used up: it should have changed it long ago")]
    KeyUsedUp,
    /// Something failed before; nothing more is read.
    #[error("the connection has failed already")]
    Over,
}

impl RecordError {
    /// What the peer is told; `None` where it told us.
    pub fn alert(&self) -> Option<Alert> {
        Some(match self {
            Self::PeerAlert(_) | Self::Over => return None,
            Self::TooLong(_) | Self::PlaintextTooLong => Alert::RECORD_OVERFLOW,
            Self::Undecryptable => Alert::BAD_RECORD_MAC,
            Self::UnexpectedType(_)
            | Self::Empty
            | Self::Interleaved(_)
            | Self::UnexpectedMessage(_)
            | Self::MessageSpansKeys
            | Self::Fruitless => Alert::UNEXPECTED_MESSAGE,
            Self::AlertLength(_) | Self::KeyUpdateLength(_) => Alert::DECODE_ERROR,
            Self::KeyUpdateValue(_) => Alert::ILLEGAL_PARAMETER,
            Self::KeyUsedUp => Alert::INTERNAL_ERROR,
        })
    }
}

/// Why nothing can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// `close_notify` or another alert was sent or is due: it is the last record.
    #[error("nothing is sealed behind the alert that ends the connection")]
    Closed,
    /// 2^64 records were sealed with one key.
    #[error("the connection's key is used up")]
    KeyUsedUp,
}

/// Why secrets do not make a record layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a traffic secret of {len} bytes; this suite's have {wanted}")]
pub struct SecretLengthError {
    /// Bytes of the secret.
    pub len: usize,
    /// Bytes that the suite wants.
    pub wanted: usize,
}

/// Why bytes are not a frozen record layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThawError {
    /// Written by a version that this one does not know.
    #[error("a frozen record layer of version {0}; this binary reads version {version}", version = super::frozen::VERSION)]
    Version(u8),
    /// They end too early.
    #[error("a frozen record layer is cut: {0}")]
    Truncated(#[from] Truncated),
    /// They say what no record layer can be.
    #[error("a frozen record layer is damaged: {0}")]
    Damaged(&'static str),
}
