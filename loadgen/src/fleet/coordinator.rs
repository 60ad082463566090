//! Leads workers through a scenario, and adds up what they count.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::children::Children;
use super::error::FleetError;
use super::observer::server_use;
use super::sum::Sum;
use super::wire::{Assignment, LoginsOnWire, ToCoordinator, ToWorker, VERSION, hear, say};
use crate::checker::{self, Verdict};
use crate::logins::{LoginError, Source};
use crate::report::results::{ExitVerdict, Results};
use crate::report::series::Second;
use crate::scenario::{Scenario, StageKind, share_of};
use crate::target::{Target, Trust};

/// Workers that were started here have joined after this long, at most.
const JOIN_MAX: Duration = Duration::from_secs(60);

/// A worker makes its conversations within this time, and reads them again in the end.
const HTTP_MAX: Duration = Duration::from_secs(600);

/// Beyond the time that a stage may take, workers have this long to say that it is over.
const OVER_MAX: Duration = Duration::from_secs(120);

/// From the order to leave to the end of the last worker.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// A load to be led.
pub struct Lead {
    /// What to do.
    pub scenario: Scenario,
    /// The server's URL.
    pub url: String,
    /// How far its certificate is trusted.
    pub trust: Trust,
    /// Who the clients are.
    pub source: Source,
    /// Who carries it out.
    pub crowd: Crowd,
    /// The server's process, to measure it.
    pub server_process: Option<u32>,
    /// The command line, for the results.
    pub command: String,
}

/// Who carries a load out.
pub enum Crowd {
    /// Workers that are started on this machine, by this program.
    Local {
        /// `loadgen` itself.
        program: PathBuf,
    },
    /// Workers that join.
    Joined {
        /// Where the coordinator listens.
        listen: SocketAddr,
        /// How many there will be.
        workers: usize,
        /// What they must know.
        key: String,
    },
}

/// What is told while a load runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A line for people.
    Line(String),
    /// A stage begins.
    Stage {
        /// Its number.
        number: usize,
        /// Its name.
        name: &'a str,
    },
    /// All workers told of a second.
    Second {
        /// Its number.
        number: usize,
        /// What was counted.
        second: &'a Second,
        /// How busy each worker was, in percent of a core.
        workers: Vec<u8>,
    },
}

/// What a load showed.
pub struct Outcome {
    /// Counts, latencies, verdicts.
    pub results: Results,
    /// What the checker found, if the scenario asks for it.
    pub check: Option<Verdict>,
    /// Growth of the workers' resident memory for each client, when all had come.
    pub bytes_a_client: Option<f64>,
}

/// Leads a load. `progress` hears of it meanwhile.
///
/// # Errors
/// It could not be carried out. A threshold that was missed is no error, but a verdict.
pub fn lead(load: &Lead, mut progress: impl FnMut(Progress<'_>)) -> Result<Outcome, FleetError> {
    // Before anything is started: what is wrong with the target is wrong for every worker.
    Target::new(&load.url, &load.trust)?;
    let (listener, workers, key) = match &load.crowd {
        Crowd::Local { .. } => (listen(([127, 0, 0, 1], 0).into())?, load.scenario.workers(), new_key()),
        Crowd::Joined { listen: address, workers, key } => (listen(*address)?, *workers, key.clone()),
    };
    let histories = history_folder(load.scenario.check)?;
    let assignments = assignments(load, workers, histories.as_deref())?;
    let address = listener.local_addr().map_err(machine("the coordinator's address"))?;
    let children = match &load.crowd {
        Crowd::Local { program } => Children::start(program, workers, address, &key)
            .map_err(machine(&format!("starting {} as a worker", program.display())))?,
        Crowd::Joined { .. } => Children::none(),
    };
    let patience = match &load.crowd {
        Crowd::Local { .. } => JOIN_MAX,
        Crowd::Joined { .. } => HTTP_MAX,
    };
    let mut fleet = Fleet::gather(&listener, assignments, &key, patience, &mut progress)?;
    let outcome = fleet.run(load, &mut progress);
    match outcome {
        Ok(mut outcome) => {
            children.wait();
            if let Some(folder) = &histories {
                let paths: Vec<PathBuf> = (0..workers).map(|worker| history_path(folder, worker)).collect();
                progress(Progress::Line("the checker reads the history".into()));
                let verdict = checker::check_files(&paths)?;
                if verdict.passed() {
                    let _ = std::fs::remove_dir_all(folder);
                } else {
                    progress(Progress::Line(format!("the history is in {}", folder.display())));
                    if outcome.results.verdict == ExitVerdict::Passed {
                        outcome.results.verdict = ExitVerdict::Missed;
                    }
                }
                outcome.check = Some(verdict);
            }
            Ok(outcome)
        }
        Err(error) => Err(error),
    }
}

fn machine(what: &str) -> impl Fn(io::Error) -> FleetError + '_ {
    move |source| FleetError::Machine { what: what.to_owned(), source }
}

