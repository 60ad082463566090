//! A worker: an engine on one thread, and this one, which hears the coordinator and speaks to it.
//!
//! The engine is never kept waiting: what it counted goes through a channel, and is compressed and sent
//! here. When the coordinator is gone, so is the worker.

use std::io::{self, BufReader};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::{Assignment, LoginsOnWire, ToCoordinator, ToWorker, VERSION, hear, say};
use crate::crew::Crew;
use crate::descriptors::make_room;
use crate::engine::{Engine, Order, Report, Setup, Tally};
use crate::history::{HistoryWriter, Recorder};
use crate::logins::{Login, minted};
use crate::report::results::StageResults;
use crate::scenario::{Scenario, share_of};
use crate::server_process;
use crate::target::{Target, Trust};
use crate::worker::Orders;

/// Why a worker ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is no coordinator, or it is gone.
    #[error("the coordinator at {address}: {source}. `loadgen serve` starts one and says how to join it")]
    Coordinator {
        /// Where it should be.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// It said something else than it should.
    #[error("the coordinator at {0} did not say what to do: is it a `loadgen serve` of the same version?")]
    Silent(String),
    /// What it was told to do cannot be done.
    #[error("{reason}")]
    Work {
        /// Why not.
        reason: String,
        /// Whether what it was given is at fault.
        is_input: bool,
    },
}

/// The coordinator's line, which two threads write to.
type Line = Arc<Mutex<TcpStream>>;

/// Joins the coordinator at `address` and does what it says until the run is over.
///
/// # Errors
/// [`JoinError`].
pub fn join(address: &str, key: &str) -> Result<(), JoinError> {
    let lost = |source| JoinError::Coordinator { address: address.to_owned(), source };
    let stream = TcpStream::connect(address).map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    let mut reader = BufReader::new(stream.try_clone().map_err(lost)?);
    let line: Line = Arc::new(Mutex::new(stream));
    tell(&line, &ToCoordinator::Hello { version: VERSION, key: key.to_owned() }).map_err(lost)?;
    let Some(ToWorker::Assignment(assignment)) = hear(&mut reader).map_err(lost)? else {
        return Err(JoinError::Silent(address.to_owned()));
    };
    let done = work(*assignment, reader, &line);
    if let Err(JoinError::Work { reason, is_input }) = &done {
        // A coordinator that is gone needs no reason.
        let _ = tell(&line, &ToCoordinator::Failed { reason: reason.clone(), is_input: *is_input });
    }
    done
}

fn tell(line: &Line, message: &ToCoordinator) -> io::Result<()> {
    say(&mut *line.lock().unwrap_or_else(PoisonError::into_inner), message)
}

fn input(error: impl std::fmt::Display) -> JoinError {
    JoinError::Work { reason: error.to_string(), is_input: true }
}

fn trouble(error: impl std::fmt::Display) -> JoinError {
    JoinError::Work { reason: error.to_string(), is_input: false }
}

fn work(assignment: Assignment, reader: BufReader<TcpStream>, line: &Line) -> Result<(), JoinError> {
    let Assignment { scenario, worker, url, insecure, ca, logins, run, history } = assignment;
    let trust = match ca {
        Some(path) => Trust::Authority(path),
        None if insecure => Trust::Anything,
        None => Trust::Nothing,
    };
    let target = Target::new(&url, &trust).map_err(input)?;
    let tls = match &target.tls {
        Some((_, name)) => {
            let config = trust.record_config(scenario.connections.tls_resumption).map_err(input)?;
            Some((config, name.clone()))
        }
        None => None,
    };
    // Before anything that grows with the clients.
    let resident_before = resident_bytes();
    let clients = share_of(scenario.population.clients, worker.0, worker.1);
    make_room(clients.len() as u64).map_err(input)?;
    let logins = logins.logins(clients).map_err(input)?;
    let writer = history.as_deref().map(HistoryWriter::create).transpose().map_err(trouble)?;
    let recorder = writer.as_ref().map_or_else(Recorder::forgetful, HistoryWriter::recorder);

    let arrangement = scenario.population.arrange(logins.len());
    let chatters = logins[..arrangement.chatters].to_vec();
    // A key of the run and the worker: two workers make different conversations.
    let key = run.wrapping_add(worker.0 as u32);
    let crew =
        Crew::gather(&target, chatters, &arrangement.conversations, key, &recorder).map_err(trouble)?;
    let recipients = crew.recipients();
    let conversations = crew.users().into_iter().map(|(_, conversations)| conversations).collect();

    let (reports, reported) = channel();
    let setup = Setup {
        scenario: scenario.clone(),
        worker,
        target,
        tls,
        logins,
        conversations,
        recipients,
        run,
        recorder: recorder.clone(),
    };
    let mut engine = Engine::new(setup, reports).map_err(trouble)?;
    let (orders, ordered) = channel();
    tell(line, &ToCoordinator::Ready { resident_bytes: resident_before }).map_err(trouble)?;
    let listener = Listener { reader, line: Arc::clone(line), orders, crew, recorder };
    std::thread::Builder::new().name("orders".into()).spawn(move || listener.run()).map_err(trouble)?;
    let speaker = {
        let line = Arc::clone(line);
        let speak = move || report_all(&reported, &scenario, &line);
        std::thread::Builder::new().name("reports".into()).spawn(speak).map_err(trouble)?
    };
    let ran = engine.run(&ordered);
    drop(engine);
    let spoke = speaker.join().unwrap_or_else(|_| Err(io::Error::other("the reports' thread panicked")));
    ran.map_err(trouble)?;
    spoke.map_err(trouble)?;
    if let Some(writer) = writer {
        writer.finish().map_err(trouble)?;
    }
    tell(line, &ToCoordinator::Left).map_err(trouble)
}

