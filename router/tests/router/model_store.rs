//! A store in memory that checks what it is given: dense seqs, rising ids, the right epoch, no key twice.
//!
//! It answers every query as the trait says. Who uses it decides when an operation happens, when its
//! answer comes, and what goes wrong.

use std::collections::BTreeMap;

use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Epoch, MessageId, Position, Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{
    Answer, Append, ClaimKey, Conversation, Flush, From, IndexChange, Query, SendRow, Status,
};

/// The log of one conversation with the positions of its entries.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) entries: Vec<(Append, Position)>,
}

/// The store.
#[derive(Debug)]
pub(crate) struct ModelStore {
    pub(crate) logs: BTreeMap<ConversationId, Log>,
    claims: Vec<(ClaimKey, ConversationId)>,
    pub(crate) accepts: bool,
    pub(crate) epoch: Epoch,
    pub(crate) position: Position,
    newest_now: u64,
    newest: Timestamp,
    /// See [`Status::key_time`].
    pub(crate) key_time: Timestamp,
    /// Keys given to an owner at a load.
    recent_max: usize,
}

impl Log {
    /// The members as of an entry, in the order of joining.
    pub(crate) fn members_at(&self, seq: Seq) -> Vec<(UserId, Role)> {
        let mut members: Vec<(UserId, Role)> = Vec::new();
        for (append, _) in self.entries.iter().take(seq.0 as usize) {
            match &append.index {
                Some(IndexChange::Created { members: first, .. }) => {
                    members.clone_from(first);
                    members.sort_by(|(one, _), (other, _)| one.cmp(other));
                }
                Some(IndexChange::MemberAdded { user, role }) => {
                    assert!(members.iter().all(|(member, _)| member != user), "{user:?} is added twice");
                    members.push((user.clone(), *role));
                }
                Some(IndexChange::MemberRemoved { user }) => members.retain(|(member, _)| member != user),
                Some(IndexChange::Renamed { .. } | IndexChange::Deleted) | None => {}
            }
        }
        members
    }

    /// Whether a user may see an entry: a member as of it, or removed by it.
    pub(crate) fn may_see(&self, user: &UserId, seq: Seq) -> bool {
        let by_it = &self.entries[seq.0 as usize - 1].0.index;
        matches!(by_it, Some(IndexChange::MemberRemoved { user: removed }) if removed == user)
            || self.members_at(seq).iter().any(|(member, _)| member == user)
    }

    /// The seqs that a user may see.
    pub(crate) fn visible(&self, user: &UserId) -> Vec<Seq> {
        let mut inside = false;
        let mut seqs = Vec::new();
        for (append, _) in &self.entries {
            match &append.index {
                Some(IndexChange::Created { members, .. }) => {
                    inside = members.iter().any(|(member, _)| member == user);
                }
                Some(IndexChange::MemberAdded { user: added, .. }) if added == user => inside = true,
                _ => {}
            }
            if inside {
                seqs.push(append.seq);
            }
            if matches!(&append.index, Some(IndexChange::MemberRemoved { user: removed }) if removed == user)
            {
                inside = false;
            }
        }
        seqs
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Append> {
        self.entries.get((seq.0 as usize).checked_sub(1)?).map(|(append, _)| append)
    }

    pub(crate) fn find(&self, sender: &UserId, id: &ClientMessageId) -> Option<&Append> {
        let is_it =
            |append: &&Append| append.sender == *sender && append.client_message_id.as_ref() == Some(id);
        self.entries.iter().map(|(append, _)| append).find(is_it)
    }
}

fn row(append: &Append) -> SendRow {
    SendRow {
        seq: append.seq,
        message: append.message,
        server_ts: append.server_ts,
        body_hash: append.body_hash,
    }
}

impl ModelStore {
    pub(crate) fn new(recent_max: usize) -> Self {
        Self {
            logs: BTreeMap::new(),
            claims: Vec::new(),
            accepts: true,
            epoch: Epoch(1),
            position: Position(1),
            newest_now: 0,
            newest: Timestamp(0),
            key_time: Timestamp(0),
            recent_max,
        }
    }

    pub(crate) fn status(&self) -> Status {
        let Self { accepts, epoch, position, newest, key_time, .. } = *self;
        Status { accepts, epoch, position, newest, key_time }
    }

    /// Takes no writes until it opens again.
    pub(crate) fn fence(&mut self) {
        self.accepts = false;
    }

    /// Opens again, in a new epoch.
    pub(crate) fn reopen(&mut self) {
        self.accepts = true;
        self.epoch = Epoch(self.epoch.0 + 1);
        self.newest = Timestamp(self.newest_now);
    }

