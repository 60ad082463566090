//! What a device has of one conversation: everything up to a place, and what came ahead of a hole.

use std::collections::BTreeSet;

use ringway_protocol::ids::{ConversationId, Seq};

/// One conversation, as one device sees it.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Which.
    pub(super) conversation: ConversationId,
    /// The user is a member, as far as the device knows.
    pub(super) member: bool,
    /// A sync is to be asked for.
    pub(super) behind: bool,
    /// The last page of the running sync said that more follows.
    pub(super) more: bool,
    have: u64,
    ahead: BTreeSet<u64>,
    /// Since when there has been a hole.
    hole_since: Option<u64>,
}

impl View {
    /// A view that has nothing yet.
    pub(super) fn new(conversation: ConversationId) -> Self {
        Self {
            conversation,
            member: true,
            behind: true,
            more: false,
            have: 0,
            ahead: BTreeSet::new(),
            hole_since: None,
        }
    }

    /// The last place up to which nothing is missing.
    pub(super) fn cursor(&self) -> Seq {
        Seq(self.have)
    }

    /// Takes a place; false if it was known.
    pub(super) fn take(&mut self, seq: Seq, now: u64) -> bool {
        if seq.0 <= self.have || !self.ahead.insert(seq.0) {
            return false;
        }
        while self.ahead.remove(&(self.have + 1)) {
            self.have += 1;
        }
        self.hole_since = match self.ahead.is_empty() {
            true => None,
            false => Some(self.hole_since.unwrap_or(now)),
        };
        true
    }

    /// The user's stream starts at this place: what is below is not for them.
    pub(super) fn start_at(&mut self, seq: Seq, now: u64) {
        if seq.0 > self.have + 1 {
            self.have = seq.0 - 1;
            self.ahead.retain(|ahead| *ahead >= seq.0);
        }
        self.take(seq, now);
    }

    /// How many of the places up to `last` are not there.
    pub(super) fn missing_up_to(&self, last: Seq) -> u64 {
        let ahead = self.ahead.range(..=last.0).count() as u64;
        last.0.saturating_sub(self.have).saturating_sub(ahead)
    }

    /// Since when there has been a hole, if there is one.
    pub(super) fn hole_since(&self) -> Option<u64> {
        self.hole_since
    }

    /// Waits anew before the hole counts as old.
    pub(super) fn hole_is_asked_for(&mut self, now: u64) {
        self.hole_since = self.hole_since.map(|_| now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stops_at_a_hole_and_goes_on_when_it_is_closed() {
        let mut view = View::new(ConversationId(1));
        assert!(view.take(Seq(1), 10));
        assert!(view.take(Seq(3), 20) && view.take(Seq(4), 30));
        assert_eq!((view.cursor(), view.hole_since()), (Seq(1), Some(20)));
        assert!(!view.take(Seq(3), 40), "known, though ahead");
        assert_eq!((view.missing_up_to(Seq(4)), view.missing_up_to(Seq(6))), (1, 3));
        assert_eq!(view.missing_up_to(Seq(1)), 0);
        assert!(view.take(Seq(2), 50));
        assert_eq!((view.cursor(), view.hole_since()), (Seq(4), None));
        assert!(!view.take(Seq(4), 60));
    }

    #[test]
    fn a_stream_starts_at_its_join() {
        let mut view = View::new(ConversationId(1));
        view.take(Seq(7), 5);
        view.start_at(Seq(6), 10);
        assert_eq!((view.cursor(), view.hole_since()), (Seq(7), None));
        view.start_at(Seq(3), 20);
        assert_eq!(view.cursor(), Seq(7), "an old join moves nothing");
    }
}
