//! Requests to the router that have no answer yet, oldest first.
//!
//! They are numbered one after the other, so a number is a place in the list: finding one costs nothing,
//! and an answer that comes after its deadline finds nothing. Its memory stays for the next request, until the
//! session lets go of all its work (`work.rs`).

use std::collections::VecDeque;

use ringway_protocol::ids::{ConversationId, RequestId, Seq};
use ringway_protocol::user::ClientMessageId;

use crate::clock::Tick;
use crate::connection::limits::REQUEST_MILLISECONDS;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether the worker has come to our `Attach`.
    Probe,
    /// To store a message.
    Send(ClientMessageId),
    /// For a page of a sync, after this seq.
    Page(ConversationId, Seq),
    /// For the user's heads.
    Heads,
}

/// A request without its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) since: Tick,
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// `None` for one that was answered out of turn. The first is never `None`.
    requests: VecDeque<Option<Request>>,
    /// The number of the first.
    first: u64,
}

impl Pending {
    /// None, and the number of the first to come.
    pub(super) fn new(first: RequestId) -> Self {
        Self { requests: VecDeque::new(), first: first.0 }
    }

    /// Whether every request has its answer.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The number that the next request gets.
    pub(super) fn next_id(&self) -> RequestId {
        RequestId(self.first + self.requests.len() as u64)
    }

    /// Notes a request under [`next_id`](Self::next_id).
    pub(super) fn push(&mut self, asked: Asked, now: Tick) {
        self.requests.push_back(Some(Request { asked, since: now }));
    }

    /// Uses a number up for a request whose answer says nothing.
    pub(super) fn skip(&mut self) -> RequestId {
        let id = self.next_id();
        self.requests.push_back(None);
        self.tidy();
        id
    }

    /// Takes the request that an answer is for.
    pub(super) fn take(&mut self, id: RequestId) -> Option<Request> {
        let place = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        let request = self.requests.get_mut(place)?.take();
        self.tidy();
        request
    }

    /// Takes the oldest request if its deadline is over.
    pub(super) fn take_overdue(&mut self, now: Tick) -> Option<Request> {
        if now < self.deadline() {
            return None;
        }
        let request = self.requests.pop_front().flatten();
        self.first += 1;
        self.tidy();
        request
    }

    /// The deadline of the oldest.
    pub(super) fn deadline(&self) -> Tick {
        match self.requests.front() {
            Some(Some(request)) => request.since + REQUEST_MILLISECONDS,
            _ => Tick(u64::MAX),
        }
    }

    /// The first number and what was asked since, for a frozen session.
    pub(super) fn parts(&self) -> (RequestId, impl ExactSizeIterator<Item = Option<&Request>>) {
        (RequestId(self.first), self.requests.iter().map(Option::as_ref))
    }

    /// The counterpart of [`parts`](Self::parts).
    pub(super) fn from_parts(first: RequestId, requests: VecDeque<Option<Request>>) -> Self {
        let mut pending = Self { requests, first: first.0 };
        pending.tidy();
        pending
    }

    fn tidy(&mut self) {
        while let Some(None) = self.requests.front() {
            self.requests.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_any_order_and_once() {
        let mut pending = Pending::new(RequestId(0));
        let ids: Vec<RequestId> = (0..4)
            .map(|i| {
                let id = pending.next_id();
                pending.push(Asked::Page(ConversationId(i), Seq(0)), Tick(i));
                id
            })
            .collect();
        assert_eq!(pending.take(ids[2]).unwrap().since, Tick(2));
        assert_eq!(pending.take(ids[2]), None);
        assert_eq!(pending.take(RequestId(99)), None);
        assert_eq!(pending.take(ids[0]).unwrap().since, Tick(0));
        assert_eq!(pending.take_overdue(Tick(REQUEST_MILLISECONDS)), None);
        assert_eq!(pending.take_overdue(Tick(REQUEST_MILLISECONDS + 1)).unwrap().since, Tick(1));
        assert_eq!(pending.take(ids[1]), None, "an answer after the deadline");
        assert_eq!(pending.take(ids[3]).unwrap().since, Tick(3));
        assert_eq!(pending.deadline(), Tick(u64::MAX));
        assert_eq!(pending.next_id(), RequestId(4));
        assert_eq!(pending.skip(), RequestId(4));
        assert_eq!(pending.next_id(), RequestId(5));
    }
}
