//! The router as `serve` runs it: real threads, inboxes and wake-ups, on a store in memory whose own
//! thread answers a little later.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ringway_metrics::Text;
use ringway_protocol::entry::ConversationKind;
use ringway_protocol::ids::{ConnectionId, ConversationId, EndpointId, Position, RequestId, Seq};
use ringway_protocol::trunk::{Operation, Outcome, Refusal, Target, ToEndpoint, ToRouter};
use ringway_protocol::user::{DeviceId, UserId};
use ringway_router::{Router, RouterSettings, RunningRouter};
use ringway_store_writer::store::{Answer, ClaimKey, Done, Flush, Query, Status, Store, StoreError};
use ringway_trunk::{Endpoint, Endpoints, Inbox, Outbox, Workers, inbox};

use crate::model_store::ModelStore;
use crate::stage::{key, text, user};

/// How long any answer may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

type Work = Box<dyn FnOnce(&mut ModelStore) + Send>;

/// The model store behind the trait: one thread does the work, in order.
struct ThreadStore {
    work: Sender<Work>,
    status: Arc<RwLock<Status>>,
    /// Held by the test, it keeps whoever reads in the middle of a pass.
    reads: Arc<RwLock<()>>,
    /// Passes of all workers, each of which begins with a look at the status.
    passes: Arc<AtomicU64>,
}

impl ThreadStore {
    fn start() -> Self {
        let (work, to_do): (Sender<Work>, Receiver<Work>) = channel();
        let mut store = ModelStore::new(8);
        let status = Arc::new(RwLock::new(store.status()));
        let published = Arc::clone(&status);
        let thread = std::thread::Builder::new().name("store".to_owned());
        let run = move || {
            for work in to_do {
                work(&mut store);
                *published.write().unwrap_or_else(PoisonError::into_inner) = store.status();
            }
        };
        thread.spawn(run).unwrap();
        Self { work, status, reads: Arc::default(), passes: Arc::default() }
    }

    fn give(&self, work: impl FnOnce(&mut ModelStore) + Send + 'static) {
        // The thread ends with the last sender only.
        let _ = self.work.send(Box::new(work));
    }
}

impl Store for ThreadStore {
    fn flush(&self, flush: Flush, done: Done<Result<Position, StoreError>>) {
        self.give(move |store| {
            done(store.apply(&flush).ok_or_else(|| StoreError::Unavailable("old epoch".to_owned())));
        });
    }

    fn read(&self, query: Query, done: Done<Result<Answer, StoreError>>) {
        drop(self.reads.read().unwrap_or_else(PoisonError::into_inner));
        self.give(move |store| done(Ok(store.answer(&query))));
    }

    fn claim(&self, key: ClaimKey, proposed: ConversationId, done: Done<Result<ConversationId, StoreError>>) {
        self.give(move |store| done(Ok(store.claim(&key, proposed))));
    }

    fn status(&self) -> Status {
        self.passes.fetch_add(1, Ordering::SeqCst);
        *self.status.read().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Ear(Outbox<ToEndpoint>);

impl Endpoint for Ear {
    fn push(&self, message: ToEndpoint) -> Result<(), Box<ToEndpoint>> {
        self.0.push(message).map_err(Box::new)
    }

    fn wake(&self) -> bool {
        self.0.wake()
    }
}

/// One endpoint, a router, and what was heard.
struct House {
    router: RunningRouter,
    workers: Arc<dyn Workers>,
    heard: Inbox<ToEndpoint>,
    replies: BTreeMap<RequestId, Result<Outcome, Refusal>>,
    live: BTreeMap<ConnectionId, Vec<(ConversationId, Seq)>>,
    watermarks: BTreeMap<u16, Position>,
    lost: bool,
    next_request: u64,
    committed: Arc<AtomicU64>,
}

impl House {
    fn start(worker_count: usize, inbox_capacity: usize, backlog_max: usize) -> Self {
        Self::with(Arc::new(ThreadStore::start()), worker_count, inbox_capacity, backlog_max)
    }

    fn with(store: Arc<ThreadStore>, worker_count: usize, inbox_capacity: usize, backlog_max: usize) -> Self {
        let settings = RouterSettings { worker_count, backlog_max, ..RouterSettings::default() };
        let mut router = Router::new(settings, store).unwrap();
        let committed = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&committed);
        router.set_consumer(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        let (heard, outbox) = inbox(inbox_capacity).unwrap();
        let workers = router.workers();
        let endpoints = Endpoints::new(vec![Arc::new(Ear(outbox)) as Arc<dyn Endpoint>]);
        Self {
            router: router.start(endpoints).unwrap(),
            workers,
            heard,
            replies: BTreeMap::new(),
            live: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            lost: false,
            next_request: 0,
            committed,
        }
    }

    fn attach(&self, connection: ConnectionId, user: &UserId) {
        for worker in 0..self.workers.count() {
            let device = DeviceId::new("device").unwrap();
            let message = ToRouter::Attach { connection, user: user.clone(), device };
            self.workers.push(worker, message).unwrap();
            self.workers.wake(worker);
        }
    }

    fn ask(&mut self, connection: ConnectionId, user: &UserId, operation: Operation) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let worker = self.workers.of(operation.shard(user));
        let message = ToRouter::Request { connection, request, user: user.clone(), operation };
        self.workers.push(worker, message).unwrap();
        self.workers.wake(worker);
        request
    }

    /// Listens until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        #[expect(clippy::disallowed_methods, reason = "the test's own patience")]
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
            match self.heard.pop() {
                Some(message) => self.hear(message),
                None => std::thread::yield_now(),
            }
        }
    }

    fn hear(&mut self, message: ToEndpoint) {
        match message {
            ToEndpoint::Reply { request, outcome, .. } => {
                assert!(self.replies.insert(request, outcome).is_none(), "one reply a request");
            }
            ToEndpoint::FanOut { body, notices } => {
                for notice in notices {
                    let heard = self.live.entry(notice.connection).or_default();
                    heard.push((body.conversation, body.seq));
                }
            }
            ToEndpoint::Watermark { worker, position } => {
                let before = self.watermarks.insert(worker, position);
                assert!(before.is_none_or(|before| before < position), "watermarks rise");
            }
            ToEndpoint::Lost => self.lost = true,
            ToEndpoint::Close { .. } => panic!("nobody is closed here"),
        }
    }

    fn reply(&mut self, request: RequestId) -> Result<Outcome, Refusal> {
        self.until("a reply", |house| house.replies.contains_key(&request));
        self.replies[&request].clone()
    }
}

