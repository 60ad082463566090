//! Entries on their way to the store: gathered while a flush is under way, then handed over as the next.
//!
//! One flush is under way at a time. So an idle worker flushes at the end of the pass that brought an
//! entry, a busy one gathers for exactly as long as the store needs (group commit), and a flush that
//! fails has nothing of ours behind it that could be written over the hole.

use ringway_protocol::ids::{ConversationId, Epoch, Position, Seq};
use ringway_store_writer::store::{Append, Flush};

use super::event::FlushId;

/// What waits, and what is under way.
#[derive(Debug)]
pub(crate) struct Gather {
    appends: Vec<Append>,
    bytes: usize,
    under_way: Option<UnderWay>,
    next: u64,
    entries_max: usize,
    bytes_max: usize,
}

/// The flush that the store has.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) id: FlushId,
    /// The epoch of its entries.
    pub(crate) epoch: Epoch,
    /// What was durable before it was handed over: its own position is above.
    pub(crate) above: Position,
    /// Its entries, in order.
    pub(crate) entries: Vec<(ConversationId, Seq)>,
    pub(crate) bytes: usize,
}

impl Gather {
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { appends: Vec::new(), bytes: 0, under_way: None, next: 0, entries_max, bytes_max }
    }

    /// Whether `entries` more may be added.
    pub(crate) fn has_room(&self, entries: usize) -> bool {
        let (flying, flying_bytes) =
            self.under_way.as_ref().map_or((0, 0), |flush| (flush.entries.len(), flush.bytes));
        self.appends.len() + flying + entries <= self.entries_max
            && self.bytes + flying_bytes < self.bytes_max
    }

    /// Adds an entry to the next flush.
    pub(crate) fn push(&mut self, append: Append) {
        self.bytes += append.entry.len();
        self.appends.push(append);
    }

    /// The next flush, if there is something to flush and nothing under way.
    pub(crate) fn start(&mut self, epoch: Epoch, durable: Position) -> Option<(FlushId, Flush)> {
        if self.under_way.is_some() || self.appends.is_empty() {
            return None;
        }
        let id = FlushId(self.next);
        self.next += 1;
        let appends = std::mem::take(&mut self.appends);
        let entries = appends.iter().map(|append| (append.conversation, append.seq)).collect();
        let bytes = std::mem::take(&mut self.bytes);
        self.under_way = Some(UnderWay { id, epoch, above: durable, entries, bytes });
        Some((id, Flush { epoch, appends }))
    }

    /// Takes out the flush that ended; `None` if it is not the one under way.
    pub(crate) fn end(&mut self, id: FlushId) -> Option<UnderWay> {
        if self.under_way.as_ref()?.id == id { self.under_way.take() } else { None }
    }

    /// What is under way.
    pub(crate) fn under_way(&self) -> Option<&UnderWay> {
        self.under_way.as_ref()
    }

    /// Drops what the store was not given; returns whose it was.
    pub(crate) fn discard(&mut self) -> Vec<ConversationId> {
        self.bytes = 0;
        std::mem::take(&mut self.appends).into_iter().map(|append| append.conversation).collect()
    }

    /// Entries waiting or under way.
    pub(crate) fn len(&self) -> usize {
        self.appends.len() + self.under_way.as_ref().map_or(0, |flush| flush.entries.len())
    }
}
