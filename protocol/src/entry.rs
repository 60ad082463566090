//! An entry: one place in a conversation's log, a message or a change of the conversation.
//!
//! A change takes a place in the order like a message, so that members and the log agree on who was in
//! when. The encoding (`Entry::encode`) is protobuf, described in `internal.proto` and written by
//! `entry_codec.rs`: it is what the store keeps, what the trunk carries and what history reads, so that an
//! entry is encoded once in its life. A gateway core turns it into a client's JSON or protobuf once for all
//! recipients of that encoding.

use bytes::Bytes;

pub use crate::entry_codec::EntryError;
use crate::ids::{ConversationId, Epoch, MessageId, Seq, Timestamp};
use crate::user::{ClientMessageId, UserId};

/// One place in a conversation's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The conversation whose log it is in.
    pub conversation: ConversationId,
    /// Its place, dense from 1.
    pub seq: Seq,
    /// Unique over all conversations; rises within this one.
    pub message: MessageId,
    /// The owner's clock when it was accepted; never falls within a conversation.
    pub server_ts: Timestamp,
    /// The epoch of the owner that wrote it.
    pub epoch: Epoch,
    /// Who sent the message or made the change.
    pub sender: UserId,
    /// The sender's idempotency key; changes made without one have none.
    pub client_message_id: Option<ClientMessageId>,
    /// What it says.
    pub content: Content,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A message of a member.
    Message(Message),
    /// A change of the conversation.
    Change(Change),
}

/// A message as its sender gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The text, or what only the devices can read.
    pub body: Body,
    /// References to uploaded media.
    pub media_ids: Vec<String>,
    /// The message this one answers.
    pub reply_to: Option<MessageId>,
}

/// The body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Plain text: the bytes are UTF-8.
    Text(Bytes),
    /// End-to-end encrypted, opaque to us.
    Ciphertext {
        /// The client's name for the algorithm, at most [`crate::limits::NAME_BYTES_MAX`] bytes.
        alg: String,
        /// The raw bytes (base64 in JSON).
        data: Bytes,
    },
}

impl Body {
    /// Bytes of text or ciphertext.
    pub fn len(&self) -> usize {
        match self {
            Body::Text(bytes) => bytes.len(),
            Body::Ciphertext { data, .. } => data.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What kind of conversation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationKind {
    /// Two users (or one with themselves), made once for a pair, members fixed.
    Direct,
    /// Up to [`crate::limits::GROUP_MEMBERS_MAX`] members, added and removed.
    Group,
}

/// What a member may do. Roles beyond this are given and changed in a later version; the creator of a
/// group is its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Owner,
    /// Adds and removes members.
    Admin,
    /// Reads and sends.
    Member,
}

/// A change of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first entry of every conversation: its kind, name and first members. The sender is the creator.
    Created {
        /// Direct or group.
        kind: ConversationKind,
        /// A group's name, may be empty.
        name: String,
        /// The first members, the creator among them.
        members: Vec<(UserId, Role)>,
    },
    /// A user joined; the user's stream starts with this entry.
    MemberAdded {
        /// Who.
        user: UserId,
        /// As what.
        role: Role,
    },
    /// A user left or was removed; the user's stream ends with this entry.
    MemberRemoved {
        /// Who.
        user: UserId,
    },
    /// The group has another name.
    Renamed {
        /// The new one.
        name: String,
    },
    /// The conversation is closed: no further entry.
    Deleted,
}
