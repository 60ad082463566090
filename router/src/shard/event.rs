//! What goes into a worker's core and what comes out: the whole of its world.
//!
//! A driver steps the core in passes: `Status` first, then what came in, then `EndOfPass`, which hands
//! over everything the pass appended as one flush. `driver.rs` says in which order a pass takes things in
//! and why that order matters.

use std::sync::Arc;

use bytes::Bytes;
use ringway_protocol::entry::{ConversationKind, Message, Role};
use ringway_protocol::ids::{ConnectionId, ConversationId, EndpointId, Position, Seq, ShardId, Timestamp};
use ringway_protocol::trunk::{FanOutBody, Notice, Operation, Outcome, Refusal, ToRouter};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{Answer, ClaimKey, Flush, Query, Status, StoreError};

pub use super::requests::Caller;

/// The time of a step: one reading of each clock a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, for ids. It may step in either direction.
    pub wall: Timestamp,
    /// Microseconds of a clock that only rises and that all workers share: for deadlines and pacing,
    /// which a step of the wall clock must not touch.
    pub steady_microseconds: u64,
}

/// Numbers the flushes of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushId(pub u64);

/// Numbers what a worker asks of the store besides flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// What a worker is told.
#[derive(Debug)]
pub enum Event {
    /// The store's state, read at the start of a pass.
    Status(Status),
    /// A message of an endpoint.
    Endpoint(ToRouter),
    /// A request that another worker found to be ours.
    Forwarded(Box<Forward>),
    /// What came of a flush.
    Flushed {
        /// Which.
        id: FlushId,
        /// Its position in the durable log, or why not.
        result: Result<Position, StoreError>,
    },
    /// What came of a query.
    Answered {
        /// Which.
        id: QueryId,
        /// The answer.
        result: Result<Answer, StoreError>,
    },
    /// What came of a claim.
    Claimed {
        /// Which.
        id: QueryId,
        /// Who has the key.
        result: Result<ConversationId, StoreError>,
    },
    /// The router stops: new requests of endpoints are refused, what is open is finished.
    Drain,
    /// Nothing more in this pass.
    EndOfPass,
}

/// What a worker wants done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Make these entries durable; answered by [`Event::Flushed`]. One is under way at a time.
    Flush {
        /// Echoed.
        id: FlushId,
        /// What.
        flush: Flush,
    },
    /// Read; answered by [`Event::Answered`].
    Query {
        /// Echoed.
        id: QueryId,
        /// What.
        query: Query,
    },
    /// Claim; answered by [`Event::Claimed`].
    Claim {
        /// Echoed.
        id: QueryId,
        /// The key.
        key: ClaimKey,
        /// Who gets it if nobody has it.
        proposed: ConversationId,
    },
    /// Hand a request to another worker. If its inbox is full, answer the caller `unavailable`.
    Forward {
        /// Which worker.
        worker: usize,
        /// The request.
        forward: Box<Forward>,
    },
    /// Answer a request.
    Reply {
        /// Who asked.
        caller: Caller,
        /// How it ended.
        outcome: Result<Outcome, Refusal>,
    },
    /// An entry for connections of one endpoint.
    FanOut {
        /// Which endpoint.
        endpoint: EndpointId,
        /// The body, shared with other endpoints.
        body: Arc<FanOutBody>,
        /// Who gets it.
        notices: Vec<Notice>,
    },
    /// Close a connection.
    Close {
        /// Which.
        connection: ConnectionId,
        /// With what code.
        code: u16,
    },
    /// Tell every endpoint that all up to here was sent before.
    Watermark(Position),
    /// An entry is durable and was fanned out.
    Committed(Committed),
}

/// An entry that became durable: what consumers beside the fan-out get, at least once, in seq order of
/// its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The shard of the conversation.
    pub shard: ShardId,
    /// The conversation.
    pub conversation: ConversationId,
    /// The place.
    pub seq: Seq,
    /// The encoded entry.
    pub entry: Bytes,
}

/// A request on its way to the worker of its conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Who asked.
    pub caller: Caller,
    /// The conversation.
    pub conversation: ConversationId,
    /// What to do there.
    pub task: Task,
}

/// What a conversation's worker does for a caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Append a message.
    Send {
        /// The idempotency key.
        client_message_id: ClientMessageId,
        /// What.
        message: Message,
        /// A direct conversation is made first, if it is not there, with these members.
        make: Option<Founding>,
    },
    /// Make the conversation, if it is not there.
    Create(Founding),
    /// An operation on a conversation other than a send: add, remove, rename, delete, sync.
    Operation(Operation),
}

/// How a conversation begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Founding {
    /// Direct or group.
    pub kind: ConversationKind,
    /// A group's name.
    pub name: String,
    /// The first members, in the order of joining.
    pub members: Vec<(UserId, Role)>,
}
