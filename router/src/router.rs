//! The router as the rest of the process sees it: made with a store, joined with the endpoints, started,
//! stopped.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_protocol::trunk::ToRouter;
use ringway_store_writer::store::Store;
use ringway_trunk::{Endpoints, Inbox, Workers, inbox};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::delivery::Delivery;
use crate::driver::{Consumer, Crew, Driver, DriverState, Letter};
use crate::mailbox::Mailboxes;
use crate::metrics::RouterMetrics;
use crate::observer::{Observed, Observer};
use crate::settings::{RouterError, RouterSettings};
use crate::shard::{Worker, WorkerSettings};

/// Idempotency keys kept of one conversation: two minutes of a conversation at 64 sends a second, a day
/// of nearly all others.
const CONVERSATION_KEYS_MAX: usize = 8 * 1024;

/// A router that is not running yet: its inboxes are there, so that endpoints can be given them.
pub struct Router {
    settings: RouterSettings,
    store: Arc<dyn Store>,
    inboxes: Vec<Inbox<Letter>>,
    mailboxes: Arc<Mailboxes>,
    metrics: RouterMetrics,
    consumer: Option<Consumer>,
    observer: Observed,
}

/// A router whose workers run. Stop it, then join it.
pub struct RunningRouter {
    crew: Arc<Crew>,
    metrics: RouterMetrics,
    threads: Vec<JoinHandle<()>>,
}

/// The workers of this process.
struct LocalWorkers {
    mailboxes: Arc<Mailboxes>,
    metrics: RouterMetrics,
}

impl Router {
    /// Checks the settings and makes the workers' inboxes.
    ///
    /// # Errors
    /// [`RouterError`] if a setting is out of range or the system gives no descriptor.
    pub fn new(settings: RouterSettings, store: Arc<dyn Store>) -> Result<Self, RouterError> {
        settings.check()?;
        let metrics = RouterMetrics::new(settings.worker_count);
        let mut inboxes = Vec::new();
        let mut outboxes = Vec::new();
        for _ in 0..settings.worker_count {
            let (receiving, sending) = inbox(settings.inbox_capacity)?;
            inboxes.push(receiving);
            outboxes.push(sending);
        }
        let mailboxes = Arc::new(Mailboxes::new(outboxes, metrics.clone()));
        Ok(Self { settings, store, inboxes, mailboxes, metrics, consumer: None, observer: None })
    }

    /// The workers, as endpoints reach them.
    pub fn workers(&self) -> Arc<dyn Workers> {
        Arc::new(LocalWorkers { mailboxes: Arc::clone(&self.mailboxes), metrics: self.metrics.clone() })
    }

    /// The counters of all workers.
    pub fn metrics(&self) -> RouterMetrics {
        self.metrics.clone()
    }

    /// Has every entry that became durable shown to a consumer, besides the fan-out.
    pub fn set_consumer(&mut self, consumer: Consumer) {
        self.consumer = Some(consumer);
    }

    /// Has every ack and delivery shown to an observer before an endpoint has it.
    pub fn set_observer(&mut self, observer: Arc<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Starts a thread a worker.
    ///
    /// # Errors
    /// [`RouterError::System`] if the system gives no thread or descriptor.
    pub fn start(self, endpoints: Endpoints) -> Result<RunningRouter, RouterError> {
        self.mailboxes.set_endpoints(endpoints.clone());
        let crew = Arc::new(Crew {
            began: now(),
            draining: AtomicBool::new(false),
            mailboxes: Arc::clone(&self.mailboxes),
            drain_limit: self.settings.request_deadline + Duration::from_secs(2),
        });
        let mut running =
            RunningRouter { crew: Arc::clone(&crew), metrics: self.metrics.clone(), threads: Vec::new() };
        for (number, own_inbox) in self.inboxes.into_iter().enumerate() {
            let (answers, answers_in) = inbox(self.settings.queries_max + 1)?;
            let driver = Driver {
                core: Worker::new(worker_settings(&self.settings, number)),
                number: number as u16,
                store: Arc::clone(&self.store),
                inbox: own_inbox,
                answers,
                answers_in,
                delivery: Delivery::new(endpoints.clone(), self.settings.backlog_max),
                consumer: self.consumer.clone(),
                observer: self.observer.clone(),
                metrics: Arc::clone(&self.metrics.0[number]),
                crew: Arc::clone(&crew),
                state: DriverState::default(),
            };
            let pinned = self.settings.pinned;
            let thread = std::thread::Builder::new().name(format!("router-{number}"));
            running.threads.push(thread.spawn(move || {
                if pinned {
                    pin(number);
                }
                run(driver);
            })?);
        }
        Ok(running)
    }
}

impl RunningRouter {
    /// Tells the workers to finish what is open and end. New requests are refused as `unavailable`.
    pub fn stop(&self) {
        self.crew.draining.store(true, Ordering::SeqCst);
        for worker in 0..self.crew.mailboxes.count() {
            self.crew.mailboxes.wake(worker);
        }
    }

