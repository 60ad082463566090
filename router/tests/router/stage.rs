//! One worker core and a store whose answers the story gives out, so that a story reads in order:
//! somebody asks, the store answers, somebody is told.

use std::collections::VecDeque;

use bytes::Bytes;
use ringway_protocol::entry::{Body, ConversationKind, Message, Role};
use ringway_protocol::ids::{ConnectionId, ConversationId, EndpointId, Position, RequestId, Seq, Timestamp};
use ringway_protocol::trunk::{Operation, Outcome, Refusal, Target, ToRouter};
use ringway_protocol::user::{ClientMessageId, DeviceId, UserId};
use ringway_router::shard::{Action, Event, FlushId, Moment, QueryId, Worker, WorkerSettings};
use ringway_store_writer::store::{ClaimKey, Flush, Query, StoreError};

use crate::model_store::ModelStore;

/// What the store was asked and has not answered.
#[derive(Debug)]
pub(crate) enum Call {
    Flush(FlushId, Flush),
    Query(QueryId, Query),
    Claim(QueryId, ClaimKey, ConversationId),
}

/// What was said to a connection or a caller, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    Reply(RequestId, Result<Outcome, Refusal>),
    Live(ConversationId, Seq),
    Close(u16),
}

pub(crate) struct Stage {
    pub(crate) worker: Worker,
    pub(crate) store: ModelStore,
    pub(crate) calls: VecDeque<Call>,
    pub(crate) now: Moment,
    pub(crate) committed: Vec<(ConversationId, Seq)>,
    pub(crate) watermark: Position,
    said: Vec<(ConnectionId, Said)>,
    next_request: u64,
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new("", name).unwrap()
}

pub(crate) fn key(name: &str) -> ClientMessageId {
    ClientMessageId::new(name).unwrap()
}

pub(crate) fn text(text: &str) -> Message {
    Message {
        body: Body::Text(Bytes::copy_from_slice(text.as_bytes())),
        media_ids: Vec::new(),
        reply_to: None,
    }
}

/// Connection `slot` of endpoint `slot / 10`.
pub(crate) fn connection(slot: u32) -> ConnectionId {
    ConnectionId::new(EndpointId((slot / 10) as u16), slot, 0)
}

pub(crate) fn settings() -> WorkerSettings {
    WorkerSettings {
        worker: 0,
        worker_count: 1,
        region: 0,
        seed: 7,
        connections_per_user: 10,
        conversations_max: 100,
        members_max: 10_000,
        keys_max: 1_000,
        conversation_keys_max: 1_000,
        dedup_window_seconds: 86_400,
        conversation_inflight_max: 100,
        inflight_max: 100,
        inflight_bytes_max: 1 << 20,
        queries_max: 100,
        deadline_microseconds: 8_000_000,
    }
}

impl Stage {
    pub(crate) fn new(settings: WorkerSettings) -> Self {
        let mut stage = Self {
            worker: Worker::new(settings),
            store: ModelStore::new(256),
            calls: VecDeque::new(),
            now: Moment { wall: Timestamp(1_000_000), steady_microseconds: 0 },
            committed: Vec::new(),
            watermark: Position(0),
            said: Vec::new(),
            next_request: 0,
        };
        stage.pass();
        stage
    }

