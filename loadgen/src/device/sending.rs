//! What a device sends: new messages, repeats of acked ones, the same id with another body; and again
//! whatever had no answer, under the same id, until it has one.

use ringway_protocol::client::{ClientFrame, Destination, Send};
use ringway_protocol::entry::{Body, Message};
use ringway_protocol::ids::ConversationId;
use ringway_protocol::user::ClientMessageId;

use crate::clock::{MILLISECOND, SECOND};
use crate::history::{Attempt, Event};
use crate::payload::{self, Payload};

use super::outgoing::{Outgoing, Purpose};
use super::{Context, Device};

/// An attempt without an answer is given up after this long: its outcome is unknown (I17 allows ten
/// seconds, and a tick may be late).
const ANSWER_MAX: u64 = 9_800 * MILLISECOND;

/// Of the deliberate repeats, one in this many is a conflict instead.
const CONFLICT_ONE_IN: u32 = 4;

/// Of the deliberate repeats, one in this many is a new message sent twice at once.
const TWICE_ONE_IN: u32 = 4;

impl Device {
    /// Sends a new message to one of its conversations, at the schedule's wish.
    pub fn send(&mut self, context: &mut Context, now: u64, intended: u64) {
        context.figures.counts.scheduled += 1;
        let Some(conversation) = self.choose_conversation(context) else {
            context.figures.counts.homeless += 1;
            return;
        };
        if self.outbox.len() >= context.habits.open_sends_max {
            context.figures.counts.dropped += 1;
            return;
        }
        self.counter += 1;
        let id = format!("{}-{:x}-{}", self.login.user, context.habits.run, self.counter);
        let outgoing = self.outgoing(context, conversation, &id, intended, now, Purpose::Scheduled);
        self.outbox.add(&id, outgoing);
        self.attempt_now(context, now, &id);
        if context.dice.f64() < context.habits.repeat {
            self.repeat(context, now, &id);
        }
    }

    fn choose_conversation(&self, context: &mut Context) -> Option<ConversationId> {
        let count = self.conversations().count();
        if count == 0 {
            return None;
        }
        self.conversations().nth(context.dice.usize(0..count))
    }

    fn outgoing(
        &self,
        context: &mut Context,
        conversation: ConversationId,
        id: &str,
        intended: u64,
        now: u64,
        purpose: Purpose,
    ) -> Outgoing {
        let payload = Payload {
            conversation,
            sender: &self.login.user,
            client_message_id: id,
            counter: self.counter,
            intended,
            delay: now.saturating_sub(intended),
        };
        let mut body = Vec::with_capacity(context.habits.payload_bytes);
        payload.write(context.habits.payload_bytes, &mut body);
        let hash = payload::hash(&body);
        Outgoing {
            conversation,
            body,
            hash,
            intended,
            purpose,
            in_flight: 0,
            began: now,
            sent_at: 0,
            next_try: 0,
            tries: 0,
        }
    }

    /// A deliberate repeat: of the message that was just sent, or of an acked one, or in conflict with it.
    fn repeat(&mut self, context: &mut Context, now: u64, just_sent: &str) {
        if context.dice.u32(0..TWICE_ONE_IN) == 0 {
            return self.attempt_now(context, now, just_sent);
        }
        let Some((id, conversation, body)) = self.outbox.kept(&mut context.dice) else { return };
        if !self.views.iter().any(|view| view.member && view.conversation == conversation) {
            return;
        }
        let (id, body) = (id.to_owned(), body.to_vec());
        let outgoing = if context.dice.u32(0..CONFLICT_ONE_IN) == 0 {
            // Another counter and time make another body.
            self.outgoing(context, conversation, &id, now, now, Purpose::Conflict)
        } else {
            let hash = payload::hash(&body);
            let purpose = Purpose::Repeat;
            Outgoing {
                conversation,
                body,
                hash,
                intended: now,
                purpose,
                in_flight: 0,
                began: now,
                sent_at: 0,
                next_try: 0,
                tries: 0,
            }
        };
        if self.outbox.add(&id, outgoing) {
            self.attempt_now(context, now, &id);
        }
    }

