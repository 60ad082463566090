//! What the store's threads show the others: the status, by single atomic reads, and the newest durable
//! view, by one pointer that is swapped. The writer writes it, and the sweep the time of keys.
//!
//! The order of writing is the promise: the view first, then the position, then the answers to the flushes.
//! Who has an answer, or read a position, finds all of it in the view.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use ringway_protocol::ids::{Epoch, Position, Timestamp};

use super::rows::MetaRow;
use super::tables::View;
use crate::store::Status;

/// Read by all.
#[derive(Default)]
pub(super) struct Published {
    accepts: AtomicBool,
    epoch: AtomicU64,
    position: AtomicU64,
    newest: AtomicU64,
    key_time: AtomicU64,
    view: ArcSwapOption<View>,
    stopping: AtomicBool,
}

impl Published {
    /// See [`Status`].
    pub(super) fn status(&self) -> Status {
        // First, so that who sees writes taken sees the epoch in which they are.
        let accepts = self.accepts();
        Status {
            accepts,
            epoch: Epoch(self.epoch.load(Ordering::Acquire)),
            position: Position(self.position.load(Ordering::Acquire)),
            newest: Timestamp(self.newest.load(Ordering::Acquire)),
            key_time: self.key_time(),
        }
    }

    /// The time by which idempotency keys age.
    pub(super) fn key_time(&self) -> Timestamp {
        Timestamp(self.key_time.load(Ordering::Acquire))
    }

    /// Keys age by this from now on.
    pub(super) fn set_key_time(&self, time: Timestamp) {
        self.key_time.store(time.0, Ordering::Release);
    }

    /// Whether flushes are taken.
    pub(super) fn accepts(&self) -> bool {
        self.accepts.load(Ordering::Acquire)
    }

    /// Flushes are taken from here on, or no more.
    pub(super) fn set_accepts(&self, accepts: bool) {
        self.accepts.store(accepts, Ordering::Release);
    }

    /// A new epoch, with no id handed out before it later than `newest`.
    pub(super) fn set_epoch(&self, epoch: Epoch, newest: Timestamp) {
        self.newest.fetch_max(newest.0, Ordering::AcqRel);
        self.epoch.store(epoch.0, Ordering::Release);
    }

    /// A group is durable.
    pub(super) fn set_durable(&self, view: View, meta: &MetaRow) {
        self.view.store(Some(Arc::new(view)));
        self.position.store(meta.position.0, Ordering::Release);
    }

    /// The newest durable view; `None` while the store opens again.
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Takes the view away: its tables are about to close.
    pub(super) fn clear_view(&self) {
        self.view.store(None);
    }

    /// Whether the store is closing.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The store is closing.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}
