//! Log entries as bytes, and the hash that tells two bodies apart.
//!
//! The bytes are the protobuf of `proto/internal.proto`; `entry.rs` says who reads them. What is decoded
//! here was written by us, and is checked all the same: a damaged store must not panic an owner.

use aws_lc_rs::digest;
use bytes::Bytes;
use prost::Message as _;

use crate::entry::{Body, Change, Content, ConversationKind, Entry, Message, Role};
use crate::ids::{ConversationId, Epoch, MessageId, Seq, Timestamp};
use crate::user::{ClientMessageId, UserId};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/ringway.internal.v1.rs"));
}

/// Why bytes are not an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// They are not protobuf.
    #[error("a log entry is damaged: {0}")]
    Damaged(#[from] prost::DecodeError),
    /// A part is missing, or is not what an entry may have there.
    #[error("a log entry is damaged: its {0} is missing or malformed")]
    Malformed(&'static str),
}

impl Entry {
    /// The entry as bytes, the same for the same entry.
    pub fn encode(&self) -> Bytes {
        let entry = proto::Entry {
            conversation: self.conversation.0,
            seq: self.seq.0,
            message: self.message.0,
            server_ts: self.server_ts.0,
            epoch: self.epoch.0,
            sender: user_bytes(&self.sender),
            client_message_id: self
                .client_message_id
                .as_ref()
                .map_or_else(String::new, |id| id.as_str().to_owned()),
            content: Some(content_to_proto(&self.content)),
        };
        Bytes::from(entry.encode_to_vec())
    }

    /// Reads what [`encode`](Self::encode) gave, copying the body.
    ///
    /// # Errors
    /// [`EntryError`] if the bytes are not an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        Self::from_proto(proto::Entry::decode(bytes)?)
    }

    /// Reads what [`encode`](Self::encode) gave; the body shares the buffer.
    ///
    /// # Errors
    /// [`EntryError`] if the bytes are not an entry.
    pub fn decode_shared(bytes: &Bytes) -> Result<Self, EntryError> {
        Self::from_proto(proto::Entry::decode(bytes.clone())?)
    }

    /// Tells the content from another: see [`Content::body_hash`].
    pub fn body_hash(&self) -> u64 {
        self.content.body_hash()
    }

    fn from_proto(entry: proto::Entry) -> Result<Self, EntryError> {
        let client_message_id = match entry.client_message_id.as_str() {
            "" => None,
            id => Some(ClientMessageId::new(id).map_err(|_| EntryError::Malformed("client_message_id"))?),
        };
        Ok(Self {
            conversation: ConversationId(entry.conversation),
            seq: Seq(entry.seq),
            message: MessageId(entry.message),
            server_ts: Timestamp(entry.server_ts),
            epoch: Epoch(entry.epoch),
            sender: user_from(&entry.sender, "sender")?,
            client_message_id,
            content: content_from_proto(entry.content.ok_or(EntryError::Malformed("content"))?)?,
        })
    }
}

impl Content {
    /// The first 64 bits of a SHA-256 over the content, each part behind its length. It is kept on disk
    /// beside the idempotency key and never changes: the same key with another hash is a conflict.
    pub fn body_hash(&self) -> u64 {
        match self {
            Content::Message(message) => message.body_hash(),
            Content::Change(change) => {
                let mut hash = BodyHash::of_kind(b'c');
                hash_change(&mut hash, change);
                hash.finish()
            }
        }
    }
}

impl Message {
    /// The hash of a message as the content of an entry: see [`Content::body_hash`].
    pub fn body_hash(&self) -> u64 {
        let mut hash = BodyHash::of_kind(b'm');
        match &self.body {
            Body::Text(text) => {
                hash.part(b"text");
                hash.part(text);
            }
            Body::Ciphertext { alg, data } => {
                hash.part(b"ciphertext");
                hash.part(alg.as_bytes());
                hash.part(data);
            }
        }
        hash.number(self.reply_to.map_or(0, |message| message.0));
        hash.number(self.media_ids.len() as u64);
        for media in &self.media_ids {
            hash.part(media.as_bytes());
        }
        hash.finish()
    }
}

fn hash_change(hash: &mut BodyHash, change: &Change) {
    match change {
        Change::Created { kind, name, members } => {
            hash.part(b"created");
            hash.number(kind_to_proto(*kind) as u64);
            hash.part(name.as_bytes());
            hash.number(members.len() as u64);
            for (user, role) in members {
                hash.part(user.as_bytes());
                hash.number(role_to_proto(*role) as u64);
            }
        }
        Change::MemberAdded { user, role } => {
            hash.part(b"member_added");
            hash.part(user.as_bytes());
            hash.number(role_to_proto(*role) as u64);
        }
        Change::MemberRemoved { user } => {
            hash.part(b"member_removed");
            hash.part(user.as_bytes());
        }
        Change::Renamed { name } => {
            hash.part(b"renamed");
            hash.part(name.as_bytes());
        }
        Change::Deleted => hash.part(b"deleted"),
    }
}