fn seat(slot: u32) -> ConnectionId {
    ConnectionId::new(EndpointId(0), slot, 1)
}

fn group(house: &mut House, owner: &UserId, others: &[&str]) -> ConversationId {
    let members = others.iter().map(|name| user(name)).collect();
    let kind = ConversationKind::Group;
    let create = Operation::Create { kind, name: String::new(), members, idempotency_key: Some(key("k")) };
    let request = house.ask(seat(1), owner, create);
    match house.reply(request) {
        Ok(Outcome::Created { conversation, .. }) => conversation,
        other => panic!("no group: {other:?}"),
    }
}

fn send(target: Target, id: u64) -> Operation {
    Operation::Send { target, client_message_id: key(&id.to_string()), message: text("hello") }
}

#[test]
fn three_workers_order_deliver_and_drain() {
    let mut house = House::start(3, 1 << 16, 1 << 16);
    let (alice, bob) = (user("alice"), user("bob"));
    house.attach(seat(1), &alice);
    house.attach(seat(2), &bob);
    let group = group(&mut house, &alice, &["bob"]);

    let count = 2_000;
    let mut requests = Vec::new();
    for id in 0..count {
        let direct = Target::User(if id % 4 == 1 { bob.clone() } else { user(&format!("u{}", id % 50)) });
        let target = if id % 2 == 0 { Target::Conversation(group) } else { direct };
        requests.push(house.ask(seat(1), &alice, send(target, id)));
    }
    let mut to_group = Vec::new();
    for (id, request) in requests.into_iter().enumerate() {
        match house.reply(request) {
            Ok(Outcome::Sent { seq, duplicate: false, .. }) if id % 2 == 0 => to_group.push(seq.0),
            Ok(Outcome::Sent { duplicate: false, .. }) => {}
            other => panic!("{id} was not sent: {other:?}"),
        }
    }
    assert_eq!(to_group, Vec::from_iter(2..2 + count / 2), "in the order of sending");
    let bobs = |house: &House| {
        let all = house.live.get(&seat(2)).map_or(&[][..], Vec::as_slice);
        Vec::from_iter(all.iter().filter(|(id, _)| *id == group).map(|(_, seq)| seq.0))
    };
    house.until("bob's messages", |house| bobs(house).len() as u64 == 1 + count / 2);
    assert_eq!(bobs(&house), Vec::from_iter(1..2 + count / 2));
    // An idle worker's watermark follows the log of the others.
    house.until("watermarks", |house| {
        let least = house.watermarks.values().min().copied();
        house.watermarks.len() == 3 && least >= house.watermarks.values().max().copied()
    });
    let committed = house.committed.load(Ordering::Relaxed);
    assert!(committed > count, "{committed} entries: messages and beginnings");

    let mut page = Text::default();
    house.router.metrics().render(&mut page);
    let page = page.finish();
    let acks = page.lines().filter(|line| line.starts_with("ringway_router_acks_total{"));
    let acks: u64 = acks.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(acks, count, "{page}");

    let last = house.ask(seat(1), &alice, send(Target::Conversation(group), count));
    house.router.stop();
    house.reply(last).ok(); // sent, or refused by the drain: it has its answer
    let House { router, workers, .. } = house;
    router.join();
    let message =
        ToRouter::Detach { connection: seat(1), user: alice, device: DeviceId::new("device").unwrap() };
    assert!(workers.push(0, message).is_err(), "nobody is there any more");
}