    /// An attempt goes out, if the device is welcome and its window has room; else `try_again` does it.
    fn attempt_now(&mut self, context: &mut Context, now: u64, id: &str) {
        if !self.is_open() || self.outbox.in_flight() >= self.window {
            return;
        }
        self.tell_the_delay(context, now, id);
        let Some(outgoing) = self.outbox.get(id) else { return };
        let Ok(client_message_id) = ClientMessageId::new(id) else { return };
        let counts = &mut context.figures.counts;
        counts.begun += u64::from(outgoing.purpose == Purpose::Scheduled && outgoing.tries == 0);
        let frame = ClientFrame::Send(Send {
            destination: Destination::Conversation(outgoing.conversation),
            client_message_id,
            message: Message {
                body: Body::Text(outgoing.body.clone().into()),
                media_ids: Vec::new(),
                reply_to: None,
            },
        });
        context.recorder.record_at(now, &Event::SendInvoked(self.attempt(id, outgoing)));
        context.figures.counts.attempts += 1;
        self.outbox.attempt(id, now);
        self.say(context, &frame);
    }

    /// A send that had to wait has its delay in the body; what was attempted once is never changed.
    fn tell_the_delay(&mut self, context: &mut Context, now: u64, id: &str) {
        let Some(waited) = self.outbox.get(id) else { return };
        if waited.tries > 0 || waited.began == now || waited.purpose != Purpose::Scheduled {
            return;
        }
        let (conversation, intended) = (waited.conversation, waited.intended);
        // Its counter is the end of its id.
        let counter = id.rsplit_once('-').and_then(|(_, counter)| counter.parse().ok());
        let latest = self.counter;
        self.counter = counter.unwrap_or(latest);
        let again = self.outgoing(context, conversation, id, intended, now, Purpose::Scheduled);
        self.counter = latest;
        self.outbox.rewrite(id, again.body, again.hash);
    }

    /// Everything that is not on the wire and may be tried.
    pub(super) fn try_again(&mut self, context: &mut Context, now: u64) {
        if self.outbox.len() == self.outbox.in_flight() as usize {
            return;
        }
        let due: Vec<Box<str>> = self
            .outbox
            .iter()
            .filter(|(_, outgoing)| outgoing.in_flight == 0 && outgoing.next_try <= now)
            .map(|(id, _)| id.into())
            .collect();
        for id in due {
            self.attempt_now(context, now, &id);
        }
    }

    /// Attempts without an answer for too long have an unknown outcome, and are tried again.
    pub(super) fn time_out_attempts(&mut self, context: &mut Context, now: u64) {
        if self.outbox.in_flight() == 0 {
            return;
        }
        let late = |outgoing: &Outgoing| outgoing.in_flight > 0 && now > outgoing.sent_at + ANSWER_MAX;
        self.give_up(context, now, &late, now + SECOND);
    }

    /// The socket is gone: nobody knows what became of what was on it.
    pub(super) fn give_up_attempts(&mut self, context: &mut Context, now: u64) {
        self.give_up(context, now, &|outgoing| outgoing.in_flight > 0, 0);
    }

    fn give_up(&mut self, context: &mut Context, now: u64, which: &dyn Fn(&Outgoing) -> bool, next_try: u64) {
        let given_up: Vec<(Box<str>, u8)> = self
            .outbox
            .iter()
            .filter(|(_, outgoing)| which(outgoing))
            .map(|(id, outgoing)| (id.into(), outgoing.in_flight))
            .collect();
        for (id, attempts) in given_up {
            for _ in 0..attempts {
                if let Some(outgoing) = self.outbox.get(&id) {
                    context.recorder.record_at(now, &Event::SendUnknown(self.attempt(&id, outgoing)));
                }
                context.figures.counts.unknown += 1;
                self.outbox.answer(&id);
            }
            self.outbox.retry(&id, next_try);
        }
    }

    pub(super) fn attempt<'a>(&'a self, id: &'a str, outgoing: &Outgoing) -> Attempt<'a> {
        Attempt {
            user: (&*self.login.user).into(),
            device: (&*self.name).into(),
            connection: self.connection,
            conversation: outgoing.conversation,
            client_message_id: id.into(),
            hash: outgoing.hash,
        }
    }
}