    /// Makes a flush durable. `None` if it is of an epoch that is over, or nothing is accepted.
    pub(crate) fn apply(&mut self, flush: &Flush) -> Option<Position> {
        if !self.accepts || flush.epoch != self.epoch {
            return None;
        }
        self.position = Position(self.position.0 + 1);
        for append in &flush.appends {
            let log = self.logs.entry(append.conversation).or_default();
            assert_eq!(append.seq.0 as usize, log.entries.len() + 1, "seqs are dense: {append:?}");
            if let Some((last, _)) = log.entries.last() {
                assert!(append.message > last.message, "ids rise: {append:?} after {last:?}");
                assert!(append.server_ts >= last.server_ts, "time does not fall");
                assert!(last.index != Some(IndexChange::Deleted), "nothing follows a deletion");
            } else {
                let first = matches!(append.index, Some(IndexChange::Created { .. }));
                assert!(first, "a conversation begins with its creation");
            }
            if let Some(id) = &append.client_message_id {
                let used = log.find(&append.sender, id);
                assert!(used.is_none(), "I2: {append:?} is a duplicate of {used:?}");
            }
            self.newest_now = self.newest_now.max(append.server_ts.0);
            log.entries.push((append.clone(), self.position));
        }
        Some(self.position)
    }

    pub(crate) fn claim(&mut self, key: &ClaimKey, proposed: ConversationId) -> ConversationId {
        if let Some((_, holder)) = self.claims.iter().find(|(taken, _)| taken == key) {
            return *holder;
        }
        self.newest_now = self.newest_now.max(proposed.0 >> 22);
        self.claims.push((key.clone(), proposed));
        proposed
    }

    pub(crate) fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Conversation(id) => Answer::Conversation(self.logs.get(id).map(|log| self.load(log))),
            Query::Send { conversation, sender, client_message_id } => {
                let log = self.logs.get(conversation);
                Answer::Send(log.and_then(|log| log.find(sender, client_message_id)).map(row))
            }
            Query::Entries { conversation, user, from: From::After(after), limit } => {
                let Some(log) = self.logs.get(conversation) else {
                    return Answer::Entries { entries: Vec::new(), more: false };
                };
                let mut seqs = log.visible(user);
                seqs.retain(|seq| seq > after);
                let more = seqs.len() > *limit as usize;
                seqs.truncate(*limit as usize);
                let entries = seqs.into_iter().filter_map(|seq| log.get(seq));
                Answer::Entries { entries: entries.map(|append| append.entry.clone()).collect(), more }
            }
            Query::Heads { user, since } => {
                let heads = self.logs.iter().filter_map(|(id, log)| {
                    let last = *log.visible(user).last()?;
                    let (_, position) = &log.entries[last.0 as usize - 1];
                    since.is_none_or(|since| *position > since).then_some((*id, last))
                });
                Answer::Heads { heads: heads.collect(), recovered: true }
            }
            other => panic!("the router does not ask {other:?}"),
        }
    }

    fn load(&self, log: &Log) -> Box<Conversation> {
        let (mut kind, mut name, mut deleted) = (ConversationKind::Group, String::new(), false);
        for (append, _) in &log.entries {
            match &append.index {
                Some(IndexChange::Created { kind: first_kind, name: first_name, .. }) => {
                    (kind, name) = (*first_kind, first_name.clone());
                }
                Some(IndexChange::Renamed { name: new }) => name.clone_from(new),
                Some(IndexChange::Deleted) => deleted = true,
                _ => {}
            }
        }
        let last = &log.entries.last().expect("a log has its first entry").0;
        let mut recent: Vec<_> = log
            .entries
            .iter()
            .filter_map(|(append, _)| {
                Some((append.sender.clone(), append.client_message_id.clone()?, row(append)))
            })
            .collect();
        let cut = recent.len().saturating_sub(self.recent_max);
        let recent_since = if cut == 0 { 0 } else { recent[cut - 1].2.server_ts.0 + 1 };
        recent.drain(..cut);
        Box::new(Conversation {
            kind,
            name,
            members: log.members_at(last.seq),
            deleted,
            last_seq: last.seq,
            last_message: last.message,
            last_ts: last.server_ts,
            recent,
            recent_since: Timestamp(recent_since),
        })
    }

    /// Every id in the store, to see that none repeats.
    pub(crate) fn message_ids(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.logs.values().flat_map(|log| log.entries.iter().map(|(append, _)| append.message))
    }
}
