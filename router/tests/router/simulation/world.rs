//! Time, workers, store and faults. One agenda holds all that will happen, in order of time.

use std::collections::{BTreeMap, VecDeque};

use ringway_protocol::ids::{ConnectionId, ConversationId, Position, RequestId, Seq, Timestamp};
use ringway_protocol::trunk::{Outcome, Refusal, ToRouter};
use ringway_protocol::user::UserId;
use ringway_router::shard::{Action, Event, FlushId, Forward, Moment, QueryId, Worker, WorkerSettings};
use ringway_store_writer::store::{ClaimKey, Flush, Query, StoreError};

use super::device::{Device, Send};
use super::history::History;
use crate::model_store::ModelStore;
use crate::stage::settings;

/// Endpoints that devices connect to.
pub(crate) const ENDPOINTS: usize = 2;

/// How long things go wrong, in microseconds; then how long they may take to heal.
const CHAOS: u64 = 6_000_000;
const HEALING: u64 = 30_000_000;

/// Random numbers of a seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ringway_protocol::ids::mix(self.0)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { Some(&list[self.below(list.len() as u64) as usize]) }
    }
}

/// What will happen.
#[derive(Debug)]
enum Happening {
    Pass { worker: usize, turn: u64 },
    Flush { worker: usize, id: FlushId, flush: Flush },
    Query { worker: usize, id: QueryId, query: Query },
    Claim { worker: usize, id: QueryId, key: ClaimKey, proposed: ConversationId },
    Answer { worker: usize, event: Event },
    Reopen,
    Heard { endpoint: usize, said: Said },
    Device(usize),
}

/// What a worker says to an endpoint.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Reply { connection: ConnectionId, request: RequestId, outcome: Result<Outcome, Refusal> },
    Live { connection: ConnectionId, conversation: ConversationId, seq: Seq, entry: bytes::Bytes },
    Close { connection: ConnectionId },
    Watermark { worker: usize, position: Position },
}

struct Runner {
    core: Worker,
    inbox: VecDeque<Letter>,
    answers: VecDeque<Event>,
    /// When the last thing it said to each endpoint arrives: order is kept.
    arrivals: [u64; ENDPOINTS],
    /// The pass that is to come: another one on the agenda was replaced by it.
    turn: u64,
    asleep: bool,
}

/// The longest that a worker sleeps, in microseconds.
const TICK: u64 = 50_000;

enum Letter {
    Endpoint(ToRouter),
    Forwarded(Box<Forward>),
}

