//! What an operator may choose about the embedded store, and why it may refuse to open.
//!
//! The defaults are for a server whose memory goes to connections: a small cache, one background thread.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway_protocol::ids::Timestamp;

/// Settings of the embedded store (`store.…`).
#[derive(Clone)]
pub struct StoreSettings {
    /// Memory for blocks read from disk, in bytes. The operating system caches files beside it.
    pub cache_bytes: u64,
    /// Size of a file that holds disk space in reserve, in bytes; 0 for none. When the disk is full it is
    /// given back, so that the store can still recover and be read. It is made again when there is space.
    pub reserve_bytes: u64,
    /// Free disk space, in bytes, below which the store takes no writes: they are refused while the log
    /// can still be closed in order.
    pub free_bytes_min: u64,
    /// Threads that answer reads.
    pub readers: usize,
    /// Reads that may wait; past it a read is refused at once.
    pub reader_queue: usize,
    /// Flushes and claims that may wait; past it one is refused at once.
    pub writer_queue: usize,
    /// Bytes of entries that one group may have. A flush is never split: the last one may pass it.
    pub group_bytes_max: usize,
    /// Entries that one group may have, likewise.
    pub group_entries_max: usize,
    /// How long an idempotency key is kept, by a time that may run twice as fast as the true one while it
    /// catches up with the wall clock: at least twice the window that clients are promised.
    pub send_lifetime: Duration,
    /// Pause between two passes of the sweep that removes old idempotency keys.
    pub sweep_interval: Duration,
    /// Threads that write tables and merge them. With more than one, one of them spins while another
    /// merges (fjall 3.1), so more pay only where cores are idle.
    pub background_threads: usize,
    /// Tests see and disturb groups here. `None` in a server.
    #[doc(hidden)]
    pub group_hook: Option<GroupHook>,
    /// Tests set the wall clock here.
    #[doc(hidden)]
    pub wall_clock: WallClock,
}

/// Where the wall clock is read: the machine's, or a test's.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct WallClock(pub Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>);

impl WallClock {
    /// Now.
    pub(super) fn read(&self) -> Timestamp {
        match &self.0 {
            Some(clock) => clock(),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Called by the writer for each group at each [`GroupStage`]. It may wait, fail the group, or panic.
#[doc(hidden)]
pub type GroupHook = Arc<dyn Fn(GroupStage) -> io::Result<()> + Send + Sync>;

/// How far a group has come when a test looks at it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStage {
    /// Nothing is written.
    Formed,
    /// Written and fsynced; nobody has been told, no reader sees it.
    Synced,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            reserve_bytes: 64 << 20,
            free_bytes_min: 128 << 20,
            readers: 2,
            reader_queue: 8192,
            writer_queue: 8192,
            group_bytes_max: 4 << 20,
            group_entries_max: 16 * 1024,
            send_lifetime: Duration::from_secs(7 * 86_400),
            sweep_interval: Duration::from_secs(1),
            background_threads: 1,
            group_hook: None,
            wall_clock: WallClock::default(),
        }
    }
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings")
            .field("cache_bytes", &self.cache_bytes)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("free_bytes_min", &self.free_bytes_min)
            .field("readers", &self.readers)
            .field("reader_queue", &self.reader_queue)
            .field("writer_queue", &self.writer_queue)
            .field("group_bytes_max", &self.group_bytes_max)
            .field("group_entries_max", &self.group_entries_max)
            .field("send_lifetime", &self.send_lifetime)
            .field("sweep_interval", &self.sweep_interval)
            .field("background_threads", &self.background_threads)
            .finish_non_exhaustive()
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {folder} is in use by {holder}. Stop that one, or name another data folder")]
    InUse {
        /// Which.
        folder: PathBuf,
        /// Who, as far as is known.
        holder: String,
    },
    /// Made by another version of this program.
    #[error(
        "the store in {folder} has format {found} and this program reads {expected}. \
         Run the version that made it, or name an empty data folder"
    )]
    Format {
        /// Which.
        folder: PathBuf,
        /// What its format file says.
        found: String,
        /// What is read here.
        expected: u32,
    },
    /// Something acknowledged is not there any more, or does not decode.
    #[error("the store in {folder} is damaged: {what}. Restore the folder from a backup")]
    Damaged {
        /// Which.
        folder: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk has no room even to open what is there.
    #[error(
        "the store in {folder} needs {needed} bytes free to open and the disk has {available}. Make room"
    )]
    DiskFull {
        /// Which.
        folder: PathBuf,
        /// For the copy of the log.
        needed: u64,
        /// What there is.
        available: u64,
    },
    /// The disk or the operating system refused something.
    #[error("{doing} failed in the store's folder {folder}: {error}")]
    Io {
        /// Which.
        folder: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What was answered.
        error: io::Error,
    },
    /// The database under the tables did not open.
    #[error("the database in {folder} did not open: {what}")]
    Database {
        /// Which.
        folder: PathBuf,
        /// What it says.
        what: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(&'static str),
}
