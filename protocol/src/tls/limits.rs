//! Bounds of TLS records, with unit and reason.

/// Plaintext of one record, in bytes (RFC 8446 section 5.1).
pub const PLAINTEXT_BYTES_MAX: usize = 1 << 14;

/// What a record may hold behind its header, in bytes (RFC 8446 section 5.2): the rest is room for the
/// content's type, padding and the tag.
pub const CIPHERTEXT_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 256;

/// Type, version and length in front of each record.
pub const HEADER_BYTES: usize = 5;

/// The tag of each of the three AEADs.
pub const TAG_BYTES: usize = 16;

/// A whole record, in bytes: what one connection may have gathered of one that has begun.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + CIPHERTEXT_BYTES_MAX;

/// What a record of ours adds to its plaintext: header, type of the content, tag. We do not pad.
pub const SEAL_OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// Records that are sealed with one key before it is changed. AES-GCM is safe up to 2^24.5 records of full
/// length (RFC 8446 section 5.5), ChaCha20-Poly1305 far longer; one bound for all, a third of the least,
/// leaves room for a change that waits, and costs 3 us every 8 million records.
pub const RECORDS_A_KEY_MAX: u64 = 1 << 23;

/// Records in a row that may carry no data: empty ones and key updates. Each costs us a microsecond or
/// more and the peer nothing but 22 bytes.
pub const FRUITLESS_RECORDS_MAX: u8 = 32;

/// A `KeyUpdate` as it is sent: a record around five bytes.
pub(super) const KEY_UPDATE_RECORD_BYTES: usize = SEAL_OVERHEAD_BYTES + 5;

/// An alert as it is sent: a record around two bytes.
pub(super) const ALERT_RECORD_BYTES: usize = SEAL_OVERHEAD_BYTES + 2;

/// What [`take_outgoing`](super::RecordLayer::take_outgoing) may append at once.
pub const OUTGOING_BYTES_MAX: usize = KEY_UPDATE_RECORD_BYTES + ALERT_RECORD_BYTES;

const _: () = assert!(RECORDS_A_KEY_MAX < 23_726_566, "2^24.5 records of full length");