    pub(crate) fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.worker.step(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Flush { id, flush } => self.calls.push_back(Call::Flush(id, flush)),
                Action::Query { id, query } => self.calls.push_back(Call::Query(id, query)),
                Action::Claim { id, key, proposed } => self.calls.push_back(Call::Claim(id, key, proposed)),
                Action::Reply { caller, outcome } => {
                    self.said.push((caller.connection, Said::Reply(caller.request, outcome)));
                }
                Action::FanOut { endpoint, body, notices } => {
                    for notice in notices {
                        assert_eq!(notice.connection.endpoint(), endpoint);
                        assert_eq!(notice.body, body.reference);
                        self.said.push((notice.connection, Said::Live(body.conversation, body.seq)));
                    }
                }
                Action::Close { connection, code } => self.said.push((connection, Said::Close(code))),
                Action::Watermark(position) => self.watermark = position,
                Action::Committed(committed) => self.committed.push((committed.conversation, committed.seq)),
                Action::Forward { .. } => panic!("one worker has nobody to forward to"),
            }
        }
    }

    /// A pass in which nothing comes in.
    pub(crate) fn pass(&mut self) {
        self.now.steady_microseconds += 1000;
        self.now.wall.0 += 1;
        self.step(Event::Status(self.store.status()));
        self.step(Event::EndOfPass);
    }

    pub(crate) fn attach(&mut self, slot: u32, name: &str) {
        let device = DeviceId::new(&format!("device-{slot}")).unwrap();
        let message = ToRouter::Attach { connection: connection(slot), user: user(name), device };
        self.step(Event::Endpoint(message));
    }

    pub(crate) fn detach(&mut self, slot: u32, name: &str) {
        let device = DeviceId::new(&format!("device-{slot}")).unwrap();
        let message = ToRouter::Detach { connection: connection(slot), user: user(name), device };
        self.step(Event::Endpoint(message));
    }

    /// Asks without waiting for anything.
    pub(crate) fn ask(&mut self, slot: u32, name: &str, operation: Operation) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let message =
            ToRouter::Request { connection: connection(slot), request, user: user(name), operation };
        self.step(Event::Endpoint(message));
        request
    }

    pub(crate) fn send(
        &mut self,
        slot: u32,
        name: &str,
        to: ConversationId,
        id: &str,
        body: &str,
    ) -> RequestId {
        let target = Target::Conversation(to);
        let operation = Operation::Send { target, client_message_id: key(id), message: text(body) };
        self.ask(slot, name, operation)
    }

    /// A group of these, the first its owner, made and settled.
    pub(crate) fn group(&mut self, names: &[&str]) -> ConversationId {
        let members = names[1..].iter().map(|name| user(name)).collect();
        let operation = Operation::Create {
            kind: ConversationKind::Group,
            name: "us".to_owned(),
            members,
            idempotency_key: None,
        };
        let request = self.ask(99, names[0], operation);
        self.settle();
        match self.answer_of(request) {
            Some(Ok(Outcome::Created { conversation, created: true, .. })) => conversation,
            other => panic!("no group: {other:?}"),
        }
    }

    pub(crate) fn add(
        &mut self,
        name: &str,
        conversation: ConversationId,
        who: &str,
        role: Role,
    ) -> RequestId {
        self.ask(99, name, Operation::AddMember { conversation, user: user(who), role })
    }

    pub(crate) fn remove(&mut self, name: &str, conversation: ConversationId, who: &str) -> RequestId {
        self.ask(99, name, Operation::RemoveMember { conversation, user: user(who) })
    }

    pub(crate) fn page(
        &mut self,
        slot: u32,
        name: &str,
        conversation: ConversationId,
        after: u64,
    ) -> RequestId {
        self.ask(slot, name, Operation::SyncPage { conversation, after: Seq(after), limit: 10 })
    }

    /// The store does and answers the oldest call.
    pub(crate) fn answer_next(&mut self) {
        let call = self.calls.pop_front().expect("the store was asked");
        let event = match call {
            Call::Flush(id, flush) => {
                let result = self.store.apply(&flush);
                let result = result.ok_or_else(|| StoreError::Unavailable("not accepted".to_owned()));
                Event::Flushed { id, result }
            }
            Call::Query(id, query) => Event::Answered { id, result: Ok(self.store.answer(&query)) },
            Call::Claim(id, key, proposed) => {
                Event::Claimed { id, result: Ok(self.store.claim(&key, proposed)) }
            }
        };
        self.step(event);
    }

    /// Passes until nothing is open at the store.
    pub(crate) fn settle(&mut self) {
        loop {
            self.pass();
            if self.calls.is_empty() {
                return;
            }
            while !self.calls.is_empty() {
                self.answer_next();
            }
        }
    }

    /// The flush that waits for its answer.
    pub(crate) fn take_flush(&mut self) -> (FlushId, Flush) {
        match self.calls.pop_front() {
            Some(Call::Flush(id, flush)) => (id, flush),
            other => panic!("a flush is next, not {other:?}"),
        }
    }

    pub(crate) fn fail(&mut self, id: FlushId, error: StoreError) {
        self.step(Event::Flushed { id, result: Err(error) });
    }

    pub(crate) fn answer_of(&self, request: RequestId) -> Option<Result<Outcome, Refusal>> {
        let mut answers = self.said.iter().filter_map(|(_, said)| match said {
            Said::Reply(answered, outcome) if *answered == request => Some(outcome.clone()),
            _ => None,
        });
        let answer = answers.next();
        assert!(answers.next().is_none(), "{request} has two answers");
        answer
    }

    /// The seq of an acknowledged send.
    pub(crate) fn acked(&self, request: RequestId) -> Option<u64> {
        match self.answer_of(request)? {
            Ok(Outcome::Sent { seq, .. }) => Some(seq.0),
            other => panic!("not sent: {other:?}"),
        }
    }

    /// What a connection was told since the last time it was asked.
    pub(crate) fn heard(&mut self, slot: u32) -> Vec<Said> {
        let mut heard = Vec::new();
        self.said.retain(|(to, said)| {
            let mine = *to == connection(slot);
            if mine {
                heard.push(said.clone());
            }
            !mine
        });
        heard
    }

    /// The live seqs among it.
    pub(crate) fn live(&mut self, slot: u32) -> Vec<u64> {
        let seq = |said| if let Said::Live(_, seq) = said { Some(seq.0) } else { None };
        self.heard(slot).into_iter().filter_map(seq).collect()
    }
}
