//! Bugs to plant in a good history: at least one for each invariant that the checker checks.
//!
//! Each is what a server with that bug would have shown to its clients, at a place picked by a seed.

use std::collections::{HashMap, HashSet};

use ringway_protocol::ids::{ConversationId, MessageId, Seq};

use crate::checker::Invariant;
use crate::clock::SECOND;
use crate::history::{Entry, Event, Record, Via};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The last message of a conversation was acked and is not there after the run.
    LostAck,
    /// A message is there after the run with another body.
    ChangedMessage,
    /// A second full read of a conversation lacks its last row.
    ReadsDiffer,
    /// A retry was stored again, at another place with another id.
    StoredTwice,
    /// A place of the log is empty.
    HoleInLog,
    /// A message was left out on a socket, and the next one came without a gap frame.
    HoleOnSocket,
    /// A hole was closed after six seconds.
    HoleClosedLate,
    /// One device got two messages in each other's places.
    SwappedOrder,
    /// Two live messages came to a socket in the wrong order.
    LiveFalls,
    /// A message that was delivered is not there after the run.
    ShownAndGone,
    /// A message has a smaller place than one acked before it was sent.
    RealTimeBroken,
    /// Somebody who never joined got a message.
    DeliveredToStranger,
    /// The answer to a join names a place where the log has no join.
    JoinNotInLog,
    /// A removed member got the next message.
    DeliveredAfterRemoval,
    /// A read of history lacks the last acked message.
    StaleRead,
    /// A read of history lacks a message that the device had seen.
    BackwardRead,
    /// Two acks of one client message id name two messages.
    TwoAnswers,
    /// Another body under the same client message id was acked.
    ConflictAccepted,
    /// A send was refused for certain and is stored.
    RefusedAndStored,
    /// A body that fails its checksum was delivered.
    BadChecksum,
    /// A body of another message was delivered in the right frame.
    ForeignBody,
    /// A page of a catch-up lacks a row.
    HoleAtCatchUp,
    /// A message that came between catch-up and live is missing for good.
    HoleAtSeam,
    /// The server acked before the entry was durable.
    AckBeforeDurable,
    /// The server delivered before the entry was durable.
    DeliveredBeforeDurable,
    /// The store called an entry durable, and it is not there after the run.
    DurableAndGone,
    /// An entry that the store called durable was lost, and its place given to another.
    DurableTwice,
    /// Two messages have one id.
    SameIdTwice,
    /// An id is smaller than the one before it in its conversation.
    IdFalls,
    /// A send got no answer.
    NeverEnds,
    /// A send was answered after eleven seconds.
    EndsLate,
    /// An unknown outcome was never resolved.
    NeverResolved,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 32] = [
        Bug::LostAck,
        Bug::ChangedMessage,
        Bug::ReadsDiffer,
        Bug::StoredTwice,
        Bug::HoleInLog,
        Bug::HoleOnSocket,
        Bug::HoleClosedLate,
        Bug::SwappedOrder,
        Bug::LiveFalls,
        Bug::ShownAndGone,
        Bug::RealTimeBroken,
        Bug::DeliveredToStranger,
        Bug::JoinNotInLog,
        Bug::DeliveredAfterRemoval,
        Bug::StaleRead,
        Bug::BackwardRead,
        Bug::TwoAnswers,
        Bug::ConflictAccepted,
        Bug::RefusedAndStored,
        Bug::BadChecksum,
        Bug::ForeignBody,
        Bug::HoleAtCatchUp,
        Bug::HoleAtSeam,
        Bug::AckBeforeDurable,
        Bug::DeliveredBeforeDurable,
        Bug::DurableAndGone,
        Bug::DurableTwice,
        Bug::SameIdTwice,
        Bug::IdFalls,
        Bug::NeverEnds,
        Bug::EndsLate,
        Bug::NeverResolved,
    ];

    /// The invariant that it breaks. It may break others on its way.
    pub fn breaks(self) -> Invariant {
        match self {
            Bug::LostAck | Bug::ChangedMessage | Bug::ReadsDiffer => Invariant::I1,
            Bug::StoredTwice => Invariant::I2,
            Bug::HoleInLog | Bug::HoleOnSocket | Bug::HoleClosedLate => Invariant::I3,
            Bug::SwappedOrder | Bug::LiveFalls | Bug::ShownAndGone => Invariant::I4,
            Bug::RealTimeBroken => Invariant::I5,
            Bug::DeliveredToStranger | Bug::JoinNotInLog => Invariant::I6,
            Bug::DeliveredAfterRemoval => Invariant::I7,
            Bug::StaleRead | Bug::BackwardRead => Invariant::I8,
            Bug::TwoAnswers | Bug::ConflictAccepted | Bug::RefusedAndStored => Invariant::I11,
            Bug::BadChecksum | Bug::ForeignBody => Invariant::I13,
            Bug::HoleAtCatchUp | Bug::HoleAtSeam => Invariant::I14,
            Bug::AckBeforeDurable | Bug::DeliveredBeforeDurable | Bug::DurableAndGone | Bug::DurableTwice => {
                Invariant::I15
            }
            Bug::SameIdTwice | Bug::IdFalls => Invariant::I16,
            Bug::NeverEnds | Bug::EndsLate | Bug::NeverResolved => Invariant::I17,
        }
    }
}

