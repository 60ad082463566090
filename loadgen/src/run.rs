//! A whole load run: conversations are made, devices connect, the schedule runs, all that is open ends,
//! every conversation is read, new devices catch up from nothing, and the checker reads the history.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use ringway_protocol::client::Encoding;
use ringway_protocol::ids::ConversationId;

use crate::checker::{self, Verdict};
use crate::clock::{self, SECOND};
use crate::crew::{Crew, SideCounts, arrange};
use crate::descriptors::{TooFewDescriptors, make_room};
use crate::device::{Figures, Habits};
use crate::history::{HistoryError, HistoryWriter, Recorder};
use crate::http::ApiError;
use crate::latency::{Interval, describe, percentiles, write_log};
use crate::logins::{Login, LoginError};
use crate::schedule::Arrival;
use crate::server_process::{ProcessError, Reading, read};
use crate::target::Target;
use crate::worker::{self, Load, Orders, Share, Stage, Status};

/// Between two looks at the workers.
const LOOK: Duration = Duration::from_millis(20);

/// From the last send to the end of all sends, at most (I17: unknown outcomes resolve in 30 seconds).
const DRAIN_MAX: Duration = Duration::from_secs(40);

/// From the full read to the moment when every device has everything, at most.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// Bytes of a read: several frames, and a TLS record of the usual size.
const READ_BYTES: usize = 16 * 1024;

/// Everything that a run can be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub target: Target,
    /// The virtual users.
    pub logins: Vec<Login>,
    /// Of all users, how many are in groups.
    pub group_fraction: f64,
    /// Members of a group.
    pub group_size: usize,
    /// Sends a second, of all users.
    pub rate: f64,
    /// How they are spread.
    pub arrival: Arrival,
    /// The measured phase.
    pub duration: Duration,
    /// Load before it that is not measured.
    pub warm_up: Duration,
    /// Bytes of a body.
    pub payload_bytes: usize,
    /// The subprotocols, given to the users in turn.
    pub encodings: Vec<Encoding>,
    /// Threads of devices.
    pub threads: usize,
    /// For everything random.
    pub seed: u64,
    /// Connections that leave and come back, a second.
    pub churn: f64,
    /// Connections opened, a second.
    pub connect_rate: f64,
    /// Reads of history, a second.
    pub history_reads: f64,
    /// Joins and leaves, a second.
    pub member_changes: f64,
    /// Of all sends, how many are followed by a deliberate repeat.
    pub repeats: f64,
    /// New devices that start from nothing in the end.
    pub cold_devices: usize,
    /// The history's file; none, and nothing is recorded or checked.
    pub history: Option<PathBuf>,
    /// Whether the checker reads it in the end.
    pub check: bool,
    /// More histories that belong to it: other load clients', the server's trace.
    pub other_histories: Vec<PathBuf>,
    /// The latencies' file.
    pub latency_log: Option<PathBuf>,
    /// The server's process, to measure it.
    pub server_process: Option<u32>,
}

/// Why a run gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There are no logins.
    #[error(transparent)]
    Logins(#[from] LoginError),
    /// Too many sockets.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The server's process can't be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A conversation could not be made or read.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The history can't be read back.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A file can't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread of devices could not go on.
    #[error(
        "a thread of devices ended: {0}. They need io_uring: is it allowed here \
         (kernel.io_uring_disabled, seccomp)?"
    )]
    Worker(io::Error),
    /// The devices did not come in.
    #[error(
        "only {open} of {wanted} devices were welcome after {seconds} s: is the server there, and do \
             its limits allow so many (limits.connections_per_address)?"
    )]
    NotWelcome {
        /// Devices that were.
        open: u64,
        /// Devices wanted.
        wanted: u64,
        /// How long was waited.
        seconds: u64,
    },
}

/// What a run showed.
pub struct Outcome {
    /// Counts and latencies of the whole run.
    pub figures: Figures,
    /// Live deliveries within the measured phase.
    pub measured_deliveries: u64,
    /// The measured phase.
    pub measured: Duration,
    /// Sends that had no end.
    pub unended: u64,
    /// Devices that lacked something in the end.
    pub lacking: u64,
    /// Conversations of the run.
    pub conversations: usize,
    /// What the HTTP side did.
    pub side: SideCounts,
    /// The server at the start and the end of the measured phase.
    pub server: Option<(Reading, Reading)>,
    /// What the checker found.
    pub verdict: Option<Verdict>,
}

impl Outcome {
    /// Whether no promise was broken: the checker's verdict, and that all ended and could be read.
    pub fn passed(&self) -> bool {
        self.verdict.as_ref().is_none_or(Verdict::passed)
            && self.unended == 0
            && self.lacking == 0
            && self.figures.counts.unreadable == 0
    }

