//! How conversations begin: the one conversation of a pair, and groups.
//!
//! The worker of a pair asks the store which conversation the pair has, giving it a new id if it has
//! none; whoever asks at the same time learns the same. Then the task goes to the conversation's worker,
//! which makes the conversation at the first touch if the store has none. A crash in between leaves an id
//! without a conversation, and the next try makes it. A group with an idempotency key goes the same way.
//!
//! Both members of a direct conversation are owners: neither is above the other. A user may have one with
//! themselves, of one member. Who is of another tenant does not exist here.

use std::collections::{BTreeMap, VecDeque};

use ringway_protocol::entry::{ConversationKind, Message, Role};
use ringway_protocol::ids::{ConversationId, MessageId};
use ringway_protocol::limits::{CONVERSATION_NAME_BYTES_MAX, GROUP_MEMBERS_MAX};
use ringway_protocol::trunk::{Outcome, Refusal, Target, direct_pair};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{ClaimKey, StoreError};

use super::conversation::Conversation;
use super::event::{Action, Founding, QueryId, Task};
use super::queries::{Claiming, Purpose};
use super::requests::Ticket;
use super::shared::Shared;
use super::worker::Worker;

/// Pairs whose conversation is remembered; a pair beyond them costs a claim, which is a read.
const PAIRS_MAX: usize = 64 * 1024;

/// What is known and asked of pairs.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    known: BTreeMap<(UserId, UserId), ConversationId>,
    /// The known ones, oldest first.
    order: VecDeque<(UserId, UserId)>,
    asked: BTreeMap<(UserId, UserId), QueryId>,
}

impl Pairs {
    fn remember(&mut self, pair: (UserId, UserId), conversation: ConversationId) {
        if self.known.insert(pair.clone(), conversation).is_none() {
            self.order.push_back(pair);
        }
        if self.order.len() > PAIRS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Worker {
    /// A send to a conversation, or to a user.
    pub(crate) fn begin_send(
        &mut self,
        ticket: Ticket,
        sender: UserId,
        target: Target,
        client_message_id: ClientMessageId,
        message: Message,
        actions: &mut Vec<Action>,
    ) {
        match target {
            Target::Conversation(conversation) => {
                let task = Task::Send { client_message_id, message, make: None };
                self.dispatch(conversation, ticket, task, actions);
            }
            Target::User(other) => {
                let make = Some(direct(&sender, &other));
                let task = Task::Send { client_message_id, message, make };
                self.in_direct(ticket, sender, other, task, actions);
            }
        }
    }

    /// A conversation is to be made.
    #[expect(clippy::too_many_arguments, reason = "the operation is made of these")]
    pub(crate) fn begin_creation(
        &mut self,
        ticket: Ticket,
        creator: UserId,
        kind: ConversationKind,
        name: String,
        others: Vec<UserId>,
        idempotency_key: Option<ClientMessageId>,
        actions: &mut Vec<Action>,
    ) {
        if kind == ConversationKind::Direct {
            if others.len() > 1 {
                let refusal = Refusal::Invalid("a direct conversation has one other member");
                return self.shared.requests.reply(ticket, Err(refusal), actions);
            }
            let other = others.into_iter().next().unwrap_or_else(|| creator.clone());
            let task = Task::Create(direct(&creator, &other));
            return self.in_direct(ticket, creator, other, task, actions);
        }
        let founding = match group(&creator, name, others) {
            Ok(founding) => founding,
            Err(refusal) => return self.shared.requests.reply(ticket, Err(refusal), actions),
        };
        let task = Task::Create(founding);
        let proposed = self.new_conversation_id();
        let Some(key) = idempotency_key else {
            return self.dispatch(proposed, ticket, task, actions);
        };
        let claiming = Claiming { pair: None, waiting: vec![(ticket, task)] };
        match self.shared.queries.ask(Purpose::Claim(claiming)) {
            Some(id) => {
                actions.push(Action::Claim { id, key: ClaimKey::Creation(creator, key), proposed });
            }
            None => self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions),
        }
    }

    /// A task in the direct conversation of two users.
    fn in_direct(
        &mut self,
        ticket: Ticket,
        one: UserId,
        other: UserId,
        task: Task,
        actions: &mut Vec<Action>,
    ) {
        if one.tenant() != other.tenant() {
            return self.shared.requests.reply(ticket, Err(Refusal::NotFound), actions);
        }
        let (low, high) = direct_pair(&one, &other);
        let pair = (low.clone(), high.clone());
        if let Some(&conversation) = self.pairs.known.get(&pair) {
            return self.dispatch(conversation, ticket, task, actions);
        }
        let asked = self.pairs.asked.get(&pair).copied();
        if let Some(claiming) = asked.and_then(|query| self.shared.queries.claim(query)) {
            if claiming.waiting.len() >= self.settings.conversation_inflight_max {
                return self.shared.requests.reply(ticket, Err(Refusal::ConversationFull), actions);
            }
            claiming.waiting.push((ticket, task));
            return;
        }
        let claiming = Claiming { pair: Some(pair.clone()), waiting: vec![(ticket, task)] };
        let Some(id) = self.shared.queries.ask(Purpose::Claim(claiming)) else {
            return self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
        };
        self.pairs.asked.insert(pair.clone(), id);
        let proposed = self.new_conversation_id();
        actions.push(Action::Claim { id, key: ClaimKey::DirectPair(pair.0, pair.1), proposed });
    }

    /// The store says which conversation has a key.
    pub(crate) fn on_claimed(
        &mut self,
        id: QueryId,
        result: Result<ConversationId, StoreError>,
        actions: &mut Vec<Action>,
    ) {
        let Purpose::Claim(claiming) = self.shared.queries.answered(id) else { return };
        if let Some(pair) = claiming.pair {
            self.pairs.asked.remove(&pair);
            if let Ok(conversation) = result {
                self.pairs.remember(pair, conversation);
            }
        }
        for (ticket, task) in claiming.waiting {
            match result {
                Ok(conversation) => self.dispatch(conversation, ticket, task, actions),
                Err(_) => self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions),
            }
        }
    }

