//! The one thread that writes: it forms groups, makes each durable by one batch and one fsync, and comes
//! back after a failure.
//!
//! ```text
//!   wait for a request ─▶ take all that is queued ─▶ draft ─▶ batch + fsync ─▶ view, position ─▶ answers
//!        ▲                 (what came during the last fsync)        │ fails
//!        └────────── new epoch ◀── open again ◀── wait for the disk ◀┘ answers: unknown
//! ```
//! A request that finds the writer idle is written at once. Under load the group forms by itself while the
//! fsync before it runs: no timer.
//!
//! **A failed write or fsync proves nothing when repeated**, so nothing is repeated: the flushes of the group
//! are unknown, what is queued is refused, and the next instance reads from the disk what is true. While the
//! disk is nearly full, flushes are refused before anything is written, and the old view answers reads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use ringway_protocol::ids::{ConversationId, Epoch, Position, Timestamp};

use super::draft::{Draft, DraftError, LastSeqs};
use super::folder::Folder;
use super::instance::{self, Failure, Instance};
use super::metrics::StoreMetrics;
use super::published::Published;
use super::reply::Reply;
use super::rows::MetaRow;
use super::settings::{GroupStage, StoreSettings};
use crate::store::{ClaimKey, Flush, StoreError};

/// How often an idle writer looks whether the database is well and the disk has room.
const IDLE_CHECK: Duration = Duration::from_millis(250);

/// Pauses between tries to open again: doubling, from the first to the last.
const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(20);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// An instance that lives this long was well: the next failure starts with the shortest pause.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// Conversations whose last seq is remembered; at about 32 bytes each.
const LAST_SEQS_MAX: usize = 64 * 1024;

const DISK_FULL: &str = "the disk is nearly full; make room";
const OPENING: &str = "the store failed and opens again";
const CLOSING: &str = "the store is closing";

/// What the writer is asked.
pub(super) enum Request {
    /// Make entries durable.
    Flush {
        /// Which.
        flush: Flush,
        /// To whom the position is owed.
        reply: Reply<Position>,
    },
    /// Give a key to a conversation.
    Claim {
        /// The key.
        key: ClaimKey,
        /// The conversation.
        proposed: ConversationId,
        /// To whom the holder is owed.
        reply: Reply<ConversationId>,
    },
    /// Remove rows of `sends`, from the sweep.
    RemoveSends {
        /// Their keys.
        keys: Vec<Vec<u8>>,
        /// Only rows as old as this still.
        horizon: Timestamp,
    },
    /// Store the time by which keys age, from the sweep.
    SaveKeyTime(Timestamp),
    /// Look whether the store is closing.
    Wake,
}

impl Request {
    /// Says that nothing was done, and why.
    pub(super) fn refuse(self, reason: &str) {
        match self {
            Request::Flush { reply, .. } => reply.refuse(reason),
            Request::Claim { reply, .. } => reply.refuse(reason),
            Request::RemoveSends { .. } | Request::SaveKeyTime(_) | Request::Wake => {}
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Request::RemoveSends { keys, .. } => keys.is_empty(),
            Request::Flush { .. } | Request::Claim { .. } | Request::SaveKeyTime(_) => false,
            Request::Wake => true,
        }
    }

    /// Entries and bytes, for the bounds of a group.
    fn size(&self) -> (usize, usize) {
        match self {
            Request::Flush { flush, .. } => {
                (flush.appends.len(), flush.appends.iter().map(|append| append.entry.len()).sum())
            }
            Request::RemoveSends { keys, .. } => (keys.len(), 0),
            Request::Claim { .. } | Request::SaveKeyTime(_) => (1, 0),
            Request::Wake => (0, 0),
        }
    }
}

/// Answers that are owed when the group is durable.
enum Owed {
    Flush(Reply<Position>, Position),
    Claim(Reply<ConversationId>, ConversationId),
}

impl Owed {
    fn writing(&mut self) {
        match self {
            Owed::Flush(reply, _) => reply.writing(),
            Owed::Claim(reply, _) => reply.writing(),
        }
    }

    fn pay(self) {
        match self {
            Owed::Flush(reply, position) => reply.answer(Ok(position)),
            Owed::Claim(reply, holder) => reply.answer(Ok(holder)),
        }
    }

