//! Cursors of lists: opaque, bound to who got them, and of no use to anybody else.
//!
//! `c`, then base64url of: the kind (1 byte), the place (8 bytes, big-endian), and the first 8 bytes of an
//! HMAC-SHA-256 over kind, place, user and conversation. Access is checked anew with every request; the
//! MAC keeps a cursor from being made up, carried to another user or to another conversation.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringway_protocol::ids::ConversationId;
use ringway_protocol::user::UserId;

use crate::problem::Problem;

/// What every cursor begins with, and no number.
pub(crate) const FIRST: char = 'c';

/// Bytes of the MAC that are kept: a guess is checked online only, and wins nothing.
const MAC_BYTES: usize = 8;

/// Which list a cursor goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Direction {
    /// History, towards its beginning.
    Older = 1,
    /// History, towards its end.
    Newer = 2,
    /// The user's conversations.
    Conversations = 3,
}

/// What makes and reads cursors.
pub(crate) struct Cursors {
    key: hmac::Key,
}

impl Cursors {
    /// Cursors under a key; the same after a restart with the same one.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        // The secret has other uses: this one gets a key of its own.
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&root, b"ringway api cursor");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) }
    }

    /// The cursor of a place.
    pub(crate) fn write(
        &self,
        direction: Direction,
        place: u64,
        user: &UserId,
        conversation: ConversationId,
    ) -> String {
        let mut bytes = vec![direction as u8];
        bytes.extend(place.to_be_bytes());
        let mac = self.mac(&bytes, user, conversation);
        bytes.extend(mac);
        format!("{FIRST}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The place of a cursor of that direction.
    ///
    /// # Errors
    /// `invalid` if it is not one that this user was given for this list.
    pub(crate) fn read(
        &self,
        text: &str,
        direction: Direction,
        user: &UserId,
        conversation: ConversationId,
    ) -> Result<u64, Problem> {
        self.open(text, direction, user, conversation)
            .ok_or_else(|| Problem::invalid("the cursor is not one of this list: start without one"))
    }

    fn open(&self, text: &str, direction: Direction, user: &UserId, of: ConversationId) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(FIRST)?).ok()?;
        let (head, mac) = bytes.split_at_checked(9)?;
        let expected = self.mac(head, user, of);
        // Not in constant time: a forged place tells nothing that the user could not ask for by number.
        (head[0] == direction as u8 && mac == expected)
            .then(|| u64::from_be_bytes(head[1..].try_into().expect("9 - 1 bytes")))
    }

    fn mac(&self, head: &[u8], user: &UserId, conversation: ConversationId) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(head);
        context.update(&conversation.0.to_be_bytes());
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
    fn a_cursor_serves_its_user_list_and_direction_only() {
        let cursors = Cursors::new(&[7; 32]);
        let [alice, bob] = ["alice", "bob"].map(|name| UserId::new("", name).unwrap());
        let here = ConversationId(5);
        let text = cursors.write(Direction::Older, 42, &alice, here);
        assert_eq!(cursors.read(&text, Direction::Older, &alice, here), Ok(42));
        assert!(cursors.read(&text, Direction::Newer, &alice, here).is_err());
        assert!(cursors.read(&text, Direction::Older, &bob, here).is_err());
        assert!(cursors.read(&text, Direction::Older, &alice, ConversationId(6)).is_err());
        let other = UserId::new("acme", "alice").unwrap();
        assert!(cursors.read(&text, Direction::Older, &other, here).is_err());
        assert!(Cursors::new(&[8; 32]).read(&text, Direction::Older, &alice, here).is_err());
        for bad in ["", "c", "42", "c!", "cAQ", &text[..text.len() - 1]] {
            assert!(cursors.read(bad, Direction::Older, &alice, here).is_err(), "{bad}");
        }
    }
}
