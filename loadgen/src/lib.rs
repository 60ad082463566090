//! Load for a chat server, and the proof that it kept its promises.
//!
//! - `history/`: the NDJSON history of what virtual users did and saw.
//! - `payload.rs`: bodies that prove their own origin.
//! - `clock.rs`: the clock of a history.
//! - `abuse.rs`: clients that behave badly.
#![forbid(unsafe_code)]

pub mod abuse;
pub mod checker;
pub mod clock;
pub mod history;
pub mod payload;
pub mod specimen;
