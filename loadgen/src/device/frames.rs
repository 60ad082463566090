//! What a device does with each frame of the server.

use ringway_protocol::client::{Ack, ErrorCode, ErrorFrame, Gap, Heads, LogItem, ServerFrame, Welcome};
use ringway_protocol::entry::Change;
use ringway_protocol::ids::ConversationId;

use crate::clock::{MILLISECOND, SECOND};
use crate::history::{Event, Via};
use crate::seen;

use super::outgoing::Purpose;
use super::view::View;
use super::{Afterwards, Context, Device, Phase};

/// A hole that no gap frame announced is asked for after this long: an own ack may be about to close it.
const HOLE_PATIENCE: u64 = SECOND;

/// From a sync to its `sync_done`, at most.
const SYNC_MAX: u64 = 20 * SECOND;

/// Sends that a device keeps below the server's window.
const WINDOW_SLACK: u32 = 2;

/// Longest pause before an attempt that the server asked to repeat.
const RETRY_MAX: u64 = 5 * SECOND;

impl Device {
    pub(super) fn handle(&mut self, context: &mut Context, now: u64, frame: ServerFrame) {
        match frame {
            ServerFrame::Welcome(welcome) => self.welcome(context, now, *welcome),
            ServerFrame::Heads(heads) => self.heads(context, now, heads),
            ServerFrame::Ack(ack) => self.ack(context, now, &ack),
            ServerFrame::Message(message) => {
                let conversation = message.placement.conversation;
                self.item(context, now, &LogItem::Message(message), conversation, Via::Live);
            }
            ServerFrame::Conversation(change) => {
                let conversation = change.placement.conversation;
                self.item(context, now, &LogItem::Change(change), conversation, Via::Live);
            }
            ServerFrame::Messages(page) => {
                for item in &page.items {
                    self.item(context, now, item, page.conversation, Via::Catchup);
                }
                if let Some(view) = self.view(page.conversation) {
                    view.more = page.more;
                }
            }
            ServerFrame::SyncDone => self.sync_done(context, now),
            ServerFrame::Gap(gap) => self.gap(context, now, gap),
            ServerFrame::Reconnect(reconnect) => {
                let spread = reconnect.within_ms.saturating_sub(reconnect.after_ms).max(1) * MILLISECOND;
                let pause = reconnect.after_ms * MILLISECOND + context.dice.u64(0..spread);
                self.leave(context, now, Afterwards::Return(pause));
            }
            ServerFrame::Pong(pong) => self.resume = Some(pong.resume),
            ServerFrame::Error(error) => self.error(context, now, &error),
        }
    }

    fn welcome(&mut self, context: &mut Context, now: u64, welcome: Welcome) {
        let Phase::Greeting { resumed, .. } = self.phase else {
            context.figures.counts.unreadable += 1;
            return;
        };
        let first_of_socket = self.next_beat == u64::MAX;
        self.phase = Phase::Open;
        self.failures = 0;
        self.heartbeat = welcome.heartbeat_ms.max(100) * MILLISECOND;
        let most = welcome.limits.max_inflight.saturating_sub(WINDOW_SLACK);
        self.window = most.min(context.habits.window).max(1);
        if first_of_socket {
            context.figures.counts.welcomes += 1;
            // The first beat after a random part of the interval.
            self.next_beat = now + context.dice.u64(0..self.heartbeat);
            context.recorder.record_at(
                now,
                &Event::Opened {
                    user: (&*self.login.user).into(),
                    device: (&*self.name).into(),
                    connection: self.connection,
                },
            );
        }
        if !resumed {
            self.resume = Some(welcome.resume);
            self.views.iter_mut().for_each(|view| view.behind = true);
            self.sync(context, now, false);
        }
        self.try_again(context, now);
    }

