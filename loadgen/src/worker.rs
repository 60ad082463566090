//! One thread of virtual devices on monoio: it follows the schedule, ticks its devices, opens their sockets
//! and reports how far they are.
//!
//! `run.rs` and `idle.rs` start workers and lead them through the stages; a worker never waits for another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ringway_protocol::client::Encoding;
use ringway_protocol::ids::ConversationId;

use crate::alarm::Alarm;
use crate::clock::{self, MILLISECOND, SECOND};
use crate::device::{Afterwards, Context, Device, Figures, Habits};
use crate::history::Recorder;
use crate::link::{Seat, carry};
use crate::logins::Login;
use crate::schedule::{Arrival, Schedule};
use crate::target::Target;

/// How often devices look at the clock. Retries, heartbeats and time-outs are this late at most.
const TICK: u64 = 20 * MILLISECOND;

/// How often figures and events are handed over.
const HAND_OVER: u64 = 200 * MILLISECOND;

/// Entries of the thread's ring: reads that are pending take none.
const RING_ENTRIES: u32 = 4096;

/// Longest absence of a device that left on purpose.
const ABSENCE_MAX: u64 = 3 * SECOND;

/// What the workers are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Devices connect and catch up.
    Connect,
    /// The schedule runs.
    Load,
    /// Nothing new is sent, and devices stay; what is open is to end.
    Drain,
    /// New devices of some users start from nothing.
    Cold,
    /// All say that they have everything, and leave.
    Leave,
}

/// What there is to have after the run: by conversation, its last place and its members.
pub type Expected = HashMap<ConversationId, (u64, HashSet<Arc<str>>)>;

/// What all workers are told.
pub struct Orders {
    stage: AtomicU8,
    load: Mutex<Load>,
    expected: Mutex<Arc<Expected>>,
    connections: AtomicU64,
}

/// When the schedule runs, and which of its sends count.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Sends are intended within these times.
    pub times: Range<u64>,
    /// Only sends intended within these times count for latencies.
    pub measured: Range<u64>,
}

/// What one worker says.
#[derive(Default)]
pub struct Status {
    /// Devices that are welcome.
    pub open: AtomicU64,
    /// Sends that have not ended.
    pub open_sends: AtomicU64,
    /// Devices that lack something, or are not welcome.
    pub lacking: AtomicU64,
    /// The stage that the others are of.
    stage: AtomicU8,
    figures: Mutex<Figures>,
}

/// A worker's share of the load.
#[derive(Clone)]
pub struct Share {
    /// The server.
    pub target: Target,
    /// Its users, each with the conversations they are in.
    pub users: Vec<(Login, Vec<ConversationId>)>,
    /// The subprotocols, given to the users in turn.
    pub encodings: Vec<Encoding>,
    /// Sends a second, of all its users.
    pub rate: f64,
    /// How they are spread.
    pub arrival: Arrival,
    /// Connections that leave and come back, a second.
    pub churn: f64,
    /// Connections that it opens, a second.
    pub connect_rate: f64,
    /// Users of whom a new device starts from nothing in the end.
    pub cold: usize,
    /// How sends are made.
    pub habits: Habits,
    /// For everything random.
    pub seed: u64,
    /// Bytes of a read.
    pub read_bytes: usize,
}

impl Default for Orders {
    fn default() -> Self {
        // Sockets of several load clients in one history are told apart by the process.
        let first = u64::from(std::process::id()) << 32;
        Self {
            stage: AtomicU8::new(Stage::Connect as u8),
            load: Mutex::default(),
            expected: Mutex::default(),
            connections: AtomicU64::new(first),
        }
    }
}

impl Orders {
    /// Numbers a socket, or a read of history: unique on this host.
    pub fn next_number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// The schedule is to run.
    pub fn load(&self, load: Load) {
        *lock(&self.load) = load;
        self.enter(Stage::Load);
    }

    /// From now on a device lacks what it has not of this.
    pub fn expect(&self, expected: Expected) {
        *lock(&self.expected) = Arc::new(expected);
    }

    /// Tells all workers to go on to a stage.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    fn stage(&self) -> Stage {
        const STAGES: [Stage; 5] = [Stage::Connect, Stage::Load, Stage::Drain, Stage::Cold, Stage::Leave];
        STAGES[usize::from(self.stage.load(Ordering::Acquire))]
    }
}

