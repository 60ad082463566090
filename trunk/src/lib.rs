//! How the parts talk inside one process: `inbox.rs` is the bounded lock-free queue of each thread that
//! receives, with one wake-up a batch; `port.rs` says how an endpoint reaches the router's workers and how
//! a worker reaches the endpoints, whichever process they are in.
//!
//! What is said is `ringway_protocol::trunk`.
#![forbid(unsafe_code)]

mod inbox;
mod port;

pub use inbox::{Inbox, Outbox, inbox};
pub use port::{Endpoint, Endpoints, Workers};
