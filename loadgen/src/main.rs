//! The `loadgen` command: `run` a load, hold `idle` connections, `abuse` the server, `check` histories, make
//! up a `specimen`.
//!
//! Exit codes: 0 every promise was kept; 1 one was broken; 2 the command line is wrong; 3 it could not be
//! carried out. So that a harness tells a found bug from a run that never was. The verbs of scenarios and of
//! their results have codes of their own: `scenario_verb.rs`, `knee_verb.rs`, `report_verbs.rs`.
#![forbid(unsafe_code)]

mod abuse_verb;
mod knee_verb;
mod report_verbs;
mod scenario_verb;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringway_loadgen::checker::{Verdict, check_files};
use ringway_loadgen::history::HistoryWriter;
use ringway_loadgen::idle::{IdleSettings, idle};
use ringway_loadgen::logins::{LoginError, Source};
use ringway_loadgen::run::{Settings, run};
use ringway_loadgen::schedule::Arrival;
use ringway_loadgen::specimen::{Size, write_good};
use ringway_loadgen::target::{Target, Trust};
use ringway_protocol::client::Encoding;

/// A promise was broken.
const BROKEN: u8 = 1;
/// It could not be carried out.
const FAILED: u8 = 3;

/// Load for a Ringway server, and the proof that it kept its promises.
#[derive(Parser)]
#[command(version, about)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Virtual users send on an open-loop schedule; then the checker reads what they saw
    Run(Box<RunOptions>),
    /// Carries out a scenario file, with worker processes on this machine
    Scenario(Box<scenario_verb::ScenarioOptions>),
    /// Carries out a scenario file with workers that join, from other machines too
    Serve(Box<scenario_verb::ServeOptions>),
    /// Finds the highest rate at which a scenario meets its thresholds
    Knee(Box<knee_verb::KneeOptions>),
    /// Becomes a worker of a `serve`
    Join(scenario_verb::JoinOptions),
    /// Makes a page, a summary or a log from results that --json wrote
    Report(report_verbs::ReportOptions),
    /// Compares two runs; 3 if the second is worse
    Diff(report_verbs::DiffOptions),
    /// Looks whether this host can carry a load; 2 if not
    Doctor(report_verbs::DoctorOptions),
    /// Connections that do nothing: the server's memory for each
    Idle(IdleOptions),
    /// A client that behaves badly, beside a load: what the server must bear without others noticing
    Abuse(abuse_verb::AbuseOptions),
    /// Checks histories (one run's clients, and the server's trace) against the contract
    Check {
        /// NDJSON files that belong together
        #[arg(required = true)]
        histories: Vec<PathBuf>,
    },
    /// Writes a made-up good history, to measure the checker
    Specimen {
        /// The file to write
        file: PathBuf,
        /// Events, about
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// Makes another one
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Where to, and as whom.
#[derive(Args)]
struct Access {
    /// The socket's URL; the HTTP API is on the same port
    #[arg(long, default_value = "wss://127.0.0.1:8443/ws")]
    url: String,
    /// Take any certificate
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// PEM file of the certificate that the server's must be signed by
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Lines `USER TOKEN`, from `ringway token --prefix u --count N`
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    tokens: Option<PathBuf>,
    /// The server's development signing key, to mint tokens
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// What users are called when their tokens are minted
    #[arg(long, default_value = "u")]
    user_prefix: String,
    /// Which subprotocol
    #[arg(long, value_enum, default_value_t = Subprotocol::Mixed)]
    encoding: Subprotocol,
    /// Threads of devices
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Process id of the server, to measure its processor time and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Also write the result, one JSON object, to this file
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subprotocol {
    /// ringway.v1.json
    Json,
    /// ringway.v1.proto
    Proto,
    /// Half of each
    Mixed,
}

#[derive(Args)]
struct RunOptions {
    #[command(flatten)]
    access: Access,
    /// Virtual users
    #[arg(long, default_value_t = 1000)]
    users: usize,
    /// Of all users, how many are in groups; the others are in pairs
    #[arg(long, default_value_t = 0.5)]
    group_fraction: f64,
    /// Members of a group
    #[arg(long, default_value_t = 50)]
    group_size: usize,
    /// Messages a second, of all users together
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Send at equal distances rather than as a Poisson process
    #[arg(long)]
    fixed: bool,
    /// Measured seconds
    #[arg(long, default_value_t = 60.0)]
    duration: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Bytes of a message
    #[arg(long, default_value_t = 128)]
    payload_bytes: usize,
    /// Repeats the random choices of another run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that leave and come back, a second
    #[arg(long, default_value_t = 5.0)]
    churn: f64,
    /// Connections opened, a second
    #[arg(long, default_value_t = 500.0)]
    connect_rate: f64,
    /// Reads of history over HTTP, a second
    #[arg(long, default_value_t = 10.0)]
    history_reads: f64,
    /// Joins and leaves, a second
    #[arg(long, default_value_t = 1.0)]
    member_changes: f64,
    /// Of all messages, how many are followed by a deliberate repeat
    #[arg(long, default_value_t = 0.05)]
    repeats: f64,
    /// Devices that start from nothing after the load
    #[arg(long, default_value_t = 50)]
    cold_devices: usize,
    /// Write the history here; without it, it goes to a temporary file
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Histories of others that belong to this run: the server's trace
    #[arg(long, value_name = "FILE")]
    with_history: Vec<PathBuf>,
    /// Do not check; and record only if --history says where
    #[arg(long)]
    no_check: bool,
    /// Write the latencies here, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<PathBuf>,
}

#[derive(Args)]
struct IdleOptions {
    #[command(flatten)]
    access: Access,
    /// Connections
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Seconds that all stay
    #[arg(long, default_value_t = 10.0)]
    hold: f64,
    /// Connections opened, a second
    #[arg(long, default_value_t = 1000.0)]
    connect_rate: f64,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = match CommandLine::parse().verb {
        Verb::Scenario(options) => return scenario_verb::scenario(&options),
        Verb::Serve(options) => return scenario_verb::serve(&options),
        Verb::Join(options) => return scenario_verb::join_coordinator(&options),
        Verb::Knee(options) => return knee_verb::run(&options),
        Verb::Report(options) => return report_verbs::report(&options),
        Verb::Diff(options) => return report_verbs::diff(&options),
        Verb::Doctor(options) => return report_verbs::doctor(&options),
        Verb::Run(options) => run_load(*options),
        Verb::Idle(options) => hold_idle(options),
        Verb::Abuse(options) => abuse_verb::run(options),
        Verb::Check { histories } => {
            check_files(&histories).map_err(Into::into).map(|verdict| print_verdict(&verdict))
        }
        Verb::Specimen { file, events, seed } => specimen(&file, events, seed),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(failure) => {
            eprintln!("loadgen: {failure}");
            ExitCode::from(FAILED)
        }
    }
}

/// The table for people, then one line for machines.
fn print_verdict(verdict: &Verdict) -> bool {
    println!("{verdict}\n{}", verdict.to_json());
    verdict.passed()
}

impl Access {
    fn target(&self) -> Result<Target, Failure> {
        let trust = match (&self.ca, self.insecure) {
            (Some(path), _) => Trust::Authority(path.clone()),
            (None, true) => Trust::Anything,
            (None, false) => Trust::Nothing,
        };
        Ok(Target::new(&self.url, &trust)?)
    }

    fn source(&self) -> Result<Source, Failure> {
        match (&self.tokens, &self.secret_file) {
            (Some(path), _) => Ok(Source::Tokens(path.clone())),
            (None, Some(path)) => Ok(Source::Secret { path: path.clone(), prefix: self.user_prefix.clone() }),
            (None, None) => Err(LoginError::NoSource.into()),
        }
    }

    fn encodings(&self) -> Vec<Encoding> {
        match self.encoding {
            Subprotocol::Json => vec![Encoding::Json],
            Subprotocol::Proto => vec![Encoding::Protobuf],
            Subprotocol::Mixed => Encoding::ALL.to_vec(),
        }
    }

    fn summarise(&self, result: &serde_json::Value) -> Result<(), Failure> {
        println!("{result}");
        match &self.summary {
            Some(path) => std::fs::write(path, format!("{result}\n"))
                .map_err(|error| format!("{}: {error}", path.display()).into()),
            None => Ok(()),
        }
    }
}

fn run_load(options: RunOptions) -> Result<bool, Failure> {
    let access = &options.access;
    let temporary = std::env::temp_dir().join(format!("loadgen-{}.ndjson", std::process::id()));
    let history = options.history.clone().or_else(|| (!options.no_check).then(|| temporary.clone()));
    let settings = Settings {
        target: access.target()?,
        logins: access.source()?.logins(options.users)?,
        group_fraction: options.group_fraction,
        group_size: options.group_size,
        rate: options.rate,
        arrival: if options.fixed { Arrival::Fixed } else { Arrival::Poisson },
        duration: seconds(options.duration)?,
        warm_up: seconds(options.warm_up)?,
        payload_bytes: options.payload_bytes,
        encodings: access.encodings(),
        threads: access.threads,
        seed: options.seed,
        churn: options.churn,
        connect_rate: options.connect_rate,
        history_reads: options.history_reads,
        member_changes: options.member_changes,
        repeats: options.repeats,
        cold_devices: options.cold_devices.min(options.users),
        history,
        check: !options.no_check,
        other_histories: options.with_history.clone(),
        latency_log: options.hdr_log.clone(),
        server_process: access.server_pid,
    };
    let outcome = run(&settings, |line| eprintln!("loadgen: {line}"));
    // A history that found nothing, and that nobody asked for, is gone; one that shows a bug stays.
    let passed = outcome.as_ref().is_ok_and(|outcome| outcome.passed());
    if options.history.is_none() && settings.history.is_some() {
        if passed {
            let _ = std::fs::remove_file(&temporary);
        } else {
            eprintln!("loadgen: the history is in {}", temporary.display());
        }
    }
    let outcome = outcome?;
    print!("{}", outcome.describe());
    access.summarise(&outcome.to_json())?;
    Ok(outcome.passed())
}

fn hold_idle(options: IdleOptions) -> Result<bool, Failure> {
    let access = &options.access;
    let settings = IdleSettings {
        target: access.target()?,
        logins: access.source()?.logins(options.connections)?,
        encodings: access.encodings(),
        threads: access.threads,
        connect_rate: options.connect_rate,
        hold: seconds(options.hold)?,
        server_process: access.server_pid,
    };
    let outcome = idle(&settings, |line| eprintln!("loadgen: {line}"))?;
    if let Some(bytes) = outcome.bytes_a_connection() {
        println!("{bytes:.0} bytes of resident memory a connection, over {} connections", outcome.open);
    }
    if let Some(bytes) = outcome.bytes_a_further_connection() {
        println!("{bytes:.0} bytes for each after the first tenth");
    }
    access.summarise(&outcome.to_json())?;
    Ok(outcome.open == options.connections as u64)
}

fn specimen(file: &Path, events: u64, seed: u64) -> Result<bool, Failure> {
    let writer = HistoryWriter::create(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut recorder = writer.recorder();
    let mut written = 0;
    let size = Size { users: 1000, group: 50, events };
    write_good(seed, size, &mut |record| {
        recorder.record_at(record.time, &record.event);
        written += 1;
    });
    drop(recorder);
    let bytes = writer.finish()?;
    writeln!(std::io::stdout(), "{written} events, {bytes} bytes")?;
    Ok(true)
}

fn seconds(value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value).map_err(|_| format!("{value} is no number of seconds").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
