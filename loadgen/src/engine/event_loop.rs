//! The loop of a worker: the schedule, the timers, the sockets that are ready, one after the other.
//!
//! A pass begins what the schedule wants, looks at the clients whose time has come, sends what they all
//! have to say, and then waits for sockets or for the next time. Each part is bounded, so that none starves
//! the others; what the schedule wanted and had to wait for another part is counted as late.
//!
//! Clients that are not welcome yet are in a second epoll, the doorway, which is itself one event of the
//! first: a TLS handshake costs as much as a hundred messages, and a storm of them must not be measured as
//! a slow server by those who stayed.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{ClockId, clock_gettime};

use super::allowance::Allowance;
use super::seat::{Received, Route, Seat};
use super::sources::Sources;
use super::stage_run::{Part, StageRun};
use super::tally::Tally;
use super::timers::Timers;
use super::{Order, Report, Setup};
use crate::clock::{self, MILLISECOND, SECOND};
use crate::device::{Context, Device, Figures, Habits, Promise};
use crate::report::results::LATE_MICROSECONDS;
use crate::scenario::Scenario;
use crate::worker::device_name;

/// How often orders, slow readers and churn are looked at, and the timers of clients: hearts beat together
/// with those of the same 20 ms, as half a million that each wake the process by itself cost a core.
pub(super) const TICK: u64 = 20 * MILLISECOND;

/// How often it is looked whether a stage has settled: a look at every client that talks.
const LOOK: u64 = 100 * MILLISECOND;

/// The buffer that all reads go through: four TLS records of the longest kind.
const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that one socket may bring in a pass.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Sockets that are looked at in a pass.
const EVENTS_MAX: usize = 256;

/// Sockets of the doorway that are looked at in a pass: a handshake takes some 100 us.
const ARRIVING_EVENTS_MAX: usize = 8;

/// The doorway among the events of the first epoll.
pub(super) const DOORWAY: u64 = u64::MAX;

/// Sends and timers that a pass looks at, each: some 10 us each.
const BEGUN_A_PASS_MAX: usize = 64;

/// Sockets that a pass opens, or cuts: with the first step of a handshake some 100 us each.
pub(super) const SOCKETS_A_PASS_MAX: usize = 8;

/// A worker that in a second had nothing to do for less than this part of it had no room for what it dropped.
const WAITED_SHARE_MIN: f64 = 0.05;

/// Sends that were not begun so long after the end of their stage never are.
const OVERDUE_MAX: u64 = SECOND;

/// Why an engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// epoll, which needs a descriptor and works.
    #[error("waiting for sockets failed: {0}")]
    Wait(#[from] io::Error),
    /// Whoever gives orders is gone.
    #[error("nobody gives orders any more")]
    Alone,
}

/// A worker's clients.
pub(crate) struct Engine {
    pub(super) scenario: Scenario,
    pub(super) part: Part,
    pub(super) route: Route,
    pub(super) sources: Sources,
    pub(super) seats: Vec<Seat>,
    pub(super) context: Context,
    pub(super) timers: Timers,
    /// Since the last tick, not all clients whose time had come were looked at.
    pub(super) timers_are_due: bool,
    pub(super) epoll: OwnedFd,
    /// Of the clients that are not welcome yet.
    pub(super) doorway: OwnedFd,
    /// For opening connections.
    pub(super) allowance: Allowance,
    /// The allowance is used up, and the kernel does not tell of the doorway.
    pub(super) doorway_is_shut: bool,
    pub(super) buffer: Vec<u8>,
    pub(super) wire: Vec<u8>,
    /// Clients that want a socket.
    pub(super) waiting: VecDeque<u32>,
    /// Clients that may have something to say.
    pub(super) talkative: Vec<u32>,
    pub(super) stage: Option<StageRun>,
    /// What was counted since it was last added to the two below.
    pub(super) tally: Tally,
    pub(super) second_tally: Tally,
    /// Since the end of the last stage: nothing falls between two.
    pub(super) stage_tally: Tally,
    /// What was lost in earlier stages, and is not lost again.
    pub(super) lost_before: u64,
    /// Clients that are welcome.
    pub(super) open: u64,
    /// Clients whose connection is being made.
    pub(super) arriving: u64,
    pub(super) next_connection: u64,
    /// When the run began, by this machine's clock; before that, no second is told of.
    pub(super) start: Option<u64>,
    pub(super) second: usize,
    pub(super) processor_time: u64,
    /// Nanoseconds for which nothing was to do, of those since the last second was handed over.
    pub(super) waited: u64,
    pub(super) handed_over: u64,
    pub(super) next_tick: u64,
    pub(super) next_look: u64,
    pub(super) leaving_since: Option<u64>,
    pub(super) reports: Sender<Report>,
}

