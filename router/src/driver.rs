//! The thread of one worker: takes in, steps the core, does what it says.
//!
//! ```text
//!   pass:  read clock and status; store's answers out of their queue; inbox, as much as is there
//!          → step the inbox → step the answers → end of pass: one flush, one wake-up an endpoint
//! ```
//! The answers leave their queue *before* the inbox is looked at and are stepped *after* it. An endpoint
//! attaches a session at all workers before it asks one of them for `heads`. An entry that this pass
//! delivers was durable before the inbox was looked at: so either the attach was there and the session
//! gets the entry live, or it came later, and then the session's `heads` are read later still and name it.
//! Nothing falls in between, with any number of workers.
//!
//! A plain parked thread, where the design named an executor (glommio): between an inbox and a pure step
//! function an executor adds a task queue, 10 MiB set aside and about two system calls a message, and
//! nothing that this loop needs. Sleep is one `poll` on two eventfds, and a wake-up comes once a batch.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringway_protocol::ids::{ConversationId, Position, Timestamp};
use ringway_protocol::trunk::{Operation, Outcome, Refusal, ToEndpoint, ToRouter};
use ringway_store_writer::store::{Answer, Store, StoreError};
use ringway_trunk::{Inbox, Outbox};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::delivery::Delivery;
use crate::mailbox::Mailboxes;
use crate::metrics::{WorkerMetrics, refusal_index};
use crate::observer::Observed;
use crate::shard::{Action, Caller, Committed, Event, FlushId, Forward, Moment, QueryId, Worker};

/// What happens with entries that became durable, besides the fan-out. Called on the worker's thread,
/// at least once an entry, in seq order of a conversation: it must not block.
pub type Consumer = Arc<dyn Fn(&Committed) + Send + Sync>;

/// Events stepped before their actions are done: a reply does not wait for a whole inbox.
const STEPS_BETWEEN_ACTIONS: usize = 512;

/// Longest sleep: deadlines and the watermark of an idle worker move at this pace.
const TICK: Duration = Duration::from_millis(50);
/// Longest sleep while an endpoint's backlog waits for room, which nobody tells.
const BACKLOG_TICK: Duration = Duration::from_millis(1);
/// In a drain, an endpoint that takes nothing for so long has ended before the router: nobody is there
/// whom its backlog could reach.
const GONE_AFTER: Duration = Duration::from_millis(500);

/// What comes into a worker's inbox.
#[derive(Debug)]
pub(crate) enum Letter {
    /// From an endpoint.
    Endpoint(ToRouter),
    /// From another worker.
    Forwarded(Box<Forward>),
}

/// What the store answers. Their queue has room for all that a worker may have open.
#[derive(Debug)]
pub(crate) enum StoreAnswer {
    Flushed { id: FlushId, result: Result<Position, StoreError>, took: Duration },
    Read { id: QueryId, result: Result<Answer, StoreError> },
    Claimed { id: QueryId, result: Result<ConversationId, StoreError> },
}

/// What the threads of all workers share.
pub(crate) struct Crew {
    /// The start of the steady clock.
    pub(crate) began: Instant,
    /// The router was told to stop.
    pub(crate) draining: AtomicBool,
    /// All inboxes, and what is counted as open.
    pub(crate) mailboxes: Arc<Mailboxes>,
    /// After a drain was asked for, the longest wait for what is open.
    pub(crate) drain_limit: Duration,
}

/// One worker's thread.
pub(crate) struct Driver {
    pub(crate) core: Worker,
    pub(crate) number: u16,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) inbox: Inbox<Letter>,
    pub(crate) answers: Inbox<StoreAnswer>,
    pub(crate) answers_in: Outbox<StoreAnswer>,
    pub(crate) delivery: Delivery,
    pub(crate) consumer: Option<Consumer>,
    pub(crate) observer: Observed,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) state: DriverState,
}

/// What changes from pass to pass.
#[derive(Debug)]
pub(crate) struct DriverState {
    actions: Vec<Action>,
    /// Answers taken out of their queue in this pass.
    taken: Vec<StoreAnswer>,
    /// Workers that were given something in this pass.
    to_wake: Vec<usize>,
    /// Requests of other workers taken in during this pass.
    forwards_taken: usize,
    /// Whether this worker counts as working: until it has seen the drain and has nothing open.
    busy: bool,
    draining_since: Option<Instant>,
    backlog: bool,
    /// Backlog that went so far, and when that was last seen to rise.
    backlog_moved: (u64, Option<Instant>),
}

impl Default for DriverState {
    fn default() -> Self {
        Self {
            actions: Vec::new(),
            taken: Vec::new(),
            to_wake: Vec::new(),
            forwards_taken: 0,
            busy: true, // `Mailboxes::new` counts every worker
            draining_since: None,
            backlog: false,
            backlog_moved: (0, None),
        }
    }
}

impl Driver {
    /// Runs until the router is told to stop and nothing is open.
    pub(crate) fn run(mut self) {
        while !self.is_drained() {
            if !self.pass() {
                self.sleep();
            }
        }
        if self.state.busy {
            self.crew.mailboxes.end_work(1);
        }
        // What came too late to be taken in is refused rather than left without an answer.
        self.crew.mailboxes.leave(usize::from(self.number), self.inbox);
    }

