//! Keys and values of every table, byte by byte. Numbers are big endian, so that a scan meets them in order.
//!
//! | table | key | value |
//! |---|---|---|
//! | `messages` | conversation 8, seq 8 | message id 8, server_ts 8, body hash 8, sender length 1, sender, client message id length 1 (0: none), client message id, encoded entry |
//! | `sends` | conversation 8, sender length 1, sender, client message id | seq 8, message id 8, server_ts 8, body hash 8 |
//! | `conversations` | conversation 8 | kind 1 (0 direct, 1 group), deleted 1, members present 4, name |
//! | `heads` | conversation 8 | last seq 8, its message id 8, its server_ts 8, position of its flush 8 |
//! | `members` | conversation 8, user | role 1 (0 owner, 1 admin, 2 member), then for each stay: joined seq 8, left seq 8 (0: still in) |
//! | `user_conversations` | user length 1, user, conversation 8 | position of the last join or removal 8, joined seq 8, left seq 8 (0: still in) |
//! | `claims` | 1, length of the lower user 1, lower user, higher user: a pair. 2, user length 1, user, key: a creation | conversation 8 |
//! | `meta` | `state` | store id 16, epoch 8, position 8, newest time 8 |
//!
//! A user is `UserId::as_bytes`, at most 129 bytes. A table's form changes only with `FORMAT` in `folder.rs`.

use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Epoch, MessageId, Position, Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, UserId};

use crate::store::{Append, ClaimKey, SendRow, StoreError};

/// The key of the row of `meta` with the state that each group writes.
pub(super) const META_KEY: &[u8] = b"state";

/// The key of the row of `meta` with the time by which idempotency keys age (`key_time.rs`).
pub(super) const KEY_TIME_KEY: &[u8] = b"key time";

/// A row that is not of its table's form.
pub(super) fn damaged(table: &str) -> StoreError {
    StoreError::Damaged(format!(
        "a row of table {table} is not of its form: restore the data folder from a backup"
    ))
}

// ---- keys

/// Key of `messages`.
pub(super) fn message_key(conversation: ConversationId, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&conversation.0.to_be_bytes());
    key[8..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// Key of `conversations` and `heads`, and the prefix of a conversation in `members` and `messages`.
pub(super) fn conversation_key(conversation: ConversationId) -> [u8; 8] {
    conversation.0.to_be_bytes()
}

/// Key of `sends`.
pub(super) fn send_key(
    conversation: ConversationId,
    sender: &UserId,
    client_message_id: &ClientMessageId,
) -> Vec<u8> {
    let mut key = conversation.0.to_be_bytes().to_vec();
    put_short(&mut key, sender.as_bytes());
    key.extend_from_slice(client_message_id.as_str().as_bytes());
    key
}

/// Key of `members`.
pub(super) fn member_key(conversation: ConversationId, user: &UserId) -> Vec<u8> {
    let mut key = conversation.0.to_be_bytes().to_vec();
    key.extend_from_slice(user.as_bytes());
    key
}

/// The user of a key of `members`.
pub(super) fn member_key_user(key: &[u8]) -> Result<UserId, StoreError> {
    key.get(8..).and_then(UserId::from_bytes).ok_or_else(|| damaged("members"))
}

/// Prefix of a user in `user_conversations`.
pub(super) fn user_prefix(user: &UserId) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + user.as_bytes().len() + 8);
    put_short(&mut key, user.as_bytes());
    key
}

/// Key of `user_conversations`.
pub(super) fn user_conversation_key(user: &UserId, conversation: ConversationId) -> Vec<u8> {
    let mut key = user_prefix(user);
    key.extend_from_slice(&conversation.0.to_be_bytes());
    key
}

/// The conversation of a key of `user_conversations`.
pub(super) fn user_conversation_key_conversation(key: &[u8]) -> Result<ConversationId, StoreError> {
    let start = key.len().checked_sub(8).ok_or_else(|| damaged("user_conversations"))?;
    Cursor(&key[start..]).number().map(ConversationId).ok_or_else(|| damaged("user_conversations"))
}

/// Key of `claims`.
pub(super) fn claim_key(key: &ClaimKey) -> Vec<u8> {
    let (tag, first, second) = match key {
        ClaimKey::DirectPair(low, high) => (1, low.as_bytes(), high.as_bytes()),
        ClaimKey::Creation(user, key) => (2, user.as_bytes(), key.as_str().as_bytes()),
    };
    let mut bytes = vec![tag];
    put_short(&mut bytes, first);
    bytes.extend_from_slice(second);
    bytes
}

