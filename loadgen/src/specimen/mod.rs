//! Histories made up: a good one of any size, and the same with a bug planted in it (`bug.rs`).
//!
//! They are the test of the checker. A checker that passes everything would look fine on a good server; it
//! is worth something because it finds each bug here and lets the good history pass. The server of this
//! file is a log a conversation and nothing else; what clients see of it is right by construction.

mod bug;

use std::collections::BTreeMap;

use ringway_protocol::ids::{ConversationId, MessageId, Seq};

use crate::history::{Attempt, Entry, Event, Record, Via};
use crate::payload::{self, Payload};

pub use bug::{Bug, plant};

/// How large a made-up history is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Virtual users.
    pub users: u32,
    /// Members of each group; half of the users are in groups, the others in pairs.
    pub group: u32,
    /// Events before everything comes to its end; the end adds some.
    pub events: u64,
}

impl Size {
    /// Enough for every kind of event, and quick.
    pub const SMALL: Size = Size { users: 24, group: 6, events: 12_000 };
}

/// Makes up a good history, in the order of time, and gives each record to `emit`.
pub fn write_good(seed: u64, size: Size, emit: &mut dyn FnMut(Record<'static>)) {
    let mut world = World::new(seed, size, emit);
    world.create();
    for user in 0..world.users.len() {
        world.connect(user);
    }
    while world.emitted < size.events {
        world.step();
    }
    world.end();
}

/// A good history in memory.
pub fn good(seed: u64, size: Size) -> Vec<Record<'static>> {
    let mut records = Vec::new();
    write_good(seed, size, &mut |record| records.push(record));
    records
}

/// A conversation of the made-up server.
struct Conversation {
    id: ConversationId,
    log: Vec<Entry<'static>>,
    /// Where each member joined. User 0 of a group never leaves.
    members: BTreeMap<usize, Seq>,
    group: bool,
}

/// A user with one device.
struct User {
    name: String,
    connection: u64,
    online: bool,
    /// The last place that the device has of each conversation.
    cursors: BTreeMap<usize, Seq>,
    counter: u64,
    /// A send whose outcome is unknown.
    unknown: Option<Sent>,
    /// The last acked send, to be repeated.
    last: Option<Sent>,
}

/// A send as its sender knows it.
#[derive(Clone)]
struct Sent {
    conversation: usize,
    client_message_id: String,
    hash: u64,
}

struct World<'a> {
    dice: fastrand::Rng,
    emit: &'a mut dyn FnMut(Record<'static>),
    now: u64,
    emitted: u64,
    next_message: u64,
    next_connection: u64,
    conversations: Vec<Conversation>,
    users: Vec<User>,
    body: Vec<u8>,
}

