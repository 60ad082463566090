//! Devices with the part of the gateway that belongs to them: they connect, catch up, send, retry, change
//! groups and go away; and they check what they are shown as it comes.
//!
//! On one connection, live entries of a conversation follow each other without a hole and without a
//! repeat, from the first one or from the end of a sync on; an ack stands for the entry it acknowledges.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringway_protocol::entry::{Body, ConversationKind, Entry, Message, Role};
use ringway_protocol::ids::{ConnectionId, ConversationId, EndpointId, Position, RequestId, Seq};
use ringway_protocol::trunk::{Operation, Outcome, Refusal, Target, ToRouter};
use ringway_protocol::user::{ClientMessageId, DeviceId, UserId};

use super::history::{Ack, Refused};
use super::world::{ENDPOINTS, Said, World};

/// No request may take longer, in microseconds.
const REQUEST_LIMIT: u64 = 10_000_000;

pub(crate) struct Device {
    pub(crate) user: UserId,
    device: DeviceId,
    connection: Option<Connection>,
    /// Everything it was ever shown, of which it remembers no more than the seqs.
    seen: BTreeMap<ConversationId, BTreeSet<Seq>>,
    /// The seq up to which it has all of a conversation.
    whole: BTreeMap<ConversationId, Seq>,
    /// Conversations with a hole that it knows of.
    behind: BTreeSet<ConversationId>,
    cursor: Option<Position>,
}

struct Connection {
    id: ConnectionId,
    /// The heads are here: what changed before is known.
    ready: bool,
    asked: BTreeMap<RequestId, (u64, Asked)>,
    streams: BTreeMap<ConversationId, Stream>,
}

#[derive(Default)]
struct Stream {
    /// The last entry of an unbroken run on this connection.
    last: Option<Seq>,
    acked: BTreeSet<Seq>,
    syncing: bool,
    /// A page said that there is more: until the sync ends nothing flows live.
    held: bool,
    /// Live entries before the heads came.
    early: Option<Seq>,
}

enum Asked {
    Heads,
    Page(ConversationId),
    End,
    /// Which of the world's sends.
    Send(usize),
    Change,
}

/// A send that a user wants to get through, on whichever device.
pub(crate) struct Send {
    user: UserId,
    target: Target,
    id: ClientMessageId,
    message: Message,
    invoked: u64,
    open: bool,
    asked_at: u64,
    /// The newest try.
    request: RequestId,
}

impl Device {
    pub(crate) fn new(number: usize, user: UserId) -> Self {
        Self {
            user,
            device: DeviceId::new(&format!("d{number}")).unwrap(),
            connection: None,
            seen: BTreeMap::new(),
            whole: BTreeMap::new(),
            behind: BTreeSet::new(),
            cursor: None,
        }
    }

    fn whole(&self, conversation: ConversationId) -> Seq {
        self.whole.get(&conversation).copied().unwrap_or_default()
    }
}

impl World {
    pub(crate) fn device_acts(&mut self, device: usize) {
        if self.devices[device].connection.is_none() {
            return self.connect(device);
        }
        self.sync_what_is_behind(device);
        self.retry(device);
        self.take_cursor(device);
        if !self.active {
            return;
        }
        match self.random.below(100) {
            0..=39 => self.send_to_conversation(device),
            40..=49 => self.send_to_user(device),
            50..=54 => self.create(device),
            55..=69 => self.change_members(device),
            70..=71 => self.rename_or_delete(device),
            72..=79 => self.drop_connection(device),
            80..=83 => self.end_a_sync(device),
            84 if self.random.chance(250) => self.crash(),
            _ => {}
        }
    }

    fn connect(&mut self, device: usize) {
        let endpoint = EndpointId(self.random.below(ENDPOINTS as u64) as u16);
        self.next_generation += 1;
        let id = ConnectionId::new(endpoint, device as u32, self.next_generation);
        let (user, name) = (self.devices[device].user.clone(), self.devices[device].device.clone());
        for worker in 0..self.worker_count() {
            let (user, device) = (user.clone(), name.clone());
            self.tell(worker, ToRouter::Attach { connection: id, user, device });
        }
        self.devices[device].connection =
            Some(Connection { id, ready: false, asked: BTreeMap::new(), streams: BTreeMap::new() });
        let since = self.devices[device].cursor;
        self.ask(device, Operation::Heads { since }, Asked::Heads);
    }

