//! What an owner keeps of one conversation: the members, where the log ends, the entries that are on
//! their way to the store, the sends that wait for a read, and the idempotency keys at hand.
//!
//! The members and the last seq are those *with* the entries on their way. So an answer that was decided
//! by them waits until these entries are durable, and if they are not, nothing of it is said.
//! `send.rs` and `change.rs` say what may be appended; `worker.rs` loads, drops and evicts.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use ringway_protocol::entry::{Change, Content, ConversationKind, Entry, Message, Role};
use ringway_protocol::ids::{ConnectionId, ConversationId, MessageId, Seq};
use ringway_protocol::trunk::{Outcome, Refusal};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{self, Append, IndexChange, SendRow};

use super::change::index_of;
use super::deduplication::Deduplication;
use super::event::{Action, Committed, Founding};
use super::fan_out::Audience;
use super::members::Members;
use super::requests::Ticket;
use super::send::Waiting;
use super::shared::Shared;

/// The owner's state of one conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) id: ConversationId,
    pub(crate) kind: ConversationKind,
    pub(crate) name: String,
    pub(crate) deleted: bool,
    pub(crate) members: Arc<Members>,
    /// The last seq given.
    pub(crate) last_seq: Seq,
    /// The last seq that is durable and delivered.
    pub(crate) durable: Seq,
    last_message: MessageId,
    /// Entries on their way to the store, by seq.
    pub(crate) pending: VecDeque<Pending>,
    /// Sends in the order in which they came, while the first of them waits for a read.
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) keys: Deduplication,
}

/// An entry on its way to the store.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) seq: Seq,
    pub(crate) message: MessageId,
    entry: Bytes,
    /// The members as of this entry.
    members: Arc<Members>,
    /// Who was removed by it.
    removed: Option<UserId>,
    /// What is said once it is durable.
    pub(crate) answers: Vec<(Ticket, Result<Outcome, Refusal>)>,
}

impl Conversation {
    /// As the store has it.
    pub(crate) fn load(id: ConversationId, stored: store::Conversation) -> Self {
        Self {
            id,
            kind: stored.kind,
            name: stored.name,
            deleted: stored.deleted,
            members: Arc::new(Members::load(&stored.members)),
            last_seq: stored.last_seq,
            durable: stored.last_seq,
            last_message: stored.last_message,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            keys: Deduplication::load(stored.recent, stored.recent_since),
        }
    }

    /// A new one: its first entry is on its way.
    pub(crate) fn found(
        shared: &mut Shared,
        id: ConversationId,
        founding: Founding,
        creator: UserId,
    ) -> Self {
        let mut conversation = Self {
            id,
            kind: founding.kind,
            name: founding.name.clone(),
            deleted: false,
            members: Arc::new(Members::found(&founding.members)),
            last_seq: Seq(0),
            durable: Seq(0),
            last_message: MessageId(0),
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            keys: Deduplication::default(),
        };
        let Founding { kind, name, members } = founding;
        conversation.append_change(shared, creator, Change::Created { kind, name, members }, None);
        conversation
    }

    /// Appends a change whose effect on this state is already made.
    pub(crate) fn append_change(
        &mut self,
        shared: &mut Shared,
        sender: UserId,
        change: Change,
        removed: Option<UserId>,
    ) -> SendRow {
        let index = index_of(&change);
        let content = Content::Change(change);
        let body_hash = content.body_hash();
        let entry = self.next_entry(shared, sender, None, content);
        self.append(shared, entry, body_hash, Some(index), removed)
    }

    /// Appends a message.
    pub(crate) fn append_message(
        &mut self,
        shared: &mut Shared,
        sender: UserId,
        client_message_id: ClientMessageId,
        message: Message,
        body_hash: u64,
    ) -> SendRow {
        let content = Content::Message(message);
        let entry = self.next_entry(shared, sender, Some(client_message_id), content);
        self.append(shared, entry, body_hash, None, None)
    }

