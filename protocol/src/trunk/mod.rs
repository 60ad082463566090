//! What gateways, the HTTP API and the router tell each other.
//!
//! Inside one process the values travel as they are, through bounded inboxes (crate `trunk`); between
//! machines by the bytes of `codec.rs`, the same values. An *endpoint* is a gateway core or
//! the API; a *worker* is a router thread with its share of the virtual shards. From one endpoint to one
//! worker, and back, order is kept: what a client may rely on leans on that.
//!
//! ```text
//!   endpoint ── Attach, Detach, Request ──▶ worker      ToRouter
//!   endpoint ◀── Reply, FanOut, Close, Watermark, Lost ── worker   ToEndpoint
//! ```

pub mod codec;

use std::sync::Arc;

use bytes::Bytes;

use crate::entry::{ConversationKind, Message, Role};
use crate::ids::{ConnectionId, ConversationId, MessageId, Position, RequestId, Seq, Timestamp};
use crate::user::{ClientMessageId, DeviceId, UserId};

/// From an endpoint to a router worker.
#[derive(Clone, Debug, PartialEq)]
pub enum ToRouter {
    /// A session began. Goes to **every** worker, each of which keeps who is connected where; the worker
    /// of the user's shard also closes an older connection of the same device (4009).
    Attach {
        /// Where its deliveries go.
        connection: ConnectionId,
        /// Whose it is.
        user: UserId,
        /// Which device.
        device: DeviceId,
    },
    /// A session ended. Goes to every worker.
    Detach {
        /// The one that attached.
        connection: ConnectionId,
        /// Whose it was.
        user: UserId,
        /// Which device.
        device: DeviceId,
    },
    /// Something to do, answered by exactly one [`ToEndpoint::Reply`] (a deadline of ten seconds ends it
    /// as [`Refusal::Unavailable`]).
    Request {
        /// Who is answered. An API request has a connection id of the API's endpoint that never attaches.
        connection: ConnectionId,
        /// Echoed in the reply.
        request: RequestId,
        /// On whose behalf.
        user: UserId,
        /// What.
        operation: Operation,
    },
}

/// What is asked of a router worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Append a message. To the worker of the conversation, or of the pair ([`Target::shard`]).
    Send {
        /// Where to.
        target: Target,
        /// The idempotency key, with conversation and sender.
        client_message_id: ClientMessageId,
        /// What.
        message: Message,
    },
    /// Make a conversation. To the worker of the caller's user shard (a group) or of the pair (direct).
    Create {
        /// Direct or group.
        kind: ConversationKind,
        /// A group's name, may be empty.
        name: String,
        /// Members besides the caller.
        members: Vec<UserId>,
        /// The same key by the same caller makes one conversation.
        idempotency_key: Option<ClientMessageId>,
    },
    /// Add a member, or do nothing if the user is one. To the worker of the conversation, as all below.
    AddMember {
        /// Which.
        conversation: ConversationId,
        /// Who joins.
        user: UserId,
        /// As what.
        role: Role,
    },
    /// Remove a member, or leave.
    RemoveMember {
        /// Which.
        conversation: ConversationId,
        /// Who goes.
        user: UserId,
    },
    /// Give a group another name.
    Rename {
        /// Which.
        conversation: ConversationId,
        /// The new name.
        name: String,
    },
    /// Close a group for ever; its history stays readable.
    Delete {
        /// Which.
        conversation: ConversationId,
    },
    /// A page of what a connection missed: entries after `after`, ascending. From the moment this is
    /// handled until a page says `more: false`, the worker holds back the conversation's live entries
    /// from this connection, so that the seam has no hole and no overlap; the next page is asked for as
    /// the socket drains. `Detach`, or [`Operation::SyncEnd`], ends the hold.
    SyncPage {
        /// Which.
        conversation: ConversationId,
        /// The last seq the client has, 0 for none.
        after: Seq,
        /// Entries wanted at most, 1 to [`crate::limits::PAGE_ENTRIES_MAX`].
        limit: u32,
    },
    /// The connection asks for no further page although the last said `more: true`; live entries flow
    /// again. Answered by [`Outcome::Done`].
    SyncEnd {
        /// Which.
        conversation: ConversationId,
    },
    /// The caller's conversations that may have changed since a position, with their last seq; all of
    /// them without one. To the worker of the caller's user shard.
    Heads {
        /// From a resume cursor.
        since: Option<Position>,
    },
}

/// Where a send goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A conversation that the client knows.
    Conversation(ConversationId),
    /// The direct conversation with a user, made at need. The worker of the pair finds or makes its id
    /// and passes the send on to the conversation's worker.
    User(UserId),
}