    fn drop_connection(&mut self, device: usize) {
        let Some(connection) = &self.devices[device].connection else { return };
        let id = connection.id;
        let (user, name) = (self.devices[device].user.clone(), self.devices[device].device.clone());
        for worker in 0..self.worker_count() {
            let (user, device) = (user.clone(), name.clone());
            self.tell(worker, ToRouter::Detach { connection: id, user, device });
        }
        self.disconnected(device);
    }

    /// Its socket is gone; what it knew of holes it keeps.
    pub(crate) fn disconnected(&mut self, device: usize) {
        let device = &mut self.devices[device];
        let Some(connection) = device.connection.take() else { return };
        let syncing = connection.streams.iter().filter(|(_, stream)| stream.syncing);
        device.behind.extend(syncing.map(|(conversation, _)| *conversation));
    }

    /// Nobody keeps anything: everything is fetched again.
    pub(crate) fn catch_up_cold(&mut self) {
        for device in 0..self.devices.len() {
            self.drop_connection(device);
            let (number, user) = (device, self.devices[device].user.clone());
            self.devices[device] = Device::new(number, user);
        }
    }

    fn ask(&mut self, device: usize, operation: Operation, asked: Asked) {
        let user = self.devices[device].user.clone();
        let worker = operation.shard(&user).worker(self.worker_count());
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let now = self.now;
        let Some(connection) = &mut self.devices[device].connection else { return };
        connection.asked.insert(request, (now, asked));
        let connection = connection.id;
        self.tell(worker, ToRouter::Request { connection, request, user, operation });
    }

    fn sync_what_is_behind(&mut self, device: usize) {
        let Some(connection) = &self.devices[device].connection else { return };
        if !connection.ready {
            return;
        }
        for conversation in self.devices[device].behind.clone() {
            self.ask_for_page(device, conversation);
        }
    }

    fn ask_for_page(&mut self, device: usize, conversation: ConversationId) {
        let after = self.devices[device].whole(conversation);
        let Some(connection) = &mut self.devices[device].connection else { return };
        let stream = connection.streams.entry(conversation).or_default();
        let open =
            connection.asked.values().any(|(_, asked)| matches!(asked, Asked::Page(c) if *c == conversation));
        if open {
            return;
        }
        stream.syncing = true;
        let limit = self.random.within(1, 6) as u32;
        self.ask(device, Operation::SyncPage { conversation, after, limit }, Asked::Page(conversation));
    }