    /// The server's processor time for each live delivery of the measured phase, in microseconds.
    pub fn server_microseconds_a_delivery(&self) -> Option<f64> {
        let (begin, end) = self.server?;
        let cpu = end.cpu_microseconds.saturating_sub(begin.cpu_microseconds);
        (self.measured_deliveries > 0).then(|| cpu as f64 / self.measured_deliveries as f64)
    }

    /// Everything, for machines.
    pub fn to_json(&self) -> serde_json::Value {
        let server = self.server.map(|(begin, end)| {
            serde_json::json!({
                "cpu_us": end.cpu_microseconds.saturating_sub(begin.cpu_microseconds),
                "cpu_us_a_delivery": self.server_microseconds_a_delivery(),
                "utilisation": end.cpu_microseconds.saturating_sub(begin.cpu_microseconds) as f64
                    / self.measured.as_micros().max(1) as f64,
                "resident_bytes": end.resident_bytes,
                "resident_growth_bytes": end.resident_bytes as i64 - begin.resident_bytes as i64,
            })
        });
        serde_json::json!({
            "passed": self.passed(),
            "measured_seconds": self.measured.as_secs_f64(),
            "conversations": self.conversations,
            "counts": self.figures.counts,
            "deliveries": self.measured_deliveries,
            "deliveries_a_second": self.measured_deliveries as f64 / self.measured.as_secs_f64().max(1e-9),
            "ack": percentiles(&self.figures.latencies.ack.response),
            "delivery": percentiles(&self.figures.latencies.delivery.response),
            "http": self.side,
            "unended_sends": self.unended,
            "lacking_devices": self.lacking,
            "server": server,
            "check": self.verdict.as_ref().map(Verdict::to_json),
        })
    }

    /// Everything, for people.
    pub fn describe(&self) -> String {
        let counts = &self.figures.counts;
        let mut text = format!(
            "scheduled {}  attempts {}  acks {} ({} duplicate)  refused {}  unknown {}\n\
             live {}  caught up {}  duplicates {}  welcomes {}  drops {}  gaps {}  errors {}  unreadable {}\n\
             history reads {}  member changes {}  repeated calls {}\n\
             ack       {}\ndelivery  {}\n\
             {:.0} deliveries a second, latencies from the intended send times\n",
            counts.scheduled,
            counts.attempts,
            counts.acks,
            counts.duplicate_acks,
            counts.refusals,
            counts.unknown,
            counts.live,
            counts.caught_up,
            counts.duplicates,
            counts.welcomes,
            counts.drops,
            counts.gaps,
            counts.errors,
            counts.unreadable,
            self.side.reads.load(Ordering::Relaxed),
            self.side.changes.load(Ordering::Relaxed),
            self.side.repeated.load(Ordering::Relaxed),
            describe(&self.figures.latencies.ack.response),
            describe(&self.figures.latencies.delivery.response),
            self.measured_deliveries as f64 / self.measured.as_secs_f64().max(1e-9),
        );
        if let (Some((begin, end)), Some(cost)) = (self.server, self.server_microseconds_a_delivery()) {
            text.push_str(&format!(
                "server    {cost:.2} us of processor a delivery, {:.0} MiB resident ({:+.1} MiB in the phase)\n",
                end.resident_bytes as f64 / 1048576.0,
                (end.resident_bytes as f64 - begin.resident_bytes as f64) / 1048576.0
            ));
        }
        if self.unended > 0 || self.lacking > 0 {
            text.push_str(&format!(
                "{} sends did not end, and {} devices lack something\n",
                self.unended, self.lacking
            ));
        }
        if let Some(verdict) = &self.verdict {
            text.push_str(&format!("{verdict}\n"));
        }
        text
    }
}

