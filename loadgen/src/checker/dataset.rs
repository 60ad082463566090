//! The events of a history as sorted tables: names are numbers, and what a check joins lies together.
//!
//! A row of the largest table (deliveries) is 64 bytes: ten million of them fit beside a load on one
//! machine. Every table is sorted once, here; the checks only walk.

use std::ops::Range;

use crate::history::{Attempt, Entry, Event, Record, Via};

use super::interner::{Index, Names, QuickMap};

/// Stands for "no key": a change has none.
pub(super) const NO_KEY: u32 = u32::MAX;

/// An entry that somebody got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) time: u64,
    pub(super) seq: u64,
    pub(super) message: u64,
    pub(super) hash: u64,
    pub(super) conversation: u32,
    pub(super) device: u32,
    /// The connection; of a history row, the read.
    pub(super) connection: u32,
    /// (conversation, sender, client message id), or [`NO_KEY`].
    pub(super) key: u32,
    /// A number in `forgeries`; 0 if the body proved its origin.
    pub(super) forgery: u16,
    pub(super) via: Via,
}

/// A row of the full read.
#[derive(Clone, Copy, Debug)]
pub(super) struct FinalRow {
    pub(super) seq: u64,
    pub(super) message: u64,
    pub(super) hash: u64,
    pub(super) conversation: u32,
    pub(super) key: u32,
    pub(super) read: u32,
    pub(super) forgery: u16,
}

/// What happened to an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Invoked,
    Acknowledged { message: u64, seq: u64 },
    Refused,
    Unknown,
}

/// A step of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Send {
    pub(super) time: u64,
    pub(super) hash: u64,
    pub(super) key: u32,
    pub(super) conversation: u32,
    pub(super) device: u32,
    pub(super) step: Step,
}

/// A change that the full read shows.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) conversation: u32,
    pub(super) seq: u64,
    pub(super) name: Box<str>,
    pub(super) users: Vec<u32>,
}

/// An answer that somebody joined or left.
#[derive(Clone, Copy, Debug)]
pub(super) struct RosterAnswer {
    pub(super) conversation: u32,
    pub(super) user: u32,
    pub(super) seq: u64,
    pub(super) joined: bool,
}

/// A read of history.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Read {
    pub(super) device: u32,
    pub(super) conversation: u32,
    /// When it was asked; 0 if that was not seen.
    pub(super) invoked: u64,
    /// When it was answered, and for which places.
    pub(super) returned: Option<(u64, u64, u64)>,
}

/// A full read that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct FinalRead {
    pub(super) read: u32,
    pub(super) conversation: u32,
    pub(super) rows: u64,
}

/// An event of the server's trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) time: u64,
    pub(super) conversation: u32,
    pub(super) seq: u64,
    pub(super) step: TraceStep,
}

/// What the server did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TraceStep {
    Durable,
    Loaded,
    Acked,
    Delivered,
}

/// One device's deliveries of one conversation, in the order of time.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) device: u32,
    pub(super) conversation: u32,
    pub(super) rows: Range<usize>,
}

/// Everything, sorted.
#[derive(Default)]
pub(super) struct Dataset {
    /// Lines read.
    pub(super) events: u64,
    names: Names,
    conversations: Index<u64>,
    devices: Index<(u32, u32)>,
    keys: Index<(u32, u32, u32)>,
    forgeries: Names,
    connections: Index<(u32, u64)>,

    /// What came over sockets, by (device, conversation, time).
    pub(super) deliveries: Vec<Delivery>,
    /// Where each (device, conversation) lies in `deliveries`.
    pub(super) views: Vec<View>,
    view_of: QuickMap<(u32, u32), u32>,
    /// What came by reads of history, by (read, seq).
    pub(super) history_rows: Vec<Delivery>,
    /// By number.
    pub(super) reads: Vec<Read>,
    /// By (key, time).
    pub(super) sends: Vec<Send>,
    /// Places that a device knows from acks of its own sends, by (device, conversation): (seq, time),
    /// ascending.
    own: QuickMap<(u32, u32), Vec<(u64, u64)>>,
    /// All rows of the full reads, by (conversation, seq, read).
    pub(super) finals: Vec<FinalRow>,
    /// One row a place, by (conversation, seq).
    pub(super) truth: Vec<FinalRow>,
    truth_of: Vec<Range<usize>>,
    pub(super) final_reads: Vec<FinalRead>,
    /// By (conversation, seq).
    pub(super) changes: Vec<Change>,
    pub(super) roster: Vec<RosterAnswer>,
    /// Open and close of each connection, by connection; close is `u64::MAX` if it was not seen.
    pub(super) lifetimes: Vec<(u64, u64)>,
    /// Times at which a device was welcomed, ascending.
    pub(super) opened: QuickMap<u32, Vec<u64>>,
    /// By (connection, conversation): time and cursor of each sync, ascending.
    pub(super) syncs: QuickMap<(u32, u32), Vec<(u64, u64)>>,
    /// By connection, ascending.
    pub(super) sync_dones: QuickMap<u32, Vec<u64>>,
    /// By connection: time, and conversation or `None` for all; ascending.
    pub(super) gaps: QuickMap<u32, Vec<(u64, Option<u32>)>>,
    /// The first cursor of each (device, conversation): (time, cursor).
    pub(super) first_cursor: QuickMap<(u32, u32), (u64, u64)>,
    pub(super) device_ends: Vec<u32>,
    /// By (conversation, time).
    pub(super) trace: Vec<Trace>,
}

