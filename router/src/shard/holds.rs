//! The seam between what a sync brings and what flows live, for each connection and conversation.
//!
//! From the first page that a connection asks for, its live entries of that conversation are held back.
//! A page that reached the head ends the hold, unless an entry that the page did not have was held back
//! meanwhile: then one more page is asked for. An entry that the page did have, and that this worker has
//! yet to hear is durable, is left out when its turn comes.

use std::collections::BTreeMap;

use ringway_protocol::ids::{ConnectionId, ConversationId, Seq};

use super::requests::Ticket;

/// All holds of one worker.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    holds: BTreeMap<(ConnectionId, ConversationId), Hold>,
    /// Holds of a conversation, so that a fan-out without any looks once.
    counts: BTreeMap<ConversationId, usize>,
}

#[derive(Debug)]
enum Hold {
    /// Pages are asked for; live entries are held back.
    Reading {
        /// The page that is being read.
        ticket: Option<Ticket>,
        /// The last entry that was held back.
        withheld: Seq,
        /// The last entry that the client has, by a page or by its word.
        read: Seq,
    },
    /// The pages are over. The client has all up to here, and not all of it was delivered here yet.
    Passed(Seq),
}

impl Holds {
    /// A page after `after` is asked for: from now on nothing of the conversation goes to the connection.
    pub(crate) fn begin(
        &mut self,
        connection: ConnectionId,
        conversation: ConversationId,
        page: Ticket,
        after: Seq,
    ) {
        let mut added = false;
        let hold = self.holds.entry((connection, conversation)).or_insert_with(|| {
            added = true;
            Hold::Passed(Seq(0))
        });
        let (withheld, read) = match *hold {
            Hold::Reading { withheld, read, .. } => (withheld, read),
            Hold::Passed(read) => (Seq(0), read),
        };
        *hold = Hold::Reading { ticket: Some(page), withheld, read: read.max(after) };
        if added {
            *self.counts.entry(conversation).or_default() += 1;
        }
    }

    /// A page was read from after `after`, its last entry was `last`, and the store has more or not.
    /// `on_its_way`: the last seq of the conversation that is written and not yet delivered here.
    ///
    /// Returns whether the connection must ask for another page.
    pub(crate) fn page_read(
        &mut self,
        place: (ConnectionId, ConversationId),
        page: Ticket,
        after: Seq,
        last: Option<Seq>,
        more: bool,
        on_its_way: Option<Seq>,
    ) -> bool {
        let Some(Hold::Reading { ticket, withheld, read }) = self.holds.get_mut(&place) else {
            return more;
        };
        if *ticket != Some(page) {
            return true; // another page was asked for since: it decides
        }
        *ticket = None;
        *read = (*read).max(last.unwrap_or(Seq(0)));
        if more || *withheld > last.unwrap_or(after) {
            return true;
        }
        self.end(place.0, place.1, on_its_way);
        false
    }

    /// The conversation whose page a ticket is, if the hold waits for that page.
    pub(crate) fn waits_for(&self, connection: ConnectionId, page: Ticket) -> Option<ConversationId> {
        self.of(connection).find(|conversation| {
            let hold = self.holds.get(&(connection, *conversation));
            matches!(hold, Some(Hold::Reading { ticket, .. }) if *ticket == Some(page))
        })
    }

    /// A page came to nothing, or no further one is asked for: live entries flow again. Those that a page
    /// had and that are still on their way here are left out also then.
    pub(crate) fn end(
        &mut self,
        connection: ConnectionId,
        conversation: ConversationId,
        on_its_way: Option<Seq>,
    ) {
        if let Some(hold) = self.holds.get_mut(&(connection, conversation))
            && let Hold::Reading { read, .. } = *hold
        {
            match on_its_way {
                // No further than what is on its way: a client's word counts for no later entry.
                Some(last) if read > Seq(0) => *hold = Hold::Passed(read.min(last)),
                _ => self.remove(connection, conversation),
            }
        }
    }

    fn remove(&mut self, connection: ConnectionId, conversation: ConversationId) {
        if self.holds.remove(&(connection, conversation)).is_some()
            && let Some(count) = self.counts.get_mut(&conversation)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&conversation);
            }
        }
    }

    /// The connection is gone.
    pub(crate) fn detach(&mut self, connection: ConnectionId) {
        let conversations: Vec<_> = self.of(connection).collect();
        for conversation in conversations {
            self.remove(connection, conversation);
        }
    }

    /// Whether any connection has a hold on a conversation.
    pub(crate) fn any(&self, conversation: ConversationId) -> bool {
        self.counts.contains_key(&conversation)
    }

    /// Whether a live entry may go to a connection; if not, notes that it was held back.
    pub(crate) fn lets_through(
        &mut self,
        connection: ConnectionId,
        conversation: ConversationId,
        seq: Seq,
    ) -> bool {
        match self.holds.get_mut(&(connection, conversation)) {
            None => true,
            Some(Hold::Reading { withheld, .. }) => {
                *withheld = seq;
                false
            }
            Some(Hold::Passed(read)) => {
                let passed = seq > *read;
                if seq >= *read {
                    self.remove(connection, conversation);
                }
                passed
            }
        }
    }

    fn of(&self, connection: ConnectionId) -> impl Iterator<Item = ConversationId> + '_ {
        let all = (connection, ConversationId(0))..=(connection, ConversationId(u64::MAX));
        self.holds.range(all).map(|(&(_, conversation), _)| conversation)
    }
}
