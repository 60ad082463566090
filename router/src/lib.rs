//! The router: who owns a conversation, and so decides its order, its members and who is told.
//!
//! - `shard/`: the core, pure: events in, actions out. All rules are there; begin with `shard/worker.rs`.
//! - `driver.rs`: the thread of a worker, the only place with a clock; `delivery.rs`: from there to the
//!   endpoints, in order and bounded.
//! - `router.rs`: how `serve` makes, starts, stops and joins all of it.
//! - `observer.rs`: who watches what is handed out.
//! - `settings.rs`: what an operator may set; `metrics.rs`: what is counted.
#![forbid(unsafe_code)]

mod delivery;
mod driver;
mod mailbox;
mod metrics;
mod observer;
mod router;
mod settings;
pub mod shard;

pub use driver::Consumer;
pub use metrics::RouterMetrics;
pub use observer::Observer;
pub use router::{Router, RunningRouter};
pub use settings::{RouterError, RouterSettings, WORKERS_MAX};
