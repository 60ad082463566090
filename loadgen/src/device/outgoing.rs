//! Sends of one device that have not ended, and the few acked ones that are kept to be repeated.

use std::collections::BTreeMap;

use ringway_protocol::ids::ConversationId;

/// Acked sends that a device keeps, to repeat one of them later.
const KEPT_MAX: usize = 4;

/// Why a send is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The schedule wants it.
    Scheduled,
    /// It was acked, and is sent again to see that the server remembers.
    Repeat,
    /// Its id was acked with another body: the server must refuse it.
    Conflict,
}

/// A send that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// Where to.
    pub(super) conversation: ConversationId,
    /// What.
    pub(super) body: Vec<u8>,
    /// [`crate::payload::hash`] of the body.
    pub(super) hash: u64,
    /// When the schedule wanted it.
    pub(super) intended: u64,
    /// Why.
    pub(super) purpose: Purpose,
    /// Attempts on the wire that have no answer.
    pub(super) in_flight: u8,
    /// When the first attempt went out, or when it was made.
    pub(super) began: u64,
    /// When the last attempt went out.
    pub(super) sent_at: u64,
    /// Not to be tried before.
    pub(super) next_try: u64,
    /// Attempts so far.
    pub(super) tries: u32,
}

/// All sends of a device.
#[derive(Default)]
pub(super) struct Outbox {
    open: BTreeMap<Box<str>, Outgoing>,
    in_flight: u32,
    kept: Vec<(Box<str>, ConversationId, Vec<u8>)>,
}

impl Outbox {
    /// Sends that have not ended.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Attempts without an answer.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Adds a send. False if one of this id is open.
    pub(super) fn add(&mut self, client_message_id: &str, outgoing: Outgoing) -> bool {
        if self.open.contains_key(client_message_id) {
            return false;
        }
        self.open.insert(client_message_id.into(), outgoing);
        true
    }

    /// An open send.
    pub(super) fn get(&self, client_message_id: &str) -> Option<&Outgoing> {
        self.open.get(client_message_id)
    }

    /// All open sends.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Outgoing)> {
        self.open.iter().map(|(id, outgoing)| (&**id, outgoing))
    }

    /// Notes that an attempt goes out now.
    pub(super) fn attempt(&mut self, client_message_id: &str, now: u64) {
        if let Some(outgoing) = self.open.get_mut(client_message_id) {
            if outgoing.tries == 0 {
                outgoing.began = now;
            }
            outgoing.in_flight += 1;
            outgoing.tries += 1;
            outgoing.sent_at = now;
            self.in_flight += 1;
        }
    }

    /// Notes that an attempt ended. False if none was in flight.
    pub(super) fn answer(&mut self, client_message_id: &str) -> bool {
        match self.open.get_mut(client_message_id) {
            Some(outgoing) if outgoing.in_flight > 0 => {
                outgoing.in_flight -= 1;
                self.in_flight -= 1;
                true
            }
            _ => false,
        }
    }

    /// To be tried again, not before this time.
    pub(super) fn retry(&mut self, client_message_id: &str, next_try: u64) {
        if let Some(outgoing) = self.open.get_mut(client_message_id) {
            outgoing.next_try = next_try;
        }
    }

    /// Gives a send that no attempt was made of another body.
    pub(super) fn rewrite(&mut self, client_message_id: &str, body: Vec<u8>, hash: u64) {
        if let Some(outgoing) = self.open.get_mut(client_message_id) {
            debug_assert_eq!(outgoing.tries, 0, "what was sent is sent again as it was");
            (outgoing.body, outgoing.hash) = (body, hash);
        }
    }

    /// Takes a send that has ended: it has its result, and no other attempt is in flight.
    pub(super) fn end(&mut self, client_message_id: &str, acked: bool) {
        let ended = self.open.get(client_message_id).is_some_and(|outgoing| outgoing.in_flight == 0);
        if let Some(outgoing) = ended.then(|| self.open.remove(client_message_id)).flatten()
            && acked
            && outgoing.purpose == Purpose::Scheduled
        {
            if self.kept.len() == KEPT_MAX {
                self.kept.swap_remove(outgoing.intended as usize % KEPT_MAX);
            }
            self.kept.push((client_message_id.into(), outgoing.conversation, outgoing.body));
        }
    }

    /// An acked send of earlier.
    pub(super) fn kept(&self, dice: &mut fastrand::Rng) -> Option<(&str, ConversationId, &[u8])> {
        let index = dice.usize(0..self.kept.len().max(1));
        self.kept.get(index).map(|(id, conversation, body)| (&**id, *conversation, &**body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing() -> Outgoing {
        Outgoing {
            conversation: ConversationId(1),
            body: vec![1],
            hash: 1,
            intended: 0,
            purpose: Purpose::Scheduled,
            in_flight: 0,
            began: 0,
            sent_at: 0,
            next_try: 0,
            tries: 0,
        }
    }

    #[test]
    fn a_send_ends_when_its_last_attempt_is_answered() {
        let mut outbox = Outbox::default();
        assert!(outbox.add("a", outgoing()));
        assert!(!outbox.add("a", outgoing()));
        outbox.attempt("a", 1);
        outbox.attempt("a", 2);
        assert!(outbox.answer("a"));
        outbox.end("a", true);
        assert_eq!((outbox.len(), outbox.in_flight()), (1, 1), "the second attempt is on its way");
        assert!(outbox.answer("a"));
        outbox.end("a", true);
        assert_eq!((outbox.len(), outbox.in_flight()), (0, 0));
        assert!(!outbox.answer("a"));
        assert_eq!(outbox.kept(&mut fastrand::Rng::new()).map(|kept| kept.0), Some("a"));
    }
}