impl LoginsOnWire {
    fn logins(self, clients: std::ops::Range<usize>) -> Result<Vec<Login>, Box<dyn std::error::Error>> {
        match self {
            Self::Secret { secret, prefix } => {
                let secret = STANDARD.decode(secret)?;
                Ok(minted(&secret, &prefix, clients)?)
            }
            Self::Tokens(tokens) => {
                let login = |(user, token): (String, String)| Login {
                    user: user.into(),
                    token: token.as_str().into(),
                };
                Ok(tokens.into_iter().map(login).collect())
            }
        }
    }
}

/// Hears the coordinator, on a thread of its own.
struct Listener {
    reader: BufReader<TcpStream>,
    line: Line,
    orders: Sender<Order>,
    crew: Crew,
    recorder: Recorder,
}

impl Listener {
    /// Ends with the order to leave. Without a coordinator it drops the orders' channel, and so ends the
    /// engine.
    fn run(mut self) {
        while let Ok(Some(message)) = hear(&mut self.reader) {
            let order = match message {
                ToWorker::Begin { stage, elapsed_microseconds } => {
                    Order::Begin { stage, elapsed: Duration::from_micros(elapsed_microseconds) }
                }
                ToWorker::Leave => Order::Leave,
                ToWorker::Read => {
                    let said = match self.crew.read_all(&self.recorder, &Orders::default()) {
                        Ok(_) => ToCoordinator::Read,
                        Err(error) => ToCoordinator::Failed { reason: error.to_string(), is_input: false },
                    };
                    if tell(&self.line, &said).is_err() {
                        return;
                    }
                    continue;
                }
                ToWorker::Assignment(_) => return,
            };
            if order == Order::Leave {
                // The history is finished when nobody writes to it any more.
                self.recorder = Recorder::forgetful();
            }
            if self.orders.send(order).is_err() {
                return;
            }
        }
    }
}

/// Sends what the engine reports until it has left.
fn report_all(reports: &Receiver<Report>, scenario: &Scenario, line: &Line) -> io::Result<()> {
    while let Ok(report) = reports.recv() {
        let message = match report {
            Report::Second { number, tally, open, busy } => {
                ToCoordinator::Second { number, second: Box::new(tally.second(open)), busy }
            }
            Report::Over { stage, begin, length, tally } => {
                let results = Box::new(stage_results(scenario, stage, begin, length, *tally));
                ToCoordinator::Over { stage, results, resident_bytes: resident_bytes() }
            }
            Report::Left => return Ok(()),
        };
        tell(line, &message)?;
    }
    Ok(())
}

fn stage_results(
    scenario: &Scenario,
    number: usize,
    begin: Duration,
    length: Duration,
    tally: Tally,
) -> StageResults {
    let stage = &scenario.stages[number];
    StageResults {
        name: stage.name.clone(),
        kind: stage.kind.name().into(),
        begin_seconds: begin.as_secs_f64(),
        length_seconds: length.as_secs_f64(),
        measured: stage.measured,
        counts: tally.counts(),
        ack: tally.figures.latencies.ack,
        delivery: tally.figures.latencies.delivery,
        connect: tally.connect,
        handshake: tally.handshake,
        lateness: tally.lateness,
        server: None,
    }
}

fn resident_bytes() -> u64 {
    server_process::read(std::process::id()).map_or(0, |reading| reading.resident_bytes)
}
