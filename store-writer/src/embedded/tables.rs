//! The tables: fjall keyspaces in one database, and the snapshot of them that readers use.
//!
//! What is in a row is `rows.rs`. The sizes of memtables are part of the memory of the server: each table
//! has one that fills and at most three that wait to be written.

use std::sync::Arc;

use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree as _, Database, Iter, Keyspace, KeyspaceCreateOptions, Readable as _, Snapshot, UserValue,
};

use super::settings::StoreSettings;
use crate::store::StoreError;

/// A table, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// The log.
    Messages,
    /// Idempotency keys.
    Sends,
    /// What changes seldom about a conversation.
    Conversations,
    /// What changes with each entry.
    Heads,
    /// Who is and was in a conversation.
    Members,
    /// Which conversations a user is and was in.
    UserConversations,
    /// Keys that one conversation may hold.
    Claims,
    /// The store's own row.
    Meta,
}

impl Table {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Table; 8] = [
        Table::Messages,
        Table::Sends,
        Table::Conversations,
        Table::Heads,
        Table::Members,
        Table::UserConversations,
        Table::Claims,
        Table::Meta,
    ];

    fn name(self) -> &'static str {
        match self {
            Table::Messages => "messages",
            Table::Sends => "sends",
            Table::Conversations => "conversations",
            Table::Heads => "heads",
            Table::Members => "members",
            Table::UserConversations => "user_conversations",
            Table::Claims => "claims",
            Table::Meta => "meta",
        }
    }

    /// Bytes of a memtable that is full.
    fn memtable_bytes(self) -> u64 {
        match self {
            // Each four that are full are merged with up to 256 MiB of what was merged before: of 8 MiB, that took
            // more processor time than all else that a message costs here.
            Table::Messages => 32 << 20,
            Table::Sends => 16 << 20,
            Table::Heads | Table::Members | Table::UserConversations => 2 << 20,
            Table::Conversations | Table::Claims | Table::Meta => 1 << 20,
        }
    }

    fn options(self) -> KeyspaceCreateOptions {
        KeyspaceCreateOptions::default()
            // `Tables::rotate_full` does it instead.
            .max_memtable_size(u64::MAX)
            // Bodies are short or encrypted, and fjall is built without its compression.
            .data_block_compression_policy(CompressionPolicy::disabled())
            // Rows that are asked for are there: no filters for the last level. A send's key mostly is not.
            .expect_point_read_hits(self != Table::Sends)
            .manual_journal_persist(true)
    }
}

/// Handles of all tables.
pub(super) struct Tables(Vec<Keyspace>);

/// Opens fjall's database.
pub(super) fn open_database(path: &std::path::Path, settings: &StoreSettings) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(settings.cache_bytes)
        .max_cached_files(Some(256))
        // At most two journals of 64 MiB wait for a table that is seldom written.
        .max_journaling_size(128 << 20)
        .worker_threads(settings.background_threads)
        .manual_journal_persist(true)
        .open()
}

impl Tables {
    /// Makes the tables of a new database.
    pub(super) fn create(database: &Database) -> fjall::Result<Self> {
        let keyspaces = Table::ALL.map(|table| database.keyspace(table.name(), || table.options()));
        Ok(Self(keyspaces.into_iter().collect::<fjall::Result<_>>()?))
    }

    /// Finds the tables of a database. A table that is missing is not made: its rows would be gone.
    pub(super) fn find(database: &Database) -> Result<Self, StoreError> {
        for table in Table::ALL {
            if !database.keyspace_exists(table.name()) {
                return Err(StoreError::Damaged(format!("table {} is missing", table.name())));
            }
        }
        Self::create(database).map_err(|error| read_error(&error))
    }

    /// A table's handle.
    pub(super) fn of(&self, table: Table) -> &Keyspace {
        &self.0[table as usize]
    }

    /// What is written now, for the writer: readers use a [`View`].
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.of(table).get(key).map_err(|error| read_error(&error))
    }

    /// Whether the background threads are so far behind that fjall would hold a commit up: four waiting
    /// memtables of a table, or 30 unmerged files. [`rotate_full`](Self::rotate_full) adds one of the first,
    /// fjall at most one more to empty an old journal. fjall's own wait has no end when its threads have
    /// died; the writer's has.
    pub(super) fn is_behind(&self) -> bool {
        self.0.iter().any(|table| table.sealed_memtable_count() >= 2 || table.l0_table_count() >= 24)
    }

    /// Hands full memtables to the background threads, each once.
    ///
    /// fjall 3.1 would ask for it again with every commit until it is done. While a long merge runs that
    /// fills its queue of 1,000 messages, and then the thread that empties the queue waits for room in it.
    pub(super) fn rotate_full(&self) -> fjall::Result<()> {
        for table in Table::ALL {
            let keyspace = self.of(table);
            if keyspace.tree.active_memtable().size() >= table.memtable_bytes() {
                keyspace.rotate_memtable()?;
            }
        }
        Ok(())
    }
}

/// The tables as they were after a group was durable.
pub(super) struct View {
    tables: Arc<Tables>,
    snapshot: Snapshot,
}

impl View {
    /// Only the writer makes one, between two groups: fjall gives numbers to its own background work too,
    /// and a snapshot taken while a batch is under way could show a part of it.
    pub(super) fn new(tables: &Arc<Tables>, database: &Database) -> Self {
        Self { tables: Arc::clone(tables), snapshot: database.snapshot() }
    }

    /// One row.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.snapshot.get(self.tables.of(table), key).map_err(|error| read_error(&error))
    }

    /// Rows from `first` to `last`, both included.
    pub(super) fn range(&self, table: Table, first: &[u8], last: &[u8]) -> Iter {
        self.snapshot.range(self.tables.of(table), first..=last)
    }

    /// Rows whose key starts with `prefix`.
    pub(super) fn prefix(&self, table: Table, prefix: &[u8]) -> Iter {
        self.snapshot.prefix(self.tables.of(table), prefix)
    }

    /// Rows behind `key`.
    pub(super) fn behind(&self, table: Table, key: &[u8]) -> Iter {
        use std::ops::Bound;
        self.snapshot.range::<&[u8], _>(self.tables.of(table), (Bound::Excluded(key), Bound::Unbounded))
    }
}

/// What a failed read means.
pub(super) fn read_error(error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_)) => {
            StoreError::Unavailable(format!("a read failed: {error}"))
        }
        fjall::Error::Poisoned | fjall::Error::Locked => {
            StoreError::Unavailable("the store is about to open again".to_owned())
        }
        _ => StoreError::Damaged(error.to_string()),
    }
}
