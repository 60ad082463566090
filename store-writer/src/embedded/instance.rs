//! One opening of the database: from the journals made safe to all handles given back.
//!
//! fjall refuses everything after a failed write ("poisoned"), so a failure ends an instance, and the writer
//! opens the next one on the same folder, under the next epoch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{Database, OwnedWriteBatch, PersistMode};
use ringway_protocol::ids::{Epoch, Position, Timestamp};

use super::folder::{Folder, random_store_id};
use super::journal_tail::{self, TailError};
use super::rows::{self, MetaRow};
use super::settings::{OpenError, StoreSettings};
use super::tables::{self, Table, Tables, View};
use crate::store::StoreError;

/// How a batch is made durable. `fdatasync` writes the length of the file too; fjall does it, and puts the
/// rows where reads see them after it, under the journal's lock.
const SYNC: PersistMode =
    if cfg!(feature = "planted-no-fsync") { PersistMode::Buffer } else { PersistMode::SyncData };

/// How long a reader may hold handles of an instance that is to be closed.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Free disk space to open a database beside the copy of a journal: manifests and a first table.
const OPEN_BYTES: u64 = 4 << 20;

/// A write that failed, in words.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

/// An open database.
pub(super) struct Instance {
    database: Database,
    tables: Arc<Tables>,
    meta: MetaRow,
}

impl Instance {
    /// Opens the database of a folder, making it if there is none, and makes the next epoch durable.
    ///
    /// `before` is what this process knows to be durable.
    pub(super) fn open(
        folder: &Folder,
        settings: &StoreSettings,
        before: Option<&MetaRow>,
    ) -> Result<Self, OpenError> {
        if !folder.is_created()? {
            create(folder, settings)?;
        }
        folder.clear_unfinished()?;
        let store = folder.read_format()?;
        check_room(folder)?;
        journal_tail::secure(&folder.database(), store).map_err(|error| match error {
            TailError::Io(error) => folder.io("securing the journals")(error),
            TailError::Damaged(what) => damaged(folder, what),
        })?;
        let database = open_database(folder, &folder.database(), settings)?;
        let tables = Tables::find(&database).map_err(|error| damaged(folder, error.to_string()))?;
        let found = tables
            .get(Table::Meta, rows::META_KEY)
            .and_then(|value| MetaRow::decode(&value.ok_or_else(|| rows::damaged("meta"))?))
            .map_err(|error| damaged(folder, error.to_string()))?;
        if found.store != store {
            return Err(damaged(folder, "the tables are those of another store".to_owned()));
        }
        if let Some(before) = before
            && found.position < before.position
        {
            let what =
                format!("flush {} was durable and the log ends at {}", before.position, found.position);
            return Err(damaged(folder, what));
        }
        let known = before.copied().unwrap_or(found);
        let meta = MetaRow {
            epoch: Epoch(found.epoch.max(known.epoch).0 + 1),
            newest: found.newest.max(known.newest),
            ..found
        };
        let mut instance = Self { database, tables: Arc::new(tables), meta };
        instance.write_meta(meta).map_err(|Failure(what)| OpenError::Database {
            folder: folder.path().to_owned(),
            what: format!("the first write failed: {what}"),
        })?;
        Ok(instance)
    }

    /// The row of `meta`, durable.
    pub(super) fn meta(&self) -> &MetaRow {
        &self.meta
    }

    /// The time by which keys age, as it was last stored.
    pub(super) fn key_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let value = self.tables.get(Table::Meta, rows::KEY_TIME_KEY)?;
        value.map(|value| rows::read_key_time(&value)).transpose()
    }

    /// The tables.
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// For a batch.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// All that is durable now.
    pub(super) fn view(&self) -> View {
        View::new(&self.tables, &self.database)
    }

    /// Makes a batch durable, with the row of `meta` that is in it.
    pub(super) fn commit(&mut self, batch: OwnedWriteBatch, meta: MetaRow) -> Result<(), Failure> {
        batch.durability(Some(SYNC)).commit().map_err(|error| Failure(error.to_string()))?;
        self.meta = meta;
        self.tables.rotate_full().map_err(|error| Failure(error.to_string()))
    }

    /// Makes a row of `meta` durable.
    pub(super) fn write_meta(&mut self, meta: MetaRow) -> Result<(), Failure> {
        let mut batch = self.database.batch();
        batch.insert(self.tables.of(Table::Meta), rows::META_KEY, meta.encode());
        self.commit(batch, meta)
    }

    /// Whether fjall still works: its background threads poison it when they fail.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.database.persist(PersistMode::Buffer).map_err(|error| Failure(error.to_string()))
    }

    /// Gives all handles back: fjall's lock on its folder goes with the last of them.
    pub(super) fn close(self) {
        let Self { database, tables, .. } = self;
        let start = Instant::now();
        while Arc::strong_count(&tables) > 1 && start.elapsed() < CLOSE_WAIT {
            std::thread::sleep(Duration::from_millis(1));
        }
        // fjall panics on locks that a panic of its own left behind; the next instance says what is wrong.
        let closed = catch_unwind(AssertUnwindSafe(move || {
            drop(tables);
            drop(database);
        }));
        if closed.is_err() {
            tracing::error!("the database panicked while it was closed");
        }
    }
}

/// Makes a new database beside its place, with all tables and a first row, and puts it there.
fn create(folder: &Folder, settings: &StoreSettings) -> Result<(), OpenError> {
    folder.clear_unfinished()?;
    let store = random_store_id().map_err(folder.io("reading /dev/urandom"))?;
    let database = open_database(folder, &folder.database_new(), settings)?;
    let fjall_error = |error: &fjall::Error| database_error(folder, error);
    let tables = Tables::create(&database).map_err(|error| fjall_error(&error))?;
    let meta = MetaRow { store, epoch: Epoch(0), position: Position(0), newest: Timestamp(0) };
    let mut batch = database.batch();
    batch.insert(tables.of(Table::Meta), rows::META_KEY, meta.encode());
    let key_time = rows::key_time_value(settings.wall_clock.read());
    batch.insert(tables.of(Table::Meta), rows::KEY_TIME_KEY, key_time);
    batch.durability(Some(PersistMode::SyncAll)).commit().map_err(|error| fjall_error(&error))?;
    drop(tables);
    drop(database);
    folder.finish_creation(store)
}

/// Whether the disk has room to open what is there.
pub(super) fn check_room(folder: &Folder) -> Result<(), OpenError> {
    let needed = journal_tail::copy_bytes(&folder.database())
        .map_err(folder.io("looking at the journals"))?
        + OPEN_BYTES;
    match folder.space().map_err(folder.io("asking for free space"))? {
        Some(available) if available < needed => {
            Err(OpenError::DiskFull { folder: folder.path().to_owned(), needed, available })
        }
        _ => Ok(()),
    }
}

fn open_database(
    folder: &Folder,
    path: &std::path::Path,
    settings: &StoreSettings,
) -> Result<Database, OpenError> {
    // fjall asserts a few things about the files it finds.
    match catch_unwind(AssertUnwindSafe(|| tables::open_database(path, settings))) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(database_error(folder, &error)),
        Err(_) => Err(OpenError::Database {
            folder: folder.path().to_owned(),
            what: "it panicked: its files are not as it left them".to_owned(),
        }),
    }
}

fn database_error(folder: &Folder, error: &fjall::Error) -> OpenError {
    OpenError::Database { folder: folder.path().to_owned(), what: error.to_string() }
}

fn damaged(folder: &Folder, what: String) -> OpenError {
    OpenError::Damaged { folder: folder.path().to_owned(), what }
}
