//! What a session has under way: requests without their answer, pages on their way, gaps to tell, rates that
//! were used up in part.
//!
//! A session that only listens has none of it. The box is made with the first thing that is under way and
//! dropped by the first heartbeat that finds nothing, not with the last answer: a client that chats gets it
//! once, and not anew with each message.

use ringway_protocol::ids::{Position, RequestId};

use super::Session;
use super::gaps::Gaps;
use super::paging::Paging;
use super::pending::Pending;
use super::rate::{Strikes, TokenBucket};
use crate::clock::Tick;

/// Boxed by its session, only while there is something.
pub(super) struct Work {
    pub(super) pending: Pending,
    /// Sends without their ack.
    pub(super) inflight: u32,
    pub(super) sends: TokenBucket,
    pub(super) strikes: Strikes,
    /// The newest ping that was over the rate, answered when the rate allows (RFC 6455 section 5.5.3: "MAY
    /// elect to send a Pong frame for only the most recently processed Ping frame").
    pub(super) owed_pong: Option<Box<[u8]>>,
    /// Between a `hello` with `resume` and its last `heads`: the position that the client resumed from.
    pub(super) resuming: Option<Position>,
    pub(super) paging: Option<Box<Paging>>,
    pub(super) gaps: Option<Box<Gaps>>,
}

impl Work {
    /// Nothing, and the number of the first request to come.
    pub(super) fn new(first: RequestId) -> Self {
        Self {
            pending: Pending::new(first),
            inflight: 0,
            sends: TokenBucket::default(),
            strikes: Strikes::default(),
            owed_pong: None,
            resuming: None,
            paging: None,
            gaps: None,
        }
    }

    /// Whether forgetting it makes no difference.
    pub(super) fn is_over(&self, now: Tick) -> bool {
        self.pending.is_empty()
            && self.sends.full_in(now) == 0
            && self.strikes.are_forgiven(now)
            && self.owed_pong.is_none()
            && self.resuming.is_none()
            && self.paging.is_none()
            && self.gaps.is_none()
    }
}

impl Session {
    /// What is under way, to add to it.
    pub(super) fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_with(|| Box::new(Work::new(self.next_request)))
    }

    /// Lets go of what is over.
    pub(super) fn rest(&mut self, now: Tick) {
        if let Some(work) = self.work.take_if(|work| work.is_over(now)) {
            self.next_request = work.pending.next_id();
        }
    }

    pub(super) fn paging(&self) -> Option<&Paging> {
        self.work.as_ref()?.paging.as_deref()
    }

    pub(super) fn paging_mut(&mut self) -> Option<&mut Paging> {
        self.work.as_mut()?.paging.as_deref_mut()
    }

    pub(super) fn gaps(&self) -> Option<&Gaps> {
        self.work.as_ref()?.gaps.as_deref()
    }

    pub(super) fn gaps_mut(&mut self) -> Option<&mut Gaps> {
        self.work.as_mut()?.gaps.as_deref_mut()
    }

    /// Between a `hello` with `resume` and its last `heads`: the position that the client resumed from.
    pub(super) fn resuming(&self) -> Option<Position> {
        self.work.as_ref()?.resuming
    }

    /// Sends without their ack.
    pub(super) fn inflight(&self) -> u32 {
        self.work.as_ref().map_or(0, |work| work.inflight)
    }
}