/// The workers' threads, and what they report.
pub(crate) struct Crowd {
    pub(crate) orders: Arc<Orders>,
    statuses: Vec<Arc<Status>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Crowd {
    pub(crate) fn start(shares: Vec<Share>, recorder: &Recorder, orders: Arc<Orders>) -> io::Result<Self> {
        let mut crowd = Self { orders, statuses: Vec::new(), threads: Vec::new() };
        for (number, share) in shares.into_iter().enumerate() {
            let status = Arc::new(Status::default());
            let (recorder, orders) = (recorder.clone(), Arc::clone(&crowd.orders));
            let its = Arc::clone(&status);
            crowd.statuses.push(status);
            crowd.threads.push(
                std::thread::Builder::new()
                    .name(format!("devices-{number}"))
                    .spawn(move || worker::run(share, recorder, &orders, &its))?,
            );
        }
        Ok(crowd)
    }

    fn sum(&self, value: impl Fn(&Status) -> u64) -> u64 {
        self.statuses.iter().map(|status| value(status)).sum()
    }

    pub(crate) fn open(&self) -> u64 {
        self.sum(|status| status.open.load(Ordering::Relaxed))
    }

    fn open_sends(&self) -> u64 {
        self.sum(|status| status.open_sends.load(Ordering::Relaxed))
    }

    fn lacking(&self) -> u64 {
        self.sum(|status| status.lacking.load(Ordering::Relaxed))
    }

    fn take_figures(&self) -> Figures {
        let mut all = Figures::default();
        self.statuses.iter().for_each(|status| all.merge(&status.take_figures()));
        all
    }

    /// Leads all workers to a stage, and waits until each has looked at its devices there.
    fn enter(&self, stage: Stage) -> Result<(), RunError> {
        self.orders.enter(stage);
        self.wait(Duration::from_secs(60), || self.statuses.iter().all(|status| status.has_entered(stage)))
            .map(|_| ())
    }

    /// Waits until `done`; false if it was not within the time.
    pub(crate) fn wait(&self, most: Duration, mut done: impl FnMut() -> bool) -> Result<bool, RunError> {
        let until = Instant::now() + most;
        while !done() {
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Err(RunError::Worker(io::Error::other("before its time")));
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
        Ok(true)
    }

    pub(crate) fn join(self) -> Result<(), RunError> {
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended.map_err(RunError::Worker)?,
                Err(_) => return Err(RunError::Worker(io::Error::other("it panicked"))),
            }
        }
        Ok(())
    }
}

/// Runs a load. `progress` gets a line now and then.
///
/// # Errors
/// The run could not be carried out; a broken promise is no error, but an [`Outcome`] that did not pass.
pub fn run(settings: &Settings, mut progress: impl FnMut(&str)) -> Result<Outcome, RunError> {
    let devices = settings.logins.len() as u64 + settings.cold_devices as u64;
    make_room(devices)?;
    if let Some(process) = settings.server_process {
        read(process)?;
    }
    let writer = match &settings.history {
        Some(path) => Some(HistoryWriter::create(path).map_err(file_error(path))?),
        None => None,
    };
    let recorder = writer.as_ref().map_or_else(Recorder::forgetful, HistoryWriter::recorder);
    let run_number = fastrand::Rng::new().u32(..);

    let arrangement = arrange(settings.logins.len(), settings.group_fraction, settings.group_size);
    let logins = settings.logins.clone();
    let crew = Crew::gather(&settings.target, logins, &arrangement, run_number, &recorder)?;
    progress(&format!("{} conversations made", crew.conversation_count()));

    let orders = Arc::new(Orders::default());
    let shares = shares(settings, crew.users(), run_number);
    let crowd = Crowd::start(shares, &recorder, Arc::clone(&orders)).map_err(RunError::Worker)?;
    let welcome = connect_time(settings);
    // Devices count as ready when they are welcome and have caught up.
    if !crowd.wait(welcome, || crowd.lacking() == 0 && crowd.open() == settings.logins.len() as u64)? {
        return Err(RunError::NotWelcome {
            open: crowd.open(),
            wanted: settings.logins.len() as u64,
            seconds: welcome.as_secs(),
        });
    }
    progress(&format!("{} devices are welcome", crowd.open()));

    let side = SideCounts::default();
    let mut outcome = Outcome {
        figures: crowd.take_figures(),
        measured_deliveries: 0,
        measured: settings.duration,
        unended: 0,
        lacking: 0,
        conversations: crew.conversation_count(),
        side: SideCounts::default(),
        server: None,
        verdict: None,
    };
    let intervals = load_phase(settings, &crew, &crowd, &recorder, &side, &mut outcome, &mut progress)?;
    outcome.side = side;

    let measured_from = SystemTime::now() - settings.duration;
    crowd.enter(Stage::Drain)?;
    crowd.wait(DRAIN_MAX, || crowd.open_sends() == 0)?;
    outcome.unended = crowd.open_sends();
    progress("all conversations are read");
    orders.expect(crew.read_all(&recorder, &orders)?);
    // The workers count again at their next tick.
    std::thread::sleep(2 * LOOK);
    crowd.wait(CATCH_UP_MAX, || crowd.lacking() == 0)?;
    if settings.cold_devices > 0 {
        progress("new devices start from nothing");
        crowd.enter(Stage::Cold)?;
        crowd.wait(CATCH_UP_MAX, || crowd.lacking() == 0)?;
    }
    outcome.lacking = crowd.lacking();
    orders.enter(Stage::Leave);
    let statuses = crowd.statuses.clone();
    crowd.join()?;
    statuses.iter().for_each(|status| outcome.figures.merge(&status.take_figures()));
    drop(recorder);

    if let Some(path) = &settings.latency_log {
        write_log(path, measured_from, &intervals).map_err(file_error(path))?;
    }
    if let (Some(writer), Some(path)) = (writer, &settings.history) {
        writer.finish().map_err(file_error(path))?;
        if settings.check {
            progress("the checker reads the history");
            let mut paths = vec![path.clone()];
            paths.extend(settings.other_histories.iter().cloned());
            outcome.verdict = Some(checker::check_files(&paths)?);
        }
    }
    Ok(outcome)
}

