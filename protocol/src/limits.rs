//! Every bound that belongs to the protocol, with unit and reason. What an operator may set has its
//! default here; what nobody may set is a constant only.

/// Longest user id, device id, tenant or client message id, in bytes of UTF-8 (protocol section 1).
pub const NAME_BYTES_MAX: usize = 64;

/// Longest WebSocket message, in bytes, by default (`limits.max_frame_bytes`).
pub const MESSAGE_BYTES_DEFAULT: usize = 64 * 1024;

/// Sends without their ack that one connection may have, by default (`limits.max_inflight`).
pub const INFLIGHT_DEFAULT: u32 = 256;

/// Bytes that may wait for one reader, by default (`limits.max_queue_bytes`). Past it, bodies become a
/// `gap`; still past it, the connection closes with 4102.
pub const QUEUE_BYTES_DEFAULT: usize = 256 * 1024;

/// Sends a second and in a burst that one connection may make, by default.
pub const SEND_PER_SECOND_DEFAULT: u32 = 50;
/// See [`SEND_PER_SECOND_DEFAULT`].
pub const SEND_BURST_DEFAULT: u32 = 500;

/// How long a client message id is remembered at least, in seconds.
pub const DEDUPLICATION_SECONDS: u64 = 86_400;

/// The heartbeat that `welcome` asks for, and the silence that ends a connection, in milliseconds.
pub const HEARTBEAT_MILLISECONDS: u64 = 30_000;
/// See [`HEARTBEAT_MILLISECONDS`]: one and a half beats.
pub const SILENCE_MILLISECONDS: u64 = 45_000;

/// Time from the end of the upgrade to `hello`, in milliseconds.
pub const HELLO_MILLISECONDS: u64 = 8_000;

/// Members of a group. Past it a conversation would be a channel.
pub const GROUP_MEMBERS_MAX: usize = 1_000;

/// Conversations in one `sync`, and entries in all its pages together.
pub const SYNC_CONVERSATIONS_MAX: usize = 1_000;
/// See [`SYNC_CONVERSATIONS_MAX`].
pub const SYNC_ENTRIES_MAX: u32 = 10_000;

/// Entries in one page of `messages` or of history.
pub const PAGE_ENTRIES_MAX: u32 = 200;

/// Bytes of entries in one page: a page must fit a reader's queue beside what is in it.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;

/// Conversations in one `heads` frame.
pub const HEADS_PAGE_MAX: usize = 1_000;

/// Longest name of a conversation, in bytes of UTF-8.
pub const CONVERSATION_NAME_BYTES_MAX: usize = 256;

/// Media references in one message.
pub const MEDIA_IDS_MAX: usize = 32;

/// Open sockets of one user, by default (`limits.connections_per_user`): past it 4029.
pub const CONNECTIONS_PER_USER_DEFAULT: u32 = 10;

const _: () = assert!(PAGE_BYTES_MAX * 2 <= QUEUE_BYTES_DEFAULT, "a page beside live traffic");