/// Takes events in any order.
pub(super) struct Collector {
    data: Dataset,
    read_numbers: QuickMap<u64, u32>,
    change_seen: super::interner::QuickSet<(u32, u64)>,
}

impl Default for Collector {
    fn default() -> Self {
        let mut data = Dataset::default();
        // Number 0 is a body that proved its origin.
        data.forgeries.number("");
        Self { data, read_numbers: QuickMap::default(), change_seen: Default::default() }
    }
}

impl Collector {
    pub(super) fn add(&mut self, record: &Record<'_>) {
        self.data.events += 1;
        let time = record.time;
        match &record.event {
            Event::SendInvoked(attempt) => self.send(time, attempt, Step::Invoked),
            Event::SendAcknowledged { attempt, message, seq, .. } => {
                self.send(time, attempt, Step::Acknowledged { message: message.0, seq: seq.0 });
            }
            Event::SendRefused { attempt, .. } => self.send(time, attempt, Step::Refused),
            Event::SendUnknown(attempt) => self.send(time, attempt, Step::Unknown),
            Event::Received { user, device, connection, via, entry } => {
                let device = self.device(user, device);
                let delivery = self.delivery(time, device, *connection, *via, entry);
                match via {
                    Via::History => self.data.history_rows.push(delivery),
                    Via::Live | Via::Catchup => self.data.deliveries.push(delivery),
                }
            }
            Event::Joined { conversation, user, seq } => {
                self.roster(conversation.0, user, seq.0, true);
            }
            Event::Left { conversation, user, seq } => self.roster(conversation.0, user, seq.0, false),
            Event::HistoryInvoked { read, user, device, conversation } => {
                let device = self.device(user, device);
                let conversation = self.data.conversations.number(conversation.0);
                let index = self.read(*read);
                let read = &mut self.data.reads[index as usize];
                (read.device, read.conversation, read.invoked) = (device, conversation, time);
            }
            Event::HistoryReturned { read, low, high } => {
                let index = self.read(*read);
                self.data.reads[index as usize].returned = Some((time, low.0, high.0));
            }
            Event::Opened { user, device, connection } => {
                let device = self.device(user, device);
                let connection = self.connection(device, *connection);
                self.data.lifetimes[connection as usize].0 = time;
                self.data.opened.entry(device).or_default().push(time);
            }
            Event::Closed { user, device, connection, .. } => {
                let device = self.device(user, device);
                let connection = self.connection(device, *connection);
                self.data.lifetimes[connection as usize].1 = time;
            }
            Event::SyncInvoked { user, device, connection, conversation, after } => {
                let device = self.device(user, device);
                let connection = self.connection(device, *connection);
                let conversation = self.data.conversations.number(conversation.0);
                self.data.syncs.entry((connection, conversation)).or_default().push((time, after.0));
                let first = self.data.first_cursor.entry((device, conversation)).or_insert((time, after.0));
                *first = (*first).min((time, after.0));
            }
            Event::SyncDone { user, device, connection } => {
                let device = self.device(user, device);
                let connection = self.connection(device, *connection);
                self.data.sync_dones.entry(connection).or_default().push(time);
            }
            Event::Gap { user, device, connection, conversation } => {
                let device = self.device(user, device);
                let connection = self.connection(device, *connection);
                let conversation = conversation.map(|id| self.data.conversations.number(id.0));
                self.data.gaps.entry(connection).or_default().push((time, conversation));
            }
            Event::Final { read, entry } => self.final_row(*read, entry),
            Event::FinalReturned { read, conversation, rows } => {
                let read = self.read(*read);
                let conversation = self.data.conversations.number(conversation.0);
                self.data.final_reads.push(FinalRead { read, conversation, rows: *rows });
            }
            Event::DeviceEnd { user, device } => {
                let device = self.device(user, device);
                self.data.device_ends.push(device);
            }
            Event::Durable { conversation, seq } => {
                self.trace(time, conversation.0, seq.0, TraceStep::Durable);
            }
            Event::Loaded { conversation, seq } => {
                self.trace(time, conversation.0, seq.0, TraceStep::Loaded);
            }
            Event::Acked { conversation, seq } => {
                self.trace(time, conversation.0, seq.0, TraceStep::Acked);
            }
            Event::Delivered { conversation, seq } => {
                self.trace(time, conversation.0, seq.0, TraceStep::Delivered);
            }
        }
    }