pub(crate) struct World {
    pub(crate) random: Random,
    /// Microseconds since the start.
    pub(crate) now: u64,
    wall_offset: u64,
    pub(crate) store: ModelStore,
    runners: Vec<Runner>,
    agenda: BTreeMap<(u64, u64), (u32, Happening)>,
    happenings: u64,
    /// Which process this is: what an earlier one had on the agenda does not happen.
    life: u32,
    /// Things go wrong.
    pub(crate) faults: bool,
    /// Devices do something of their own.
    pub(crate) active: bool,
    pub(crate) devices: Vec<Device>,
    pub(crate) sends: Vec<Send>,
    pub(crate) conversations: Vec<ConversationId>,
    /// What each endpoint heard from each worker.
    pub(crate) watermarks: Vec<Vec<Position>>,
    pub(crate) history: History,
    pub(crate) next_request: u64,
    pub(crate) next_generation: u32,
    trace: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let worker_count = random.within(1, 4) as usize;
        let users: Vec<UserId> = (0..5)
            .map(|i| UserId::new("", &format!("u{i}")).unwrap())
            .chain([UserId::new("acme", "u0").unwrap()])
            .collect();
        let devices = (0..10).map(|i| Device::new(i, users[i % users.len()].clone())).collect();
        let mut world = Self {
            store: ModelStore::new(random.within(1, 20) as usize),
            random,
            now: 0,
            wall_offset: 1_000_000_000,
            runners: Vec::new(),
            agenda: BTreeMap::new(),
            happenings: 0,
            life: 0,
            faults: true,
            active: true,
            devices,
            sends: Vec::new(),
            conversations: Vec::new(),
            watermarks: Vec::new(),
            history: History::default(),
            next_request: 0,
            next_generation: 0,
            trace: 0,
        };
        world.start(worker_count);
        for device in 0..world.devices.len() {
            world.later(0, 100_000, Happening::Device(device));
        }
        world
    }

    /// Everything, from chaos to the last check.
    pub(crate) fn run(&mut self) {
        self.run_until(CHAOS);
        self.faults = false;
        self.active = false;
        if !self.store.accepts {
            self.store.reopen();
        }
        self.run_until(CHAOS + HEALING);
        self.check_that_all_ended();
        self.check_that_devices_have_all("by what they were told and their resume cursors");
        self.catch_up_cold();
        self.run_until(CHAOS + HEALING + 5_000_000);
        self.check_that_devices_have_all("by a cold catch-up");
        self.history.check(&self.store);
        assert!(self.history.acks.len() > 20, "something was sent: {}", self.history.acks.len());
    }

    /// A hash of everything that the workers wanted done.
    pub(crate) fn trace(&self) -> u64 {
        self.trace
    }

    fn start(&mut self, worker_count: usize) {
        let settings = |worker: usize, random: &mut Random| WorkerSettings {
            worker: worker as u16,
            worker_count,
            seed: random.next(),
            conversations_max: 3,
            members_max: 12,
            keys_max: 12,
            conversation_keys_max: random.within(1, 10) as usize,
            dedup_window_seconds: 86_400,
            conversation_inflight_max: random.within(4, 40) as usize,
            inflight_max: random.within(8, 60) as usize,
            queries_max: random.within(10, 60) as usize,
            ..settings()
        };
        self.runners.clear();
        for worker in 0..worker_count {
            let core = Worker::new(settings(worker, &mut self.random));
            let (inbox, answers) = (VecDeque::new(), VecDeque::new());
            self.runners.push(Runner {
                core,
                inbox,
                answers,
                arrivals: [self.now; ENDPOINTS],
                turn: 0,
                asleep: true,
            });
            self.wake(worker);
        }
        self.watermarks = vec![vec![Position(0); worker_count]; ENDPOINTS];
    }

    fn later(&mut self, from: u64, to: u64, happening: Happening) {
        let at = self.now + self.random.within(from, to);
        self.at(at, happening);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.happenings += 1;
        self.agenda.insert((at, self.happenings), (self.life, happening));
    }

    fn run_until(&mut self, end: u64) {
        while let Some((&(at, number), _)) = self.agenda.first_key_value() {
            if at > end {
                break;
            }
            let Some((life, happening)) = self.agenda.remove(&(at, number)) else { break };
            self.now = at;
            let outlives = matches!(happening, Happening::Device(_) | Happening::Reopen);
            if life == self.life || outlives {
                self.happen(happening);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Pass { worker, turn } => {
                if self.runners[worker].turn == turn {
                    self.pass(worker);
                }
            }
            Happening::Flush { worker, id, flush } => self.do_flush(worker, id, &flush),
            Happening::Query { worker, id, query } => {
                let fails = self.faults && self.random.chance(if self.store.accepts { 20 } else { 500 });
                let result = if fails { Err(unavailable()) } else { Ok(self.store.answer(&query)) };
                self.later(0, 1500, Happening::Answer { worker, event: Event::Answered { id, result } });
            }
            Happening::Claim { worker, id, key, proposed } => {
                let taken = self.store.claim(&key, proposed);
                let fails = self.faults && self.random.chance(50);
                let result = if fails { Err(unavailable()) } else { Ok(taken) };
                self.later(0, 1500, Happening::Answer { worker, event: Event::Claimed { id, result } });
            }
            Happening::Answer { worker, event } => {
                self.runners[worker].answers.push_back(event);
                self.wake(worker);
            }
            Happening::Reopen => {
                if !self.store.accepts {
                    self.store.reopen();
                }
            }
            Happening::Heard { endpoint, said } => self.hear(endpoint, said),
            Happening::Device(device) => {
                self.device_acts(device);
                let (least, most) = if self.active { (5_000, 150_000) } else { (50_000, 150_000) };
                self.later(least, most, Happening::Device(device));
            }
        }
    }

    fn do_flush(&mut self, worker: usize, id: FlushId, flush: &Flush) {
        let unknown = self.faults && self.store.accepts && self.random.chance(15);
        let refused = self.faults && self.random.chance(15);
        let result = if unknown {
            if self.random.chance(500) {
                self.store.apply(flush);
            }
            self.store.fence();
            self.later(2_000, 300_000, Happening::Reopen);
            Err(StoreError::Unknown("fsync failed".to_owned()))
        } else if refused {
            Err(unavailable())
        } else {
            self.store.apply(flush).ok_or_else(unavailable)
        };
        // Sometimes the answer comes when nobody waits for it any more.
        let longest = if self.faults && self.random.chance(4) { 9_000_000 } else { 3_000 };
        self.later(0, longest, Happening::Answer { worker, event: Event::Flushed { id, result } });
    }

    /// A pass in the order of `driver.rs`.
    fn pass(&mut self, worker: usize) {
        if self.faults && self.random.chance(1) {
            self.wall_offset = match self.random.below(3) {
                0 => self.wall_offset + 3_600_000,
                1 => self.wall_offset.saturating_sub(3_600_000),
                _ => self.wall_offset.saturating_sub(100),
            };
        }
        let runner = &mut self.runners[worker];
        let answers = std::mem::take(&mut runner.answers);
        let letters = std::mem::take(&mut runner.inbox);
        let wall = Timestamp(self.wall_offset + self.now / 1000);
        let now = Moment { wall, steady_microseconds: self.now };
        let idle = answers.is_empty() && letters.is_empty();
        let mut actions = Vec::new();
        runner.core.step(now, Event::Status(self.store.status()), &mut actions);
        for letter in letters {
            let event = match letter {
                Letter::Endpoint(message) => Event::Endpoint(message),
                Letter::Forwarded(forward) => Event::Forwarded(forward),
            };
            runner.core.step(now, event, &mut actions);
        }
        for answer in answers {
            runner.core.step(now, answer, &mut actions);
        }
        runner.core.step(now, Event::EndOfPass, &mut actions);
        for action in actions {
            let text = format!("{worker} {} {action:?}", self.now);
            self.trace = ringway_protocol::ids::mix(
                self.trace ^ ringway_protocol::ids::placement_hash(text.as_bytes()),
            );
            self.perform(worker, action);
        }
        // What came into its inbox by its own doing woke it, unless it was not asleep yet.
        let runner = &mut self.runners[worker];
        runner.asleep = idle && runner.inbox.is_empty();
        runner.turn += 1;
        let turn = runner.turn;
        let (least, most) = if runner.asleep { (TICK, TICK + 1) } else { (20, 700) };
        self.later(least, most, Happening::Pass { worker, turn });
    }

    /// Something came for a worker: it passes soon.
    fn wake(&mut self, worker: usize) {
        let runner = &mut self.runners[worker];
        if !std::mem::take(&mut runner.asleep) {
            return;
        }
        runner.turn += 1;
        let turn = runner.turn;
        self.later(20, 700, Happening::Pass { worker, turn });
    }

    fn perform(&mut self, worker: usize, action: Action) {
        match action {
            Action::Flush { id, flush } => {
                let longest = if self.faults && self.random.chance(3) { 9_000_000 } else { 4_000 };
                self.later(100, longest, Happening::Flush { worker, id, flush });
            }
            Action::Query { id, query } => self.later(0, 3_000, Happening::Query { worker, id, query }),
            Action::Claim { id, key, proposed } => {
                self.later(0, 3_000, Happening::Claim { worker, id, key, proposed });
            }
            Action::Forward { worker, forward } => {
                self.runners[worker].inbox.push_back(Letter::Forwarded(forward));
                self.wake(worker);
            }
            Action::Reply { caller, outcome } => {
                if let Ok(Outcome::Sent { conversation, seq, message, .. }) = &outcome {
                    let stored = self.store.logs[conversation].get(*seq).map(|append| append.message);
                    assert_eq!(stored, Some(*message), "I15: acknowledged before it is durable");
                }
                let (connection, request) = (caller.connection, caller.request);
                self.say(worker, connection.endpoint().0, Said::Reply { connection, request, outcome });
            }
            Action::FanOut { endpoint, body, notices } => {
                for notice in notices {
                    assert_eq!(notice.body, body.reference);
                    let (connection, entry) = (notice.connection, body.entry.clone());
                    let (conversation, seq) = (body.conversation, body.seq);
                    self.say(worker, endpoint.0, Said::Live { connection, conversation, seq, entry });
                }
            }
            Action::Close { connection, .. } => {
                self.say(worker, connection.endpoint().0, Said::Close { connection });
            }
            Action::Watermark(position) => {
                for endpoint in 0..ENDPOINTS {
                    self.say(worker, endpoint as u16, Said::Watermark { worker, position });
                }
            }
            Action::Committed(committed) => {
                self.history.commit(&self.store, committed.conversation, committed.seq);
            }
        }
    }

    fn say(&mut self, worker: usize, endpoint: u16, said: Said) {
        let endpoint = usize::from(endpoint);
        let at = (self.now + self.random.within(1, 400)).max(self.runners[worker].arrivals[endpoint]);
        self.runners[worker].arrivals[endpoint] = at;
        self.at(at, Happening::Heard { endpoint, said });
    }

    /// An endpoint gives a worker a message.
    pub(crate) fn tell(&mut self, worker: usize, message: ToRouter) {
        self.runners[worker].inbox.push_back(Letter::Endpoint(message));
        self.wake(worker);
    }

    pub(crate) fn worker_count(&self) -> usize {
        self.runners.len()
    }

    /// The process dies and comes back. What the store was about to do happened, or did not.
    pub(crate) fn crash(&mut self) {
        let life = self.life;
        let flushes: Vec<Flush> = self
            .agenda
            .values_mut()
            .filter(|(of, _)| *of == life)
            .filter_map(|(_, happening)| match happening {
                Happening::Flush { flush, .. } => {
                    Some(Flush { epoch: flush.epoch, appends: std::mem::take(&mut flush.appends) })
                }
                _ => None,
            })
            .collect();
        for flush in flushes {
            if self.random.chance(500) {
                self.store.apply(&flush);
            }
        }
        self.life += 1;
        self.store.reopen();
        self.history.restart();
        for device in 0..self.devices.len() {
            self.disconnected(device);
        }
        let worker_count = self.random.within(1, 4) as usize;
        self.start(worker_count);
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("by the seed".to_owned())
}