/// Plants the bug at a place picked by `seed`. False if the history has no place for it.
pub fn plant(bug: Bug, seed: u64, records: &mut Vec<Record<'static>>) -> bool {
    let mut site = Site { dice: fastrand::Rng::with_seed(seed), records };
    site.plant(bug).is_some()
}

struct Site<'a> {
    dice: fastrand::Rng,
    records: &'a mut Vec<Record<'static>>,
}

type Place = (ConversationId, Seq);

fn place(entry: &Entry<'_>) -> Place {
    (entry.conversation, entry.seq)
}

fn received<'a>(event: &'a Event<'static>) -> Option<(&'a Entry<'static>, Via)> {
    match event {
        Event::Received { entry, via, .. } => Some((entry, *via)),
        _ => None,
    }
}

/// Whose device, on which connection, of which conversation: what a live run is a run of.
fn stream(event: &Event<'static>) -> Option<(String, u64, ConversationId)> {
    match event {
        Event::Received { device, connection, entry, .. } => {
            Some((device.to_string(), *connection, entry.conversation))
        }
        _ => None,
    }
}

impl Site<'_> {
    /// A random record that fits.
    fn pick(&mut self, mut fits: impl FnMut(&Event<'static>) -> bool) -> Option<usize> {
        let found: Vec<usize> =
            (0..self.records.len()).filter(|index| fits(&self.records[*index].event)).collect();
        found.get(self.dice.usize(0..found.len().max(1))).copied()
    }

    /// The first record after `from` that fits.
    fn after(&self, from: usize, fits: impl Fn(&Event<'static>) -> bool) -> Option<usize> {
        (from + 1..self.records.len()).find(|index| fits(&self.records[*index].event))
    }

    /// A live message, and the next row of the same stream if that is live too.
    fn two_live(&mut self) -> Option<(usize, usize)> {
        let live_message = |event: &Event<'static>| {
            received(event).is_some_and(|(entry, via)| via == Via::Live && entry.change.is_empty())
        };
        // Consecutive rows of each stream, where both are live messages.
        let mut last: HashMap<(String, u64, ConversationId), usize> = HashMap::new();
        let mut pairs = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            let Some(stream) = stream(&record.event) else { continue };
            if let Some(previous) = last.insert(stream, index)
                && live_message(&self.records[previous].event)
                && live_message(&record.event)
            {
                pairs.push((previous, index));
            }
        }
        pairs.get(self.dice.usize(0..pairs.len().max(1))).copied()
    }

    /// Every entry of the history, wherever it was seen.
    fn each_entry(&mut self, mut change: impl FnMut(&mut Entry<'static>)) {
        for record in self.records.iter_mut() {
            match &mut record.event {
                Event::Received { entry, .. } | Event::Final { entry, .. } => change(entry),
                _ => {}
            }
        }
    }

    /// Places and ids wherever they are told: in entries and in acks.
    fn each_place(&mut self, mut change: impl FnMut(ConversationId, &mut Seq, &mut MessageId)) {
        for record in self.records.iter_mut() {
            match &mut record.event {
                Event::Received { entry, .. } | Event::Final { entry, .. } => {
                    change(entry.conversation, &mut entry.seq, &mut entry.message);
                }
                Event::SendAcknowledged { attempt, seq, message, .. } => {
                    change(attempt.conversation, seq, message);
                }
                _ => {}
            }
        }
    }

    /// The last rows of the full reads that are messages, as (final row's index, its entry).
    fn last_final(&mut self) -> Option<(usize, Entry<'static>)> {
        let mut last: HashMap<ConversationId, (usize, Entry<'static>)> = HashMap::new();
        for (index, record) in self.records.iter().enumerate() {
            if let Event::Final { entry, .. } = &record.event {
                last.insert(entry.conversation, (index, entry.clone()));
            }
        }
        let mut found: Vec<_> = last.into_values().filter(|(_, entry)| entry.change.is_empty()).collect();
        found.sort_by_key(|(index, _)| *index);
        (!found.is_empty()).then(|| found.swap_remove(self.dice.usize(0..found.len())))
    }

    fn count_final_rows(&mut self, conversation: ConversationId, add: i64) {
        for record in self.records.iter_mut() {
            if let Event::FinalReturned { conversation: of, rows, .. } = &mut record.event
                && *of == conversation
            {
                *rows = rows.saturating_add_signed(add);
            }
        }
    }

    fn remove_final(&mut self, index: usize, conversation: ConversationId) {
        self.records.remove(index);
        self.count_final_rows(conversation, -1);
    }

    fn plant(&mut self, bug: Bug) -> Option<()> {
        match bug {
            Bug::LostAck => {
                let (index, entry) = self.last_final()?;
                self.remove_final(index, entry.conversation);
                // Nobody had seen it but its sender.
                self.records.retain(|record| {
                    received(&record.event).is_none_or(|(seen, _)| place(seen) != place(&entry))
                });
            }
            Bug::ChangedMessage => {
                let index = self
                    .pick(|event| matches!(event, Event::Final { entry, .. } if entry.change.is_empty()))?;
                let Event::Final { entry, .. } = &mut self.records[index].event else { return None };
                entry.hash ^= 1;
            }
            Bug::ReadsDiffer => {
                let (_, last) = self.last_final()?;
                let mut second = self.records.clone();
                second.retain_mut(|record| match &mut record.event {
                    Event::Final { read, entry } => {
                        *read += 1 << 40;
                        entry.conversation == last.conversation && place(entry) != place(&last)
                    }
                    Event::FinalReturned { read, conversation, rows } => {
                        *read += 1 << 40;
                        *rows -= 1;
                        *conversation == last.conversation
                    }
                    _ => false,
                });
                self.records.extend(second);
            }
            Bug::StoredTwice => {
                let (index, last) = self.last_final()?;
                let again = self.pick(|event| {
                    matches!(event, Event::Final { entry, .. }
                        if entry.conversation == last.conversation && entry.change.is_empty())
                })?;
                let mut copy = self.records[again].clone();
                let Event::Final { entry, .. } = &mut copy.event else { return None };
                entry.seq = last.seq.next();
                entry.message.0 = last.message.0 + 1;
                copy.time = self.records[index].time;
                self.records.insert(index + 1, copy);
                self.count_final_rows(last.conversation, 1);
            }
            Bug::HoleInLog => {
                let index = self.pick(|event| matches!(event, Event::Final { .. }))?;
                let Event::Final { entry, .. } = &self.records[index].event else { return None };
                let (conversation, hole) = place(entry);
                // All places from there on are one higher, for everybody.
                self.each_place(|of, seq, _| {
                    if of == conversation && *seq >= hole {
                        seq.0 += 1;
                    }
                });
            }
            Bug::HoleOnSocket => {
                let (first, _) = self.two_live()?;
                // The second must not have been first on its socket.
                let lost = self.records[first].event.clone();
                let (entry, _) = received(&lost)?;
                let stream = stream(&lost);
                let earlier = self.records[..first].iter().any(|record| {
                    self::stream(&record.event) == stream
                        && received(&record.event).is_some_and(|(seen, _)| seen.seq < entry.seq)
                });
                if !earlier {
                    // A socket whose first row is lost still has its synced cursor.
                    self.records[..first].iter().find(|record| {
                        matches!(&record.event, Event::SyncInvoked { conversation, connection, .. }
                            if Some((*conversation, *connection))
                                == stream.as_ref().map(|(_, connection, conversation)| (*conversation, *connection)))
                    })?;
                }
                self.records.remove(first);
            }
            Bug::HoleClosedLate => {
                let (first, second) = self.two_live()?;
                // Everything after that happens seven seconds later, and the hole is closed then.
                let late = self.records[second].time + 7 * SECOND;
                for record in &mut self.records[second + 1..] {
                    record.time += 8 * SECOND;
                }
                let mut moved = self.records[first].clone();
                moved.time = late;
                if let Event::Received { via, .. } = &mut moved.event {
                    *via = Via::Catchup;
                }
                self.records.insert(second + 1, moved);
                self.records.remove(first);
            }
            Bug::SwappedOrder => {
                let (first, second) = self.two_live()?;
                let (one, two) =
                    (received(&self.records[first].event)?.0, received(&self.records[second].event)?.0);
                let (mut one, mut two) = (one.clone(), two.clone());
                std::mem::swap(&mut one.seq, &mut two.seq);
                for (index, new) in [(first, two), (second, one)] {
                    if let Event::Received { entry, .. } = &mut self.records[index].event {
                        *entry = new;
                    }
                }
            }
            Bug::LiveFalls => {
                let (first, second) = self.two_live()?;
                let time = self.records[first].time;
                self.records[first].time = self.records[second].time;
                self.records[second].time = time;
            }
            Bug::ShownAndGone => {
                let (index, entry) = self.last_final()?;
                self.remove_final(index, entry.conversation);
                // It was never acked.
                self.records.retain(|record| {
                    !matches!(&record.event, Event::SendAcknowledged { attempt, seq, .. }
                        if (attempt.conversation, *seq) == place(&entry))
                });
                self.records.iter().find(|record| {
                    received(&record.event).is_some_and(|(seen, _)| place(seen) == place(&entry))
                })?;
            }
            Bug::RealTimeBroken => {
                let first =
                    self.pick(|event| matches!(event, Event::SendAcknowledged { duplicate: false, .. }))?;
                let Event::SendAcknowledged { attempt, seq: one, .. } = self.records[first].event.clone()
                else {
                    return None;
                };
                let conversation = attempt.conversation;
                let second = self.after(first, |event| {
                    matches!(event, Event::SendAcknowledged { attempt, duplicate: false, .. }
                        if attempt.conversation == conversation)
                })?;
                let Event::SendAcknowledged { attempt, seq: two, .. } = self.records[second].event.clone()
                else {
                    return None;
                };
                // The second was sent after the first was acked, and not tried before.
                let invoked = (0..second).find(|index| {
                    matches!(&self.records[*index].event, Event::SendInvoked(other)
                        if other.client_message_id == attempt.client_message_id)
                })?;
                if invoked < first {
                    return None;
                }
                self.each_place(|of, seq, _| {
                    if of == conversation && (*seq == one || *seq == two) {
                        *seq = if *seq == one { two } else { one };
                    }
                });
            }
            Bug::DeliveredToStranger => {
                let index = self.pick(|event| received(event).is_some())?;
                let mut leaked = self.records[index].clone();
                if let Event::Received { user, device, connection, .. } = &mut leaked.event {
                    (*user, *device, *connection) = ("eve".into(), "eve-phone".into(), u64::MAX);
                }
                self.records.insert(index + 1, leaked);
            }
            Bug::JoinNotInLog => {
                let index = self.pick(|event| matches!(event, Event::Joined { .. }))?;
                let Event::Joined { seq, .. } = &mut self.records[index].event else { return None };
                seq.0 += 1_000_000;
            }
            Bug::DeliveredAfterRemoval => {
                let left = self.pick(|event| matches!(event, Event::Left { .. }))?;
                let Event::Left { conversation, user, seq } = self.records[left].event.clone() else {
                    return None;
                };
                let next = self.after(left, |event| {
                    received(event).is_some_and(|(entry, _)| place(entry) == (conversation, seq.next()))
                })?;
                let joins_then = self.records.iter().any(|record| {
                    matches!(&record.event, Event::Joined { conversation: of, user: who, seq: at }
                        if (*of, who, *at) == (conversation, &user, seq.next()))
                });
                if joins_then {
                    return None;
                }
                let mut leaked = self.records[next].clone();
                if let Event::Received { user: to, device, connection, .. } = &mut leaked.event {
                    (*to, *device, *connection) = (user, "stolen".into(), u64::MAX);
                }
                self.records.insert(next + 1, leaked);
            }
            Bug::StaleRead => {
                let (read, rows) = self.history_read()?;
                // The last row was acked before the read began.
                let last = *rows.last()?;
                let acked = place(received(&self.records[last].event)?.0);
                self.records[..read].iter().find(|record| {
                    matches!(&record.event, Event::SendAcknowledged { attempt, seq, .. }
                        if (attempt.conversation, *seq) == acked)
                })?;
                self.records.remove(last);
            }
            Bug::BackwardRead => {
                let (read, rows) = self.history_read()?;
                let last = *rows.last()?;
                let (entry, _) = received(&self.records[last].event)?;
                let seen = place(entry);
                let Event::Received { device, .. } = self.records[last].event.clone() else { return None };
                self.records[..read].iter().find(|record| {
                    matches!(&record.event, Event::Received { device: of, entry, via, .. }
                        if *of == device && *via != Via::History && place(entry) == seen)
                })?;
                self.records.remove(last);
                // Nobody was acked for it, so that only the device's own memory tells.
                self.records.retain(|record| {
                    !matches!(&record.event, Event::SendAcknowledged { attempt, seq, .. }
                        if (attempt.conversation, *seq) == seen)
                });
            }
            Bug::TwoAnswers => {
                let index =
                    self.pick(|event| matches!(event, Event::SendAcknowledged { duplicate: true, .. }))?;
                let Event::SendAcknowledged { attempt: repeat, .. } = self.records[index].event.clone()
                else {
                    return None;
                };
                // The first try was acked too.
                self.records[..index].iter().find(|record| {
                    matches!(&record.event, Event::SendAcknowledged { attempt, .. }
                        if attempt.client_message_id == repeat.client_message_id)
                })?;
                let Event::SendAcknowledged { seq, message, .. } = &mut self.records[index].event else {
                    return None;
                };
                seq.0 += 1;
                message.0 += 1;
            }
            Bug::ConflictAccepted => {
                let index = self.pick(|event| matches!(event, Event::SendRefused { .. }))?;
                let Event::SendRefused { attempt, .. } = self.records[index].event.clone() else {
                    return None;
                };
                let key = |of: &crate::history::Attempt<'_>| {
                    (of.conversation, of.user.to_string(), of.client_message_id.to_string())
                };
                let (message, seq) = self.records[..index].iter().find_map(|record| match &record.event {
                    Event::SendAcknowledged { attempt: of, message, seq, .. } if key(of) == key(&attempt) => {
                        Some((*message, *seq))
                    }
                    _ => None,
                })?;
                self.records[index].event =
                    Event::SendAcknowledged { attempt, message, seq, duplicate: true };
            }
            Bug::RefusedAndStored => {
                let index =
                    self.pick(|event| matches!(event, Event::SendAcknowledged { duplicate: false, .. }))?;
                let Event::SendAcknowledged { attempt, .. } = self.records[index].event.clone() else {
                    return None;
                };
                // Only a send that was tried once tells.
                let tries = self.records.iter().filter(|record| {
                    matches!(&record.event, Event::SendInvoked(of)
                        if of.client_message_id == attempt.client_message_id)
                });
                if tries.count() != 1 {
                    return None;
                }
                self.records[index].event = Event::SendRefused { attempt, code: "forbidden".into() };
            }
            Bug::BadChecksum => {
                let index = self.pick(|event| received(event).is_some())?;
                if let Event::Received { entry, .. } = &mut self.records[index].event {
                    entry.forgery = "crc".into();
                }
            }
            Bug::ForeignBody => {
                let index =
                    self.pick(|event| received(event).is_some_and(|(entry, _)| entry.change.is_empty()))?;
                if let Event::Received { entry, .. } = &mut self.records[index].event {
                    entry.hash = entry.hash.wrapping_add(1);
                }
            }
            Bug::HoleAtCatchUp => {
                // A row between two others of its page.
                let mut last: HashMap<(String, u64, ConversationId), (usize, usize)> = HashMap::new();
                let mut found = Vec::new();
                for (index, record) in self.records.iter().enumerate() {
                    let Some(stream) = stream(&record.event) else { continue };
                    if received(&record.event)?.1 != Via::Catchup {
                        continue;
                    }
                    let run = last.entry(stream).or_insert((0, index));
                    if run.0 > 0 {
                        found.push(run.1);
                    }
                    *run = (run.0 + 1, index);
                }
                let index = *found.get(self.dice.usize(0..found.len().max(1)))?;
                self.records.remove(index);
            }
            Bug::HoleAtSeam => {
                // A place that the device knows from an ack of its own is not missing. Nor is one of a stay
                // that ended, if it was the last one seen.
                let mut left = HashSet::new();
                let mut own = HashSet::new();
                for record in self.records.iter() {
                    match &record.event {
                        Event::Left { conversation, .. } => {
                            left.insert(*conversation);
                        }
                        Event::SendAcknowledged { attempt, seq, .. } => {
                            own.insert((attempt.device.to_string(), attempt.conversation, *seq));
                        }
                        _ => {}
                    }
                }
                let index = self.pick(|event| match event {
                    Event::Received { device, via: Via::Catchup, entry, .. } => {
                        !left.contains(&entry.conversation)
                            && !own.contains(&(device.to_string(), entry.conversation, entry.seq))
                    }
                    _ => false,
                })?;
                let (device, _, _) = stream(&self.records[index].event)?;
                let missing = place(received(&self.records[index].event)?.0);
                self.records.retain(|record| {
                    stream(&record.event).is_none_or(|(of, ..)| of != device)
                        || received(&record.event).is_none_or(|(entry, _)| place(entry) != missing)
                });
            }
            Bug::AckBeforeDurable => self.before_durable(|event| match event {
                Event::Acked { conversation, seq } => Some((*conversation, *seq)),
                _ => None,
            })?,
            Bug::DeliveredBeforeDurable => self.before_durable(|event| match event {
                Event::Delivered { conversation, seq } => Some((*conversation, *seq)),
                _ => None,
            })?,
            Bug::DurableAndGone => {
                let (index, last) = self.last_final()?;
                let time = self.records[index].time;
                let event = Event::Durable { conversation: last.conversation, seq: Seq(last.seq.0 + 1) };
                self.records.push(Record { time, event });
            }
            Bug::DurableTwice => {
                let index = self.pick(|event| matches!(event, Event::Durable { .. }))?;
                let mut lost = self.records[index].clone();
                lost.time -= 1;
                self.records.insert(index, lost);
            }
            Bug::SameIdTwice => {
                let is_message = |event: &Event<'static>| matches!(event, Event::Final { entry, .. } if entry.change.is_empty());
                let (one, two) = (self.pick(is_message)?, self.pick(is_message)?);
                let (Event::Final { entry: one, .. }, Event::Final { entry: two, .. }) =
                    (self.records[one].event.clone(), self.records[two].event.clone())
                else {
                    return None;
                };
                if place(&one) == place(&two) {
                    return None;
                }
                self.each_place(|conversation, seq, message| {
                    if (conversation, *seq) == place(&two) {
                        *message = one.message;
                    }
                });
            }
            Bug::IdFalls => {
                let (_, last) = self.last_final()?;
                self.each_entry(|entry| {
                    if place(entry) == place(&last) {
                        entry.message.0 = 1;
                    }
                });
            }
            Bug::NeverEnds => {
                let index = self.pick(|event| matches!(event, Event::SendAcknowledged { .. }))?;
                self.records.remove(index);
            }
            Bug::EndsLate => {
                let index = self.pick(|event| matches!(event, Event::SendAcknowledged { .. }))?;
                for record in &mut self.records[index..] {
                    record.time += 11 * SECOND;
                }
            }
            Bug::NeverResolved => {
                let index = self.pick(|event| matches!(event, Event::SendUnknown(_)))?;
                let Event::SendUnknown(lost) = self.records[index].event.clone() else { return None };
                let mut number = 0;
                self.records.retain(|record| {
                    number += 1;
                    let attempt = match &record.event {
                        Event::SendInvoked(attempt) | Event::SendAcknowledged { attempt, .. } => attempt,
                        _ => return true,
                    };
                    number <= index || attempt.client_message_id != lost.client_message_id
                });
            }
        }
        Some(())
    }

    /// A completed read: where it was asked, and its rows.
    fn history_read(&mut self) -> Option<(usize, Vec<usize>)> {
        let index = self.pick(|event| matches!(event, Event::HistoryInvoked { .. }))?;
        let Event::HistoryInvoked { read, .. } = self.records[index].event else { return None };
        let rows = (index..self.records.len()).filter(|row| {
            matches!(&self.records[*row].event, Event::Received { connection, via: Via::History, .. }
                if *connection == read)
        });
        Some((index, rows.collect()))
    }

    /// Moves a step of the server before the durability of its entry.
    fn before_durable(&mut self, step: impl Fn(&Event<'static>) -> Option<Place>) -> Option<()> {
        let index = self.pick(|event| step(event).is_some())?;
        let (of, at) = step(&self.records[index].event)?;
        let durable = self.records.iter().find_map(|record| match record.event {
            Event::Durable { conversation, seq } | Event::Loaded { conversation, seq }
                if (conversation, seq) == (of, at) =>
            {
                Some(record.time)
            }
            _ => None,
        })?;
        self.records[index].time = durable - 1;
        Some(())
    }
}