    fn device(&mut self, user: &str, device: &str) -> u32 {
        let user = self.data.names.number(user);
        let device = self.data.names.number(device);
        self.data.devices.number((user, device))
    }

    fn connection(&mut self, device: u32, connection: u64) -> u32 {
        let number = self.data.connections.number((device, connection));
        if self.data.lifetimes.len() <= number as usize {
            self.data.lifetimes.push((0, u64::MAX));
        }
        number
    }

    fn key(&mut self, conversation: u32, sender: &str, client_message_id: &str) -> u32 {
        let sender = self.data.names.number(sender);
        let id = self.data.names.number(client_message_id);
        self.data.keys.number((conversation, sender, id))
    }

    fn entry_key(&mut self, conversation: u32, entry: &Entry<'_>) -> u32 {
        if entry.change.is_empty() {
            self.key(conversation, &entry.sender, &entry.client_message_id)
        } else {
            NO_KEY
        }
    }

    fn read(&mut self, number: u64) -> u32 {
        let reads = &mut self.data.reads;
        *self.read_numbers.entry(number).or_insert_with(|| {
            reads.push(Read::default());
            reads.len() as u32 - 1
        })
    }

    fn send(&mut self, time: u64, attempt: &Attempt<'_>, step: Step) {
        let device = self.device(&attempt.user, &attempt.device);
        let conversation = self.data.conversations.number(attempt.conversation.0);
        let key = self.key(conversation, &attempt.user, &attempt.client_message_id);
        self.data.sends.push(Send { time, hash: attempt.hash, key, conversation, device, step });
    }

    fn delivery(&mut self, time: u64, device: u32, connection: u64, via: Via, entry: &Entry<'_>) -> Delivery {
        let conversation = self.data.conversations.number(entry.conversation.0);
        Delivery {
            time,
            seq: entry.seq.0,
            message: entry.message.0,
            hash: entry.hash,
            conversation,
            device,
            connection: match via {
                Via::History => self.read(connection),
                Via::Live | Via::Catchup => self.connection(device, connection),
            },
            key: self.entry_key(conversation, entry),
            forgery: self.data.forgeries.number(&entry.forgery) as u16,
            via,
        }
    }

    fn final_row(&mut self, read: u64, entry: &Entry<'_>) {
        let read = self.read(read);
        let conversation = self.data.conversations.number(entry.conversation.0);
        let key = self.entry_key(conversation, entry);
        let forgery = self.data.forgeries.number(&entry.forgery) as u16;
        self.data.finals.push(FinalRow {
            seq: entry.seq.0,
            message: entry.message.0,
            hash: entry.hash,
            conversation,
            key,
            read,
            forgery,
        });
        if !entry.change.is_empty() && self.change_seen.insert((conversation, entry.seq.0)) {
            let users = entry.users.iter().map(|user| self.data.names.number(user)).collect();
            let name = (&*entry.change).into();
            self.data.changes.push(Change { conversation, seq: entry.seq.0, name, users });
        }
    }

    fn roster(&mut self, conversation: u64, user: &str, seq: u64, joined: bool) {
        let conversation = self.data.conversations.number(conversation);
        let user = self.data.names.number(user);
        self.data.roster.push(RosterAnswer { conversation, user, seq, joined });
    }

    fn trace(&mut self, time: u64, conversation: u64, seq: u64, step: TraceStep) {
        let conversation = self.data.conversations.number(conversation);
        self.data.trace.push(Trace { time, conversation, seq, step });
    }

