//! Durability: the store behind one trait, and the writers that make entries durable in groups.
//!
//! Start at `store.rs`, the trait; `embedded/` is the store inside the process.
#![forbid(unsafe_code)]

mod embedded;
pub mod store;

pub use embedded::{EmbeddedStore, GroupHook, GroupStage, OpenError, StoreMetrics, StoreSettings, WallClock};