    /// Waits for the workers to end, after [`stop`](Self::stop).
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a router worker ended by a panic");
            }
        }
    }

    /// The counters of all workers.
    pub fn metrics(&self) -> RouterMetrics {
        self.metrics.clone()
    }
}

impl Workers for LocalWorkers {
    fn count(&self) -> usize {
        self.mailboxes.count()
    }

    fn push(&self, worker: usize, message: ToRouter) -> Result<(), Box<ToRouter>> {
        self.mailboxes.push(worker, Letter::Endpoint(message)).map_err(|letter| {
            self.metrics.0[worker].inbox_full.increment();
            match letter {
                Letter::Endpoint(message) => Box::new(message),
                Letter::Forwarded(_) => unreachable!("an endpoint's message comes back as one"),
            }
        })
    }

    fn wake(&self, worker: usize) -> bool {
        self.mailboxes.wake(worker)
    }
}

/// Runs a worker. A broken invariant ends the process: what is acknowledged is in the store, a restart
/// reads it, and an owner that went on with a state it does not understand could spoil it.
fn run(driver: Driver) {
    let number = driver.number;
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.run())).is_err() {
        tracing::error!(worker = number, "a router worker found its state broken: the process ends");
        std::process::abort();
    }
}

/// Each worker's share of what all may hold.
fn worker_settings(settings: &RouterSettings, number: usize) -> WorkerSettings {
    let share = |all: usize| all.div_ceil(settings.worker_count);
    WorkerSettings {
        worker: number as u16,
        worker_count: settings.worker_count,
        region: settings.region,
        seed: random(),
        connections_per_user: settings.connections_per_user as usize,
        conversations_max: share(settings.conversations_loaded_max),
        members_max: share(settings.members_loaded_max),
        keys_max: share(settings.dedup_keys_max),
        conversation_keys_max: CONVERSATION_KEYS_MAX,
        dedup_window_seconds: settings.dedup_window_seconds,
        conversation_inflight_max: settings.conversation_inflight_max,
        inflight_max: share(settings.inflight_max).max(2),
        inflight_bytes_max: share(settings.inflight_bytes_max),
        queries_max: settings.queries_max,
        deadline_microseconds: settings.request_deadline.as_micros() as u64,
    }
}

/// Keeps this thread to one CPU of those it may use, counted from the last: gateway cores count from the
/// first.
fn pin(number: usize) {
    let allowed = match sched_getaffinity(None) {
        Ok(allowed) => allowed,
        Err(error) => return tracing::warn!(%error, "a router worker runs on any CPU"),
    };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if cpus.is_empty() {
        return;
    }
    let mut chosen = CpuSet::new();
    chosen.set(cpus[cpus.len() - 1 - number % cpus.len()]);
    if let Err(error) = sched_setaffinity(None, &chosen) {
        tracing::warn!(%error, "a router worker runs on any CPU");
    }
}

/// A random number of the process.
#[expect(clippy::disallowed_types, reason = "the core's random numbers come from here")]
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[expect(clippy::disallowed_methods, reason = "the drivers' steady clock begins here")]
fn now() -> Instant {
    Instant::now()
}
