//! Resume cursors: how far a client's deliveries had come, in a form that it keeps and cannot make.
//!
//! ```text
//!   8  position of the store, big-endian
//!   16 HMAC-SHA-256 over ("ringway resume 1", position, user), its first 16 bytes
//! ```
//! in base64url without padding. The user is in the MAC alone: a cursor of another user is no cursor.

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringway_protocol::ids::Position;
use ringway_protocol::user::UserId;

const CONTEXT: &[u8] = b"ringway resume 1";
const MAC_BYTES: usize = 16;

/// The key that authenticates cursors.
pub(crate) struct CursorKey(hmac::Key);

impl CursorKey {
    /// From the operator's 32 bytes.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The cursor of a user at a position.
    pub(crate) fn encode(&self, user: &UserId, position: Position) -> String {
        let mut bytes = [0; 8 + MAC_BYTES];
        bytes[..8].copy_from_slice(&position.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.mac(user, position));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position of a cursor, if it is one that was given to this user.
    pub(crate) fn decode(&self, user: &UserId, text: &str) -> Option<Position> {
        let mut bytes = [0; 8 + MAC_BYTES];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (position, mac) = bytes.split_first_chunk::<8>().filter(|_| len == 8 + MAC_BYTES)?;
        let position = Position(u64::from_be_bytes(*position));
        constant_time::verify_slices_are_equal(mac, &self.mac(user, position)).ok()?;
        Some(position)
    }

    fn mac(&self, user: &UserId, position: Position) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(CONTEXT);
        context.update(&position.0.to_be_bytes());
        context.update(user.as_bytes());
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_its_users_and_nobody_elses() {
        let key = CursorKey::new(&[7; 32]);
        let (alice, bob) = (UserId::new("", "alice").unwrap(), UserId::new("t", "alice").unwrap());
        let cursor = key.encode(&alice, Position(1 << 40));
        assert_eq!(key.decode(&alice, &cursor), Some(Position(1 << 40)));
        assert_eq!(key.decode(&bob, &cursor), None);
        assert_eq!(CursorKey::new(&[8; 32]).decode(&alice, &cursor), None);
        for cut in 0..cursor.len() {
            assert_eq!(key.decode(&alice, &cursor[..cut]), None);
        }
        assert_eq!(key.decode(&alice, &format!("{cursor}AAAA")), None);
        assert_eq!(key.decode(&alice, "no cursor at all ☃"), None);
    }
}