    /// One pass. False if there was nothing to do.
    fn pass(&mut self) -> bool {
        let began = self.read_clock();
        let now = self.moment(began);
        while let Some(answer) = self.answers.pop() {
            self.state.taken.push(answer);
        }
        let waiting = self.inbox.len();
        self.metrics.inbox_depth.set(waiting as u64);
        self.step(now, Event::Status(self.store.status()));
        if self.state.draining_since.is_none() && self.crew.draining.load(Ordering::SeqCst) {
            self.state.draining_since = Some(began);
            self.step(now, Event::Drain);
        }
        let mut steps = 0;
        for _ in 0..waiting {
            let Some(letter) = self.inbox.pop() else { break };
            let event = self.open(letter);
            self.step(now, event);
            steps += 1;
            if steps % STEPS_BETWEEN_ACTIONS == 0 {
                self.act();
            }
        }
        for answer in std::mem::take(&mut self.state.taken) {
            let event = self.hear(answer);
            self.step(now, event);
            steps += 1;
        }
        self.step(now, Event::EndOfPass);
        self.act();
        self.end_pass();
        if steps > 0 {
            self.metrics.pass_time.record(self.read_clock().duration_since(began));
        }
        steps > 0
    }

    fn step(&mut self, now: Moment, event: Event) {
        self.core.step(now, event, &mut self.state.actions);
    }

    fn open(&mut self, letter: Letter) -> Event {
        match letter {
            Letter::Endpoint(message) => {
                if let ToRouter::Request { operation, .. } = &message {
                    self.metrics.requests.increment();
                    if matches!(operation, Operation::Send { .. }) {
                        self.metrics.sends.increment();
                    }
                }
                Event::Endpoint(message)
            }
            Letter::Forwarded(forward) => {
                self.state.forwards_taken += 1;
                Event::Forwarded(forward)
            }
        }
    }

    fn hear(&mut self, answer: StoreAnswer) -> Event {
        match answer {
            StoreAnswer::Flushed { id, result, took } => {
                self.metrics.flush_latency.record(took);
                if let Err(error) = &result {
                    self.metrics.flushes_failed.increment();
                    tracing::warn!(worker = self.number, %error, "a flush failed: its conversations load anew");
                }
                Event::Flushed { id, result }
            }
            StoreAnswer::Read { id, result } => {
                if let Err(error) = &result {
                    tracing::debug!(worker = self.number, %error, "a read failed");
                }
                Event::Answered { id, result }
            }
            StoreAnswer::Claimed { id, result } => Event::Claimed { id, result },
        }
    }

