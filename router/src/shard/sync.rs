//! Catching up: pages of what a connection missed, and which conversations it missed something in.
//!
//! Pages and heads are read in the store, which knows what each user may see: from a join to the removal.
//! Who never was a member is told the same as of a conversation that does not exist. How a page and the
//! live entries meet is in `holds.rs`. A page that fails ends the hold: the connection has to be told of
//! the gap by whoever asked for the page.

use ringway_protocol::entry::Entry;
use ringway_protocol::ids::{ConnectionId, ConversationId, Seq};
use ringway_protocol::limits::PAGE_ENTRIES_MAX;
use ringway_protocol::trunk::{Outcome, Refusal};
use ringway_store_writer::store::{Answer, From, Query, StoreError};

use bytes::Bytes;

use super::event::Action;
use super::queries::{PageAsked, Purpose};
use super::requests::Ticket;
use super::worker::Worker;

impl Worker {
    /// A connection asks for the entries after `after`.
    pub(crate) fn sync_page(
        &mut self,
        ticket: Ticket,
        conversation: ConversationId,
        after: Seq,
        limit: u32,
        actions: &mut Vec<Action>,
    ) {
        let Some(caller) = self.shared.requests.caller(ticket).cloned() else { return };
        let (connection, user) = (caller.connection, caller.user);
        let attached = self.shared.fan_out.directory.connections(&user).any(|seat| seat == connection);
        if attached {
            self.shared.fan_out.holds.begin(connection, conversation, ticket, after);
        }
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let query = Query::Entries { conversation, user: user.clone(), from: From::After(after), limit };
        let asked = PageAsked { ticket, connection, user, conversation, after };
        match self.shared.queries.ask(Purpose::Page(asked)) {
            Some(id) => actions.push(Action::Query { id, query }),
            None => {
                self.page_failed(connection, ticket);
                self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
            }
        }
    }

    /// A connection asks for no further page.
    pub(crate) fn sync_end(
        &mut self,
        ticket: Ticket,
        conversation: ConversationId,
        actions: &mut Vec<Action>,
    ) {
        let on_its_way = self.on_its_way(conversation);
        if let Some(caller) = self.shared.requests.caller(ticket) {
            self.shared.fan_out.holds.end(caller.connection, conversation, on_its_way);
        }
        self.shared.requests.reply(ticket, Ok(Outcome::Done), actions);
    }

    /// The time of a request is over: if it was a page, its hold ends.
    pub(crate) fn sync_expired(&mut self, ticket: Ticket) {
        if let Some(connection) = self.shared.requests.caller(ticket).map(|caller| caller.connection) {
            self.page_failed(connection, ticket);
        }
    }

    fn page_failed(&mut self, connection: ConnectionId, ticket: Ticket) {
        if let Some(conversation) = self.shared.fan_out.holds.waits_for(connection, ticket) {
            let on_its_way = self.on_its_way(conversation);
            self.shared.fan_out.holds.end(connection, conversation, on_its_way);
        }
    }

    pub(crate) fn on_page(
        &mut self,
        asked: PageAsked,
        result: Result<Answer, StoreError>,
        actions: &mut Vec<Action>,
    ) {
        match result {
            Ok(Answer::Entries { entries, more }) => {
                let known = !entries.is_empty() || self.is_member(asked.conversation, &asked.user);
                if known {
                    self.finish_page(&asked, entries, more, actions);
                } else if asked.after == Seq(0) {
                    self.refuse_page(&asked, Refusal::NotFound, actions);
                } else {
                    self.ask_for_membership(asked, actions);
                }
            }
            _ => self.refuse_page(&asked, Refusal::Unavailable, actions),
        }
    }

    /// Nothing after where the client is: because there is nothing new, or because it never was a member?
    fn ask_for_membership(&mut self, asked: PageAsked, actions: &mut Vec<Action>) {
        let PageAsked { ticket, connection, conversation, after, ref user } = asked;
        let query = Query::Entries { conversation, user: user.clone(), from: From::After(Seq(0)), limit: 1 };
        let again = PageAsked { ticket, connection, user: user.clone(), conversation, after };
        match self.shared.queries.ask(Purpose::Membership(again)) {
            Some(id) => actions.push(Action::Query { id, query }),
            None => self.refuse_page(&asked, Refusal::Unavailable, actions),
        }
    }

    pub(crate) fn on_membership(
        &mut self,
        asked: PageAsked,
        result: Result<Answer, StoreError>,
        actions: &mut Vec<Action>,
    ) {
        match result {
            Ok(Answer::Entries { entries, .. }) if entries.is_empty() => {
                self.refuse_page(&asked, Refusal::NotFound, actions);
            }
            Ok(Answer::Entries { .. }) => self.finish_page(&asked, Vec::new(), false, actions),
            _ => self.refuse_page(&asked, Refusal::Unavailable, actions),
        }
    }

    fn finish_page(&mut self, asked: &PageAsked, entries: Vec<Bytes>, more: bool, actions: &mut Vec<Action>) {
        let last = match entries.last().map(|entry| Entry::decode(entry)) {
            None => None,
            Some(Ok(entry)) => Some(entry.seq),
            Some(Err(_)) => return self.refuse_page(asked, Refusal::Unavailable, actions),
        };
        let on_its_way = self.on_its_way(asked.conversation);
        let place = (asked.connection, asked.conversation);
        let holds = &mut self.shared.fan_out.holds;
        let more = holds.page_read(place, asked.ticket, asked.after, last, more, on_its_way);
        let outcome = Outcome::Page { conversation: asked.conversation, entries, more };
        self.shared.requests.reply(asked.ticket, Ok(outcome), actions);
    }

    fn refuse_page(&mut self, asked: &PageAsked, refusal: Refusal, actions: &mut Vec<Action>) {
        self.page_failed(asked.connection, asked.ticket);
        self.shared.requests.reply(asked.ticket, Err(refusal), actions);
    }

    pub(crate) fn on_heads(
        &mut self,
        ticket: Ticket,
        result: Result<Answer, StoreError>,
        actions: &mut Vec<Action>,
    ) {
        let outcome = match result {
            Ok(Answer::Heads { heads, recovered }) => Ok(Outcome::Heads { heads, recovered }),
            _ => Err(Refusal::Unavailable),
        };
        self.shared.requests.reply(ticket, outcome, actions);
    }
}