/// SHA-256 over parts whose borders count.
struct BodyHash(digest::Context);

impl BodyHash {
    fn of_kind(kind: u8) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[kind]);
        Self(context)
    }

    fn part(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn finish(self) -> u64 {
        let digest = self.0.finish();
        let front = digest.as_ref().first_chunk::<8>().expect("SHA-256 has 32 bytes");
        u64::from_le_bytes(*front)
    }
}

fn content_to_proto(content: &Content) -> proto::entry::Content {
    use proto::entry::Content as To;
    match content {
        Content::Message(message) => To::TextMessage(proto::Message {
            body: Some(match &message.body {
                Body::Text(text) => proto::message::Body::Text(text.clone()),
                Body::Ciphertext { alg, data } => proto::message::Body::Ciphertext(proto::Ciphertext {
                    alg: alg.clone(),
                    data: data.clone(),
                }),
            }),
            media_ids: message.media_ids.clone(),
            reply_to: message.reply_to.map_or(0, |message| message.0),
        }),
        Content::Change(Change::Created { kind, name, members }) => To::Created(proto::Created {
            kind: kind_to_proto(*kind).into(),
            name: name.clone(),
            members: members.iter().map(|(user, role)| member_to_proto(user, *role)).collect(),
        }),
        Content::Change(Change::MemberAdded { user, role }) => To::MemberAdded(member_to_proto(user, *role)),
        Content::Change(Change::MemberRemoved { user }) => {
            To::MemberRemoved(proto::Member { user: user_bytes(user), role: proto::Role::Unknown.into() })
        }
        Content::Change(Change::Renamed { name }) => To::Renamed(proto::Renamed { name: name.clone() }),
        Content::Change(Change::Deleted) => To::Deleted(proto::Deleted {}),
    }
}

fn content_from_proto(content: proto::entry::Content) -> Result<Content, EntryError> {
    use proto::entry::Content as From;
    Ok(match content {
        From::TextMessage(message) => Content::Message(message_from_proto(message)?),
        From::Created(created) => Content::Change(Change::Created {
            kind: kind_from_proto(created.kind())?,
            name: created.name,
            members: created.members.iter().map(member_from_proto).collect::<Result<_, _>>()?,
        }),
        From::MemberAdded(member) => {
            let (user, role) = member_from_proto(&member)?;
            Content::Change(Change::MemberAdded { user, role })
        }
        From::MemberRemoved(member) => {
            Content::Change(Change::MemberRemoved { user: user_from(&member.user, "member")? })
        }
        From::Renamed(renamed) => Content::Change(Change::Renamed { name: renamed.name }),
        From::Deleted(_) => Content::Change(Change::Deleted),
    })
}

fn message_from_proto(message: proto::Message) -> Result<Message, EntryError> {
    let body = match message.body.ok_or(EntryError::Malformed("body"))? {
        proto::message::Body::Text(text) => {
            simdutf8::basic::from_utf8(&text).map_err(|_| EntryError::Malformed("text"))?;
            Body::Text(text)
        }
        proto::message::Body::Ciphertext(ciphertext) => {
            Body::Ciphertext { alg: ciphertext.alg, data: ciphertext.data }
        }
    };
    let reply_to = (message.reply_to != 0).then_some(MessageId(message.reply_to));
    Ok(Message { body, media_ids: message.media_ids, reply_to })
}

fn member_to_proto(user: &UserId, role: Role) -> proto::Member {
    proto::Member { user: user_bytes(user), role: role_to_proto(role).into() }
}

fn member_from_proto(member: &proto::Member) -> Result<(UserId, Role), EntryError> {
    let role = match member.role() {
        proto::Role::Owner => Role::Owner,
        proto::Role::Admin => Role::Admin,
        proto::Role::Member => Role::Member,
        proto::Role::Unknown => return Err(EntryError::Malformed("role")),
    };
    Ok((user_from(&member.user, "member")?, role))
}

fn role_to_proto(role: Role) -> proto::Role {
    match role {
        Role::Owner => proto::Role::Owner,
        Role::Admin => proto::Role::Admin,
        Role::Member => proto::Role::Member,
    }
}