/// Key in `claims` of a conversation that holds a claim; the value is the key of that claim.
pub(super) fn claim_of_key(conversation: ConversationId) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&conversation.0.to_be_bytes());
    bytes
}

// ---- values

/// What a row of `messages` says beside the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MessageHead {
    /// What the idempotency key stands for.
    pub(super) send: SendRow,
    /// Who sent it.
    pub(super) sender: UserId,
    /// The key, if the sender gave one.
    pub(super) client_message_id: Option<ClientMessageId>,
}

/// Value of `messages`.
pub(super) fn message_value(append: &Append) -> Vec<u8> {
    let mut value = Vec::with_capacity(24 + 2 + 129 + 64 + append.entry.len());
    put_numbers(&mut value, &[append.message.0, append.server_ts.0, append.body_hash]);
    put_short(&mut value, append.sender.as_bytes());
    put_short(&mut value, append.client_message_id.as_ref().map_or(&[][..], |id| id.as_str().as_bytes()));
    value.extend_from_slice(&append.entry);
    value
}

/// Where the entry starts in a value of `messages`.
pub(super) fn entry_of(value: &[u8]) -> Result<&[u8], StoreError> {
    let read = || {
        let mut cursor = Cursor(value);
        cursor.take(24)?;
        cursor.short()?;
        cursor.short()?;
        Some(cursor.0)
    };
    read().ok_or_else(|| damaged("messages"))
}

/// What a value of `messages` says beside the entry.
pub(super) fn message_head(seq: Seq, value: &[u8]) -> Result<MessageHead, StoreError> {
    let read = || {
        let mut cursor = Cursor(value);
        let (message, server_ts, body_hash) = (cursor.number()?, cursor.number()?, cursor.number()?);
        let sender = UserId::from_bytes(cursor.short()?)?;
        let client_message_id = match cursor.short()? {
            [] => None,
            bytes => Some(ClientMessageId::new(std::str::from_utf8(bytes).ok()?).ok()?),
        };
        let send = SendRow { seq, message: MessageId(message), server_ts: Timestamp(server_ts), body_hash };
        Some(MessageHead { send, sender, client_message_id })
    };
    read().ok_or_else(|| damaged("messages"))
}

/// The seq of a key of `messages`.
pub(super) fn message_key_seq(key: &[u8]) -> Result<Seq, StoreError> {
    key.get(8..).and_then(|bytes| Cursor(bytes).number()).map(Seq).ok_or_else(|| damaged("messages"))
}

/// Value of `sends`.
pub(super) fn send_value(row: &SendRow) -> Vec<u8> {
    let mut value = Vec::with_capacity(32);
    put_numbers(&mut value, &[row.seq.0, row.message.0, row.server_ts.0, row.body_hash]);
    value
}

/// Reads a value of `sends`.
pub(super) fn read_send(value: &[u8]) -> Result<SendRow, StoreError> {
    let read = || {
        let mut cursor = Cursor(value);
        Some(SendRow {
            seq: Seq(cursor.number()?),
            message: MessageId(cursor.number()?),
            server_ts: Timestamp(cursor.number()?),
            body_hash: cursor.number()?,
        })
    };
    read().ok_or_else(|| damaged("sends"))
}

/// A row of `conversations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConversationRow {
    /// Direct or group.
    pub(super) kind: ConversationKind,
    /// Closed.
    pub(super) deleted: bool,
    /// Members present.
    pub(super) member_count: u32,
    /// A group's name.
    pub(super) name: String,
}

impl ConversationRow {
    /// Value of `conversations`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            ConversationKind::Direct => 0,
            ConversationKind::Group => 1,
        };
        let mut value = vec![kind, u8::from(self.deleted)];
        value.extend_from_slice(&self.member_count.to_be_bytes());
        value.extend_from_slice(self.name.as_bytes());
        value
    }

    /// Reads a value of `conversations`.
    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let mut cursor = Cursor(value);
            let kind = match cursor.byte()? {
                0 => ConversationKind::Direct,
                1 => ConversationKind::Group,
                _ => return None,
            };
            let deleted = cursor.byte()? != 0;
            let member_count = u32::from_be_bytes(cursor.take(4)?.try_into().ok()?);
            Some(Self { kind, deleted, member_count, name: std::str::from_utf8(cursor.0).ok()?.to_owned() })
        };
        read().ok_or_else(|| damaged("conversations"))
    }
}