    /// Half of the devices believe `heads` and sync only what it names; the other half sync everything.
    fn heads(&mut self, context: &mut Context, now: u64, heads: Heads) {
        self.behind_heads
            .extend(heads.conversations.iter().map(|(conversation, seq)| (*conversation, seq.0)));
        if heads.more {
            return;
        }
        self.resume = Some(heads.resume);
        self.heads_due = false;
        let all = context.dice.bool();
        for (conversation, last) in std::mem::take(&mut self.behind_heads) {
            match self.view(conversation) {
                Some(view) if last > view.cursor().0 => {
                    // Also where the user was removed: the page ends with the entry that says so.
                    view.behind = true;
                    view.member = true;
                }
                Some(_) => {}
                None => self.views.push(View::new(conversation)),
            }
        }
        self.views.iter_mut().for_each(|view| view.behind |= all && view.member);
        if self.sync_since.is_none() {
            self.sync(context, now, true);
        }
    }

    fn ack(&mut self, context: &mut Context, now: u64, ack: &Ack) {
        let id = ack.client_message_id.as_str();
        if !self.outbox.answer(id) {
            // The answer to an attempt that was given up: its retry will be answered too.
            return;
        }
        let Some(outgoing) = self.outbox.get(id) else { return };
        context.figures.counts.acks += 1;
        context.figures.counts.duplicate_acks += u64::from(ack.duplicate);
        if outgoing.purpose == Purpose::Scheduled && context.measured.contains(&outgoing.intended) {
            context.figures.latencies.ack.record(outgoing.intended, outgoing.began, now);
        }
        if outgoing.purpose == Purpose::Scheduled {
            context.figures.counts.acked += 1;
            if let Some(promise) = context.promises.get_mut(&ack.conversation) {
                promise.last = promise.last.max(ack.seq.0);
                context.figures.counts.expected += u64::from(promise.recipients);
            }
        }
        // The answer names its conversation; a wrong one is seen by the checker.
        let mut attempt = self.attempt(id, outgoing);
        attempt.conversation = ack.conversation;
        let event =
            Event::SendAcknowledged { attempt, message: ack.message, seq: ack.seq, duplicate: ack.duplicate };
        context.recorder.record_at(now, &event);
        self.outbox.end(id, true);
        if let Some(view) = self.view(ack.conversation) {
            view.take(ack.seq, now);
        }
        // What the window held back has its turn.
        self.try_again(context, now);
    }

    fn item(
        &mut self,
        context: &mut Context,
        now: u64,
        item: &LogItem,
        conversation: ConversationId,
        via: Via,
    ) {
        let (entry, times) = seen::entry(item, conversation);
        let seq = entry.seq;
        context.figures.counts.corrupted += u64::from(!entry.forgery.is_empty());
        context.recorder.record_at(
            now,
            &Event::Received {
                user: (&*self.login.user).into(),
                device: (&*self.name).into(),
                connection: self.connection,
                via,
                entry,
            },
        );
        let user = self.login.user.clone();
        let (joins, leaves) = match item {
            LogItem::Change(change) => match &change.change {
                Change::Created { members, .. } => {
                    (members.iter().any(|(member, _)| member.sub() == &*user), false)
                }
                Change::MemberAdded { user: member, .. } => (member.sub() == &*user, false),
                Change::MemberRemoved { user: member } => (false, member.sub() == &*user),
                Change::Renamed { .. } | Change::Deleted => (false, false),
            },
            LogItem::Message(_) => (false, false),
        };
        let view = match self.views.iter().position(|view| view.conversation == conversation) {
            Some(index) => &mut self.views[index],
            None => {
                let mut view = View::new(conversation);
                view.behind = false;
                self.views.push(view);
                self.views.last_mut().expect("one was pushed")
            }
        };
        let known = view.cursor() >= seq;
        let new = if joins && !known {
            view.start_at(seq, now);
            view.member = true;
            true
        } else {
            view.take(seq, now)
        };
        if leaves && new {
            view.member = false;
        }
        let counts = &mut context.figures.counts;
        counts.duplicates += u64::from(!new);
        let others = item.placement().from.sub() != &*user;
        counts.delivered += u64::from(new && others && times.began > 0);
        match via {
            Via::Live => counts.live += 1,
            Via::Catchup | Via::History => counts.caught_up += 1,
        }
        let by_its_own_doing = self.slow || times.began < self.read_slowly_until || self.arriving;
        let in_time = via == Via::Live && new && !by_its_own_doing;
        if in_time && context.measured.contains(&times.intended) {
            context.figures.latencies.delivery.record(times.intended, times.began, now);
        }
    }

