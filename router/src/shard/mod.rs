//! The shard core: one worker's share of the virtual shards, as a pure state machine.
//!
//! `step(now, event) → actions`. No clock, no random number but from outside, no thread, no I/O, and
//! nothing is put out in the order of a hash map (`clippy.toml` holds most of it). So the same events give
//! the same actions, and a whole fleet runs in one test on a seed.
//!
//! The way of a send: `worker.rs` (whose is it, is the conversation loaded) → `send.rs` (used before,
//! may they) → `conversation.rs` (its place) → `gather.rs` (one flush a pass) → back, once durable, through
//! `conversation.rs` (ack) → `fan_out.rs` (members as of the entry). Direct conversations and new groups
//! begin in `founding.rs`; `sync.rs` and `holds.rs` keep the seam between history and what flows live.

mod change;
mod conversation;
mod deduplication;
mod directory;
mod event;
mod fan_out;
mod founding;
mod gather;
mod holds;
mod members;
mod queries;
mod requests;
mod seats;
mod seeded;
mod send;
mod shared;
mod snowflake;
mod sync;
mod watermark;
mod worker;

pub use event::{Action, Caller, Committed, Event, FlushId, Forward, Founding, Moment, QueryId, Task};
pub use worker::{Worker, WorkerSettings};