fn listen(address: SocketAddr) -> Result<TcpListener, FleetError> {
    let listener = TcpListener::bind(address).map_err(machine(&format!("listening at {address}")))?;
    listener.set_nonblocking(true).map_err(machine("the coordinator's socket"))?;
    Ok(listener)
}

fn new_key() -> String {
    let mut dice = fastrand::Rng::new();
    format!("{:016x}{:016x}", dice.u64(..), dice.u64(..))
}

/// A folder for histories, if there are to be any.
fn history_folder(check: bool) -> Result<Option<PathBuf>, FleetError> {
    if !check {
        return Ok(None);
    }
    let name = format!("loadgen-{}-{:x}", std::process::id(), fastrand::u32(..));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).map_err(machine(&format!("the folder {}", folder.display())))?;
    Ok(Some(folder))
}

fn history_path(folder: &Path, worker: usize) -> PathBuf {
    folder.join(format!("worker-{worker}.ndjson"))
}

fn assignments(load: &Lead, workers: usize, histories: Option<&Path>) -> Result<Vec<Assignment>, FleetError> {
    let clients = load.scenario.population.clients;
    let run = fastrand::Rng::new().u32(..);
    let (insecure, ca) = match &load.trust {
        Trust::Authority(path) => (false, Some(path.clone())),
        Trust::Anything => (true, None),
        Trust::Nothing => (false, None),
    };
    let mut tokens = match &load.source {
        Source::Tokens(_) => load.source.logins(clients)?.into_iter(),
        Source::Secret { .. } => Vec::new().into_iter(),
    };
    let secret = match &load.source {
        Source::Secret { path, prefix } => {
            let secret =
                std::fs::read(path).map_err(|source| LoginError::File { path: path.clone(), source })?;
            Some((STANDARD.encode(secret), prefix.clone()))
        }
        Source::Tokens(_) => None,
    };
    let assignment = |worker| {
        let logins = match &secret {
            Some((secret, prefix)) => LoginsOnWire::Secret { secret: secret.clone(), prefix: prefix.clone() },
            None => {
                let count = share_of(clients, worker, workers).len();
                let pair = |login: crate::logins::Login| (login.user.to_string(), login.token().into_owned());
                LoginsOnWire::Tokens(tokens.by_ref().take(count).map(pair).collect())
            }
        };
        Assignment {
            scenario: load.scenario.clone(),
            worker: (worker, workers),
            url: load.url.clone(),
            insecure,
            ca: ca.clone(),
            logins,
            run,
            history: histories.map(|folder| history_path(folder, worker)),
        }
    };
    Ok((0..workers).map(assignment).collect())
}

/// The workers' lines.
struct Fleet {
    lines: Vec<TcpStream>,
    said: Receiver<(usize, Said)>,
}

/// What came on a worker's line.
enum Said {
    Message(ToCoordinator),
    Gone(io::Error),
}