    /// Sorts the tables.
    pub(super) fn sort(self) -> Dataset {
        let mut data = self.data;
        // Stable: what one thread wrote at the same nanosecond stays in its order.
        data.deliveries.sort_by_key(|row| (row.device, row.conversation, row.time));
        data.history_rows.sort_by_key(|row| (row.connection, row.seq));
        data.sends.sort_by_key(|send| (send.key, send.time));
        data.finals.sort_by_key(|row| (row.conversation, row.seq, row.read));
        data.changes.sort_by_key(|change| (change.conversation, change.seq));
        data.trace.sort_by_key(|trace| (trace.conversation, trace.time));
        data.device_ends.sort_unstable();
        data.device_ends.dedup();
        data.opened.values_mut().for_each(|times| times.sort_unstable());
        data.syncs.values_mut().for_each(|syncs| syncs.sort_unstable());
        data.sync_dones.values_mut().for_each(|times| times.sort_unstable());
        data.gaps.values_mut().for_each(|gaps| gaps.sort_unstable());

        data.truth = data.finals.clone();
        data.truth.dedup_by_key(|row| (row.conversation, row.seq));
        data.truth_of = vec![0..0; data.conversations.len()];
        for range in groups(&data.truth, |row| row.conversation) {
            let conversation = data.truth[range.start].conversation;
            data.truth_of[conversation as usize] = range;
        }
        for range in groups(&data.deliveries, |row| (row.device, row.conversation)) {
            let row = &data.deliveries[range.start];
            data.view_of.insert((row.device, row.conversation), data.views.len() as u32);
            data.views.push(View { device: row.device, conversation: row.conversation, rows: range });
        }
        for send in &data.sends {
            if let Step::Acknowledged { seq, .. } = send.step {
                data.own.entry((send.device, send.conversation)).or_default().push((seq, send.time));
            }
        }
        data.own.values_mut().for_each(|own| own.sort_unstable());
        data
    }
}

/// The runs of equal `key` in a sorted slice.
pub(super) fn groups<T, K: PartialEq>(
    rows: &[T],
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = key(rows.get(start)?);
        let length = rows[start..].iter().take_while(|row| key(row) == first).count();
        let range = start..start + length;
        start = range.end;
        Some(range)
    })
}

impl Dataset {
    /// Conversations that any event names.
    pub(super) fn conversation_count(&self) -> u32 {
        self.conversations.len() as u32
    }

    /// Idempotency keys that any event names.
    pub(super) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// The user of a device.
    pub(super) fn user_of(&self, device: u32) -> u32 {
        self.devices.value(device).0
    }

    /// The full read of a conversation, ascending; empty if there was none.
    pub(super) fn truth_of(&self, conversation: u32) -> &[FinalRow] {
        &self.truth[self.truth_of[conversation as usize].clone()]
    }

    /// A row of the full read.
    pub(super) fn truth_at(&self, conversation: u32, seq: u64) -> Option<&FinalRow> {
        let rows = self.truth_of(conversation);
        // Dense, so its place is known; if it is not dense, it is searched.
        let guess = usize::try_from(seq).ok()?.wrapping_sub(1);
        match rows.get(guess) {
            Some(row) if row.seq == seq => Some(row),
            _ => rows.binary_search_by_key(&seq, |row| row.seq).ok().map(|index| &rows[index]),
        }
    }

    /// The deliveries of one conversation to one device, in the order of time.
    pub(super) fn view(&self, device: u32, conversation: u32) -> &[Delivery] {
        match self.view_of.get(&(device, conversation)) {
            Some(view) => &self.deliveries[self.views[*view as usize].rows.clone()],
            None => &[],
        }
    }

    /// The places that a device knows from its own acks: (seq, time), ascending.
    pub(super) fn own_acks(&self, device: u32, conversation: u32) -> &[(u64, u64)] {
        self.own.get(&(device, conversation)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn conversation_name(&self, conversation: u32) -> String {
        format!("conversation {}", self.conversations.value(conversation))
    }

    pub(super) fn user_name(&self, user: u32) -> &str {
        self.names.name(user)
    }

    pub(super) fn device_name(&self, device: u32) -> String {
        let (user, device) = self.devices.value(device);
        format!("{}/{}", self.names.name(user), self.names.name(device))
    }

    pub(super) fn connection_name(&self, connection: u32) -> String {
        let (device, number) = self.connections.value(connection);
        format!("connection {number} of {}", self.device_name(device))
    }

    pub(super) fn key_name(&self, key: u32) -> String {
        if key == NO_KEY {
            return "a change".into();
        }
        let (conversation, sender, id) = self.keys.value(key);
        format!(
            "{:?} of {} in {}",
            self.names.name(id),
            self.names.name(sender),
            self.conversation_name(conversation)
        )
    }

    pub(super) fn forgery_name(&self, forgery: u16) -> &str {
        self.forgeries.name(u32::from(forgery))
    }
}

/// Seconds of a nanosecond clock, for people.
pub(super) fn seconds(time: u64) -> String {
    format!("{:.6} s", time as f64 / 1e9)
}