/// A row of `heads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadRow {
    /// The last entry.
    pub(super) seq: Seq,
    /// Its id.
    pub(super) message: MessageId,
    /// Its time.
    pub(super) server_ts: Timestamp,
    /// The flush that brought it.
    pub(super) position: Position,
}

impl HeadRow {
    /// Value of `heads`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(32);
        put_numbers(&mut value, &[self.seq.0, self.message.0, self.server_ts.0, self.position.0]);
        value
    }

    /// Reads a value of `heads`.
    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let mut cursor = Cursor(value);
            Some(Self {
                seq: Seq(cursor.number()?),
                message: MessageId(cursor.number()?),
                server_ts: Timestamp(cursor.number()?),
                position: Position(cursor.number()?),
            })
        };
        read().ok_or_else(|| damaged("heads"))
    }
}

/// One stay of a member: from the entry that let the member in to the one that removed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// The first entry that the member sees.
    pub(super) joined: Seq,
    /// The last one; `None` while the member is in.
    pub(super) left: Option<Seq>,
}

/// A row of `members`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberRow {
    /// The present role, or the last one.
    pub(super) role: Role,
    /// Oldest first; only the last may be open. At most [`STAYS_MAX`], those of the newest joins: what was
    /// said during an older stay the member can no longer read.
    pub(super) stays: Vec<Stay>,
}

/// Stays kept of a member, so that who leaves and comes back for ever has a row of 1 KiB at most. Stays are
/// not merged into one: what was said between them was never for this member.
pub(super) const STAYS_MAX: usize = 64;

impl MemberRow {
    /// Whether the user is a member now.
    pub(super) fn is_present(&self) -> bool {
        self.stays.last().is_some_and(|stay| stay.left.is_none())
    }

    /// A stay begins. The oldest is forgotten when there are too many.
    pub(super) fn join(&mut self, seq: Seq) {
        self.stays.push(Stay { joined: seq, left: None });
        let too_many = self.stays.len().saturating_sub(STAYS_MAX);
        self.stays.drain(..too_many);
    }

    /// Value of `members`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let role = match self.role {
            Role::Owner => 0,
            Role::Admin => 1,
            Role::Member => 2,
        };
        let mut value = vec![role];
        for stay in &self.stays {
            put_numbers(&mut value, &[stay.joined.0, stay.left.map_or(0, |seq| seq.0)]);
        }
        value
    }

    /// Reads a value of `members`.
    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let mut cursor = Cursor(value);
            let role = match cursor.byte()? {
                0 => Role::Owner,
                1 => Role::Admin,
                2 => Role::Member,
                _ => return None,
            };
            let mut stays = Vec::with_capacity(cursor.0.len() / 16);
            while !cursor.0.is_empty() {
                stays.push(Stay { joined: Seq(cursor.number()?), left: seq_or_none(cursor.number()?) });
            }
            Some(Self { role, stays })
        };
        read().ok_or_else(|| damaged("members"))
    }
}

/// A row of `user_conversations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserConversationRow {
    /// The flush that brought the last join or removal.
    pub(super) position: Position,
    /// The last stay.
    pub(super) stay: Stay,
}

impl UserConversationRow {
    /// Value of `user_conversations`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(24);
        let left = self.stay.left.map_or(0, |seq| seq.0);
        put_numbers(&mut value, &[self.position.0, self.stay.joined.0, left]);
        value
    }

    /// Reads a value of `user_conversations`.
    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let mut cursor = Cursor(value);
            let position = Position(cursor.number()?);
            let stay = Stay { joined: Seq(cursor.number()?), left: seq_or_none(cursor.number()?) };
            Some(Self { position, stay })
        };
        read().ok_or_else(|| damaged("user_conversations"))
    }
}

/// Reads a value of `claims`.
pub(super) fn read_claim(value: &[u8]) -> Result<ConversationId, StoreError> {
    Cursor(value).number().map(ConversationId).ok_or_else(|| damaged("claims"))
}

/// Value of the row `key time` of `meta`.
pub(super) fn key_time_value(time: Timestamp) -> Vec<u8> {
    time.0.to_be_bytes().to_vec()
}

/// Reads it.
pub(super) fn read_key_time(value: &[u8]) -> Result<Timestamp, StoreError> {
    Cursor(value).number().map(Timestamp).ok_or_else(|| damaged("meta"))
}

/// Names a data folder; random, and never told to a client: `journal_tail.rs` leans on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreId(pub(super) [u8; 16]);

