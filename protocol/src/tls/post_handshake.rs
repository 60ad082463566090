//! What records say that carry no data: alerts, and the few handshake messages that come behind the
//! handshake.
//!
//! A server takes `KeyUpdate` only (it never asks for a certificate later). A client takes
//! `NewSessionTicket` too and lets it go: who wants to resume keeps rustls's connection. A message may be
//! spread over records; four bytes of it are kept at most.

use super::Role;
use super::alert::Alert;
use super::error::RecordError;
use super::limits::FRUITLESS_RECORDS_MAX;
use super::record::ContentType;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A message begins with its type, and its length in three bytes.
const FRONT_BYTES: usize = 4;

/// The message that changes keys; `update_requested` if the peer is to change its own too.
pub(super) fn key_update(update_requested: bool) -> [u8; FRONT_BYTES + 1] {
    [KEY_UPDATE, 0, 0, 1, u8::from(update_requested)]
}

/// What a record meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing to act on.
    Nothing,
    /// The next record is sealed with the peer's next key.
    KeyUpdate,
    /// The peer sends nothing more.
    CloseNotify,
}

/// Whether our key changes before the next data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum KeyUpdateDue {
    #[default]
    No,
    Ours,
    /// And the peer is asked to change its own.
    Both,
}

/// How far a handshake message has come, and what is owed for those that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PostHandshake {
    /// Bytes still to come of a message that is let go.
    pub(super) skip: u32,
    /// Type and length of a message that is not whole.
    pub(super) front: [u8; FRONT_BYTES],
    /// Bytes of it.
    pub(super) front_len: u8,
    /// Records in a row without data.
    pub(super) fruitless: u8,
    pub(super) key_update_due: KeyUpdateDue,
    /// The peer was asked to change its key and has not done it yet.
    pub(super) key_update_asked: bool,
}

impl PostHandshake {
    /// Takes what one record held.
    pub(super) fn handle(
        &mut self,
        role: Role,
        content_type: ContentType,
        content: &[u8],
    ) -> Result<Meaning, RecordError> {
        if self.is_amid_message() && content_type != ContentType::Handshake {
            return Err(RecordError::Interleaved(content_type.number()));
        }
        if content_type == ContentType::ApplicationData {
            if content.is_empty() {
                self.count_fruitless()?;
            } else {
                self.fruitless = 0;
            }
            return Ok(Meaning::Nothing);
        }
        if content.is_empty() {
            return Err(RecordError::Empty);
        }
        self.count_fruitless()?;
        match content_type {
            ContentType::Alert => alert(content),
            _ => self.handshake(role, content),
        }
    }

    /// Whether a state that was thawed is one that records can lead to.
    pub(super) fn is_possible(&self) -> bool {
        let is_front = match self.front_len {
            0 => true,
            1..=3 => self.skip == 0,
            4 => self.skip == 0 && self.front == [KEY_UPDATE, 0, 0, 1],
            _ => false,
        };
        is_front && self.skip < 1 << 24
    }

    fn is_amid_message(&self) -> bool {
        self.front_len > 0 || self.skip > 0
    }

    fn count_fruitless(&mut self) -> Result<(), RecordError> {
        self.fruitless = self.fruitless.saturating_add(1);
        if self.fruitless > FRUITLESS_RECORDS_MAX { Err(RecordError::Fruitless) } else { Ok(()) }
    }

    fn handshake(&mut self, role: Role, mut content: &[u8]) -> Result<Meaning, RecordError> {
        let mut meaning = Meaning::Nothing;
        while let Some((&byte, rest)) = content.split_first() {
            // "Implementations MUST verify that all handshake messages immediately preceding a key change
            // align with a record boundary" (RFC 8446 section 5.1).
            if meaning != Meaning::Nothing {
                return Err(RecordError::MessageSpansKeys);
            }
            if self.skip > 0 {
                let skipped = content.len().min(self.skip as usize);
                self.skip -= skipped as u32;
                content = &content[skipped..];
                continue;
            }
            content = rest;
            if let Some(place) = self.front.get_mut(usize::from(self.front_len)) {
                *place = byte;
                self.front_len += 1;
                if usize::from(self.front_len) == FRONT_BYTES {
                    self.check_front(role)?;
                }
            } else {
                self.front_len = 0;
                self.take_key_update(byte)?;
                meaning = Meaning::KeyUpdate;
            }
        }
        Ok(meaning)
    }

    /// The one byte of a `KeyUpdate`.
    fn take_key_update(&mut self, byte: u8) -> Result<(), RecordError> {
        let update_requested = match byte {
            0 => false,
            1 => true,
            other => return Err(RecordError::KeyUpdateValue(other)),
        };
        self.key_update_asked = false;
        // What we would have asked for has happened.
        if update_requested || self.key_update_due == KeyUpdateDue::Both {
            self.key_update_due = KeyUpdateDue::Ours;
        }
        Ok(())
    }