impl Status {
    /// Takes the figures that were collected since the last call.
    pub fn take_figures(&self) -> Figures {
        std::mem::take(&mut *lock(&self.figures))
    }

    /// Whether the worker has looked at its devices since it entered this stage.
    pub fn has_entered(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) >= stage as u8
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a worker on this thread until its devices have left.
///
/// # Errors
/// The kernel gives no ring or no timer.
pub fn run(share: Share, recorder: Recorder, orders: &Orders, status: &Status) -> io::Result<()> {
    let mut runtime =
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(RING_ENTRIES).build()?;
    runtime.block_on(async {
        let mut worker = Worker::new(share, recorder, orders, status)?;
        worker.run().await
    })
}

struct Worker<'a> {
    share: Share,
    orders: &'a Orders,
    status: &'a Status,
    context: Rc<RefCell<Context>>,
    seats: Vec<Rc<Seat>>,
    alarm: Alarm,
    stage: Stage,
    schedule: Option<Schedule>,
    next_tick: u64,
    next_hand_over: u64,
    /// Connections that may be opened, in fractions.
    credit: f64,
}

impl<'a> Worker<'a> {
    fn new(share: Share, recorder: Recorder, orders: &'a Orders, status: &'a Status) -> io::Result<Self> {
        let now = clock::now();
        let context = Context {
            recorder,
            dice: fastrand::Rng::with_seed(share.seed),
            figures: Figures::default(),
            habits: share.habits,
            measured: 0..0,
            scratch: Vec::new(),
            promises: HashMap::new(),
        };
        let seats = share.users.iter().zip(share.encodings.iter().cycle()).map(|(user, encoding)| {
            let (login, conversations) = user;
            let name = device_name(&login.user).into();
            Rc::new(Seat::new(Device::new(login.clone(), name, *encoding, now, conversations)))
        });
        Ok(Self {
            seats: seats.collect(),
            context: Rc::new(RefCell::new(context)),
            alarm: Alarm::new()?,
            stage: Stage::Connect,
            schedule: None,
            next_tick: now,
            next_hand_over: now,
            credit: 1.0,
            share,
            orders,
            status,
        })
    }

    async fn run(&mut self) -> io::Result<()> {
        loop {
            let now = clock::now();
            while let Some(due) = self.schedule.as_mut().and_then(|schedule| schedule.take_due(now)) {
                let seat = &self.seats[self.present_sender(due.sender)];
                seat.device.borrow_mut().send(&mut self.context.borrow_mut(), now, due.intended);
                seat.flush();
            }
            if now >= self.next_tick {
                self.tick(now);
                self.next_tick = now + TICK;
                if self.stage == Stage::Leave && self.all_gone() {
                    self.hand_over();
                    return Ok(());
                }
            }
            let next_send = self.schedule.as_ref().and_then(Schedule::next_time);
            self.alarm.sleep_until(next_send.map_or(self.next_tick, |time| time.min(self.next_tick))).await?;
        }
    }

    /// The sender, or the next one that has not left by its own wish. One whom the server has lost stays
    /// the sender: its wait is the server's latency.
    fn present_sender(&self, sender: usize) -> usize {
        let users = self.share.users.len();
        let mut turn = (sender..users).chain(0..sender);
        turn.find(|number| !self.seats[*number].device.borrow().is_absent()).unwrap_or(sender)
    }

    fn all_gone(&self) -> bool {
        self.seats.iter().all(|seat| seat.device.borrow().is_gone())
    }

    fn tick(&mut self, now: u64) {
        let stage = self.orders.stage();
        if stage != self.stage {
            self.stage = stage;
            self.enter(stage, now);
        }
        if stage == Stage::Load {
            self.churn(now);
        }
        for seat in &self.seats {
            let alive = seat.device.borrow_mut().tick(&mut self.context.borrow_mut(), now);
            if alive {
                seat.flush();
            } else {
                seat.cut();
            }
        }
        self.connect(now);
        self.report(stage);
        if now >= self.next_hand_over {
            self.next_hand_over = now + HAND_OVER;
            self.hand_over();
        }
    }

