//! Every bound of the HTTP API that no operator sets, with unit and reason.

use std::time::Duration;

/// Time that the router or the store has for a request. The protocol promises ten seconds.
pub(crate) const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Time for the body of a request to arrive.
pub(crate) const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Time for the head of a request, and so also for the silence between two on one connection.
pub(crate) const HEAD_DEADLINE: Duration = Duration::from_secs(20);

/// Requests at the router at once. Past it `unavailable`.
pub(crate) const REQUESTS_MAX: usize = 8_192;

/// HTTP connections at once: each has at most two queues of 64 KiB. Past it 503.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;

/// Connections to the admin port at once.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Users whose rates are remembered; past it those with a full bucket are forgotten, who lose nothing.
pub(crate) const RATED_USERS_MAX: usize = 65_536;

/// Bytes of a request head, as on the gateway.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Entries in a page of history, by default and at most.
pub(crate) const PAGE_DEFAULT: u32 = 50;
/// See [`PAGE_DEFAULT`].
pub(crate) const PAGE_MAX: u32 = ringway_protocol::limits::PAGE_ENTRIES_MAX;

/// Seconds that a development token of the chat page lives.
pub(crate) const DEVELOPMENT_TOKEN_SECONDS: u64 = 12 * 3600;