    /// Type and length of a message are there.
    fn check_front(&mut self, role: Role) -> Result<(), RecordError> {
        let [message_type, high, middle, low] = self.front;
        let len = u32::from_be_bytes([0, high, middle, low]);
        match (message_type, role) {
            (KEY_UPDATE, _) if len == 1 => {}
            (KEY_UPDATE, _) => return Err(RecordError::KeyUpdateLength(len as usize)),
            (NEW_SESSION_TICKET, Role::Client) => {
                self.front_len = 0;
                self.skip = len;
            }
            (other, _) => return Err(RecordError::UnexpectedMessage(other)),
        }
        Ok(())
    }
}

fn alert(content: &[u8]) -> Result<Meaning, RecordError> {
    // "Alert messages MUST NOT be fragmented across records, and multiple alert messages MUST NOT be
    // coalesced into a single TLSPlaintext record" (RFC 8446 section 5.1). The level says nothing.
    let &[_level, description] = content else {
        return Err(RecordError::AlertLength(content.len()));
    };
    match Alert(description) {
        Alert::CLOSE_NOTIFY => Ok(Meaning::CloseNotify),
        Alert::USER_CANCELED => Ok(Meaning::Nothing),
        fatal => Err(RecordError::PeerAlert(fatal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: ContentType = ContentType::Handshake;
    const DATA: ContentType = ContentType::ApplicationData;

    /// A ticket as OpenSSL sends it, more or less, and a KeyUpdate behind it.
    fn ticket_and_update() -> Vec<u8> {
        let mut messages = vec![NEW_SESSION_TICKET, 0, 0, 200];
        messages.extend_from_slice(&[7; 200]);
        messages.extend_from_slice(&key_update(true));
        messages
    }

    #[test]
    fn a_client_lets_tickets_go_and_a_server_refuses_them() {
        let messages = ticket_and_update();
        for cut in 1..messages.len() {
            let mut client = PostHandshake::default();
            let (front, rest) = messages.split_at(cut);
            assert_eq!(client.handle(Role::Client, HANDSHAKE, front), Ok(Meaning::Nothing), "{cut}");
            let said = client.handle(Role::Client, HANDSHAKE, rest);
            assert_eq!(said, Ok(Meaning::KeyUpdate), "{cut}");
            assert_eq!(client.key_update_due, KeyUpdateDue::Ours);
        }
        let refused = PostHandshake::default().handle(Role::Server, HANDSHAKE, &messages);
        assert_eq!(refused, Err(RecordError::UnexpectedMessage(NEW_SESSION_TICKET)));
    }

    #[test]
    fn nothing_comes_between_the_pieces_of_a_message() {
        for cut in 1..4 {
            for (between, content) in [(DATA, &b"x"[..]), (DATA, b""), (ContentType::Alert, &[1, 0])] {
                let mut server = PostHandshake::default();
                server.handle(Role::Server, HANDSHAKE, &key_update(false)[..cut]).unwrap();
                let refused = server.handle(Role::Server, between, content);
                assert_eq!(refused, Err(RecordError::Interleaved(between.number())));
            }
        }
    }

    #[test]
    fn what_no_peer_may_say_is_told_apart() {
        let two = [key_update(false), key_update(false)].concat();
        let cases: [(ContentType, &[u8], RecordError); 9] = [
            (HANDSHAKE, &two, RecordError::MessageSpansKeys),
            (HANDSHAKE, &two[..7], RecordError::MessageSpansKeys),
            (HANDSHAKE, &[KEY_UPDATE, 0, 0, 2], RecordError::KeyUpdateLength(2)),
            (HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2], RecordError::KeyUpdateValue(2)),
            (HANDSHAKE, &[1, 0, 0, 0], RecordError::UnexpectedMessage(1)),
            (HANDSHAKE, &[], RecordError::Empty),
            (ContentType::Alert, &[], RecordError::Empty),
            (ContentType::Alert, &[2, 40, 2, 40], RecordError::AlertLength(4)),
            (ContentType::Alert, &[1, 40], RecordError::PeerAlert(Alert(40))),
        ];
        for role in [Role::Server, Role::Client] {
            for (content_type, content, error) in &cases {
                let refused = PostHandshake::default().handle(role, *content_type, content);
                assert_eq!(refused, Err(*error));
            }
        }
    }

    #[test]
    fn records_without_data_are_counted_until_data_comes() {
        let mut server = PostHandshake::default();
        for round in 0..3 {
            for _ in 0..FRUITLESS_RECORDS_MAX / 2 {
                server.handle(Role::Server, DATA, b"").unwrap();
                server.handle(Role::Server, HANDSHAKE, &key_update(true)).unwrap();
            }
            if round < 2 {
                server.handle(Role::Server, DATA, b"x").unwrap();
            }
        }
        assert_eq!(server.handle(Role::Server, DATA, b""), Err(RecordError::Fruitless));
    }
}
