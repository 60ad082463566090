//! The store behind one trait: what the router appends, and what router and API read.
//!
//! Two implementations: the embedded one (`embedded/`), and in the fleet ScyllaDB or Cassandra. Both are
//! asked without waiting: a call hands over the work, and `done` is called once, from a thread of the
//! store, with what came of it. `done` must not block.
//!
//! **Durable** means written and fsynced here, a quorum there. An unknown outcome is neither done nor
//! undone, and only a read in the next epoch tells.

use bytes::Bytes;
use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Epoch, MessageId, Position, Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, UserId};

/// Called once with what came of a request.
pub type Done<T> = Box<dyn FnOnce(T) + Send>;

/// A durable log of conversations with its indexes.
pub trait Store: Send + Sync + 'static {
    /// Makes a flush durable, whole or not at all, in the order of calls from one thread. Answers its own
    /// position: no two flushes share one.
    ///
    /// Each entry must be the one after the last of its conversation, and the first, alone, creates it: a
    /// flush that doesn't follow is refused and a new epoch begins.
    fn flush(&self, flush: Flush, done: Done<Result<Position, StoreError>>);

    /// Answers from what is durable, never from what is only written.
    fn read(&self, query: Query, done: Done<Result<Answer, StoreError>>);

    /// Gives `key` to `proposed` unless it is taken, durably; answers who has it.
    fn claim(&self, key: ClaimKey, proposed: ConversationId, done: Done<Result<ConversationId, StoreError>>);

    /// What it is doing now. Cheap: read on every pass.
    fn status(&self) -> Status;
}

/// The state of a store, read without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether flushes are taken. While false every flush answers [`StoreError::Unavailable`].
    pub accepts: bool,
    /// Rises each time the store was opened, in this process or an earlier one. A worker that sees a new
    /// epoch drops what it holds of every conversation and loads anew.
    pub epoch: Epoch,
    /// All flushes up to here are durable, and a read that is asked now sees them.
    pub position: Position,
    /// No message or conversation id handed out before this epoch has a later time than this.
    pub newest: Timestamp,
    /// The time by which idempotency keys age. It is ahead of no id that is given from now on (but, after the
    /// wall clock stepped back, for up to a sweep interval), and between two moments it moves ahead by no more than twice the time that passed, whatever the wall clock did: a key that
    /// is older than twice a window by it is older than the window.
    pub key_time: Timestamp,
}

/// Entries that become durable together: all that a worker has for the store at the end of a pass.
#[derive(Debug)]
pub struct Flush {
    /// The epoch under which the entries were made. A flush of an epoch that is over is refused.
    pub epoch: Epoch,
    /// The entries, in order within each conversation.
    pub appends: Vec<Append>,
}

/// One entry with what the indexes need of it.
#[derive(Clone, Debug)]
pub struct Append {
    /// Its conversation.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub message: MessageId,
    /// When it was accepted.
    pub server_ts: Timestamp,
    /// Who sent it.
    pub sender: UserId,
    /// The idempotency key.
    pub client_message_id: Option<ClientMessageId>,
    /// Hash of the content ([`body_hash`]), kept beside the idempotency key: the same key with another
    /// body is a conflict.
    pub body_hash: u64,
    /// What it changes in the indexes, for a change.
    pub index: Option<IndexChange>,
    /// The encoded [`ringway_protocol::entry::Entry`].
    pub entry: Bytes,
}

/// What a change of a conversation does to the indexes. The store derives rows of `conversations`,
/// `members` and `user_conversations` from it, in the same batch as the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexChange {
    /// The conversation exists from here.
    Created {
        /// Direct or group.
        kind: ConversationKind,
        /// A group's name.
        name: String,
        /// The first members.
        members: Vec<(UserId, Role)>,
    },
    /// A member from this entry on.
    MemberAdded {
        /// Who.
        user: UserId,
        /// As what.
        role: Role,
    },
    /// A member up to this entry.
    MemberRemoved {
        /// Who.
        user: UserId,
    },
    /// Another name.
    Renamed {
        /// The new one.
        name: String,
    },
    /// No further entry.
    Deleted,
}

