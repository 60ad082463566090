//! The idempotency keys of one conversation that are in memory, and since when they are complete.
//!
//! A key found here was used. A key not found is new only if every key of the horizon, [`horizon`], is
//! here; else one point read in the store tells (`send.rs`). The key of an
//! entry that is not durable yet is never forgotten: the store could not tell of it.

use std::collections::{BTreeMap, VecDeque};

use ringway_protocol::ids::{Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::SendRow;

/// How far back keys count by the store's key time, in milliseconds: twice the window that clients are
/// promised, since that time may run twice as fast as it should while it catches up with the wall clock.
pub(crate) fn horizon(window_seconds: u64) -> u64 {
    window_seconds.saturating_mul(2 * 1000)
}

/// Keys of one conversation.
#[derive(Debug, Default)]
pub(crate) struct Deduplication {
    rows: BTreeMap<(UserId, ClientMessageId), SendRow>,
    /// The keys by seq, oldest first.
    order: VecDeque<(UserId, ClientMessageId)>,
    /// Every key used at or after this time is here.
    since: Timestamp,
    /// The highest seq whose key was here and is forgotten.
    forgotten: Seq,
}

impl Deduplication {
    /// From what the store keeps at hand for an owner.
    pub(crate) fn load(recent: Vec<(UserId, ClientMessageId, SendRow)>, since: Timestamp) -> Self {
        if cfg!(feature = "planted-memory-dedup") {
            // The planted bug: nothing is known of before, and taken for complete.
            return Self::default();
        }
        let mut keys = Self { since, ..Self::default() };
        for (user, id, row) in recent {
            keys.insert(user, id, row);
        }
        keys
    }

    /// What a key stands for, if it is here.
    pub(crate) fn get(&self, user: &UserId, id: &ClientMessageId) -> Option<SendRow> {
        // A clone of two counters: a borrowed pair is not the key's type.
        self.rows.get(&(user.clone(), id.clone())).copied()
    }

    /// Adds the key of the newest entry.
    pub(crate) fn insert(&mut self, user: UserId, id: ClientMessageId, row: SendRow) {
        let key = (user, id);
        if self.rows.insert(key.clone(), row).is_none() {
            self.order.push_back(key);
        }
    }

    /// Whether a key that is not here was surely not used within the last `horizon` milliseconds.
    pub(crate) fn is_complete(&self, now: Timestamp, horizon: u64) -> bool {
        self.since.0 == 0 || self.since.0 <= now.0.saturating_sub(horizon)
    }

    /// The highest seq whose key was forgotten: a read that began when this entry was not durable may
    /// have missed it.
    pub(crate) fn forgotten(&self) -> Seq {
        self.forgotten
    }

    /// Forgets the oldest keys past the bound of a conversation, none above `durable`.
    pub(crate) fn trim(&mut self, keys_max: usize, durable: Seq) {
        while self.order.len() > keys_max && self.forget_oldest(durable) {}
    }

    /// Forgets the oldest key, if its entry is durable.
    pub(crate) fn forget_oldest(&mut self, durable: Seq) -> bool {
        let Some(key) = self.order.front() else { return false };
        let row = self.rows[key];
        if row.seq > durable {
            return false;
        }
        self.rows.remove(key);
        self.order.pop_front();
        self.since = self.since.max(Timestamp(row.server_ts.0 + 1));
        self.forgotten = self.forgotten.max(row.seq);
        true
    }

    /// Keys here.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_protocol::ids::MessageId;

    #[test]
    fn a_forgotten_key_leaves_the_rest_complete_from_just_after_it() {
        let user = UserId::new("", "alice").unwrap();
        let id = |name: &str| ClientMessageId::new(name).unwrap();
        let row = |seq: u64| SendRow {
            seq: Seq(seq),
            message: MessageId(seq),
            server_ts: Timestamp(100 * seq),
            body_hash: 0,
        };
        let day = horizon(86_400);
        let mut keys = Deduplication::default();
        keys.insert(user.clone(), id("a"), row(1));
        keys.insert(user.clone(), id("b"), row(2));
        assert!(keys.is_complete(Timestamp(200), day));
        assert!(keys.forget_oldest(Seq(1)));
        assert!(!keys.forget_oldest(Seq(1)), "the entry of b is not durable");
        assert!(!keys.is_complete(Timestamp(200), day));
        assert!(!keys.is_complete(Timestamp(100 + day), day));
        assert!(keys.is_complete(Timestamp(101 + day), day));
        assert!(keys.is_complete(Timestamp(101 + horizon(60)), horizon(60)), "a shorter window knows sooner");
        assert_eq!(keys.forgotten(), Seq(1));
        assert_eq!(keys.get(&user, &id("a")), None);
        assert!(keys.get(&user, &id("b")).is_some());
    }
}