    fn enter(&mut self, stage: Stage, now: u64) {
        match stage {
            Stage::Load => {
                let Load { times, measured } = lock(&self.orders.load).clone();
                self.context.borrow_mut().measured = measured;
                let Share { seed, arrival, rate, .. } = self.share;
                let users = self.share.users.len();
                self.schedule =
                    Some(Schedule::new(seed ^ 0x5c4e_d01e, arrival, rate, times.start, times.end, users));
            }
            Stage::Cold => self.add_cold_devices(now),
            Stage::Leave => {
                let context = &mut self.context.borrow_mut();
                for seat in &self.seats {
                    let mut device = seat.device.borrow_mut();
                    device.record_end(context);
                    device.leave(context, now, Afterwards::Stay);
                    drop(device);
                    seat.flush();
                }
            }
            Stage::Connect | Stage::Drain => {}
        }
    }

    fn add_cold_devices(&mut self, now: u64) {
        let users = self.share.users.len();
        let step = users.div_ceil(self.share.cold.max(1)).max(1);
        for number in (0..users).step_by(step).take(self.share.cold) {
            let warm = self.seats[number].device.borrow();
            let login = warm.login().clone();
            let conversations: Vec<ConversationId> = warm.conversations().collect();
            drop(warm);
            let name = format!("{}-new", login.user).into();
            let encoding = self.share.encodings[number % self.share.encodings.len()];
            let device = Device::new(login, name, encoding, now, &conversations);
            self.seats.push(Rc::new(Seat::new(device)));
        }
    }

    /// Some devices leave, politely or not, and come back.
    fn churn(&mut self, now: u64) {
        let mut expected = self.share.churn * TICK as f64 / SECOND as f64;
        while !self.share.users.is_empty() && self.context.borrow_mut().dice.f64() < expected {
            expected -= 1.0;
            self.send_away(now);
        }
    }

    fn send_away(&self, now: u64) {
        let context = &mut self.context.borrow_mut();
        let seat = &self.seats[context.dice.usize(0..self.share.users.len())];
        let mut device = seat.device.borrow_mut();
        // In the measured phase nobody leaves in the middle of a send: the wait would be the user's own.
        if !device.is_open() || (context.measured.contains(&now) && device.open_sends() > 0) {
            return;
        }
        let absence = context.dice.u64(0..ABSENCE_MAX);
        if context.dice.bool() {
            device.leave(context, now, Afterwards::Return(absence));
            drop(device);
            seat.flush();
        } else {
            device.will_return_after(absence);
            drop(device);
            seat.cut();
        }
    }

    fn connect(&mut self, now: u64) {
        let a_tick = self.share.connect_rate * TICK as f64 / SECOND as f64;
        self.credit = (self.credit + a_tick).min(a_tick.max(1.0));
        for seat in &self.seats {
            if self.credit < 1.0 {
                return;
            }
            if !seat.device.borrow().wants_socket(now) {
                continue;
            }
            self.credit -= 1.0;
            seat.device.borrow_mut().begin(now, self.orders.next_number());
            let (seat, context) = (Rc::clone(seat), Rc::clone(&self.context));
            monoio::spawn(carry(seat, context, self.share.target.clone(), self.share.read_bytes));
        }
    }

    fn report(&self, stage: Stage) {
        let expected = Arc::clone(&lock(&self.orders.expected));
        let (mut open, mut open_sends, mut lacking) = (0, 0, 0);
        for seat in &self.seats {
            let device = seat.device.borrow();
            let last = |conversation: ConversationId| match expected.get(&conversation) {
                Some((last, members)) if members.contains(&device.login().user) => *last,
                _ => 0,
            };
            open += u64::from(device.is_open());
            open_sends += device.open_sends() as u64;
            lacking += u64::from(!device.has_everything(&last));
        }
        self.status.open.store(open, Ordering::Relaxed);
        self.status.open_sends.store(open_sends, Ordering::Relaxed);
        self.status.lacking.store(lacking, Ordering::Relaxed);
        self.status.stage.store(stage as u8, Ordering::Release);
    }

    fn hand_over(&mut self) {
        let context = &mut self.context.borrow_mut();
        context.recorder.flush();
        lock(&self.status.figures).merge(&context.figures);
        context.figures.clear();
    }
}

/// The name of a user's device that lives through the run.
pub fn device_name(user: &str) -> String {
    format!("{user}-main")
}