/// From a router worker to an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum ToEndpoint {
    /// The answer to a request.
    Reply {
        /// Who asked.
        connection: ConnectionId,
        /// The request's number.
        request: RequestId,
        /// How it ended.
        outcome: Result<Outcome, Refusal>,
    },
    /// One entry for many connections of this endpoint.
    FanOut {
        /// The body, once an endpoint.
        body: Arc<FanOutBody>,
        /// 16 bytes a recipient. All name `body.reference`.
        notices: Vec<Notice>,
    },
    /// Close a connection with a code of ours: 4009 (the same device connected anew), 4029 (too many
    /// connections of one user).
    Close {
        /// Which.
        connection: ConnectionId,
        /// The close code.
        code: u16,
    },
    /// Everything at or below this position that concerns connections of this endpoint, and that this
    /// worker owns, has been sent before. The least over all workers is the endpoint's resume position.
    Watermark {
        /// Which worker says so.
        worker: u16,
        /// How far.
        position: Position,
    },
    /// The inbox was full and deliveries were dropped: each connection gets a `gap` without an id.
    Lost,
}

/// An entry on its way to many.
#[derive(Clone, Debug, PartialEq)]
pub struct FanOutBody {
    /// Its number on this trunk.
    pub reference: BodyReference,
    /// Its conversation.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// The encoded [`crate::entry::Entry`].
    pub entry: Bytes,
}

/// Numbers the bodies of one worker, so that a notice can name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyReference(pub u64);

/// One recipient of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Who.
    pub connection: ConnectionId,
    /// What.
    pub body: BodyReference,
}

const _: () = assert!(size_of::<Notice>() == 16, "a recipient costs 16 bytes on the trunk");

/// How a request ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The message is durable.
    Sent {
        /// Its conversation (news to who sent to a user).
        conversation: ConversationId,
        /// Its id.
        message: MessageId,
        /// Its place.
        seq: Seq,
        /// When it was accepted.
        server_ts: Timestamp,
        /// It was stored before, by an earlier try.
        duplicate: bool,
    },
    /// The conversation is there.
    Created {
        /// Its id.
        conversation: ConversationId,
        /// Made by this request, or there before.
        created: bool,
        /// Last seq.
        seq: Seq,
    },
    /// The change is durable, or there was nothing to change.
    Changed {
        /// The entry's place; `None` if there was nothing to change.
        seq: Option<Seq>,
    },
    /// A page of a sync.
    Page {
        /// Which.
        conversation: ConversationId,
        /// Encoded entries, ascending, dense over what this user may see.
        entries: Vec<Bytes>,
        /// Whether the connection must ask for the next page.
        more: bool,
    },
    /// The caller's conversations, in one reply.
    Heads {
        /// Conversation and last seq that this user may see.
        heads: Vec<(ConversationId, Seq)>,
        /// False if `since` was unknown here and all are named.
        recovered: bool,
    },
    /// Done; nothing to tell.
    Done,
}

/// Why a request was refused. Nothing was changed, except with [`Refusal::Unavailable`]: then the outcome
/// is unknown, and the same `client_message_id` finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such thing, or the caller may not know of it.
    #[error("no such conversation, or you are not a member of it")]
    NotFound,
    /// The caller is a member and may not do this.
    #[error("your role does not allow this")]
    Forbidden,
    /// The same client message id with another body.
    #[error("this client_msg_id was used for another message: pick a new one")]
    DuplicateConflict,
    /// The conversation has as many members, or waiting sends, as it may.
    #[error("the conversation is full")]
    ConversationFull,
    /// The request makes no sense for this conversation.
    #[error("{0}")]
    Invalid(&'static str),
    /// The store or the owner does not answer: try again with the same client message id.
    #[error("not stored for certain: send it again with the same client_msg_id")]
    Unavailable,
}

impl Target {
    /// The shard whose worker takes the request of `sender`.
    pub fn shard(&self, sender: &UserId) -> crate::ids::ShardId {
        match self {
            Target::Conversation(conversation) => conversation.shard(),
            Target::User(user) => direct_pair_shard(sender, user),
        }
    }
}

/// The two of a direct conversation in their fixed order.
pub fn direct_pair<'a>(one: &'a UserId, other: &'a UserId) -> (&'a UserId, &'a UserId) {
    if one <= other { (one, other) } else { (other, one) }
}

/// The shard that decides which conversation a pair has.
pub fn direct_pair_shard(one: &UserId, other: &UserId) -> crate::ids::ShardId {
    let (low, high) = direct_pair(one, other);
    let hash = crate::ids::placement_hash(low.as_bytes()).rotate_left(1)
        ^ crate::ids::placement_hash(high.as_bytes());
    crate::ids::ShardId::of_hash(crate::ids::mix(hash))
}

impl Operation {
    /// The shard whose worker takes the operation when `caller` asks.
    pub fn shard(&self, caller: &UserId) -> crate::ids::ShardId {
        match self {
            Operation::Send { target, .. } => target.shard(caller),
            Operation::Create { kind: ConversationKind::Direct, members, .. } => {
                direct_pair_shard(caller, members.first().unwrap_or(caller))
            }
            Operation::Create { .. } | Operation::Heads { .. } => caller.shard(),
            Operation::AddMember { conversation, .. }
            | Operation::RemoveMember { conversation, .. }
            | Operation::Rename { conversation, .. }
            | Operation::Delete { conversation }
            | Operation::SyncPage { conversation, .. }
            | Operation::SyncEnd { conversation } => conversation.shard(),
        }
    }
}