    fn fail(self, error: &StoreError) {
        match self {
            Owed::Flush(reply, _) => reply.answer(Err(error.clone())),
            Owed::Claim(reply, _) => reply.answer(Err(error.clone())),
        }
    }
}

/// The writer's thread, as a value.
pub(super) struct Writer {
    folder: Folder,
    settings: StoreSettings,
    requests: Receiver<Request>,
    published: Arc<Published>,
    metrics: Arc<StoreMetrics>,
    /// `None` only while the database opens again.
    instance: Option<Instance>,
    /// What is durable, whichever instance is open; its `newest` also knows of what was refused.
    durable: MetaRow,
    last_seqs: LastSeqs,
    opened: Instant,
    /// The disk has too little room: nothing is written until it has more.
    disk_is_full: bool,
}

impl Writer {
    /// Publishes an instance that was just opened.
    pub(super) fn new(
        folder: Folder,
        settings: StoreSettings,
        requests: Receiver<Request>,
        published: Arc<Published>,
        metrics: Arc<StoreMetrics>,
        instance: Instance,
    ) -> Self {
        let durable = *instance.meta();
        let mut writer = Self {
            folder,
            settings,
            requests,
            published,
            metrics,
            instance: None,
            durable,
            last_seqs: LastSeqs::new(),
            opened: Instant::now(),
            disk_is_full: false,
        };
        writer.begin(instance);
        writer
    }

    /// Runs until the store closes.
    pub(super) fn run(mut self) {
        loop {
            let failure = match catch_unwind(AssertUnwindSafe(|| self.serve())) {
                Ok(Ok(())) => break,
                Ok(Err(failure)) => failure,
                Err(_) => Failure("the writer panicked".to_owned()),
            };
            if !self.reopen(&failure) {
                break;
            }
        }
        self.set_accepts(false);
        while let Ok(request) = self.requests.try_recv() {
            request.refuse(CLOSING);
        }
        self.published.clear_view();
        if let Some(instance) = self.instance.take() {
            instance.close();
        }
    }