    fn new_conversation_id(&mut self) -> ConversationId {
        ConversationId(self.shared.snowflake.next(self.shared.now.wall, MessageId(0)).0.0)
    }
}

impl Conversation {
    /// Says to its founder that it is made.
    pub(crate) fn answer_founded(&mut self, shared: &mut Shared, ticket: Ticket, actions: &mut Vec<Action>) {
        let outcome = Outcome::Created { conversation: self.id, created: true, seq: self.last_seq };
        self.answer(shared, ticket, Ok(outcome), actions);
    }
}

/// The beginning of the direct conversation of two users, or of one with themselves.
fn direct(one: &UserId, other: &UserId) -> Founding {
    let (low, high) = direct_pair(one, other);
    let mut members = vec![(low.clone(), Role::Owner)];
    if high != low {
        members.push((high.clone(), Role::Owner));
    }
    Founding { kind: ConversationKind::Direct, name: String::new(), members }
}

/// The beginning of a group.
fn group(creator: &UserId, name: String, others: Vec<UserId>) -> Result<Founding, Refusal> {
    if name.len() > CONVERSATION_NAME_BYTES_MAX {
        return Err(Refusal::Invalid("a conversation's name has at most 256 bytes"));
    }
    if others.iter().any(|other| other.tenant() != creator.tenant()) {
        return Err(Refusal::NotFound);
    }
    let mut members = vec![(creator.clone(), Role::Owner)];
    let mut seen = std::collections::BTreeSet::from([creator.clone()]);
    for other in others {
        if seen.insert(other.clone()) {
            members.push((other, Role::Member));
        }
    }
    if members.len() > GROUP_MEMBERS_MAX {
        return Err(Refusal::ConversationFull);
    }
    Ok(Founding { kind: ConversationKind::Group, name, members })
}