    fn end_a_sync(&mut self, device: usize) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        let Some((&conversation, stream)) = connection.streams.iter_mut().find(|(_, stream)| stream.syncing)
        else {
            return;
        };
        let reading =
            connection.asked.values().any(|(_, asked)| matches!(asked, Asked::Page(c) if *c == conversation));
        if !reading {
            (stream.syncing, stream.held, stream.last) = (false, false, None);
            self.devices[device].behind.insert(conversation);
            self.ask(device, Operation::SyncEnd { conversation }, Asked::End);
        }
    }

    fn retry(&mut self, device: usize) {
        let user = &self.devices[device].user;
        let due = |send: &Send| send.open && send.user == *user && self.now > send.asked_at + 300_000;
        let due: Vec<usize> =
            self.sends.iter().enumerate().filter(|(_, send)| due(send)).map(|(number, _)| number).collect();
        for number in due {
            self.try_send(device, number);
        }
    }

    fn take_cursor(&mut self, device: usize) {
        let Some(connection) = &self.devices[device].connection else { return };
        if connection.ready && self.random.chance(300) {
            let endpoint = usize::from(connection.id.endpoint().0);
            let least = self.watermarks[endpoint].iter().min().copied();
            self.devices[device].cursor = self.devices[device].cursor.max(least);
        }
    }

    fn send_to_conversation(&mut self, device: usize) {
        let Some(&conversation) = self.random.pick(&self.conversations) else { return };
        self.new_send(device, Target::Conversation(conversation));
    }

    fn send_to_user(&mut self, device: usize) {
        let number = self.random.below(self.devices.len() as u64) as usize;
        let other = self.devices[number].user.clone();
        self.new_send(device, Target::User(other));
    }

    fn new_send(&mut self, device: usize, target: Target) {
        let number = self.sends.len();
        let id = ClientMessageId::new(&format!("m{number}")).unwrap();
        let mut send = Send {
            user: self.devices[device].user.clone(),
            target,
            id,
            message: message(number, 0),
            invoked: self.history.tick(),
            open: true,
            asked_at: self.now,
            request: RequestId(0),
        };
        let other_body = self.random.chance(40).then(|| {
            send.message = message(number, 1);
            Send {
                message: message(number, 0),
                target: send.target.clone(),
                id: send.id.clone(),
                user: send.user.clone(),
                ..send
            }
        });
        self.sends.push(send);
        self.try_send(device, number);
        if let Some(other) = other_body {
            self.sends.push(other);
            self.try_send(device, number + 1);
        }
        if self.random.chance(150) {
            self.try_send(device, number);
        }
    }

    fn try_send(&mut self, device: usize, number: usize) {
        let send = &mut self.sends[number];
        send.asked_at = self.now;
        send.request = RequestId(self.next_request);
        let (target, client_message_id) = (send.target.clone(), send.id.clone());
        let message = send.message.clone();
        self.ask(device, Operation::Send { target, client_message_id, message }, Asked::Send(number));
    }

    fn create(&mut self, device: usize) {
        let mut members: Vec<UserId> = Vec::new();
        for _ in 0..self.random.below(4) {
            let number = self.random.below(self.devices.len() as u64) as usize;
            members.push(self.devices[number].user.clone());
        }
        let tenant = self.devices[device].user.tenant().to_owned();
        members.retain(|member| member.tenant() == tenant);
        let idempotency_key = self
            .random
            .chance(500)
            .then(|| ClientMessageId::new(&format!("k{}", self.random.below(3))).unwrap());
        let kind = ConversationKind::Group;
        let operation = Operation::Create { kind, name: String::new(), members, idempotency_key };
        self.ask(device, operation, Asked::Change);
    }

    fn change_members(&mut self, device: usize) {
        let Some(&conversation) = self.random.pick(&self.conversations) else { return };
        let number = self.random.below(self.devices.len() as u64) as usize;
        let user = self.devices[number].user.clone();
        let operation = if self.random.chance(600) {
            let role = if self.random.chance(500) { Role::Admin } else { Role::Member };
            Operation::AddMember { conversation, user, role }
        } else {
            Operation::RemoveMember { conversation, user }
        };
        self.ask(device, operation, Asked::Change);
    }

    fn rename_or_delete(&mut self, device: usize) {
        let Some(&conversation) = self.random.pick(&self.conversations) else { return };
        let name = self.random.below(1000).to_string();
        let operation = if self.random.chance(900) {
            Operation::Rename { conversation, name }
        } else {
            Operation::Delete { conversation }
        };
        self.ask(device, operation, Asked::Change);
    }

    /// Something arrives at an endpoint.
    pub(crate) fn hear(&mut self, endpoint: usize, said: Said) {
        let to = match &said {
            Said::Watermark { worker, position } => {
                let known = &mut self.watermarks[endpoint][*worker];
                assert!(*position > *known, "a watermark rises");
                *known = *position;
                return;
            }
            Said::Reply { connection, .. } | Said::Live { connection, .. } | Said::Close { connection } => {
                assert_eq!(usize::from(connection.endpoint().0), endpoint);
                *connection
            }
        };
        let device = to.slot() as usize;
        if self.devices[device].connection.as_ref().is_none_or(|connection| connection.id != to) {
            return;
        }
        match said {
            Said::Reply { request, outcome, .. } => self.hear_reply(device, request, outcome),
            Said::Live { conversation, seq, entry, .. } => self.hear_live(device, conversation, seq, &entry),
            Said::Close { .. } => self.drop_connection(device),
            Said::Watermark { .. } => {}
        }
    }

    fn hear_reply(&mut self, device: usize, request: RequestId, outcome: Result<Outcome, Refusal>) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        let asked = connection.asked.remove(&request);
        let (asked_at, asked) = asked.expect("a request is answered once");
        assert!(self.now - asked_at <= REQUEST_LIMIT, "I17: {outcome:?} after {} us", self.now - asked_at);
        match asked {
            Asked::Heads => self.hear_heads(device, outcome),
            Asked::Page(conversation) => self.hear_page(device, conversation, outcome),
            Asked::End => assert_eq!(outcome, Ok(Outcome::Done)),
            Asked::Send(number) => self.hear_sent(device, number, request, outcome),
            Asked::Change => {
                if let Ok(Outcome::Created { conversation, seq, .. }) = outcome {
                    let log = &self.store.logs[&conversation];
                    assert!(log.get(seq).is_some(), "I15: created, so it is durable");
                    self.know(conversation);
                }
                if let Ok(Outcome::Changed { seq: Some(seq) }) = outcome {
                    assert!(self.store.logs.values().any(|log| log.get(seq).is_some()));
                }
            }
        }
    }

    fn know(&mut self, conversation: ConversationId) {
        if !self.conversations.contains(&conversation) {
            self.conversations.push(conversation);
        }
    }

    fn hear_heads(&mut self, device: usize, outcome: Result<Outcome, Refusal>) {
        let Ok(Outcome::Heads { heads, .. }) = outcome else {
            return self.drop_connection(device);
        };
        let known = &mut self.devices[device];
        let Some(connection) = &mut known.connection else { return };
        connection.ready = true;
        for (conversation, _) in &heads {
            known.behind.insert(*conversation);
        }
        for (conversation, stream) in &connection.streams {
            if let Some(early) = stream.early
                && !known.behind.contains(conversation)
            {
                let whole = known.whole.entry(*conversation).or_default();
                *whole = (*whole).max(early);
            }
        }
        self.sync_what_is_behind(device);
    }

    fn hear_page(&mut self, device: usize, conversation: ConversationId, outcome: Result<Outcome, Refusal>) {
        let user = self.devices[device].user.clone();
        let Ok(Outcome::Page { entries, more, .. }) = outcome else {
            if outcome == Err(Refusal::NotFound) {
                let log = self.store.logs.get(&conversation);
                assert!(log.is_none_or(|log| log.visible(&user).is_empty()), "was a member, and is told no");
            }
            let Some(connection) = &mut self.devices[device].connection else { return };
            let stream = connection.streams.entry(conversation).or_default();
            (stream.syncing, stream.held, stream.last) = (false, false, None);
            return;
        };
        let mut last = self.devices[device].whole(conversation);
        for bytes in &entries {
            let entry = Entry::decode(bytes).expect("a page has entries");
            let visible = self.store.logs[&conversation].visible(&user);
            let next = visible.into_iter().find(|seq| *seq > last);
            assert_eq!(next, Some(entry.seq), "I14: a page is dense over what the user may see");
            self.history.show(&self.store, &user, conversation, entry.seq, bytes);
            self.devices[device].seen.entry(conversation).or_default().insert(entry.seq);
            last = entry.seq;
        }
        let device_state = &mut self.devices[device];
        device_state.whole.insert(conversation, last);
        let Some(connection) = &mut device_state.connection else { return };
        let stream = connection.streams.entry(conversation).or_default();
        stream.held = more;
        if more {
            return self.ask_for_page(device, conversation);
        }
        stream.syncing = false;
        stream.last = Some(last);
        device_state.behind.remove(&conversation);
    }

    fn hear_sent(
        &mut self,
        device: usize,
        number: usize,
        request: RequestId,
        outcome: Result<Outcome, Refusal>,
    ) {
        let answered = self.history.tick();
        let send = &mut self.sends[number];
        let (sender, id) = (send.user.clone(), send.id.clone());
        let body_hash = send.message.body_hash();
        match outcome {
            Ok(Outcome::Sent { conversation, message, seq, .. }) => {
                send.open = false;
                if let Target::Conversation(asked) = send.target {
                    assert_eq!(asked, conversation);
                }
                let invoked = send.invoked;
                let ack = Ack { conversation, sender, id, message, seq, body_hash, invoked, answered };
                self.history.acknowledge(&self.store, ack);
                self.know(conversation);
                if let Some(connection) = &mut self.devices[device].connection {
                    connection.streams.entry(conversation).or_default().acked.insert(seq);
                }
                self.devices[device].seen.entry(conversation).or_default().insert(seq);
            }
            Ok(other) => panic!("not an answer to a send: {other:?}"),
            Err(Refusal::Unavailable | Refusal::ConversationFull) => send.asked_at = self.now,
            Err(refusal) => {
                send.open = false;
                // A later try may find the user a member; tries are done in the order of asking.
                if let Target::Conversation(conversation) = send.target
                    && send.request == request
                {
                    self.history.refused.push(Refused { conversation, sender, id, body_hash, refusal });
                }
            }
        }
    }

    fn hear_live(&mut self, device: usize, conversation: ConversationId, seq: Seq, entry: &Bytes) {
        let user = self.devices[device].user.clone();
        self.history.show(&self.store, &user, conversation, seq, entry);
        self.know(conversation);
        let visible = self.store.logs[&conversation].visible(&user);
        let state = &mut self.devices[device];
        state.seen.entry(conversation).or_default().insert(seq);
        let Some(connection) = &mut state.connection else { return };
        let stream = connection.streams.entry(conversation).or_default();
        assert!(!stream.held, "{user:?} is in a sync of {conversation}, and gets {seq} live");
        assert!(!stream.acked.contains(&seq), "the socket that sent {conversation} {seq} has its ack");
        if let Some(last) = stream.last {
            assert!(seq > last, "I4: {conversation} {seq} live after {last}");
            let missed = visible
                .iter()
                .find(|between| **between > last && **between < seq && !stream.acked.contains(between));
            assert_eq!(missed, None, "I3: a hole before {conversation} {seq} on {user:?}'s connection");
        }
        stream.last = Some(seq);
        if !connection.ready {
            stream.early = Some(seq);
        } else if !state.behind.contains(&conversation) {
            state.whole.insert(conversation, seq);
        }
    }

    /// I17, and no way to wait for ever.
    pub(crate) fn check_that_all_ended(&self) {
        let open = self.sends.iter().filter(|send| send.open).count();
        assert_eq!(open, 0, "I17: every send is resolved after everything healed");
        for device in &self.devices {
            let Some(connection) = &device.connection else { panic!("every device is connected again") };
            let oldest = connection.asked.values().map(|(asked_at, _)| *asked_at).min();
            let age = oldest.map_or(0, |asked_at| self.now - asked_at);
            assert!(age <= REQUEST_LIMIT, "I17: a request of {:?} has no answer", device.user);
            assert!(connection.streams.values().all(|stream| !stream.syncing), "a sync ends");
        }
    }

    /// I14: each device has exactly what its user may see.
    pub(crate) fn check_that_devices_have_all(&self, how: &str) {
        for device in &self.devices {
            for (conversation, log) in &self.store.logs {
                let seen = device.seen.get(conversation).cloned().unwrap_or_default();
                let visible = BTreeSet::from_iter(log.visible(&device.user));
                let missing: Vec<_> = visible.difference(&seen).collect();
                let who = (&device.user, &device.device);
                assert!(missing.is_empty(), "I14: {who:?} misses {missing:?} of {conversation} {how}");
            }
        }
    }
}

fn message(number: usize, variant: u32) -> Message {
    let text = format!("message {number} in variant {variant}");
    Message { body: Body::Text(text.into()), media_ids: Vec::new(), reply_to: None }
}
