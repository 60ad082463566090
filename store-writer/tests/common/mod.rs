//! A store to test against: asked and waited for in one call, with entries that need no codec.
//!
//! An entry's bytes name its conversation and seq, so that a page proves what it is made of.
#![allow(dead_code)] // each test file uses a part

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, MessageId, Position, Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{
    Answer, Append, ClaimKey, Flush, From, IndexChange, Query, Store, StoreError,
};
use ringway_store_writer::{EmbeddedStore, StoreSettings};

/// Longer than anything here takes on a loaded machine: past it, something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings that need little disk.
pub(crate) fn settings() -> StoreSettings {
    StoreSettings { reserve_bytes: 0, free_bytes_min: 0, ..StoreSettings::default() }
}

/// A folder in memory where there is one: these tests are not about the disk's speed.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new("", name).unwrap()
}

pub(crate) fn key(name: &str) -> ClientMessageId {
    ClientMessageId::new(name).unwrap()
}

pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// Waits until `condition`.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A request under way.
pub(crate) struct Pending<T>(mpsc::Receiver<Result<T, StoreError>>);

impl<T> Pending<T> {
    pub(crate) fn wait(self) -> Result<T, StoreError> {
        self.0.recv_timeout(PATIENCE).expect("the store never answered")
    }
}

pub(crate) fn start_flush(store: &dyn Store, flush: Flush) -> Pending<Position> {
    let (sender, receiver) = mpsc::channel();
    store.flush(flush, Box::new(move |result| drop(sender.send(result))));
    Pending(receiver)
}

pub(crate) fn start_claim(
    store: &dyn Store,
    key: ClaimKey,
    proposed: ConversationId,
) -> Pending<ConversationId> {
    let (sender, receiver) = mpsc::channel();
    store.claim(key, proposed, Box::new(move |result| drop(sender.send(result))));
    Pending(receiver)
}

pub(crate) fn try_read(store: &dyn Store, query: Query) -> Result<Answer, StoreError> {
    let (sender, receiver) = mpsc::channel();
    store.read(query, Box::new(move |result| drop(sender.send(result))));
    Pending(receiver).wait()
}

pub(crate) fn read(store: &dyn Store, query: Query) -> Answer {
    try_read(store, query).unwrap()
}

pub(crate) fn flush(store: &dyn Store, appends: Vec<Append>) -> Result<Position, StoreError> {
    start_flush(store, Flush { epoch: store.status().epoch, appends }).wait()
}

/// All that a user sees of a conversation, oldest first.
pub(crate) fn history(store: &dyn Store, conversation: ConversationId, user: &UserId) -> Vec<Bytes> {
    let (mut all, mut after) = (Vec::new(), Seq(0));
    loop {
        let query = Query::Entries { conversation, user: user.clone(), from: From::After(after), limit: 100 };
        let Answer::Entries { entries, more } = read(store, query) else { panic!("another answer") };
        if let Some(last) = entries.last() {
            after = seq_of(last);
        }
        all.extend(entries);
        if !more {
            return all;
        }
    }
}

/// The seq that an entry of [`Log`] names.
pub(crate) fn seq_of(entry: &[u8]) -> Seq {
    let text = std::str::from_utf8(entry).unwrap();
    text.split('|').nth(1).unwrap().parse().unwrap()
}

/// Gives entries their places, as a router does.
#[derive(Default)]
pub(crate) struct Log {
    last: HashMap<ConversationId, u64>,
    message: u64,
    /// The time of the next entry; 0 is now.
    pub(crate) time: u64,
}

impl Log {
    pub(crate) fn message(
        &mut self,
        conversation: ConversationId,
        sender: &UserId,
        key: Option<&str>,
    ) -> Append {
        self.entry(conversation, sender, key, None, 40)
    }

    pub(crate) fn create(&mut self, conversation: ConversationId, members: &[&UserId]) -> Append {
        let index = IndexChange::Created {
            kind: ConversationKind::Group,
            name: format!("group {conversation}"),
            members: members.iter().map(|user| ((*user).clone(), Role::Member)).collect(),
        };
        self.entry(conversation, members[0], None, Some(index), 40)
    }

    pub(crate) fn change(
        &mut self,
        conversation: ConversationId,
        by: &UserId,
        change: IndexChange,
    ) -> Append {
        self.entry(conversation, by, None, Some(change), 40)
    }

    /// Takes the last entry of a conversation back: it was refused.
    pub(crate) fn forget(&mut self, conversation: ConversationId) {
        *self.last.get_mut(&conversation).unwrap() -= 1;
    }

    pub(crate) fn entry(
        &mut self,
        conversation: ConversationId,
        sender: &UserId,
        client_message_id: Option<&str>,
        index: Option<IndexChange>,
        bytes: usize,
    ) -> Append {
        let seq = self.last.entry(conversation).or_default();
        *seq += 1;
        self.message += 1;
        let server_ts = if self.time == 0 { now() } else { Timestamp(self.time) };
        let mut entry = format!("{conversation}|{seq}|");
        entry.extend(std::iter::repeat_n('x', bytes.saturating_sub(entry.len())));
        Append {
            conversation,
            seq: Seq(*seq),
            message: MessageId(self.message),
            server_ts,
            sender: sender.clone(),
            client_message_id: client_message_id.map(key),
            body_hash: self.message * 31,
            index,
            entry: Bytes::from(entry),
        }
    }
}

/// Opens with settings.
pub(crate) fn open_with(folder: &Path, settings: StoreSettings) -> EmbeddedStore {
    EmbeddedStore::open(folder, settings).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens.
pub(crate) fn open(folder: &Path) -> EmbeddedStore {
    open_with(folder, settings())
}