    /// Does what the core said, in its order.
    fn act(&mut self) {
        let mut actions = std::mem::take(&mut self.state.actions);
        if !actions.is_empty() {
            let now = self.read_clock();
            for action in actions.drain(..) {
                self.perform(action, now);
            }
        }
        self.state.actions = actions;
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::Flush { id, flush } => {
                self.metrics.flush_entries.record_value(flush.appends.len() as u64);
                let answers = self.answers_in.clone();
                self.store.flush(
                    flush,
                    Box::new(move |result| {
                        #[expect(clippy::disallowed_methods, reason = "a measurement of the driver")]
                        let took = Instant::now().duration_since(now);
                        give(&answers, StoreAnswer::Flushed { id, result, took });
                    }),
                );
            }
            Action::Query { id, query } => {
                let answers = self.answers_in.clone();
                let done = move |result| give(&answers, StoreAnswer::Read { id, result });
                self.store.read(query, Box::new(done));
            }
            Action::Claim { id, key, proposed } => {
                let answers = self.answers_in.clone();
                let done = move |result| give(&answers, StoreAnswer::Claimed { id, result });
                self.store.claim(key, proposed, Box::new(done));
            }
            Action::Forward { worker, forward } => self.forward(worker, forward, now),
            Action::Reply { caller, outcome } => self.reply(caller, outcome, now),
            Action::FanOut { endpoint, body, notices } => {
                self.metrics.fan_outs.increment();
                self.metrics.notices.add(notices.len() as u64);
                if let Some(observer) = &self.observer {
                    observer.delivered(body.conversation, body.seq);
                }
                self.delivery.send(endpoint, ToEndpoint::FanOut { body, notices });
            }
            Action::Close { connection, code } => {
                self.metrics.closes.increment();
                self.delivery.send(connection.endpoint(), ToEndpoint::Close { connection, code });
            }
            Action::Watermark(position) => {
                self.metrics.watermark.set(position.0);
                self.delivery.send_to_all(&ToEndpoint::Watermark { worker: self.number, position });
            }
            Action::Committed(committed) => {
                self.metrics.committed.increment();
                if let Some(consumer) = &self.consumer {
                    consumer(&committed);
                }
            }
        }
    }

    fn reply(&mut self, caller: Caller, outcome: Result<Outcome, Refusal>, now: Instant) {
        if let (Some(observer), Ok(Outcome::Sent { conversation, seq, .. })) = (&self.observer, &outcome) {
            observer.acknowledged(*conversation, *seq);
        }
        match &outcome {
            Ok(Outcome::Sent { duplicate: false, .. }) => {
                self.metrics.acks.increment();
                let accepted = Duration::from_micros(caller.accepted_microseconds);
                let since = now.duration_since(self.crew.began).saturating_sub(accepted);
                self.metrics.ack_latency.record(since);
            }
            Ok(Outcome::Sent { .. }) => self.metrics.duplicates.increment(),
            Ok(_) => {}
            Err(refusal) => self.metrics.refusals[refusal_index(*refusal)].increment(),
        }
        let Caller { connection, request, .. } = caller;
        self.delivery.send(connection.endpoint(), ToEndpoint::Reply { connection, request, outcome });
    }

    fn forward(&mut self, worker: usize, forward: Box<Forward>, now: Instant) {
        self.metrics.forwards.increment();
        match self.crew.mailboxes.push(worker, Letter::Forwarded(forward)) {
            Ok(()) => {
                if !self.state.to_wake.contains(&worker) {
                    self.state.to_wake.push(worker);
                }
            }
            Err(Letter::Forwarded(forward)) => self.reply(forward.caller, Err(Refusal::Unavailable), now),
            Err(Letter::Endpoint(_)) => unreachable!("a forward comes back as one"),
        }
    }

    fn end_pass(&mut self) {
        self.state.backlog = !self.delivery.end_pass();
        for worker in self.state.to_wake.drain(..) {
            self.crew.mailboxes.wake(worker);
        }
        let drained = self.state.draining_since.is_some() && self.core.is_idle() && !self.backlog_moves();
        let busy = !drained;
        if busy && !self.state.busy {
            self.crew.mailboxes.begin_work();
        } else if !busy && self.state.busy {
            self.crew.mailboxes.end_work(1);
        }
        self.state.busy = busy;
        // After this worker itself: what was taken in and is open counts here by now.
        self.crew.mailboxes.end_work(std::mem::take(&mut self.state.forwards_taken));
        self.metrics.fan_outs_dropped.set(self.delivery.dropped());
        self.metrics.endpoint_wakes.set(self.delivery.wakes());
        self.metrics.conversations.set(self.core.conversations_loaded() as u64);
        self.metrics.keys.set(self.core.keys_loaded() as u64);
        self.metrics.open_requests.set(self.core.requests_open() as u64);
        self.metrics.open_queries.set(self.core.queries_open() as u64);
        self.metrics.users.set(self.core.users_connected() as u64);
    }

    /// In a drain: whether something waits for an endpoint that is still there.
    fn backlog_moves(&mut self) -> bool {
        let now = self.read_clock();
        let moved = self.delivery.moved();
        let (before, since) = self.state.backlog_moved;
        let since = since.filter(|_| moved == before && self.state.backlog).unwrap_or(now);
        self.state.backlog_moved = (moved, Some(since));
        self.state.backlog && now.duration_since(since) < GONE_AFTER
    }

    fn is_drained(&self) -> bool {
        let Some(since) = self.state.draining_since else { return false };
        let over = self.crew.mailboxes.is_drained() && self.inbox.is_empty();
        if !over && self.read_clock().duration_since(since) > self.crew.drain_limit {
            tracing::warn!(worker = self.number, "stops with work open: the store did not answer in time");
            return true;
        }
        over
    }

    fn sleep(&self) {
        let limit = if self.state.backlog { BACKLOG_TICK } else { TICK };
        if self.inbox.prepare_to_sleep() && self.answers.prepare_to_sleep() {
            let (inbox, answers) = (self.inbox.event(), self.answers.event());
            let mut events = [
                PollFd::from_borrowed_fd(inbox.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(answers.as_fd(), PollFlags::IN),
            ];
            let limit = Timespec { tv_sec: 0, tv_nsec: limit.as_nanos() as _ };
            // A signal ends it early, and the next pass finds out what there is.
            let _ = poll(&mut events, Some(&limit));
            for (event, inbox_or_answers) in events.iter().zip([true, false]) {
                if event.revents().contains(PollFlags::IN) {
                    if inbox_or_answers { self.inbox.clear_event() } else { self.answers.clear_event() }
                }
            }
        }
        self.inbox.awake();
        self.answers.awake();
    }

    fn moment(&self, at: Instant) -> Moment {
        #[expect(clippy::disallowed_methods, reason = "the driver is where the wall clock is read")]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let steady = at.duration_since(self.crew.began);
        Moment { wall: Timestamp(wall.as_millis() as u64), steady_microseconds: steady.as_micros() as u64 }
    }

    fn read_clock(&self) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
        Instant::now()
    }
}

/// Puts an answer in its queue, which has room for all that may be open.
fn give(answers: &Outbox<StoreAnswer>, answer: StoreAnswer) {
    if let Err(answer) = answers.send(answer) {
        tracing::error!(?answer, "the store answered more than it was asked: the answer is dropped");
    }
}
