//! What the tests of the real binary share: a server of their own on free ports and a temporary folder,
//! WebSocket clients that speak JSON, and HTTP.
//!
//! ```ignore
//! mod support;
//! let server = support::Server::start(&[]);
//! let mut alice = server.connect("alice");
//! ```
//! Everything waits for a condition with a deadline, never for a time. A server is ended by the id of its
//! process when its value is dropped. With `RINGWAY_TEST_LOG=1` the server's log goes to standard error.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod client;
mod http;
mod server;

pub use client::{Client, Closed};
pub use http::{Answer, Http};
pub use server::{Ended, Server, run_in, run_with};

use std::time::{Duration, Instant};

/// How long a test waits for what has to come. Generous: the machine may build beside it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_within(PATIENCE, what, condition)
}

/// The same with another patience, for what the protocol itself lets last longer.
#[track_caller]
pub fn wait_for_within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
