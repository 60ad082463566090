//! What an operator may set of the router, with the bounds that keep its memory a known sum.
//!
//! The memory of all workers together, at the defaults: conversations 100,000 x ~400 bytes, members
//! 2,000,000 x ~120 bytes, idempotency keys 1,000,000 x ~220 bytes, entries on their way to the store
//! 16,384 x a message, an inbox of 16,384 x ~250 bytes a worker. And the gateway's connections x workers x
//! 44 bytes, for a seat in the directory and its place in the table of users (`shard/directory.rs`).

use std::time::Duration;

use ringway_protocol::limits::{CONNECTIONS_PER_USER_DEFAULT, DEDUPLICATION_SECONDS};

/// Most workers: their number has 7 bits in a Snowflake.
pub const WORKERS_MAX: usize = 128;

/// Settings of the router. [`Default`] serves one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterSettings {
    /// Worker threads, 1 to [`WORKERS_MAX`].
    pub worker_count: usize,
    /// Whether each worker keeps to one CPU. Pays where CPUs are left for them; on two, where gateway
    /// cores are pinned already, the kernel's balance is better.
    pub pinned: bool,
    /// This region, 0 to 7: 3 bits of every id.
    pub region: u8,
    /// Open connections of one user; past it the newest is closed with 4029.
    pub connections_per_user: u32,
    /// Conversations kept loaded by all workers together; idle ones go first.
    pub conversations_loaded_max: usize,
    /// Members of the loaded conversations, all together.
    pub members_loaded_max: usize,
    /// Idempotency keys kept in memory by all workers together; others are read in the store.
    pub dedup_keys_max: usize,
    /// How long an idempotency key is known for sure, in seconds: what clients are told. The router looks
    /// back twice as far.
    pub dedup_window_seconds: u64,
    /// Sends and changes of one conversation that may wait or be on their way to the store.
    pub conversation_inflight_max: usize,
    /// Entries of all workers together that may wait for the store. Past it sends are refused.
    pub inflight_max: usize,
    /// Bytes of these entries.
    pub inflight_bytes_max: usize,
    /// Reads and claims that one worker may have at the store at once.
    pub queries_max: usize,
    /// When a request ends as `unavailable`; below the client's ten seconds, for the way there and back.
    pub request_deadline: Duration,
    /// Messages in a worker's inbox.
    pub inbox_capacity: usize,
    /// Deliveries that may wait for one endpoint whose inbox is full; past it they are dropped and the
    /// endpoint is told.
    pub backlog_max: usize,
}

impl Default for RouterSettings {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            worker_count: if cpus <= 2 { 1 } else { (cpus / 4).clamp(1, WORKERS_MAX) },
            pinned: cpus > 2,
            region: 0,
            connections_per_user: CONNECTIONS_PER_USER_DEFAULT,
            conversations_loaded_max: 100_000,
            members_loaded_max: 2_000_000,
            dedup_keys_max: 1_000_000,
            dedup_window_seconds: DEDUPLICATION_SECONDS,
            conversation_inflight_max: 4_096,
            inflight_max: 16_384,
            inflight_bytes_max: 64 * 1024 * 1024,
            queries_max: 8_192,
            request_deadline: Duration::from_secs(8),
            inbox_capacity: 16_384,
            backlog_max: 16_384,
        }
    }
}

/// Why the router could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A setting is out of its range.
    #[error("the router's setting {setting} is {value}, and may be {allowed}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The system gave no descriptor for a worker's inbox, or no thread.
    #[error(
        "the router could not start a worker: {0}. Raise the limits on descriptors and threads (ulimit -n, -u)"
    )]
    System(#[from] std::io::Error),
}

impl RouterSettings {
    /// Checks every range.
    ///
    /// # Errors
    /// [`RouterError::Setting`] names the first that is out of range.
    pub fn check(&self) -> Result<(), RouterError> {
        let range = |setting, value: usize, least: usize, most: usize, allowed| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(RouterError::Setting { setting, value: value.to_string(), allowed })
            }
        };
        range("worker_count", self.worker_count, 1, WORKERS_MAX, "1 to 128")?;
        range("region", usize::from(self.region), 0, 7, "0 to 7")?;
        range("connections_per_user", self.connections_per_user as usize, 1, usize::MAX, "1 or more")?;
        range("conversations_loaded_max", self.conversations_loaded_max, 1, usize::MAX, "1 or more")?;
        let window = self.dedup_window_seconds as usize;
        range("dedup_window_seconds", window, 60, usize::MAX, "60 or more")?;
        range("conversation_inflight_max", self.conversation_inflight_max, 1, usize::MAX, "1 or more")?;
        range("inflight_max", self.inflight_max, 2, usize::MAX, "2 or more")?;
        range("inflight_bytes_max", self.inflight_bytes_max, 1 << 20, usize::MAX, "1 MiB or more")?;
        range("queries_max", self.queries_max, 1, 1 << 20, "1 to 1,048,576")?;
        range("inbox_capacity", self.inbox_capacity, 1, 1 << 24, "1 to 16,777,216")?;
        range("backlog_max", self.backlog_max, 1, usize::MAX, "1 or more")?;
        let deadline = self.request_deadline.as_millis() as usize;
        range("request_deadline", deadline, 100, 10_000, "100 ms to 10 s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range_and_a_bad_value_is_named() {
        RouterSettings::default().check().unwrap();
        let error = RouterSettings { region: 8, ..RouterSettings::default() }.check().unwrap_err();
        assert!(error.to_string().contains("region is 8, and may be 0 to 7"), "{error}");
    }
}