    /// Writes group after group. Ends when the store closes and everything queued before that is written.
    fn serve(&mut self) -> Result<(), Failure> {
        loop {
            match self.requests.recv_timeout(IDLE_CHECK) {
                Ok(first) => {
                    let group = self.collect(first);
                    self.write(group)?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.instance()?.check()?;
                    self.watch_disk(0)?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.published.is_stopping() && self.requests.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes what is queued, up to the bounds of a group.
    fn collect(&mut self, first: Request) -> Vec<Request> {
        self.metrics.writer_queue.set(self.requests.len() as u64);
        let (mut entries, mut bytes) = first.size();
        let mut group = vec![first];
        while entries < self.settings.group_entries_max && bytes < self.settings.group_bytes_max {
            let Ok(request) = self.requests.try_recv() else { break };
            let size = request.size();
            entries += size.0;
            bytes += size.1;
            group.push(request);
        }
        for request in &group {
            if let Request::Flush { flush, .. } = request {
                let newest = flush.appends.iter().map(|append| append.server_ts).max();
                self.durable.newest = self.durable.newest.max(newest.unwrap_or_default());
            }
        }
        group
    }

    /// Makes a group durable and answers it. An error ends the instance; every answer is given by then.
    fn write(&mut self, group: Vec<Request>) -> Result<(), Failure> {
        let coming = group.iter().map(|request| request.size().1 as u64).sum();
        self.watch_disk(coming)?;
        if self.disk_is_full {
            group.into_iter().for_each(|request| request.refuse(DISK_FULL));
            return Ok(());
        }
        self.wait_for_background()?;
        let epoch = self.durable.epoch;
        let instance = self.instance.as_mut().ok_or_else(no_instance)?;
        let mut draft = Draft::new(instance.tables(), &self.last_seqs, self.durable);
        let mut owed = Vec::with_capacity(group.len());
        let mut out_of_order = false;
        for request in group {
            // An unread row leaves the rest of the group to answer for itself: nothing is written yet.
            out_of_order |= draft_request(&mut draft, request, epoch, &mut owed, &self.metrics)?;
        }
        if draft.is_empty() {
            owed.into_iter().for_each(Owed::pay);
        } else {
            let (entries, bytes) = (draft.entries(), draft.bytes());
            let (batch, meta, last_seqs) = draft.finish(instance.database());
            owed.iter_mut().for_each(Owed::writing);
            let start = Instant::now();
            let written = call_hook(&self.settings, GroupStage::Formed)
                .and_then(|()| instance.commit(batch, meta))
                .and_then(|()| call_hook(&self.settings, GroupStage::Synced));
            if let Err(Failure(what)) = written {
                self.set_accepts(false);
                let error = StoreError::Unknown(what.clone());
                owed.into_iter().for_each(|owed| owed.fail(&error));
                return Err(Failure(what));
            }
            self.metrics.sync.record(start.elapsed());
            self.metrics.groups.increment();
            self.metrics.group_entries.record_value(entries);
            self.metrics.entries.add(entries);
            self.metrics.bytes.add(bytes);
            remember(&mut self.last_seqs, last_seqs);
            self.durable = meta;
            self.published.set_durable(instance.view(), &meta);
            for owed in owed {
                if matches!(owed, Owed::Flush(..)) {
                    self.metrics.flushes.increment();
                }
                owed.pay();
            }
        }
        if out_of_order { self.next_epoch() } else { Ok(()) }
    }

    /// Begins a new epoch in the open instance: something of the old one was refused, and what follows it
    /// must not be taken for its continuation.
    fn next_epoch(&mut self) -> Result<(), Failure> {
        let mut meta = self.durable;
        meta.epoch = Epoch(meta.epoch.0 + 1);
        let instance = self.instance.as_mut().ok_or_else(no_instance)?;
        instance.write_meta(meta)?;
        self.durable = meta;
        self.published.set_durable(instance.view(), &meta);
        self.published.set_epoch(meta.epoch, meta.newest);
        Ok(())
    }

    /// Looks at the free space: stops taking writes before fjall meets the end of the disk, and takes them
    /// again, under a new epoch, when there is room for the reserve as well.
    fn watch_disk(&mut self, coming: u64) -> Result<(), Failure> {
        // Without an answer, the write itself will tell.
        let Ok(Some(free)) = self.folder.space() else { return Ok(()) };
        self.metrics.free_bytes.set(free);
        if !self.disk_is_full {
            if free < self.settings.free_bytes_min + coming {
                tracing::error!(free, "the disk is nearly full: no writes until there is room");
                self.disk_is_full = true;
                self.set_accepts(false);
            }
            return Ok(());
        }
        let reserve = if self.folder.has_reserve() { 0 } else { self.settings.reserve_bytes };
        if free >= self.settings.free_bytes_min + reserve + self.settings.group_bytes_max as u64 {
            tracing::info!(free, "the disk has room again: writes are taken");
            self.folder.hold_reserve(self.settings.reserve_bytes);
            self.next_epoch()?;
            self.disk_is_full = false;
            self.set_accepts(true);
        }
        Ok(())
    }

    /// Waits while fjall would, but not for threads that are dead.
    fn wait_for_background(&mut self) -> Result<(), Failure> {
        let mut stalled = false;
        while self.instance()?.tables().is_behind() {
            self.instance()?.check()?;
            stalled = true;
            std::thread::sleep(Duration::from_millis(1));
        }
        if stalled {
            self.metrics.stalls.increment();
        }
        Ok(())
    }

    /// Opens again after a failure, and as long as that takes refuses what comes. False if the store closes.
    fn reopen(&mut self, failure: &Failure) -> bool {
        self.set_accepts(false);
        self.metrics.write_errors.increment();
        tracing::error!(reason = failure.0, "the store failed: it opens again, under a new epoch");
        let mut pause = REOPEN_PAUSE_MIN;
        if self.opened.elapsed() < WELL_AFTER && self.metrics.reopens.get() > 0 {
            pause = REOPEN_PAUSE_MIN * 8;
        }
        loop {
            if !self.refuse_for(pause) {
                return false;
            }
            match self.try_reopen() {
                Ok(instance) => {
                    self.metrics.reopens.increment();
                    self.last_seqs.clear();
                    self.opened = Instant::now();
                    self.begin(instance);
                    tracing::info!(epoch = self.durable.epoch.0, "the store is open again");
                    return true;
                }
                Err(what) => tracing::error!(what, "the store does not open yet"),
            }
            pause = (pause * 2).min(REOPEN_PAUSE_MAX);
        }
    }

    /// One try. The old instance, whose view answers reads, is given up only when the disk takes writes.
    fn try_reopen(&mut self) -> Result<Instance, String> {
        let room = self.folder.space().ok().flatten();
        if room.is_some_and(|free| free < self.settings.free_bytes_min) {
            self.folder.release_reserve();
        }
        self.folder.probe().map_err(|error| format!("a test write failed: {error}"))?;
        instance::check_room(&self.folder).map_err(|error| error.to_string())?;
        self.published.clear_view();
        if let Some(instance) = self.instance.take() {
            instance.close();
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Instance::open(&self.folder, &self.settings, Some(&self.durable))
        }));
        match opened {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err("the database panicked".to_owned()),
        }
    }

    /// Publishes an instance, and takes writes if the disk has room.
    fn begin(&mut self, instance: Instance) {
        self.durable = *instance.meta();
        self.published.set_durable(instance.view(), &self.durable);
        self.published.set_epoch(self.durable.epoch, self.durable.newest);
        self.instance = Some(instance);
        let free = self.folder.space().ok().flatten();
        self.metrics.free_bytes.set(free.unwrap_or_default());
        let short_of = |bytes: u64| free.is_some_and(|free| free < bytes);
        self.disk_is_full = short_of(self.settings.free_bytes_min);
        if !self.folder.has_reserve() && !short_of(self.settings.free_bytes_min + self.settings.reserve_bytes)
        {
            self.folder.hold_reserve(self.settings.reserve_bytes);
        }
        if self.disk_is_full {
            tracing::error!(free, "the disk is nearly full: the store is open for reads only");
        }
        self.set_accepts(!self.disk_is_full);
    }

    /// Refuses what comes for a while. False if the store closes.
    fn refuse_for(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            if self.published.is_stopping() {
                return false;
            }
            match self.requests.recv_deadline(until) {
                Ok(request) => request.refuse(OPENING),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn instance(&self) -> Result<&Instance, Failure> {
        self.instance.as_ref().ok_or_else(no_instance)
    }

    fn set_accepts(&self, accepts: bool) {
        self.published.set_accepts(accepts);
        self.metrics.accepts.set(u64::from(accepts));
    }
}

/// Adds a request to the draft, or answers it. True if a flush did not follow the log.
fn draft_request(
    draft: &mut Draft<'_>,
    request: Request,
    epoch: Epoch,
    owed: &mut Vec<Owed>,
    metrics: &StoreMetrics,
) -> Result<bool, Failure> {
    let drafted = match request {
        Request::Flush { flush, reply } if flush.epoch != epoch => {
            reply.refuse(&format!("epoch {} is over, this is {epoch}", flush.epoch));
            return Ok(false);
        }
        Request::Flush { flush, reply } => match draft.append(&flush) {
            Ok(position) => {
                owed.push(Owed::Flush(reply, position));
                return Ok(false);
            }
            Err(DraftError::OutOfOrder(what)) => {
                tracing::error!(what, "a flush does not follow the log: refused");
                metrics.out_of_order.increment();
                reply.refuse(&what);
                return Ok(true);
            }
            Err(error) => Err(error),
        },
        Request::Claim { key, proposed, reply } => match draft.claim(&key, proposed) {
            Ok(holder) => {
                owed.push(Owed::Claim(reply, holder));
                Ok(())
            }
            Err(error) => Err(error),
        },
        Request::RemoveSends { keys, horizon } => match draft.remove_sends(keys, horizon) {
            Ok(count) => {
                metrics.swept.add(count);
                Ok(())
            }
            Err(error) => Err(error),
        },
        Request::SaveKeyTime(time) => {
            draft.save_key_time(time);
            Ok(())
        }
        Request::Wake => Ok(()),
    };
    match drafted {
        Ok(()) => Ok(false),
        Err(DraftError::OutOfOrder(what)) => Err(Failure(what)),
        Err(DraftError::Read(error)) => Err(Failure(error.to_string())),
    }
}

fn remember(known: &mut LastSeqs, new: LastSeqs) {
    if known.len() + new.len() > LAST_SEQS_MAX {
        known.clear();
    }
    known.extend(new);
}

fn call_hook(settings: &StoreSettings, stage: GroupStage) -> Result<(), Failure> {
    match &settings.group_hook {
        None => Ok(()),
        Some(hook) => hook(stage).map_err(|error| Failure(error.to_string())),
    }
}

fn no_instance() -> Failure {
    Failure("the database is not open".to_owned())
}
