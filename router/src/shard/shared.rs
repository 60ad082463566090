//! What all conversations of a worker use: the clock of this step, ids, the way to the store, open
//! requests and questions, and the fan-out.

use ringway_protocol::ids::Epoch;
use ringway_store_writer::store::Status;

use super::event::Moment;
use super::fan_out::FanOut;
use super::gather::Gather;
use super::queries::Queries;
use super::requests::Requests;
use super::snowflake::Snowflake;

/// The worker's own parts, without its conversations.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) now: Moment,
    /// As it was read when this pass began.
    pub(crate) status: Status,
    pub(crate) snowflake: Snowflake,
    pub(crate) gather: Gather,
    pub(crate) requests: Requests,
    pub(crate) queries: Queries,
    pub(crate) fan_out: FanOut,
    /// The epoch in which the outcome of a flush stayed unknown.
    pub(crate) unknown_in: Option<Epoch>,
    pub(crate) conversation_inflight_max: usize,
    pub(crate) conversation_keys_max: usize,
    /// How far back an idempotency key counts, in milliseconds.
    pub(crate) keys_horizon: u64,
}

impl Shared {
    /// Whether the state of a conversation may be read: not while a write of ours might still land, or
    /// landed without our knowing, in the epoch in which we would read.
    pub(crate) fn may_load(&self) -> bool {
        self.unknown_in.is_none_or(|unknown| self.status.epoch > unknown)
            && self.gather.under_way().is_none_or(|flush| flush.epoch == self.status.epoch)
    }

    /// Whether `entries` more may be appended.
    pub(crate) fn may_append(&self, entries: usize) -> bool {
        self.status.accepts && self.may_load() && self.gather.has_room(entries)
    }
}