/// The row of `meta`: part of every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetaRow {
    /// Whose it is.
    pub(super) store: StoreId,
    /// See [`crate::store::Status::epoch`].
    pub(super) epoch: Epoch,
    /// See [`crate::store::Status::position`].
    pub(super) position: Position,
    /// The latest time stored, of an entry or in a conversation's id.
    pub(super) newest: Timestamp,
}

impl MetaRow {
    /// Value of `meta`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = self.store.0.to_vec();
        put_numbers(&mut value, &[self.epoch.0, self.position.0, self.newest.0]);
        value
    }

    /// Reads a value of `meta`.
    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let mut cursor = Cursor(value);
            Some(Self {
                store: StoreId(cursor.take(16)?.try_into().ok()?),
                epoch: Epoch(cursor.number()?),
                position: Position(cursor.number()?),
                newest: Timestamp(cursor.number()?),
            })
        };
        read().ok_or_else(|| damaged("meta"))
    }
}

// ---- bytes

fn seq_or_none(number: u64) -> Option<Seq> {
    (number != 0).then_some(Seq(number))
}

fn put_numbers(value: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        value.extend_from_slice(&number.to_be_bytes());
    }
}

/// Bytes with their length before them. Names are at most 129 bytes.
fn put_short(value: &mut Vec<u8>, bytes: &[u8]) {
    value.push(u8::try_from(bytes.len()).expect("a name is at most 129 bytes"));
    value.extend_from_slice(bytes);
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(self.byte()?);
        self.take(count)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn user(sub: &str) -> UserId {
        UserId::new("tenant", sub).unwrap()
    }

    #[test]
    fn a_message_gives_back_its_head_and_its_entry() {
        for client_message_id in [None, Some(ClientMessageId::new("c-1").unwrap())] {
            let append = Append {
                conversation: ConversationId(7),
                seq: Seq(9),
                message: MessageId(11),
                server_ts: Timestamp(13),
                sender: user("alice"),
                client_message_id: client_message_id.clone(),
                body_hash: 17,
                index: None,
                entry: Bytes::from_static(b"the entry"),
            };
            let value = message_value(&append);
            assert_eq!(entry_of(&value).unwrap(), b"the entry");
            let head = message_head(Seq(9), &value).unwrap();
            assert_eq!(head.client_message_id, client_message_id);
            assert_eq!(head.sender, user("alice"));
            let expected =
                SendRow { seq: Seq(9), message: MessageId(11), server_ts: Timestamp(13), body_hash: 17 };
            assert_eq!(head.send, expected);
            assert_eq!(read_send(&send_value(&expected)).unwrap(), expected);
            assert!(matches!(entry_of(&value[..20]), Err(StoreError::Damaged(_))));
        }
    }

    #[test]
    fn rows_give_back_what_they_were_made_of() {
        let conversation = ConversationRow {
            kind: ConversationKind::Group,
            deleted: true,
            member_count: 300,
            name: "plans".into(),
        };
        assert_eq!(ConversationRow::decode(&conversation.encode()).unwrap(), conversation);
        let member = MemberRow {
            role: Role::Admin,
            stays: vec![Stay { joined: Seq(1), left: Some(Seq(5)) }, Stay { joined: Seq(8), left: None }],
        };
        assert_eq!(MemberRow::decode(&member.encode()).unwrap(), member);
        assert!(member.is_present());
        let key = member_key(ConversationId(1), &user("bob"));
        assert_eq!(member_key_user(&key).unwrap(), user("bob"));
        let key = user_conversation_key(&user("bob"), ConversationId(77));
        assert_eq!(user_conversation_key_conversation(&key).unwrap(), ConversationId(77));
        assert!(key.starts_with(&user_prefix(&user("bob"))));
        let meta =
            MetaRow { store: StoreId([3; 16]), epoch: Epoch(4), position: Position(5), newest: Timestamp(6) };
        assert_eq!(MetaRow::decode(&meta.encode()).unwrap(), meta);
    }

    #[test]
    fn keys_of_different_users_never_meet() {
        let short = user_prefix(&UserId::new("", "ab").unwrap());
        let long = user_conversation_key(&UserId::new("", "abc").unwrap(), ConversationId(0));
        assert!(!long.starts_with(&short));
        let pair = |low: &str, high: &str| {
            claim_key(&ClaimKey::DirectPair(UserId::new("", low).unwrap(), UserId::new("", high).unwrap()))
        };
        assert_ne!(pair("a", "bc"), pair("ab", "c"));
    }
}