fn file_error(path: &std::path::Path) -> impl Fn(io::Error) -> RunError + '_ {
    move |source| RunError::File { path: path.to_path_buf(), source }
}

/// The time that connecting may take.
fn connect_time(settings: &Settings) -> Duration {
    Duration::from_secs(60)
        + Duration::from_secs_f64(settings.logins.len() as f64 / settings.connect_rate.max(1.0))
}

fn shares(settings: &Settings, users: Vec<(Login, Vec<ConversationId>)>, run: u32) -> Vec<Share> {
    let threads = settings.threads.clamp(1, users.len().max(1));
    let part = |value: f64, share: usize| value * share as f64 / users.len().max(1) as f64;
    let size = users.len().div_ceil(threads).max(1);
    users
        .chunks(size)
        .enumerate()
        .map(|(number, users)| Share {
            target: settings.target.clone(),
            users: users.to_vec(),
            encodings: settings.encodings.clone(),
            rate: part(settings.rate, users.len()),
            arrival: settings.arrival,
            churn: part(settings.churn, users.len()),
            connect_rate: part(settings.connect_rate, users.len()),
            cold: part(settings.cold_devices as f64, users.len()).round() as usize,
            habits: Habits {
                payload_bytes: settings.payload_bytes,
                repeat: settings.repeats,
                run,
                ..Habits::default()
            },
            seed: settings.seed.wrapping_add(number as u64 * 0x9e37_79b9),
            read_bytes: READ_BYTES,
        })
        .collect()
}

/// Warm-up and the measured phase, with the HTTP side beside it. Returns the latencies by second.
fn load_phase(
    settings: &Settings,
    crew: &Crew,
    crowd: &Crowd,
    recorder: &Recorder,
    side: &SideCounts,
    outcome: &mut Outcome,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<Interval>, RunError> {
    let stop = AtomicBool::new(false);
    // Workers look at their orders at each tick: the first send is a little later than that.
    let begin = clock::now() + SECOND / 10;
    let start = begin + settings.warm_up.as_nanos() as u64;
    let measured = start..start + settings.duration.as_nanos() as u64;
    crowd.orders.load(Load { times: begin..measured.end, measured: measured.clone() });
    let mut intervals = Vec::new();
    std::thread::scope(|scope| {
        let (reads, changes) = (settings.history_reads, settings.member_changes);
        let (one, two) = (recorder.clone(), recorder.clone());
        let (seed, stop, orders) = (settings.seed, &stop, &*crowd.orders);
        scope.spawn(move || crew.read_history(reads, seed ^ 1, one, orders, side, stop));
        scope.spawn(move || crew.change_members(changes, seed ^ 2, two, side, stop));
        let result = measure(settings, crowd, measured, outcome, &mut intervals, progress);
        stop.store(true, Ordering::Release);
        result
    })?;
    Ok(intervals)
}

fn measure(
    settings: &Settings,
    crowd: &Crowd,
    measured: Range<u64>,
    outcome: &mut Outcome,
    intervals: &mut Vec<Interval>,
    progress: &mut impl FnMut(&str),
) -> Result<(), RunError> {
    let server = || settings.server_process.and_then(|process| read(process).ok());
    crowd.wait(Duration::from_nanos(measured.start.saturating_sub(clock::now())), || false)?;
    outcome.figures.merge(&crowd.take_figures());
    let server_before = server();
    let mut begin = clock::now();
    while begin < measured.end {
        let end = (begin + SECOND).min(measured.end);
        crowd.wait(Duration::from_nanos(end.saturating_sub(clock::now())), || false)?;
        let figures = crowd.take_figures();
        outcome.measured_deliveries += figures.counts.live;
        let elapsed = begin.saturating_sub(measured.start);
        let second = elapsed / SECOND;
        if second.is_multiple_of(5) {
            progress(&format!(
                "{second:>4} s  {} acks  {} live  ack p99 {:.1} ms  {} devices welcome",
                figures.counts.acks,
                figures.counts.live,
                figures.latencies.ack.response.quantile(0.99) as f64 / 1000.0,
                crowd.open()
            ));
        }
        outcome.figures.merge(&figures);
        intervals.push(Interval {
            begin: Duration::from_nanos(elapsed),
            length: Duration::from_nanos(end - begin),
            latencies: figures.latencies,
        });
        begin = end;
    }
    outcome.server = server_before.zip(server());
    Ok(())
}
