//! One send through a router worker's pure core: a pass with the request in it, the flush that comes out of it made
//! durable at once, and the answer and the fan-out behind that. The store is two lines: what it costs is another row.

use std::hint::black_box;

use bytes::Bytes;
use ringway_protocol::entry::{Body, ConversationKind, Message};
use ringway_protocol::ids::{
    ConnectionId, ConversationId, EndpointId, Epoch, Position, RequestId, Timestamp,
};
use ringway_protocol::trunk::{Operation, Outcome, Target, ToRouter};
use ringway_protocol::user::{ClientMessageId, DeviceId, UserId};
use ringway_router::shard::{Action, Event, Moment, Worker, WorkerSettings};
use ringway_store_writer::store::{Answer, Query, Status};

/// The members of the group, each with a connection.
const MEMBERS: [&str; 3] = ["alice", "bob", "carol"];

/// Sends so many messages, each in a pass of its own.
pub(crate) fn route(count: u64) {
    let mut shard = Shard::new();
    let group = shard.group();
    let text = Bytes::from_static(&[b'x'; 128]);
    for number in 0..count {
        let message = Message { body: Body::Text(text.clone()), media_ids: Vec::new(), reply_to: None };
        // As many digits in each, so that each iteration does the same.
        let client_message_id = ClientMessageId::new(&format!("{number:012}")).expect("a short name");
        let target = Target::Conversation(group);
        let told = shard.ask(Operation::Send { target, client_message_id, message });
        assert_eq!(told, Told { acks: 1, notices: MEMBERS.len() - 1 });
    }
}

struct Shard {
    worker: Worker,
    now: Moment,
    position: Position,
    request: u64,
    created: Option<ConversationId>,
}

/// What a pass said to whom.
#[derive(Debug, Default, PartialEq)]
struct Told {
    acks: usize,
    notices: usize,
}

impl Shard {
    fn new() -> Self {
        let settings = WorkerSettings {
            worker: 0,
            worker_count: 1,
            region: 0,
            seed: 7,
            connections_per_user: 10,
            conversations_max: 100,
            members_max: 10_000,
            keys_max: 1 << 20,
            conversation_keys_max: 1 << 20,
            dedup_window_seconds: 86_400,
            conversation_inflight_max: 100,
            inflight_max: 100,
            inflight_bytes_max: 1 << 20,
            queries_max: 100,
            deadline_microseconds: 8_000_000,
        };
        let mut shard = Self {
            worker: Worker::new(settings),
            now: Moment { wall: Timestamp(1_790_000_000_000), steady_microseconds: 0 },
            position: Position(1),
            request: 0,
            created: None,
        };
        let mut actions = Vec::new();
        shard.worker.step(shard.now, Event::Status(shard.status()), &mut actions);
        for (slot, name) in MEMBERS.iter().enumerate() {
            let device = DeviceId::new("phone").expect("a short name");
            let attach = ToRouter::Attach { connection: connection(slot), user: user(name), device };
            shard.worker.step(shard.now, Event::Endpoint(attach), &mut actions);
        }
        shard
    }

    fn status(&self) -> Status {
        Status {
            accepts: true,
            epoch: Epoch(1),
            position: self.position,
            newest: Timestamp(0),
            key_time: self.now.wall,
        }
    }

    fn group(&mut self) -> ConversationId {
        let members = MEMBERS[1..].iter().map(|name| user(name)).collect();
        let (kind, name) = (ConversationKind::Group, "us".to_owned());
        self.ask(Operation::Create { kind, name, members, idempotency_key: None });
        self.created.expect("the group was made")
    }

    /// One pass with a request of the first member, and what it leads to until nothing is open.
    fn ask(&mut self, operation: Operation) -> Told {
        self.now.wall.0 += 1;
        self.now.steady_microseconds += 1_000;
        self.request += 1;
        let request = ToRouter::Request {
            connection: connection(0),
            request: RequestId(self.request),
            user: user(MEMBERS[0]),
            operation,
        };
        let (mut actions, mut told) = (Vec::new(), Told::default());
        self.worker.step(self.now, Event::Status(self.status()), &mut actions);
        self.worker.step(self.now, Event::Endpoint(request), &mut actions);
        self.worker.step(self.now, Event::EndOfPass, &mut actions);
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions.drain(..) {
                if let Some(answer) = self.carry_out(action, &mut told) {
                    self.worker.step(self.now, answer, &mut next);
                    self.worker.step(self.now, Event::EndOfPass, &mut next);
                }
            }
            actions = next;
        }
        told
    }

    /// What the store answers, if it was asked.
    fn carry_out(&mut self, action: Action, told: &mut Told) -> Option<Event> {
        match black_box(action) {
            Action::Flush { id, .. } => {
                self.position.0 += 1;
                return Some(Event::Flushed { id, result: Ok(self.position) });
            }
            Action::Query { id, query: Query::Conversation(_) } => {
                return Some(Event::Answered { id, result: Ok(Answer::Conversation(None)) });
            }
            Action::Claim { id, proposed, .. } => return Some(Event::Claimed { id, result: Ok(proposed) }),
            Action::Query { query, .. } => {
                panic!("a new group asks the store for nothing but itself: {query:?}")
            }
            Action::Reply { outcome: Ok(Outcome::Created { conversation, .. }), .. } => {
                self.created = Some(conversation);
            }
            Action::Reply { outcome: Ok(Outcome::Sent { duplicate: false, .. }), .. } => told.acks += 1,
            Action::Reply { outcome, .. } => panic!("{outcome:?}"),
            Action::FanOut { notices, .. } => told.notices += notices.len(),
            Action::Forward { .. } | Action::Close { .. } | Action::Watermark(_) | Action::Committed(_) => {}
        }
        None
    }
}

fn connection(slot: usize) -> ConnectionId {
    ConnectionId::new(EndpointId(0), slot as u32, 0)
}

fn user(name: &str) -> UserId {
    UserId::new("", name).expect("a short name")
}