/// What may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// All that an owner needs to go on with a conversation: answered by [`Answer::Conversation`].
    Conversation(ConversationId),
    /// Whether a client message id was used: [`Answer::Send`].
    Send {
        /// Where.
        conversation: ConversationId,
        /// By whom.
        sender: UserId,
        /// Its key.
        client_message_id: ClientMessageId,
    },
    /// Entries that `user` may see, ascending from `after` or descending from `before`:
    /// [`Answer::Entries`].
    Entries {
        /// Where.
        conversation: ConversationId,
        /// Only entries within the membership of this user: from a join to the removal, both included. Of
        /// who was in many times, only the newest 64 stays: what was said in older ones is not read.
        user: UserId,
        /// From where, and which way.
        from: From,
        /// At most so many.
        limit: u32,
    },
    /// The conversations of a user that may have changed after a position: [`Answer::Heads`].
    Heads {
        /// Whose.
        user: UserId,
        /// All of them without one; also with one that is 0 or that this store has not come to.
        since: Option<Position>,
    },
    /// A page of a user's conversations that still exist and that the user is in, by conversation id,
    /// newest first: [`Answer::Conversations`].
    Conversations {
        /// Whose.
        user: UserId,
        /// Only ids below this one.
        before: Option<ConversationId>,
        /// At most so many.
        limit: u32,
    },
    /// One conversation as one of its members sees it: [`Answer::Summary`].
    Summary {
        /// Which.
        conversation: ConversationId,
        /// Who asks.
        user: UserId,
    },
}

/// Where a read of entries starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Ascending, from the seq after this one.
    After(Seq),
    /// Descending, from the seq before this one; `None` is from the newest.
    Before(Option<Seq>),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `None`: no such conversation.
    Conversation(Option<Box<Conversation>>),
    /// `None`: this key was never used, as far as the store remembers.
    Send(Option<SendRow>),
    /// Encoded entries in the order asked for; `more` if the limit (in entries or in bytes,
    /// `PAGE_BYTES_MAX`) cut the list. At least one entry if there is any.
    Entries {
        /// Encoded entries.
        entries: Vec<Bytes>,
        /// More are there.
        more: bool,
    },
    /// Conversations with the last seq that the user may see.
    Heads {
        /// The pairs; for one that the user was removed from, the seq of the removal.
        heads: Vec<(ConversationId, Seq)>,
        /// Whether `since` was given and known here: false with all of them.
        recovered: bool,
    },
    /// Summaries of a page.
    Conversations {
        /// Newest id first.
        conversations: Vec<Summary>,
        /// More are there.
        more: bool,
    },
    /// `None`: no such conversation, or a deleted one, or not a member now.
    Summary(Option<Box<Summary>>),
}

/// What an owner loads of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Direct or group.
    pub kind: ConversationKind,
    /// A group's name.
    pub name: String,
    /// Present members in the order of joining; those who joined together in the order of their ids.
    pub members: Vec<(UserId, Role)>,
    /// Closed: no further entry.
    pub deleted: bool,
    /// The last entry.
    pub last_seq: Seq,
    /// Its id.
    pub last_message: MessageId,
    /// Its time.
    pub last_ts: Timestamp,
    /// The newest idempotency keys, oldest first, at most [`RECENT_SENDS_MAX`].
    pub recent: Vec<(UserId, ClientMessageId, SendRow)>,
    /// `recent` holds every key used at or after this time (0: every key ever used). A key not found in
    /// it may still be an older one.
    pub recent_since: Timestamp,
}

/// Idempotency keys that an owner is given when it loads a conversation.
pub const RECENT_SENDS_MAX: usize = 256;

/// What an idempotency key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRow {
    /// The entry's place.
    pub seq: Seq,
    /// Its id.
    pub message: MessageId,
    /// Its time.
    pub server_ts: Timestamp,
    /// Hash of its content.
    pub body_hash: u64,
}

/// A conversation as a member sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub conversation: ConversationId,
    /// Direct or group.
    pub kind: ConversationKind,
    /// A group's name.
    pub name: String,
    /// Present members; in a list, at most [`SUMMARY_MEMBERS_MAX`] of them.
    pub members: Vec<(UserId, Role)>,
    /// How many there are.
    pub member_count: u32,
    /// The asker's role.
    pub role: Role,
    /// The last seq that the asker may see.
    pub last_seq: Seq,
    /// That entry, encoded.
    pub last_entry: Option<Bytes>,
}

/// Members named in each conversation of a list; one conversation alone names all.
pub const SUMMARY_MEMBERS_MAX: usize = 16;

/// A key that one conversation may hold, whoever comes first, until it is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimKey {
    /// The direct conversation of a pair, in the order of `trunk::direct_pair`.
    DirectPair(UserId, UserId),
    /// A caller's `Idempotency-Key` on the making of a conversation.
    Creation(UserId, ClientMessageId),
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written: the store does not take writes now (the disk is full or failed, or it opens
    /// again), or the epoch is over.
    #[error("the store takes no writes now: {0}")]
    Unavailable(String),
    /// The write may or may not be there. The epoch is over: what is true is read in the next one.
    #[error("the outcome of a write is unknown: {0}")]
    Unknown(String),
    /// What was read does not decode: the data folder is damaged.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}
