//! What the store was asked and has not answered, and what each answer is for.
//!
//! A question stays counted until its answer comes, also when nobody waits for it any more: the driver's
//! queue of answers has room for as many as may be open, so that the store never finds it full.

use std::collections::BTreeMap;

use ringway_protocol::ids::{ConnectionId, ConversationId, Seq};
use ringway_protocol::user::UserId;

use super::event::{QueryId, Task};
use super::requests::Ticket;

/// What an answer is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The state of a conversation.
    Load(ConversationId),
    /// Whether a key was used: for the send that waits with this query.
    Key(ConversationId),
    /// A page of a sync.
    Page(PageAsked),
    /// Whether the user of an empty page ever was a member.
    Membership(PageAsked),
    /// Which conversations changed.
    Heads(Ticket),
    /// Which conversation has a key.
    Claim(Claiming),
    /// Nobody waits for it any more.
    Forgotten,
}

/// A page that is being read.
#[derive(Debug)]
pub(crate) struct PageAsked {
    pub(crate) ticket: Ticket,
    pub(crate) connection: ConnectionId,
    pub(crate) user: UserId,
    pub(crate) conversation: ConversationId,
    pub(crate) after: Seq,
}

/// Who waits for a claim.
#[derive(Debug)]
pub(crate) struct Claiming {
    /// The pair of a direct conversation.
    pub(crate) pair: Option<(UserId, UserId)>,
    /// What is to be done in the conversation once it is known, in order.
    pub(crate) waiting: Vec<(Ticket, Task)>,
}

/// The open questions.
#[derive(Debug)]
pub(crate) struct Queries {
    next: u64,
    open: BTreeMap<QueryId, Purpose>,
    max: usize,
}

impl Queries {
    pub(crate) fn new(max: usize) -> Self {
        Self { next: 0, open: BTreeMap::new(), max }
    }

    /// A number for a question; `None` if as many are open as may be.
    pub(crate) fn ask(&mut self, purpose: Purpose) -> Option<QueryId> {
        if self.open.len() >= self.max {
            return None;
        }
        let id = QueryId(self.next);
        self.next += 1;
        self.open.insert(id, purpose);
        Some(id)
    }

    /// A claim that is still open.
    pub(crate) fn claim(&mut self, id: QueryId) -> Option<&mut Claiming> {
        match self.open.get_mut(&id) {
            Some(Purpose::Claim(claiming)) => Some(claiming),
            _ => None,
        }
    }

    /// Its answer came: what it was for.
    pub(crate) fn answered(&mut self, id: QueryId) -> Purpose {
        self.open.remove(&id).unwrap_or(Purpose::Forgotten)
    }

    /// Forgets what was asked for the state of conversations: it belongs to an epoch that is over.
    pub(crate) fn forget_conversations(&mut self) {
        for purpose in self.open.values_mut() {
            if matches!(purpose, Purpose::Load(_) | Purpose::Key(_)) {
                *purpose = Purpose::Forgotten;
            }
        }
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