impl<'a> World<'a> {
    fn new(seed: u64, size: Size, emit: &'a mut dyn FnMut(Record<'static>)) -> Self {
        let users = (0..size.users.max(8))
            .map(|number| User {
                name: format!("u{number}"),
                connection: 0,
                online: false,
                cursors: BTreeMap::new(),
                counter: 0,
                unknown: None,
                last: None,
            })
            .collect::<Vec<_>>();
        let mut conversations = Vec::new();
        let half = users.len() / 2;
        let group = (size.group.max(3) as usize).min(half);
        let mut add = |members: &[usize], group| {
            conversations.push(Conversation {
                id: ConversationId(1_000_000_007 * (conversations.len() as u64 + 1)),
                log: Vec::new(),
                members: members.iter().map(|member| (*member, Seq(1))).collect(),
                group,
            });
        };
        let numbers: Vec<usize> = (0..users.len()).collect();
        numbers[..half].chunks_exact(group).for_each(|members| add(members, true));
        numbers[half..].chunks_exact(2).for_each(|members| add(members, false));
        Self {
            dice: fastrand::Rng::with_seed(seed),
            emit,
            now: 1_000_000_000_000,
            emitted: 0,
            next_message: 1 << 40,
            next_connection: 1,
            conversations,
            users,
            body: Vec::new(),
        }
    }

    fn emit(&mut self, event: Event<'static>) {
        self.now += self.dice.u64(1_000..100_000);
        self.emitted += 1;
        (self.emit)(Record { time: self.now, event });
    }

    fn device(&self, user: usize) -> (std::borrow::Cow<'static, str>, std::borrow::Cow<'static, str>) {
        let name = &self.users[user].name;
        (name.clone().into(), format!("{name}-phone").into())
    }

    fn create(&mut self) {
        for number in 0..self.conversations.len() {
            let members: Vec<usize> = self.conversations[number].members.keys().copied().collect();
            self.append_change(number, members[0], "created", &members);
            for member in members {
                let (conversation, user) = (self.conversations[number].id, self.device(member).0);
                self.emit(Event::Joined { conversation, user, seq: Seq(1) });
                self.users[member].cursors.insert(number, Seq(0));
            }
        }
    }

    fn append_change(&mut self, conversation: usize, sender: usize, change: &str, users: &[usize]) -> Seq {
        let names: Vec<String> = users.iter().map(|user| self.users[*user].name.clone()).collect();
        let sender = self.users[sender].name.clone();
        let id = self.conversations[conversation].id;
        let mut entry = Entry::change(id, Seq(0), MessageId(0), sender, change.to_owned(), names);
        entry.message = self.message_id();
        self.append(conversation, entry)
    }

    fn message_id(&mut self) -> MessageId {
        self.next_message += self.dice.u64(1..1_000);
        MessageId(self.next_message)
    }

    fn append(&mut self, conversation: usize, mut entry: Entry<'static>) -> Seq {
        let log = &mut self.conversations[conversation].log;
        let seq = Seq(log.len() as u64 + 1);
        entry.seq = seq;
        log.push(entry);
        let id = self.conversations[conversation].id;
        // A server that died behind the fsync leaves no line of it; its successor reads the entry.
        if self.dice.u8(..16) == 0 {
            self.emit(Event::Loaded { conversation: id, seq });
        } else {
            self.emit(Event::Durable { conversation: id, seq });
        }
        seq
    }

    fn connect(&mut self, user: usize) {
        let (name, device) = self.device(user);
        let connection = self.next_connection;
        self.next_connection += 1;
        self.users[user].connection = connection;
        self.users[user].online = true;
        self.emit(Event::Opened { user: name, device, connection });
        self.sync(user);
        if let Some(sent) = self.users[user].unknown.take() {
            self.repeat(user, &sent);
        }
    }

    /// Catches up with all conversations.
    fn sync(&mut self, user: usize) {
        let (name, device) = self.device(user);
        let connection = self.users[user].connection;
        let cursors: Vec<(usize, Seq)> =
            self.users[user].cursors.iter().map(|(conversation, after)| (*conversation, *after)).collect();
        for (number, after) in &cursors {
            let conversation = self.conversations[*number].id;
            let (user, device) = (name.clone(), device.clone());
            self.emit(Event::SyncInvoked { user, device, connection, conversation, after: *after });
        }
        for (number, after) in cursors {
            let first = self.conversations[number].members[&user].0.max(after.0 + 1);
            for place in first..=self.conversations[number].log.len() as u64 {
                self.receive(user, number, Seq(place), Via::Catchup);
            }
        }
        self.emit(Event::SyncDone { user: name, device, connection });
    }

    fn receive(&mut self, user: usize, conversation: usize, seq: Seq, via: Via) {
        let (name, device) = self.device(user);
        let mut entry = self.conversations[conversation].log[seq.0 as usize - 1].clone();
        if via == Via::Live && !entry.change.is_empty() {
            entry.message = MessageId(0);
        }
        let connection = self.users[user].connection;
        self.users[user].cursors.insert(conversation, seq);
        self.emit(Event::Received { user: name, device, connection, via, entry });
    }

    fn disconnect(&mut self, user: usize) {
        let (name, device) = self.device(user);
        let connection = self.users[user].connection;
        self.users[user].online = false;
        self.emit(Event::Closed { user: name, device, connection, code: 1006 });
    }

    fn step(&mut self) {
        let user = self.dice.usize(0..self.users.len());
        if !self.users[user].online {
            return self.connect(user);
        }
        match self.dice.u32(0..100) {
            0..=2 => self.disconnect(user),
            3..=5 => self.change_members(),
            6..=10 => self.read_history(user),
            11..=14 => {
                if let Some(sent) = self.users[user].last.clone() {
                    self.repeat(user, &sent);
                }
            }
            15..=16 => self.conflict(user),
            17..=19 => self.send_and_lose_the_answer(user),
            20..=22 => self.leave_out_and_tell(user),
            _ => {
                if let Some(sent) = self.invoke(user) {
                    let seq = self.store(user, &sent);
                    self.acknowledge(user, &sent, seq, false);
                    self.deliver(sent.conversation, seq, Some(user), None);
                }
            }
        }
    }

    fn attempt(&self, user: usize, sent: &Sent) -> Attempt<'static> {
        let (name, device) = self.device(user);
        Attempt {
            user: name,
            device,
            connection: self.users[user].connection,
            conversation: self.conversations[sent.conversation].id,
            client_message_id: sent.client_message_id.clone().into(),
            hash: sent.hash,
        }
    }

    fn invoke(&mut self, user: usize) -> Option<Sent> {
        let mine: Vec<usize> = self.users[user].cursors.keys().copied().collect();
        let conversation = *mine.get(self.dice.usize(0..mine.len().max(1)))?;
        self.users[user].counter += 1;
        let counter = self.users[user].counter;
        let client_message_id = format!("{}-{counter}", self.users[user].name);
        self.body.clear();
        Payload {
            conversation: self.conversations[conversation].id,
            sender: &self.users[user].name,
            client_message_id: &client_message_id,
            counter,
            intended: self.now,
            delay: 0,
        }
        .write(128, &mut self.body);
        let sent = Sent { conversation, client_message_id, hash: payload::hash(&self.body) };
        self.emit(Event::SendInvoked(self.attempt(user, &sent)));
        Some(sent)
    }

    fn store(&mut self, user: usize, sent: &Sent) -> Seq {
        let entry = Entry {
            conversation: self.conversations[sent.conversation].id,
            seq: Seq(0),
            message: self.message_id(),
            hash: sent.hash,
            sender: self.users[user].name.clone().into(),
            client_message_id: sent.client_message_id.clone().into(),
            forgery: "".into(),
            change: "".into(),
            users: Vec::new(),
        };
        self.append(sent.conversation, entry)
    }

    fn acknowledge(&mut self, user: usize, sent: &Sent, seq: Seq, duplicate: bool) {
        let entry = &self.conversations[sent.conversation].log[seq.0 as usize - 1];
        let (conversation, message) = (entry.conversation, entry.message);
        self.emit(Event::Acked { conversation, seq });
        let attempt = self.attempt(user, sent);
        self.emit(Event::SendAcknowledged { attempt, message, seq, duplicate });
        if !duplicate {
            self.users[user].cursors.insert(sent.conversation, seq);
            self.users[user].last = Some(sent.clone());
        }
    }

    /// Live, to all members that are online.
    fn deliver(&mut self, conversation: usize, seq: Seq, sender: Option<usize>, without: Option<usize>) {
        let id = self.conversations[conversation].id;
        self.emit(Event::Delivered { conversation: id, seq });
        let members: Vec<usize> = self.conversations[conversation].members.keys().copied().collect();
        for member in members {
            if self.users[member].online && Some(member) != sender && Some(member) != without {
                self.receive(member, conversation, seq, Via::Live);
            }
        }
    }

    /// Sends again what is stored already, or was never stored.
    fn repeat(&mut self, user: usize, sent: &Sent) {
        if !self.users[user].cursors.contains_key(&sent.conversation) {
            return;
        }
        self.emit(Event::SendInvoked(self.attempt(user, sent)));
        let name = self.users[user].name.clone();
        let stored = self.conversations[sent.conversation]
            .log
            .iter()
            .find(|entry| entry.sender == name && entry.client_message_id == sent.client_message_id)
            .map(|entry| entry.seq);
        match stored {
            Some(seq) => self.acknowledge(user, sent, seq, true),
            None => {
                let seq = self.store(user, sent);
                self.acknowledge(user, sent, seq, false);
                self.deliver(sent.conversation, seq, Some(user), None);
            }
        }
    }

    /// The same id with another body is refused.
    fn conflict(&mut self, user: usize) {
        let Some(mut sent) = self.users[user].last.clone() else { return };
        if !self.users[user].cursors.contains_key(&sent.conversation) {
            return;
        }
        sent.hash ^= 1;
        self.emit(Event::SendInvoked(self.attempt(user, &sent)));
        let attempt = self.attempt(user, &sent);
        self.emit(Event::SendRefused { attempt, code: "duplicate_conflict".into() });
    }

    /// The socket dies before the answer; half of the time the message is stored all the same.
    fn send_and_lose_the_answer(&mut self, user: usize) {
        let Some(sent) = self.invoke(user) else { return };
        if self.dice.bool() {
            let seq = self.store(user, &sent);
            self.deliver(sent.conversation, seq, Some(user), None);
        }
        self.emit(Event::SendUnknown(self.attempt(user, &sent)));
        self.disconnect(user);
        self.users[user].unknown = Some(sent);
        // A member must not be removed in between: its retry would be refused, and rightly.
        self.connect(user);
    }

    /// A member misses a message, is told so, and syncs.
    fn leave_out_and_tell(&mut self, user: usize) {
        let Some(sent) = self.invoke(user) else { return };
        let seq = self.store(user, &sent);
        self.acknowledge(user, &sent, seq, false);
        let others: Vec<usize> = self.conversations[sent.conversation].members.keys().copied().collect();
        let slow = others.into_iter().find(|member| *member != user && self.users[*member].online);
        self.deliver(sent.conversation, seq, Some(user), slow);
        if let Some(slow) = slow {
            let (name, device) = self.device(slow);
            let connection = self.users[slow].connection;
            let conversation = Some(self.conversations[sent.conversation].id);
            self.emit(Event::Gap { user: name, device, connection, conversation });
            self.sync(slow);
        }
    }

    /// A group's first member removes one, or adds one who is not in it.
    fn change_members(&mut self) {
        let groups = self.conversations.iter().filter(|conversation| conversation.group).count();
        // Groups come before pairs.
        let group = self.dice.usize(0..groups);
        let Some(user) = self.conversations[group].members.keys().next().copied() else { return };
        let other = self.dice.usize(0..self.users.len());
        let id = self.conversations[group].id;
        let name = self.device(other).0;
        if other == user || self.users[other].unknown.is_some() {
            return;
        }
        if self.conversations[group].members.contains_key(&other) {
            let seq = self.append_change(group, user, "member_removed", &[other]);
            self.deliver(group, seq, None, None);
            self.conversations[group].members.remove(&other);
            self.users[other].cursors.remove(&group);
            self.emit(Event::Left { conversation: id, user: name, seq });
        } else {
            let seq = self.append_change(group, user, "member_added", &[other]);
            self.conversations[group].members.insert(other, seq);
            self.users[other].cursors.insert(group, Seq(seq.0 - 1));
            self.deliver(group, seq, None, None);
            self.emit(Event::Joined { conversation: id, user: name, seq });
        }
    }

    fn read_history(&mut self, user: usize) {
        let Some((number, _)) = self.users[user].cursors.iter().next().map(|(n, s)| (*n, *s)) else { return };
        let (name, device) = self.device(user);
        let (id, joined) = (self.conversations[number].id, self.conversations[number].members[&user].0);
        let read = self.next_connection;
        self.next_connection += 1;
        self.emit(Event::HistoryInvoked {
            read,
            user: name.clone(),
            device: device.clone(),
            conversation: id,
        });
        let last = self.conversations[number].log.len() as u64;
        let low = joined.max(last.saturating_sub(20));
        for place in low..=last {
            let entry = self.conversations[number].log[place as usize - 1].clone();
            let (user, device) = (name.clone(), device.clone());
            self.emit(Event::Received { user, device, connection: read, via: Via::History, entry });
        }
        self.emit(Event::HistoryReturned { read, low: Seq(low), high: Seq(u64::MAX) });
    }

    /// All come back and catch up, one conversation after the other is read, and some new devices start
    /// from nothing.
    fn end(&mut self) {
        for user in 0..self.users.len() {
            if !self.users[user].online {
                self.connect(user);
            }
        }
        for number in 0..self.conversations.len() {
            let read = self.next_connection;
            self.next_connection += 1;
            let rows = self.conversations[number].log.len() as u64;
            for place in 0..rows {
                let entry = self.conversations[number].log[place as usize].clone();
                self.emit(Event::Final { read, entry });
            }
            let conversation = self.conversations[number].id;
            self.emit(Event::FinalReturned { read, conversation, rows });
        }
        for user in 0..self.users.len() {
            let (name, device) = self.device(user);
            self.emit(Event::DeviceEnd { user: name, device });
        }
    }
}
