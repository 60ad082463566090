//! A load in several processes: one leads, the others are the clients.
//!
//! A process may have some 20,000 sockets, so half a million clients are some 27 workers; and one machine
//! may not be enough. A worker does its part of the scenario by itself. Each second it sends what it
//! counted, with its histograms whole: percentiles of several workers cannot be had from theirs, their
//! histograms can be added.
//!
//! - `wire.rs`: what they say to each other, a line of JSON each
//! - `coordinator.rs`: starts or awaits workers (`children.rs`), leads them through the stages, adds up
//!   (`sum.rs`)
//! - `member.rs`: a worker, around an engine
//! - `observer.rs`: what the machine and the server do meanwhile
//!
//! The line between them is not encrypted and carries tokens: it is for one machine, or a network that is
//! trusted. Who joins must know the key that the coordinator prints.

mod children;
mod coordinator;
mod error;
mod member;
mod observer;
mod sum;
mod wire;

pub use coordinator::{Crowd, Lead, Outcome, Progress, lead};
pub use error::FleetError;
pub use member::{JoinError, join};

/// The variable in which a worker that was started here finds the key.
pub const KEY_VARIABLE: &str = "LOADGEN_KEY";
