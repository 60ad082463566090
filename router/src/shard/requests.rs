//! Requests that have no answer yet: each ends exactly once, at the latest at its deadline.
//!
//! What waits for something (a load, a read, a flush) keeps a [`Ticket`]; who has the answer closes the
//! ticket here. A ticket that is closed already, because its time was over, makes the answer vanish.

use std::collections::{BTreeMap, BTreeSet};

use ringway_protocol::ids::{ConnectionId, ConversationId, RequestId};
use ringway_protocol::trunk::{Outcome, Refusal};
use ringway_protocol::user::UserId;

use super::event::Action;

/// Names an open request within this worker; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Who asked, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who is answered.
    pub connection: ConnectionId,
    /// Echoed in the answer.
    pub request: RequestId,
    /// On whose behalf.
    pub user: UserId,
    /// When a worker first saw it: microseconds of the steady clock that all workers share.
    pub accepted_microseconds: u64,
}

/// The open requests of one worker.
#[derive(Debug)]
pub(crate) struct Requests {
    next: u64,
    open: BTreeMap<Ticket, Open>,
    by_age: BTreeSet<(u64, Ticket)>,
    limit_microseconds: u64,
}

#[derive(Debug)]
struct Open {
    caller: Caller,
    /// Where it waits in line, so that the line moves on when its time is over.
    conversation: Option<ConversationId>,
}

impl Requests {
    pub(crate) fn new(limit_microseconds: u64) -> Self {
        Self { next: 0, open: BTreeMap::new(), by_age: BTreeSet::new(), limit_microseconds }
    }

    /// Takes a request in.
    pub(crate) fn open(&mut self, caller: Caller) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.by_age.insert((caller.accepted_microseconds, ticket));
        self.open.insert(ticket, Open { caller, conversation: None });
        ticket
    }

    /// Notes in which conversation's line it waits.
    pub(crate) fn waits_in(&mut self, ticket: Ticket, conversation: ConversationId) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.conversation = Some(conversation);
        }
    }

    /// Who asked, while there is no answer.
    pub(crate) fn caller(&self, ticket: Ticket) -> Option<&Caller> {
        self.open.get(&ticket).map(|open| &open.caller)
    }

    /// Takes a request out, to answer it or to hand it to another worker.
    pub(crate) fn close(&mut self, ticket: Ticket) -> Option<Caller> {
        let open = self.open.remove(&ticket)?;
        self.by_age.remove(&(open.caller.accepted_microseconds, ticket));
        Some(open.caller)
    }

    /// Answers a request, unless it had its answer.
    pub(crate) fn reply(
        &mut self,
        ticket: Ticket,
        outcome: Result<Outcome, Refusal>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(caller) = self.close(ticket) {
            actions.push(Action::Reply { caller, outcome });
        }
    }

    /// The oldest request whose time is over, and the conversation it waits in.
    pub(crate) fn expired(&self, now_microseconds: u64) -> Option<(Ticket, Option<ConversationId>)> {
        let &(accepted, ticket) = self.by_age.first()?;
        if accepted + self.limit_microseconds > now_microseconds {
            return None;
        }
        Some((ticket, self.open.get(&ticket).and_then(|open| open.conversation)))
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
