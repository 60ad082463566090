//! The HTTP side of the load: conversations made before it, members changed and history read while it
//! runs, and the full read after it. Blocking, in threads of its own: these calls are few.
//!
//! - `connection.rs`: one kept-alive HTTP/1.1 connection.
//! - `api.rs`: the calls of the protocol's HTTP part that a load needs.

mod api;
mod connection;

pub use api::{Api, ApiError, Changed, HistoryPage, PAGE_ENTRIES_MAX, Range};
pub use connection::{Connection, HttpError};
