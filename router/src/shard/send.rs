//! A send: was it sent before, may the sender send, then its place in the log.
//!
//! The key comes before the membership: a member whose send ended unknown and who was removed since still
//! learns that it was stored. Sends of a conversation keep the order in which they came, also when one of
//! them needs a read to know whether its key is new; their reads run side by side.

use ringway_protocol::entry::Message;
use ringway_protocol::ids::Seq;
use ringway_protocol::trunk::{Outcome, Refusal};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{Query, SendRow};

use super::conversation::Conversation;
use super::event::{Action, QueryId, Task};
use super::queries::Purpose;
use super::requests::Ticket;
use super::shared::Shared;

/// A task in a conversation's line.
#[derive(Debug)]
pub(crate) struct Waiting {
    ticket: Ticket,
    task: Task,
    read: Option<KeyRead>,
}

/// Sends of strangers that may wait for the read of their key in a conversation that is full, so that they get
/// the answer that they would get of one that does not exist.
const STRANGERS_PAST_FULL: usize = 64;

/// A read of the key of a send.
#[derive(Debug)]
struct KeyRead {
    query: QueryId,
    /// All entries up to here were durable when the read began, so that it saw their keys.
    saw: Seq,
    answer: Option<Option<SendRow>>,
}

impl Waiting {
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl Conversation {
    /// A task comes: it is done now, unless it, or one before it, waits for a read.
    pub(crate) fn arrive(
        &mut self,
        shared: &mut Shared,
        ticket: Ticket,
        task: Task,
        actions: &mut Vec<Action>,
    ) {
        let past_full =
            (self.pending.len() + self.waiting.len()).checked_sub(shared.conversation_inflight_max);
        if past_full
            .is_some_and(|past| past >= STRANGERS_PAST_FULL || !self.is_strangers(shared, ticket, &task))
        {
            return self.refuse_full(shared, ticket, &task, actions);
        }
        let mut read = None;
        if let Task::Send { client_message_id, .. } = &task
            && let Some(sender) = shared.requests.caller(ticket).map(|caller| caller.user.clone())
            && !self.knows(shared, &sender, client_message_id)
        {
            match self.ask_for_key(shared, sender, client_message_id.clone(), actions) {
                Some(asked) => read = Some(asked),
                None => return shared.requests.reply(ticket, Err(Refusal::Unavailable), actions),
            }
        }
        self.waiting.push_back(Waiting { ticket, task, read });
        self.advance(shared, actions);
    }

    /// Whether it is a send of a stranger of whose key only a read can tell that it is new.
    fn is_strangers(&self, shared: &Shared, ticket: Ticket, task: &Task) -> bool {
        let Task::Send { client_message_id, .. } = task else { return false };
        shared.requests.caller(ticket).is_some_and(|caller| {
            self.role(&caller.user).is_none() && !self.knows(shared, &caller.user, client_message_id)
        })
    }

    /// Too much is in flight here, which only a member learns. Who is none is told what they would be of a
    /// conversation that does not exist: `NotFound`; but `Unavailable` where only a read could tell that the
    /// send is not the retry of one that was stored before its sender was removed, and
    /// [`STRANGERS_PAST_FULL`] wait for one.
    fn refuse_full(&mut self, shared: &mut Shared, ticket: Ticket, task: &Task, actions: &mut Vec<Action>) {
        let Some(caller) = shared.requests.caller(ticket).map(|caller| caller.user.clone()) else { return };
        let mut knows_it = self.role(&caller).is_some();
        if let Task::Send { client_message_id, .. } = task {
            knows_it |= self.keys.get(&caller, client_message_id).is_some();
            if !knows_it && !self.knows(shared, &caller, client_message_id) {
                return shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
            }
        }
        if knows_it {
            return shared.requests.reply(ticket, Err(Refusal::ConversationFull), actions);
        }
        self.answer(shared, ticket, Err(Refusal::NotFound), actions);
    }

    /// A read of a key was answered.
    pub(crate) fn key_read(
        &mut self,
        shared: &mut Shared,
        query: QueryId,
        answer: Result<Option<SendRow>, ()>,
        actions: &mut Vec<Action>,
    ) {
        let asked = self.waiting.iter_mut().find_map(|waiting| {
            let read = waiting.read.as_mut().filter(|read| read.query == query)?;
            Some((waiting.ticket, read))
        });
        let Some((ticket, read)) = asked else { return };
        match answer {
            Ok(row) => read.answer = Some(row),
            // Without its ticket it leaves the line when its turn comes.
            Err(()) => shared.requests.reply(ticket, Err(Refusal::Unavailable), actions),
        }
        self.advance(shared, actions);
    }

    /// Does what is at the head of the line, as far as nothing waits.
    pub(crate) fn advance(&mut self, shared: &mut Shared, actions: &mut Vec<Action>) {
        while let Some(mut head) = self.waiting.pop_front() {
            let Some(caller) = shared.requests.caller(head.ticket).map(|caller| caller.user.clone()) else {
                continue;
            };
            match head.task {
                Task::Send { client_message_id, message, make } => {
                    let needs = self.needs_read(shared, &caller, &client_message_id, head.read.as_ref());
                    match needs {
                        ReadState::Answered(row) => {
                            self.send(shared, head.ticket, caller, client_message_id, message, row, actions);
                            continue;
                        }
                        ReadState::Open => {}
                        ReadState::Ask => {
                            head.read = self.ask_for_key(shared, caller, client_message_id.clone(), actions);
                            if head.read.is_none() {
                                shared.requests.reply(head.ticket, Err(Refusal::Unavailable), actions);
                                continue;
                            }
                        }
                    }
                    head.task = Task::Send { client_message_id, message, make };
                    self.waiting.push_front(head);
                    return;
                }
                Task::Create(_) => {
                    let known = if self.role(&caller).is_some() {
                        Ok(Outcome::Created { conversation: self.id, created: false, seq: self.last_seq })
                    } else {
                        Err(Refusal::NotFound)
                    };
                    self.answer(shared, head.ticket, known, actions);
                }
                Task::Operation(operation) => {
                    self.change(shared, head.ticket, caller, operation, actions);
                }
            }
        }
    }

    /// Whether memory tells if a key was used.
    fn knows(&self, shared: &Shared, sender: &UserId, id: &ClientMessageId) -> bool {
        self.keys.is_complete(shared.status.key_time, shared.keys_horizon)
            || self.keys.get(sender, id).is_some()
    }

    fn needs_read(
        &self,
        shared: &Shared,
        sender: &UserId,
        id: &ClientMessageId,
        read: Option<&KeyRead>,
    ) -> ReadState {
        if let Some(row) = self.keys.get(sender, id) {
            return ReadState::Answered(Some(row));
        }
        match read {
            None if self.keys.is_complete(shared.status.key_time, shared.keys_horizon) => {
                ReadState::Answered(None)
            }
            None => ReadState::Ask,
            Some(KeyRead { answer: None, .. }) => ReadState::Open,
            // A key that was in memory when the read began, not durable then, and forgotten since.
            Some(KeyRead { answer: Some(None), saw, .. }) if self.keys.forgotten() > *saw => ReadState::Ask,
            Some(KeyRead { answer: Some(row), .. }) => ReadState::Answered(*row),
        }
    }

    fn ask_for_key(
        &self,
        shared: &mut Shared,
        sender: UserId,
        client_message_id: ClientMessageId,
        actions: &mut Vec<Action>,
    ) -> Option<KeyRead> {
        let query = shared.queries.ask(Purpose::Key(self.id))?;
        let conversation = self.id;
        actions.push(Action::Query {
            id: query,
            query: Query::Send { conversation, sender, client_message_id },
        });
        Some(KeyRead { query, saw: self.durable, answer: None })
    }

    #[expect(clippy::too_many_arguments, reason = "a send is made of these")]
    fn send(
        &mut self,
        shared: &mut Shared,
        ticket: Ticket,
        sender: UserId,
        client_message_id: ClientMessageId,
        message: Message,
        used: Option<SendRow>,
        actions: &mut Vec<Action>,
    ) {
        let body_hash = message.body_hash();
        let refusal = match used {
            Some(row) if row.body_hash == body_hash => {
                return self.answer_duplicate(shared, ticket, row, actions);
            }
            Some(_) => Refusal::DuplicateConflict,
            None if self.role(&sender).is_none() => Refusal::NotFound,
            None if self.deleted => Refusal::Invalid("this conversation was deleted: it takes no message"),
            None if !shared.may_append(1) => {
                // Decided by the store's state alone: nothing to wait for.
                return shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
            }
            None => {
                let row = self.append_message(shared, sender, client_message_id, message, body_hash);
                return self.answer(shared, ticket, Ok(self.sent(row, false)), actions);
            }
        };
        self.answer(shared, ticket, Err(refusal), actions);
    }

    /// A retry of a send that is in the log: if its entry is on its way, it is told with that entry.
    fn answer_duplicate(
        &mut self,
        shared: &mut Shared,
        ticket: Ticket,
        row: SendRow,
        actions: &mut Vec<Action>,
    ) {
        let outcome = Ok(self.sent(row, true));
        match self.pending.iter_mut().find(|pending| pending.seq == row.seq) {
            Some(pending) => pending.answers.push((ticket, outcome)),
            None => shared.requests.reply(ticket, outcome, actions),
        }
    }

    fn sent(&self, row: SendRow, duplicate: bool) -> Outcome {
        let SendRow { seq, message, server_ts, .. } = row;
        Outcome::Sent { conversation: self.id, message, seq, server_ts, duplicate }
    }
}

/// What is known of a key.
enum ReadState {
    /// Whether it was used.
    Answered(Option<SendRow>),
    /// The store is being asked.
    Open,
    /// The store must be asked.
    Ask,
}