impl Fleet {
    /// Waits for all workers to join and to have made their conversations.
    fn gather(
        listener: &TcpListener,
        assignments: Vec<Assignment>,
        key: &str,
        patience: Duration,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<Self, FleetError> {
        let wanted = assignments.len();
        let (sender, said) = channel();
        let mut fleet = Self { lines: Vec::new(), said };
        let until = Instant::now() + patience;
        for (worker, assignment) in assignments.into_iter().enumerate() {
            let (mut line, reader) = loop {
                if Instant::now() >= until {
                    let seconds = patience.as_secs();
                    return Err(FleetError::NotJoined { joined: worker, wanted, seconds });
                }
                match listener.accept() {
                    Ok((stream, _)) => {
                        // Who does not know the key, or says nothing, is let go.
                        if let Ok(Some(joined)) = admit(stream, key) {
                            break joined;
                        }
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            };
            let lost = machine("a worker's line");
            say(&mut line, &ToWorker::Assignment(Box::new(assignment))).map_err(lost)?;
            listen_to(worker, reader, sender.clone())?;
            fleet.lines.push(line);
        }
        progress(Progress::Line(format!("{wanted} workers joined")));
        Ok(fleet)
    }

    fn tell_all(&mut self, message: &ToWorker) -> Result<(), FleetError> {
        self.lines.iter_mut().try_for_each(|line| say(line, message)).map_err(machine("a worker's line"))
    }

    fn run(&mut self, load: &Lead, progress: &mut impl FnMut(Progress<'_>)) -> Result<Outcome, FleetError> {
        let scenario = &load.scenario;
        let mut sum = Sum::new(&load.command, &scenario.text, self.lines.len(), load.server_process);
        self.wait_all("is ready", HTTP_MAX, &mut sum, progress, |sum, worker, message| match message {
            ToCoordinator::Ready { resident_bytes } => {
                sum.resident[worker].0 = resident_bytes;
                true
            }
            _ => false,
        })?;
        progress(Progress::Line("all conversations are made".into()));
        sum.begin(load.server_process);
        let mut bytes_a_client = None;
        for (number, stage) in scenario.stages.iter().enumerate() {
            progress(Progress::Stage { number, name: &stage.name });
            let before = sum.server();
            let elapsed_microseconds = sum.elapsed().as_micros() as u64;
            self.tell_all(&ToWorker::Begin { stage: number, elapsed_microseconds })?;
            let length = match stage.kind {
                StageKind::Connect { rate } => {
                    Duration::from_secs_f64(scenario.population.clients as f64 / rate * 2.0 + 60.0)
                }
                _ => stage.duration + stage.settle,
            };
            let most = length + OVER_MAX;
            self.wait_all("ended a stage", most, &mut sum, progress, |sum, worker, message| match message {
                ToCoordinator::Over { stage, results, resident_bytes } if stage == number => {
                    sum.resident[worker].1 = resident_bytes;
                    sum.add_stage(*results);
                    true
                }
                _ => false,
            })?;
            let server = server_use(before, sum.server());
            if let Some(results) = sum.results.stages.last_mut() {
                results.server = server;
                if let StageKind::Connect { .. } = stage.kind {
                    let (open, wanted) = (results.counts.connected, scenario.population.clients as u64);
                    if open < wanted {
                        return Err(FleetError::NotWelcome { open, wanted });
                    }
                    bytes_a_client = Some(sum.resident_growth() / wanted as f64);
                }
            }
        }
        if scenario.check {
            progress(Progress::Line("all conversations are read".into()));
            self.tell_all(&ToWorker::Read)?;
            self.wait_all("read everything", HTTP_MAX, &mut sum, progress, |_, _, message| {
                matches!(message, ToCoordinator::Read)
            })?;
        }
        self.tell_all(&ToWorker::Leave)?;
        self.wait_all("left", LEAVE_MAX, &mut sum, progress, |_, _, message| {
            matches!(message, ToCoordinator::Left)
        })?;
        sum.results.judge(&scenario.thresholds);
        Ok(Outcome { results: sum.results, check: None, bytes_a_client })
    }

    /// Hears all workers until each said what `is_it` accepts.
    fn wait_all<P: FnMut(Progress<'_>)>(
        &mut self,
        what: &'static str,
        most: Duration,
        sum: &mut Sum,
        progress: &mut P,
        mut is_it: impl FnMut(&mut Sum, usize, ToCoordinator) -> bool,
    ) -> Result<(), FleetError> {
        let until = Instant::now() + most;
        let mut waiting: Vec<usize> = (0..self.lines.len()).collect();
        while let Some(first) = waiting.first() {
            if Instant::now() >= until {
                return Err(FleetError::Silent { worker: *first, what, seconds: most.as_secs() });
            }
            sum.observe();
            let (worker, said) = match self.said.recv_timeout(Duration::from_millis(100)) {
                Ok(said) => said,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(FleetError::Silent { worker: *first, what, seconds: 0 });
                }
            };
            match said {
                Said::Message(ToCoordinator::Failed { reason, is_input }) => {
                    return Err(FleetError::Worker { worker, reason, is_input });
                }
                Said::Message(ToCoordinator::Second { number, second, busy }) => {
                    sum.add_second(worker, number, &second, busy).map_err(|error| FleetError::Worker {
                        worker,
                        reason: error.to_string(),
                        is_input: false,
                    })?;
                    sum.tell_complete(progress);
                }
                Said::Message(message) => {
                    if is_it(sum, worker, message) {
                        waiting.retain(|other| *other != worker);
                    }
                }
                // A worker that has left closes its line.
                Said::Gone(_) if !waiting.contains(&worker) => {}
                Said::Gone(error) => {
                    let reason = format!("its line ended: {error}");
                    return Err(FleetError::Worker { worker, reason, is_input: false });
                }
            }
        }
        Ok(())
    }
}

/// Hears what a new worker says first, if it is the right thing.
fn admit(stream: TcpStream, key: &str) -> io::Result<Option<(TcpStream, BufReader<TcpStream>)>> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let hello = hear(&mut reader)?;
    stream.set_read_timeout(None)?;
    let right = matches!(
        hello,
        Some(ToCoordinator::Hello { version: VERSION, key: told }) if told == key
    );
    Ok(right.then_some((stream, reader)))
}

fn listen_to(
    worker: usize,
    mut reader: BufReader<TcpStream>,
    sender: Sender<(usize, Said)>,
) -> Result<(), FleetError> {
    let hear_all = move || {
        loop {
            let said = match hear(&mut reader) {
                Ok(Some(message)) => Said::Message(message),
                Ok(None) => Said::Gone(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => Said::Gone(error),
            };
            let is_over = matches!(said, Said::Gone(_));
            if sender.send((worker, said)).is_err() || is_over {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name(format!("worker-{worker}"))
        .spawn(hear_all)
        .map(|_| ())
        .map_err(machine("a thread"))
}
