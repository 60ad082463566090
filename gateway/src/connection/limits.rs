//! Bounds of one connection that no operator sets, with unit and reason. Those of the protocol are in
//! `ringway_protocol::limits`, those an operator sets in `context.rs`.

/// Time from accept to the end of the TLS handshake, in milliseconds: three round trips of the slowest
/// link that a person would use.
pub const HANDSHAKE_MILLISECONDS: u64 = 8_000;

/// Time from there to the end of the request's head, in milliseconds. One byte a second does not get far.
pub const HEAD_MILLISECONDS: u64 = 8_000;

/// Time from our last byte to the peer's end, in milliseconds. Then the socket goes anyway.
pub const CLOSE_MILLISECONDS: u64 = 3_000;

/// Time that a router worker has for a request, in milliseconds (`ringway_protocol::trunk`).
pub const REQUEST_MILLISECONDS: u64 = 10_000;

/// Longest message on `/echo`, in bytes: what conformance suites send.
pub const ECHO_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that may wait for a reader of `/echo` before its own messages are no longer read. One message
/// more may be under way.
pub const ECHO_QUEUE_BYTES: usize = 256 * 1024;

/// Longest message on `/relay`, in bytes.
pub const RELAY_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of messages received in part, all connections of a core together, by default.
pub const PARTIAL_BYTES_DEFAULT: usize = 256 * 1024 * 1024;

/// Time that a message may take from its first byte to its last, in milliseconds. Longer than the silence
/// that ends a connection, since a peer that sends is not silent.
pub const MESSAGE_MILLISECONDS: u64 = 60_000;

/// Time in which a client must take something of an HTTP answer that waits for it, in milliseconds.
pub const STALL_MILLISECONDS: u64 = 60_000;

/// Silence that ends an echo or a relay, in milliseconds: a person who types into it rests longer than a
/// client, and a member of the relay's room may have nothing to say.
pub const ECHO_SILENCE_MILLISECONDS: u64 = 600_000;

/// Malformed frames in a row that end a connection (protocol section 1).
pub const BAD_FRAMES_MAX: u8 = 10;

/// Refusals for their rate that end a connection, counted until it was quiet for
/// [`STRIKE_MILLISECONDS`].
pub const STRIKES_MAX: u16 = 200;
/// See [`STRIKES_MAX`].
pub const STRIKE_MILLISECONDS: u64 = 10_000;

/// Frames of other kinds than `send`, control frames among them, that one connection may send a second.
pub const OTHERS_PER_SECOND: u32 = 20;
/// The same in a burst: a page that opens and views many conversations at once.
pub const OTHERS_BURST: u32 = 200;

/// Conversations whose omission from a slow reader's queue is noted one by one. Past it, one `gap`
/// without an id stands for all.
pub const GAPS_MAX: usize = 64;

/// A `gap` without an id asks each client to wait a random part of this, in milliseconds, before it asks
/// for everything: most often all clients of a core get one.
pub const GAP_SPREAD_MILLISECONDS: u64 = 3_000;

/// `sync` requests of one socket, the one in work among them (protocol section 6).
pub const SYNCS_MAX: usize = 8;

/// How long before the end of its token a client is told, in milliseconds (protocol section 1).
pub const TOKEN_WARNING_MILLISECONDS: u64 = 60_000;

/// What a client is asked to wait when a worker's inbox is full, in milliseconds.
pub const INBOX_FULL_RETRY_MILLISECONDS: u64 = 500;