    /// An entry with the next place and id.
    fn next_entry(
        &mut self,
        shared: &mut Shared,
        sender: UserId,
        client_message_id: Option<ClientMessageId>,
        content: Content,
    ) -> Entry {
        let (message, server_ts) = shared.snowflake.next(shared.now.wall, self.last_message);
        self.last_seq = self.last_seq.next();
        self.last_message = message;
        Entry {
            conversation: self.id,
            seq: self.last_seq,
            message,
            server_ts,
            epoch: shared.status.epoch,
            sender,
            client_message_id,
            content,
        }
    }

    /// Puts an entry on its way to the store.
    fn append(
        &mut self,
        shared: &mut Shared,
        entry: Entry,
        body_hash: u64,
        index: Option<IndexChange>,
        removed: Option<UserId>,
    ) -> SendRow {
        let Entry { seq, message, server_ts, .. } = entry;
        let row = SendRow { seq, message, server_ts, body_hash };
        if let Some(id) = &entry.client_message_id {
            self.keys.insert(entry.sender.clone(), id.clone(), row);
        }
        let encoded = entry.encode();
        shared.gather.push(Append {
            conversation: self.id,
            seq,
            message,
            server_ts,
            sender: entry.sender,
            client_message_id: entry.client_message_id,
            body_hash,
            index,
            entry: encoded.clone(),
        });
        let members = Arc::clone(&self.members);
        self.pending.push_back(Pending {
            seq,
            message,
            entry: encoded,
            members,
            removed,
            answers: Vec::new(),
        });
        row
    }

    /// Says something that was decided by this state: now, or when all of it is durable.
    pub(crate) fn answer(
        &mut self,
        shared: &mut Shared,
        ticket: Ticket,
        outcome: Result<Outcome, Refusal>,
        actions: &mut Vec<Action>,
    ) {
        match self.pending.back_mut() {
            Some(pending) => pending.answers.push((ticket, outcome)),
            None => shared.requests.reply(ticket, outcome, actions),
        }
    }

    /// The oldest entry on its way is durable: acknowledge, then deliver, then tell the consumers.
    pub(crate) fn settle(&mut self, shared: &mut Shared, seq: Seq, actions: &mut Vec<Action>) {
        let pending = self.pending.pop_front().expect("an entry that was flushed is pending");
        assert_eq!(pending.seq, seq, "entries become durable in the order of their seq");
        self.durable = seq;
        pending.deliver(self.id, shared, actions);
        self.keys.trim(shared.conversation_keys_max, self.durable);
    }

    /// Whether nothing of it is only here.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.waiting.is_empty()
    }

    /// Members and keys that are in memory for it.
    pub(crate) fn weight(&self) -> Weight {
        Weight { members: self.members.len(), keys: self.keys.len() }
    }

    /// A member's role, with what is on its way.
    pub(crate) fn role(&self, user: &UserId) -> Option<Role> {
        self.members.role(user)
    }
}

/// What a conversation costs in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) members: usize,
    pub(crate) keys: usize,
}

impl Pending {
    /// Says what waited for the entry, and shows the entry to its members.
    pub(crate) fn deliver(
        self,
        conversation: ConversationId,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) {
        let mut acked: Vec<ConnectionId> = Vec::new();
        for (ticket, outcome) in self.answers {
            let Some(caller) = shared.requests.close(ticket) else { continue };
            if matches!(&outcome, Ok(Outcome::Sent { seq, .. }) if *seq == self.seq) {
                acked.push(caller.connection);
            }
            actions.push(Action::Reply { caller, outcome });
        }
        let audience = Audience { members: &self.members, removed: self.removed.as_ref(), acked: &acked };
        shared.fan_out.deliver(conversation, self.seq, &self.entry, audience, actions);
        actions.push(Action::Committed(Committed {
            shard: conversation.shard(),
            conversation,
            seq: self.seq,
            entry: self.entry,
        }));
    }

    /// The entry may or may not be stored: nobody is told that it is.
    pub(crate) fn refuse(&mut self, shared: &mut Shared, actions: &mut Vec<Action>) {
        for (ticket, _) in self.answers.drain(..) {
            shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
        }
    }
}