#[test]
fn what_is_open_is_finished_before_the_workers_end() {
    let mut house = House::start(2, 1 << 16, 1 << 16);
    let alice = user("alice");
    let group = group(&mut house, &alice, &[]);
    let requests: Vec<_> =
        (0..500).map(|id| house.ask(seat(1), &alice, send(Target::Conversation(group), id))).collect();
    house.until("the first ack", |house| house.replies.contains_key(&requests[0]));
    house.router.stop();
    for request in requests {
        let outcome = house.reply(request);
        assert!(matches!(outcome, Ok(Outcome::Sent { .. }) | Err(Refusal::Unavailable)), "{outcome:?}");
    }
    house.router.join();
}

/// One worker is in the middle of a pass, with nothing open yet, when the drain begins; the other has
/// nothing to do. What the first hands over at the end of that pass must find the second one there.
#[test]
fn a_worker_that_is_in_a_pass_keeps_the_others_from_ending() {
    let store = Arc::new(ThreadStore::start());
    let (reads, passes) = (Arc::clone(&store.reads), Arc::clone(&store.passes));
    let mut house = House::with(Arc::clone(&store), 2, 1 << 16, 1 << 16);
    let alice = user("alice");
    let group = group(&mut house, &alice, &[]);
    let theirs = house.workers.of(group.shard());
    let held = reads.write().unwrap();
    let asking = house.next_request;
    for (request, operation) in
        [(asking, Operation::Heads { since: None }), (asking + 1, send(Target::Conversation(group), 1))]
    {
        let message = ToRouter::Request {
            connection: seat(1),
            request: RequestId(request),
            user: alice.clone(),
            operation,
        };
        house.workers.push(1 - theirs, message).unwrap();
    }
    house.workers.wake(1 - theirs);
    house.next_request += 2;
    let (before, held_by) = (passes.load(Ordering::SeqCst), Arc::strong_count(&store));
    house.until("the reader to be held", |_| passes.load(Ordering::SeqCst) > before + 3);
    house.router.stop();
    let stopped = passes.load(Ordering::SeqCst);
    house.until("passes after the drain, or an end", |_| {
        passes.load(Ordering::SeqCst) > stopped + 3 || Arc::strong_count(&store) < held_by
    });
    drop(held);
    assert!(house.reply(RequestId(asking)).is_ok());
    let sent = house.reply(RequestId(asking + 1));
    assert!(matches!(sent, Ok(Outcome::Sent { .. })), "it was taken in before the drain: {sent:?}");
    house.router.join();
}

#[test]
fn an_endpoint_that_ended_first_does_not_hold_the_drain_up() {
    let mut house = House::start(2, 8, 1 << 16);
    let (alice, bob) = (user("alice"), user("bob"));
    house.attach(seat(2), &bob);
    let group = group(&mut house, &alice, &["bob"]);
    for id in 0..100 {
        house.ask(seat(1), &alice, send(Target::Conversation(group), id));
    }
    #[expect(clippy::disallowed_methods, reason = "the test's own patience")]
    let asked = Instant::now();
    while house.committed.load(Ordering::Relaxed) < 101 {
        assert!(asked.elapsed() < PATIENCE, "the worker goes on without its endpoint");
        std::thread::yield_now();
    }
    #[expect(clippy::disallowed_methods, reason = "the test's own patience")]
    let began = Instant::now();
    house.router.stop();
    house.router.join();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}: waited for an endpoint that listens no more");
}

#[test]
fn an_endpoint_that_does_not_listen_loses_deliveries_and_no_reply() {
    let mut house = House::start(1, 64, 100);
    let (alice, bob) = (user("alice"), user("bob"));
    house.attach(seat(2), &bob);
    let group = group(&mut house, &alice, &["bob"]);
    let requests: Vec<_> =
        (0..1_000).map(|id| house.ask(seat(1), &alice, send(Target::Conversation(group), id))).collect();
    let committed = Arc::clone(&house.committed);
    #[expect(clippy::disallowed_methods, reason = "the test's own patience")]
    let began = Instant::now();
    while committed.load(Ordering::Relaxed) < 1_001 {
        assert!(began.elapsed() < PATIENCE, "the worker goes on without its endpoint");
        std::thread::yield_now();
    }
    for request in requests {
        assert!(house.reply(request).is_ok());
    }
    house.until("the word that something was lost", |house| house.lost);
    assert!(house.live[&seat(2)].len() < 1_001);
    let heard = house.live[&seat(2)].len();
    let again = house.ask(seat(1), &alice, send(Target::Conversation(group), 5_000));
    house.reply(again).unwrap();
    house.until("live entries again", |house| house.live[&seat(2)].len() > heard);
    house.router.stop();
    house.router.join();
}