    fn sync_done(&mut self, context: &mut Context, now: u64) {
        if self.sync_since.take().is_none() {
            context.figures.counts.unreadable += 1;
            return;
        }
        // A sync has a bound. What it did not bring is asked for again, and until then live entries may
        // follow a hole that the server has told.
        for index in 0..self.views.len() {
            if std::mem::take(&mut self.views[index].more) {
                self.views[index].behind = true;
                self.record_gap(context, now, Some(self.views[index].conversation));
            }
        }
        self.record_sync_done(context, now);
        if self.views.iter().any(|view| view.behind) {
            self.sync(context, now, false);
        }
    }

    fn gap(&mut self, context: &mut Context, now: u64, gap: Gap) {
        context.figures.counts.gaps += 1;
        self.record_gap(context, now, gap.conversation);
        match gap.conversation {
            Some(conversation) => {
                match self.view(conversation) {
                    Some(view) => view.behind = true,
                    None => self.views.push(View::new(conversation)),
                }
                if self.sync_since.is_none() {
                    self.sync(context, now, false);
                }
            }
            None => {
                let at = now + gap.after_ms.unwrap_or(0) * MILLISECOND;
                self.hello_again_at = Some(self.hello_again_at.map_or(at, |earlier| earlier.min(at)));
            }
        }
    }

    fn record_gap(&self, context: &mut Context, now: u64, conversation: Option<ConversationId>) {
        let event = Event::Gap {
            user: (&*self.login.user).into(),
            device: (&*self.name).into(),
            connection: self.connection,
            conversation,
        };
        context.recorder.record_at(now, &event);
    }

    fn error(&mut self, context: &mut Context, now: u64, error: &ErrorFrame) {
        let Some(id) = error.client_message_id.as_deref() else {
            context.figures.counts.errors += 1;
            return;
        };
        if !self.outbox.answer(id) {
            return;
        }
        let Some(outgoing) = self.outbox.get(id) else { return };
        let attempt = self.attempt(id, outgoing);
        let conversation = outgoing.conversation;
        if error.code == ErrorCode::Unavailable {
            context.figures.counts.unknown += 1;
            context.recorder.record_at(now, &Event::SendUnknown(attempt));
        } else {
            context.figures.counts.refusals += 1;
            let event = Event::SendRefused { attempt, code: error.code.as_str().into() };
            context.recorder.record_at(now, &event);
        }
        if error.temporary {
            let most = ((100 * MILLISECOND) << outgoing.tries.min(6)).min(RETRY_MAX);
            let least = error.retry_after_ms.unwrap_or(0) * MILLISECOND;
            let next_try = now + least + context.dice.u64(0..most);
            self.outbox.retry(id, next_try);
        } else {
            self.outbox.end(id, false);
        }
        if error.code == ErrorCode::NotFound
            && let Some(view) = self.view(conversation)
        {
            // Removed, and the news is on its way or was missed.
            view.member = false;
        }
    }

    /// Holes that nothing announced, and syncs that were not answered.
    pub(super) fn ask_for_what_is_missing(&mut self, context: &mut Context, now: u64) {
        if let Some(since) = self.sync_since {
            if now < since + SYNC_MAX {
                return;
            }
            self.sync_since = None;
            self.views.iter_mut().for_each(|view| view.behind |= view.member || view.hole_since().is_some());
        }
        for view in &mut self.views {
            view.behind |= view.hole_since().is_some_and(|since| now > since + HOLE_PATIENCE);
        }
        if self.views.iter().any(|view| view.behind) {
            self.sync(context, now, false);
        }
    }
}
