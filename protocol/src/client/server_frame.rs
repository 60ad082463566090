//! What the server says, and how a log entry becomes a frame.
//!
//! User ids go out as their `sub` alone; a client that reads frames gets them under the empty tenant.

use super::client_frame::Nonce;
use super::error_code::ErrorCode;
use crate::entry::{Change, Content, Entry, Message};
use crate::ids::{ConversationId, MessageId, Seq, Timestamp};
use crate::user::{ClientMessageId, UserId};

/// A frame from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerFrame {
    /// The session has begun, or was refreshed.
    Welcome(Box<Welcome>),
    /// Conversations that may have changed since the client's cursor.
    Heads(Heads),
    /// A send is durable.
    Ack(Ack),
    /// A message, live.
    Message(MessageItem),
    /// A page of a sync.
    Messages(Messages),
    /// A change of a conversation, live.
    Conversation(ChangeItem),
    /// Something was left out on this socket.
    Gap(Gap),
    /// Connect anew; this socket serves until then.
    Reconnect(Reconnect),
    /// The sync has brought all.
    SyncDone,
    /// The answer to a ping.
    Pong(Pong),
    /// Something did not work, or is about to stop working.
    Error(ErrorFrame),
}

/// The session's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Who the client is.
    pub user_id: String,
    /// Which device it is.
    pub device_id: String,
    /// The name of this session in the server's logs.
    pub session_id: String,
    /// An opaque cursor for the next `hello`.
    pub resume: String,
    /// The server's clock.
    pub server_ts: Timestamp,
    /// How often to send something, in milliseconds.
    pub heartbeat_ms: u64,
    /// What the client may do.
    pub limits: Limits,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest WebSocket message.
    pub max_frame_bytes: u64,
    /// Sends without their ack.
    pub max_inflight: u32,
    /// Bytes that may wait for this reader.
    pub max_queue_bytes: u64,
    /// Sends a second, in the long run.
    pub send_per_s: u32,
    /// Sends at once.
    pub send_burst: u32,
    /// How long a `client_msg_id` is remembered at least.
    pub dedup_window_s: u64,
}

/// Conversations that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Each with its last seq that this user may see.
    pub conversations: Vec<(ConversationId, Seq)>,
    /// False: the cursor was too old, and all conversations are named.
    pub recovered: bool,
    /// The new cursor.
    pub resume: String,
    /// Another `heads` follows.
    pub more: bool,
}

/// A send is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which send.
    pub client_message_id: ClientMessageId,
    /// Where it is.
    pub conversation: ConversationId,
    /// Its id.
    pub message: MessageId,
    /// Its place.
    pub seq: Seq,
    /// When it was accepted.
    pub server_ts: Timestamp,
    /// It was stored before, by an earlier try.
    pub duplicate: bool,
}

/// Where in a log something is, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// Its id.
    pub message: MessageId,
    /// When it was accepted.
    pub server_ts: Timestamp,
    /// Who sent it, or made the change.
    pub from: UserId,
}

/// A message at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageItem {
    /// Where and by whom.
    pub placement: Placement,
    /// What.
    pub message: Message,
    /// For the sender's own devices.
    pub client_message_id: Option<ClientMessageId>,
}

/// A change of a conversation at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeItem {
    /// Where and by whom.
    pub placement: Placement,
    /// What.
    pub change: Change,
}

/// One seq of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// A message.
    Message(MessageItem),
    /// A change.
    Change(ChangeItem),
}

/// A page of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Which.
    pub conversation: ConversationId,
    /// Ascending and dense.
    pub items: Vec<LogItem>,
    /// Another page follows.
    pub more: bool,
}

/// Something was left out on this socket. With a conversation: `sync` from `after_seq`. Without: wait
/// `after_ms`, then send `hello` with `resume` again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Which conversation; all of them without one.
    pub conversation: Option<ConversationId>,
    /// The last seq before the gap.
    pub after_seq: Option<Seq>,
    /// How long to wait, in milliseconds.
    pub after_ms: Option<u64>,
}

/// Connect anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// Why, for people.
    pub reason: String,
    /// Where to, if elsewhere.
    pub url: Option<String>,
    /// Not before so many milliseconds.
    pub after_ms: u64,
    /// Not later than so many milliseconds.
    pub within_ms: u64,
}

/// The answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The ping's.
    pub nonce: Option<Nonce>,
    /// The server's clock.
    pub server_ts: Timestamp,
    /// The newest cursor.
    pub resume: String,
}

/// Something did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFrame {
    /// For programs.
    pub code: ErrorCode,
    /// For people: says what to do.
    pub message: String,
    /// The send that it concerns.
    pub client_message_id: Option<String>,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The same may succeed later.
    pub temporary: bool,
}

impl ErrorFrame {
    /// An error that concerns no send.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            client_message_id: None,
            retry_after_ms: None,
            temporary: code.is_temporary(),
        }
    }
}

impl LogItem {
    /// An entry as one seq of a page. `for_sender` adds the `client_msg_id`, which only the sender's own
    /// devices get.
    pub fn from_entry(entry: Entry, for_sender: bool) -> Self {
        let Entry { conversation, seq, message, server_ts, epoch: _, sender, client_message_id, content } =
            entry;
        let placement = Placement { conversation, seq, message, server_ts, from: sender };
        match content {
            Content::Message(message) => LogItem::Message(MessageItem {
                placement,
                message,
                client_message_id: client_message_id.filter(|_| for_sender),
            }),
            Content::Change(change) => LogItem::Change(ChangeItem { placement, change }),
        }
    }

    /// Where and by whom.
    pub fn placement(&self) -> &Placement {
        match self {
            LogItem::Message(item) => &item.placement,
            LogItem::Change(item) => &item.placement,
        }
    }
}

impl ServerFrame {
    /// An entry as it is told live. `for_sender` as in [`LogItem::from_entry`].
    pub fn from_entry(entry: Entry, for_sender: bool) -> Self {
        match LogItem::from_entry(entry, for_sender) {
            LogItem::Message(item) => ServerFrame::Message(item),
            LogItem::Change(item) => ServerFrame::Conversation(item),
        }
    }
}

impl From<ErrorFrame> for ServerFrame {
    fn from(error: ErrorFrame) -> Self {
        ServerFrame::Error(error)
    }
}