fn kind_to_proto(kind: ConversationKind) -> proto::Kind {
    match kind {
        ConversationKind::Direct => proto::Kind::Direct,
        ConversationKind::Group => proto::Kind::Group,
    }
}

fn kind_from_proto(kind: proto::Kind) -> Result<ConversationKind, EntryError> {
    match kind {
        proto::Kind::Direct => Ok(ConversationKind::Direct),
        proto::Kind::Group => Ok(ConversationKind::Group),
        proto::Kind::Unknown => Err(EntryError::Malformed("kind")),
    }
}

fn user_bytes(user: &UserId) -> Bytes {
    Bytes::copy_from_slice(user.as_bytes())
}

fn user_from(bytes: &[u8], what: &'static str) -> Result<UserId, EntryError> {
    UserId::from_bytes(bytes).ok_or(EntryError::Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(sub: &str) -> UserId {
        UserId::new("acme", sub).unwrap()
    }

    fn entry(content: Content) -> Entry {
        Entry {
            conversation: ConversationId(u64::MAX),
            seq: Seq(7),
            message: MessageId(1 << 63),
            server_ts: Timestamp(1_790_000_000_000),
            epoch: Epoch(3),
            sender: user("alice"),
            client_message_id: Some(ClientMessageId::new("c-1").unwrap()),
            content,
        }
    }

    fn every_content() -> Vec<Content> {
        let message = |body, media: &[&str], reply_to| {
            let media_ids = media.iter().map(|id| (*id).to_owned()).collect();
            Content::Message(Message { body, media_ids, reply_to })
        };
        let sealed = |alg: &str, data: &'static [u8]| Body::Ciphertext {
            alg: alg.to_owned(),
            data: Bytes::from_static(data),
        };
        let text = |text: &'static str| Body::Text(Bytes::from_static(text.as_bytes()));
        let created = |kind, name: &str, members| {
            Content::Change(Change::Created { kind, name: name.to_owned(), members })
        };
        vec![
            message(text("grüß"), &[], None),
            message(text(""), &[], None),
            message(text("grüß"), &["a", "b"], None),
            message(text("grüß"), &["ab"], None),
            message(text("grüß"), &[], Some(MessageId(9))),
            message(sealed("mls", b"\xff\x00"), &[], None),
            message(sealed("ml", b"s\xff\x00"), &[], None),
            created(ConversationKind::Direct, "", vec![(user("a"), Role::Owner), (user("b"), Role::Member)]),
            created(ConversationKind::Group, "", vec![(user("a"), Role::Owner), (user("b"), Role::Member)]),
            created(ConversationKind::Group, "n", vec![(user("a"), Role::Admin)]),
            Content::Change(Change::MemberAdded { user: user("b"), role: Role::Member }),
            Content::Change(Change::MemberAdded { user: user("b"), role: Role::Admin }),
            Content::Change(Change::MemberRemoved { user: user("b") }),
            Content::Change(Change::Renamed { name: "b".to_owned() }),
            Content::Change(Change::Deleted),
        ]
    }

    #[test]
    fn every_content_comes_back_and_has_a_hash_of_its_own() {
        let mut hashes = std::collections::BTreeSet::new();
        for content in every_content() {
            let entry = entry(content);
            let bytes = entry.encode();
            assert_eq!(Entry::decode(&bytes), Ok(entry.clone()));
            assert_eq!(Entry::decode_shared(&bytes), Ok(entry.clone()));
            assert!(hashes.insert(entry.body_hash()), "{entry:?} shares its hash");
        }
    }

    #[test]
    fn a_shared_body_is_not_copied() {
        let bytes = entry(every_content().remove(0)).encode();
        let Content::Message(Message { body: Body::Text(text), .. }) =
            Entry::decode_shared(&bytes).unwrap().content
        else {
            panic!("a text");
        };
        assert!(bytes.as_ptr_range().contains(&text.as_ptr()));
    }

    #[test]
    fn the_bytes_on_disk_and_the_hash_never_change() {
        let entry = entry(every_content().remove(2));
        let hex: String = entry.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "09ffffffffffffffff10071900000000000000802080d8c1a28c342803320a0461636d65616c6963653a03632d31\
             420e0a066772c3bcc39f1a01611a0162"
        );
        assert_eq!(entry.body_hash(), 0xb3b8_b3b2_708e_95b4);
    }

    #[test]
    fn a_cut_entry_is_an_error_or_another_entry_but_no_panic() {
        for content in every_content() {
            let bytes = entry(content).encode();
            for cut in 0..bytes.len() {
                let _ = Entry::decode(&bytes[..cut]);
            }
            assert!(Entry::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
