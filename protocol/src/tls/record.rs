//! One record's outside: its header, and the type that hides behind its content (RFC 8446 section 5).

use super::error::RecordError;
use super::limits::{CIPHERTEXT_BYTES_MAX, HEADER_BYTES};

/// The version that every header names, whatever is spoken.
const LEGACY_VERSION: [u8; 2] = [3, 3];

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    Alert,
    Handshake,
    ApplicationData,
}

impl ContentType {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    fn from_number(number: u8) -> Result<Self, RecordError> {
        [Self::Alert, Self::Handshake, Self::ApplicationData]
            .into_iter()
            .find(|content_type| content_type.number() == number)
            .ok_or(RecordError::UnexpectedType(number))
    }
}

/// The header of a sealed record with `len` bytes behind it.
pub(super) fn header(len: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = u16::try_from(len).expect("records are shorter than 64 KiB").to_be_bytes();
    [ContentType::ApplicationData.number(), LEGACY_VERSION[0], LEGACY_VERSION[1], high, low]
}

/// Splits the header off the front of `bytes`, and says how long the record is with it; `None` while the
/// header is not whole.
///
/// After the handshake every record is sealed, and says that it is application data. The version "MUST be
/// ignored for all purposes" (section 5.1).
pub(super) fn read_header(bytes: &[u8]) -> Result<Option<([u8; HEADER_BYTES], usize)>, RecordError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let &[record_type, _, _, high, low] = header;
    if record_type != ContentType::ApplicationData.number() {
        return Err(RecordError::UnexpectedType(record_type));
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > CIPHERTEXT_BYTES_MAX {
        return Err(RecordError::TooLong(len));
    }
    Ok(Some((*header, HEADER_BYTES + len)))
}

/// Takes padding and type off an opened record: what it holds, and how many bytes of that.
pub(super) fn strip_padding(opened: &[u8]) -> Result<(ContentType, usize), RecordError> {
    let len = opened.iter().rposition(|&byte| byte != 0).ok_or(RecordError::Empty)?;
    Ok((ContentType::from_number(opened[len])?, len))
}
