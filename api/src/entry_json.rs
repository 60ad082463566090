//! Log entries as the API shows them: exactly what the socket's `messages` carries.

use axum::body::Bytes;
use ringway_protocol::client::{LogItem, encode_item};
use ringway_protocol::entry::Entry;
use ringway_protocol::ids::Seq;
use ringway_protocol::user::UserId;
use serde_json::value::RawValue;

use crate::problem::Problem;

/// An entry as a JSON object for `viewer`, with its place.
///
/// # Errors
/// `unavailable` if the entry does not decode: the store is damaged, and the log says so.
pub(crate) fn item(encoded: &Bytes, viewer: &UserId) -> Result<(Seq, Box<RawValue>), Problem> {
    let entry = decode(encoded)?;
    let seq = entry.seq;
    let is_own = entry.sender == *viewer;
    let mut json = Vec::with_capacity(encoded.len() + 128);
    encode_item(&LogItem::from_entry(entry, is_own), &mut json);
    let text = String::from_utf8(json).expect("the writer of frames writes UTF-8");
    Ok((seq, RawValue::from_string(text).expect("the writer of frames writes JSON")))
}

/// An entry of the store.
///
/// # Errors
/// `unavailable` if it does not decode: the store is damaged, and the log says so.
pub(crate) fn decode(encoded: &Bytes) -> Result<Entry, Problem> {
    Entry::decode_shared(encoded).map_err(|error| {
        tracing::error!(%error, "an entry of the store does not decode");
        Problem::unavailable()
    })
}
