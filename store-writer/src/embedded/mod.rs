//! The store inside the process: fjall, a log-structured key-value store with a write-ahead log, behind the
//! [`Store`] trait.
//!
//! One thread writes (`writer.rs`): all that is queued becomes one batch and one fsync. A few threads read
//! (`readers.rs`, `queries.rs`) from views of what is durable (`published.rs`). `rows.rs` has the tables byte
//! by byte, `draft.rs` what a flush comes to in them, `instance.rs` one opening of the database, `folder.rs`
//! and `journal_tail.rs` what is on the disk around it.
//!
//! # What makes an acknowledged flush durable
//! Read in the source of fjall 3.1.13 and lsm-tree 3.1.10, on Linux:
//!
//! | step | who fsyncs |
//! |---|---|
//! | batch in the journal | fjall, `fdatasync` under the journal's lock, before the rows are visible; a batch has a checksum and an end marker, and is replayed whole or not at all |
//! | new journal | fjall: file, then folder, before a batch goes into it; the old one before that |
//! | table file, list of tables, its pointer `current` | fjall: each file, then its folder; the pointer by rename |
//! | journal removed | only when all its rows are in tables that are in the list; if the removal is lost, its rows are skipped by their numbers |
//! | folder of a new table in `keyspaces/`; fjall's own folder in ours | nobody in fjall: `folder.rs`, once, when the store is made |
//! | torn tail with a hole; a page that a failed fsync left in memory only | nobody in fjall: `journal_tail.rs`, at each opening |

mod draft;
mod folder;
mod instance;
mod journal_tail;
mod key_time;
mod metrics;
mod published;
mod queries;
mod readers;
mod reply;
mod rows;
mod settings;
mod sweep;
mod tables;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::channel::{Sender, TrySendError, bounded};
use ringway_protocol::ids::{ConversationId, Position};

pub use self::metrics::StoreMetrics;
pub use self::settings::{GroupHook, GroupStage, OpenError, StoreSettings, WallClock};

use self::folder::Folder;
use self::instance::Instance;
use self::key_time::KeyTime;
use self::published::Published;
use self::readers::Read;
use self::reply::Reply;
use self::writer::{Request, Writer};
use crate::store::{Answer, ClaimKey, Done, Flush, Query, Status, Store, StoreError};

/// A store in a folder of this machine. Dropping it closes it, as [`close`](Self::close) does.
pub struct EmbeddedStore {
    published: Arc<Published>,
    metrics: Arc<StoreMetrics>,
    requests: Sender<Request>,
    reads: Sender<Read>,
    /// Held open while the readers and the sweep run.
    running: Mutex<Option<Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store of a folder, making both if need be, and begins a new epoch.
    ///
    /// # Errors
    /// [`OpenError`] says what to do: another process has it, another format, damage, no room.
    pub fn open(folder: &Path, settings: StoreSettings) -> Result<Self, OpenError> {
        if settings.readers == 0 || settings.background_threads == 0 {
            return Err(OpenError::Setting("store.readers and store.background_threads are at least 1"));
        }
        if settings.reader_queue == 0 || settings.writer_queue == 0 {
            return Err(OpenError::Setting("store.reader_queue and store.writer_queue are at least 1"));
        }
        let folder = Folder::lock(folder)?;
        if folder.space().ok().flatten().is_some_and(|free| free < settings.free_bytes_min) {
            folder.release_reserve();
        }
        let instance = Instance::open(&folder, &settings, None)?;
        let published = Arc::new(Published::default());
        let stored = instance.key_time().map_err(|error| OpenError::Damaged {
            folder: folder.path().to_owned(),
            what: error.to_string(),
        })?;
        let key_time = KeyTime::new(stored, instance.meta().newest, settings.wall_clock.read());
        published.set_key_time(key_time.get());
        let metrics = Arc::new(StoreMetrics::default());
        let (requests, waiting) = bounded(settings.writer_queue);
        let (reads, waiting_reads) = bounded(settings.reader_queue);
        let (running, closing) = bounded(0);
        let io = folder.io("starting a thread");
        let writer = Writer::new(
            folder,
            settings.clone(),
            waiting,
            Arc::clone(&published),
            Arc::clone(&metrics),
            instance,
        );
        let store = Self {
            published,
            metrics,
            requests,
            reads,
            running: Mutex::new(Some(running)),
            threads: Mutex::default(),
        };
        store.spawn("store-writer", move || writer.run()).map_err(&io)?;
        for index in 0..settings.readers {
            let (reads, closing) = (waiting_reads.clone(), closing.clone());
            let (published, metrics) = (Arc::clone(&store.published), Arc::clone(&store.metrics));
            let lifetime = settings.send_lifetime;
            let run = move || readers::run(&reads, &closing, &published, &metrics, lifetime);
            store.spawn(&format!("store-reader-{index}"), run).map_err(&io)?;
        }
        let (requests, published) = (store.requests.clone(), Arc::clone(&store.published));
        let run = move || {
            sweep::run(&closing, &requests, &published, key_time, &settings);
        };
        store.spawn("store-sweep", run).map_err(&io)?;
        Ok(store)
    }

    /// Figures of this store.
    pub fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    /// Makes what is queued durable, answers it, and gives the folder back. What is asked afterwards is
    /// refused. Called by a thread of the store itself, it does not wait for the end.
    pub fn close(&self) {
        self.published.stop();
        // When the queue is full the writer finds out behind it.
        let _ = self.requests.try_send(Request::Wake);
        drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                // It catches its own panics.
                let _ = thread.join();
            }
        }
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Queues a request for the writer, or refuses it at once.
    fn ask(&self, request: Request) {
        if self.published.is_stopping() {
            request.refuse("the store is closing");
        } else if !self.published.accepts() {
            request.refuse("the disk is full or failed; the store accepts again by itself");
        } else if let Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) =
            self.requests.try_send(request)
        {
            self.metrics.refused.increment();
            request.refuse("too much waits to be written");
        }
    }
}

impl Store for EmbeddedStore {
    fn flush(&self, flush: Flush, done: Done<Result<Position, StoreError>>) {
        self.ask(Request::Flush { flush, reply: Reply::new(done) });
    }

    fn read(&self, query: Query, done: Done<Result<Answer, StoreError>>) {
        let read = Read { query, reply: Reply::new(done), asked: Instant::now() };
        if self.published.is_stopping() {
            read.reply.refuse("the store is closing");
        } else if let Err(TrySendError::Full(read) | TrySendError::Disconnected(read)) =
            self.reads.try_send(read)
        {
            self.metrics.refused.increment();
            read.reply.refuse("too many reads wait");
        }
    }

    fn claim(&self, key: ClaimKey, proposed: ConversationId, done: Done<Result<ConversationId, StoreError>>) {
        self.ask(Request::Claim { key, proposed, reply: Reply::new(done) });
    }

    fn status(&self) -> Status {
        self.published.status()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}