impl Engine {
    /// Makes the clients; they do nothing before the first order.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new(setup: Setup, reports: Sender<Report>) -> Result<Self, EngineError> {
        let Setup { scenario, worker, target, tls, logins, conversations, recipients, run, recorder } = setup;
        let clients = logins.len();
        let first = crate::scenario::share_of(scenario.population.clients, worker.0, worker.1).start;
        let seed = scenario.seed.wrapping_add((worker.0 as u64).wrapping_mul(0x9e37_79b9));
        let part = Part {
            worker,
            clients,
            chatters: conversations.len(),
            share: clients as f64 / scenario.population.clients.max(1) as f64,
            seed,
            arrival: scenario.messages.arrival,
        };
        let context = Context {
            recorder,
            dice: fastrand::Rng::with_seed(seed),
            figures: Figures::default(),
            habits: Habits {
                payload_bytes: scenario.messages.bytes as usize,
                repeat: 0.0,
                run,
                window: scenario.messages.window,
                open_sends_max: scenario.messages.open_max as usize,
                greeting_max: u64::from(scenario.connections.patience_s) * SECOND,
            },
            // A body that is none of ours says 0.
            measured: 1..u64::MAX,
            scratch: Vec::new(),
            promises: recipients
                .into_iter()
                .map(|(conversation, recipients)| (conversation, Promise { recipients, last: 0 }))
                .collect::<HashMap<_, _>>(),
        };
        let encodings = scenario.subprotocol.encodings();
        let seats = logins.into_iter().enumerate().map(|(number, login)| {
            let name = device_name(&login.user).into();
            let encoding = encodings[number % encodings.len()];
            let its = conversations.get(number).map_or(&[][..], Vec::as_slice);
            Seat::new(Device::new(login, name, encoding, 0, its))
        });
        let connections = &scenario.connections;
        let now = clock::now();
        let new = || epoll::create(CreateFlags::CLOEXEC);
        let (epoll, doorway) = (new().map_err(io::Error::from)?, new().map_err(io::Error::from)?);
        let data = EventData::new_u64(DOORWAY);
        epoll::add(&epoll, &doorway, data, EventFlags::IN).map_err(io::Error::from)?;
        Ok(Self {
            sources: Sources::new(
                &connections.sources,
                target.address,
                connections.per_source as usize,
                first,
            ),
            seats: seats.collect(),
            route: Route { address: target.address, authority: target.authority, path: target.path, tls },
            part,
            context,
            timers: Timers::default(),
            timers_are_due: false,
            epoll,
            doorway,
            allowance: Allowance::new(scenario.connections.opening_cores / worker.1 as f64, now),
            doorway_is_shut: false,
            buffer: vec![0; BUFFER_BYTES],
            wire: Vec::new(),
            waiting: VecDeque::new(),
            talkative: Vec::new(),
            stage: None,
            tally: Tally::default(),
            second_tally: Tally::default(),
            stage_tally: Tally::default(),
            lost_before: 0,
            open: 0,
            arriving: 0,
            next_connection: u64::from(std::process::id()) << 32,
            start: None,
            second: 0,
            processor_time: processor_time(),
            waited: 0,
            handed_over: now,
            next_tick: now,
            next_look: now,
            leaving_since: None,
            reports,
            scenario,
        })
    }

    /// Runs until the order to leave is carried out.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn run(&mut self, orders: &Receiver<Order>) -> Result<(), EngineError> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        let mut arriving: Vec<Event> = Vec::with_capacity(ARRIVING_EVENTS_MAX);
        loop {
            let now = clock::now();
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.take_orders(orders, now)?;
                self.tick(now);
                self.timers_are_due = true;
                self.allowance.grow(now);
                self.shut_doorway(!self.allowance.is_left())?;
                if self.has_left(now) {
                    self.hand_over();
                    return self.tell(Report::Left);
                }
            }
            self.spending(Self::begin_connections)?;
            self.cut_some(SOCKETS_A_PASS_MAX);
            self.begin_sends();
            if self.timers_are_due {
                self.expire_timers();
            }
            self.flush_all();
            let timeout = self.time_to_wait();
            let before = clock::now();
            wait(&self.epoll, &mut events, timeout)?;
            // Waits are longer than asked for by what the kernel's timers and other threads take: that is not leisure.
            self.waited += (clock::now() - before).min(nanoseconds(timeout));
            let mut somebody_arrives = false;
            for event in &events {
                let (flags, data) = (event.flags, event.data);
                match data.u64() {
                    DOORWAY => somebody_arrives = true,
                    number => self.on_ready(number as usize, flags),
                }
            }
            if somebody_arrives {
                wait(&self.doorway, &mut arriving, Timespec { tv_sec: 0, tv_nsec: 0 })?;
                self.spending(|engine| {
                    for event in &arriving {
                        let (flags, data) = (event.flags, event.data);
                        engine.on_ready(data.u64() as usize, flags);
                    }
                })?;
            }
        }
    }

    fn time_to_wait(&self) -> Timespec {
        let may_open = self.allowance.is_left() && !self.waiting.is_empty();
        if self.timers_are_due || may_open || self.stage.as_ref().is_some_and(StageRun::has_to_cut) {
            return Timespec { tv_sec: 0, tv_nsec: 0 };
        }
        let mut next = self.next_tick;
        if let Some(stage) = &self.stage {
            next = next.min(stage.schedule.next_time().unwrap_or(u64::MAX));
            if self.allowance.is_left() {
                next = next.min(stage.next_connect(self.seats.len()).unwrap_or(u64::MAX));
            }
        }
        let wait = next.saturating_sub(clock::now());
        Timespec { tv_sec: (wait / SECOND) as i64, tv_nsec: (wait % SECOND) as i64 }
    }

    // What happens in a pass.

    fn begin_sends(&mut self) {
        for _ in 0..BEGUN_A_PASS_MAX {
            let now = clock::now();
            let Some(stage) = &mut self.stage else { return };
            let is_overdue = now > stage.end + OVERDUE_MAX;
            let Some(due) = stage.schedule.take_due(now) else { return };
            self.tally.intended += 1;
            let lateness = now - due.intended;
            self.tally.lateness.record(lateness);
            self.tally.late += u64::from(lateness > LATE_MICROSECONDS * 1_000);
            if is_overdue {
                self.tally.overdue += 1;
                continue;
            }
            let sender = self.present_sender(due.sender);
            self.seats[sender].device.send(&mut self.context, now, due.intended);
            self.settle(sender, now);
        }
    }

    /// The sender, or the next one that has not left by its own wish and reads its acks. One whom the server
    /// has lost stays the sender: its wait is the server's latency.
    fn present_sender(&self, sender: usize) -> usize {
        let mut turn = (sender..self.part.chatters).chain(0..sender);
        let can_send = |number: &usize| {
            let seat = &self.seats[*number];
            !seat.is_slow && !seat.is_returning && !seat.device.is_absent()
        };
        turn.find(can_send).unwrap_or(sender)
    }

    fn expire_timers(&mut self) {
        for _ in 0..BEGUN_A_PASS_MAX {
            let now = clock::now();
            let Some((time, number)) = self.timers.take_due(now) else {
                self.timers_are_due = false;
                return;
            };
            let number = number as usize;
            if self.seats[number].timer != time {
                continue;
            }
            self.seats[number].timer = u64::MAX;
            if !self.seats[number].device.tick(&mut self.context, now) {
                self.end(number, now);
            } else if self.seats[number].device.wants_socket(now) {
                self.waiting.push_back(number as u32);
            } else {
                self.settle(number, now);
            }
        }
    }

    fn on_ready(&mut self, number: usize, flags: EventFlags) {
        let now = clock::now();
        let Some(seat) = self.seats.get_mut(number) else { return };
        let is_over = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if flags.contains(EventFlags::OUT) || is_over {
            if seat.connected(&self.route, now).is_err() {
                return self.end(number, now);
            }
            self.talkative.push(number as u32);
        }
        if seat.is_slow {
            // It reads at its own pace, but a socket that is over would be ready for ever.
            if is_over {
                self.end(number, now);
            }
            return;
        }
        if flags.contains(EventFlags::IN) || is_over {
            let mut most = READ_BYTES_MAX;
            self.receive(number, now, &mut most);
        }
    }

    pub(super) fn receive(&mut self, number: usize, now: u64, most: &mut usize) {
        let seat = &mut self.seats[number];
        match seat.receive(&mut self.context, &self.route, now, &mut self.buffer, most) {
            Received::Over => return self.end(number, now),
            Received::HandsShaken => self.tally.handshake.record(now.saturating_sub(seat.began)),
            Received::GoesOn => {}
        }
        self.settle(number, now);
    }

    fn flush_all(&mut self) {
        let now = clock::now();
        let mut talkative = std::mem::take(&mut self.talkative);
        for number in talkative.drain(..) {
            self.flush(number as usize, now);
        }
        talkative.append(&mut self.talkative);
        self.talkative = talkative;
    }

    pub(super) fn flush(&mut self, number: usize, now: u64) {
        let seat = &mut self.seats[number];
        if seat.has_output() && seat.flush(&mut self.wire).is_err() {
            return self.end(number, now);
        }
        let Some(socket) = &mut seat.socket else { return };
        if socket.wants_to_write() != socket.waits_to_write {
            socket.waits_to_write = socket.wants_to_write();
            self.watch(number, now);
        }
    }

    /// Tells the kernel what is wanted of a client's socket.
    pub(super) fn watch(&mut self, number: usize, now: u64) {
        let seat = &self.seats[number];
        let Some(socket) = &seat.socket else { return };
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !seat.is_slow);
        flags.set(EventFlags::OUT, socket.waits_to_write);
        let epoll = if socket.is_in_doorway { &self.doorway } else { &self.epoll };
        if epoll::modify(epoll, &socket.stream, EventData::new_u64(number as u64), flags).is_err() {
            self.end(number, now);
        }
    }

    // What happens to a client.

    /// A client's socket is over.
    pub(super) fn end(&mut self, number: usize, now: u64) {
        let seat = &mut self.seats[number];
        // The kernel forgets a descriptor that is closed. The next socket reads as it should.
        seat.socket = None;
        seat.is_slow = false;
        seat.device.ended(&mut self.context, now);
        if !seat.is_arriving {
            self.tally.ended += 1;
            // Who left by its own wish wants back when it comes back, others from now on.
            seat.wanted = if seat.device.is_absent() { 0 } else { now };
        }
        self.settle(number, now);
    }

    /// After anything happened to a client: counts what it came to, sets its timer, has it heard.
    pub(super) fn settle(&mut self, number: usize, now: u64) {
        let seat = &mut self.seats[number];
        if seat.device.is_open() != seat.is_open {
            seat.is_open = !seat.is_open;
            self.open = if seat.is_open { self.open + 1 } else { self.open - 1 };
        }
        if seat.is_arriving && seat.device.has_arrived() {
            if let Some(socket) = &mut seat.socket {
                socket.is_in_doorway = false;
                let flags =
                    if socket.waits_to_write { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
                let data = EventData::new_u64(number as u64);
                let moved = epoll::delete(&self.doorway, &socket.stream)
                    .and_then(|()| epoll::add(&self.epoll, &socket.stream, data, flags));
                if moved.is_err() {
                    // The kernel has no memory for it: as if the socket had failed.
                    return self.end(number, now);
                }
            }
            seat.is_arriving = false;
            seat.device.set_arriving(false);
            self.arriving -= 1;
            self.tally.connect.record(seat.wanted, seat.began, now);
            self.tally.connected += 1;
            self.tally.reconnects += u64::from(seat.has_arrived);
            (seat.has_arrived, seat.is_returning, seat.wanted) = (true, false, 0);
        }
        if seat.has_output() {
            self.talkative.push(number as u32);
        }
        let next = seat.device.next_tick(&self.context, now, TICK);
        if next < seat.timer {
            seat.timer = next;
            self.timers.add(next, number as u32);
        }
    }

    fn tick(&mut self, now: u64) {
        let second = self.start.map_or(0, |start| (now.saturating_sub(start) / SECOND) as usize);
        if second > self.second {
            self.hand_over();
            self.second = second;
        }
        self.read_slowly(now);
        self.churn(now);
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.look_at_stage(now);
        }
    }

    /// Adds what was counted to the second and to the stage.
    pub(super) fn collect(&mut self) {
        let mut tally = std::mem::take(&mut self.tally);
        tally.figures = std::mem::take(&mut self.context.figures);
        self.stage_tally.merge(&tally);
        self.second_tally.merge(&tally);
    }

    /// A second is over.
    fn hand_over(&mut self) {
        self.collect();
        self.context.recorder.flush();
        let processor_time = processor_time();
        let busy = (processor_time - self.processor_time) as f64 / SECOND as f64 * 100.0;
        self.processor_time = processor_time;
        let now = clock::now();
        if (self.waited as f64) < (now - self.handed_over) as f64 * WAITED_SHARE_MIN {
            let starved = self.second_tally.given_up();
            self.second_tally.starved += starved;
            self.stage_tally.starved += starved;
        }
        (self.waited, self.handed_over) = (0, now);
        let tally = Box::new(std::mem::take(&mut self.second_tally));
        let _ = self.tell(Report::Second { number: self.second, tally, open: self.open, busy });
    }

    pub(super) fn tell(&self, report: Report) -> Result<(), EngineError> {
        self.reports.send(report).map_err(|_| EngineError::Alone)
    }
}

fn wait(epoll: &OwnedFd, events: &mut Vec<Event>, timeout: Timespec) -> Result<(), EngineError> {
    events.clear();
    match epoll::wait(epoll, spare_capacity(events), Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(EngineError::Wait(error.into())),
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

/// What this thread has used, in nanoseconds.
pub(super) fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}
