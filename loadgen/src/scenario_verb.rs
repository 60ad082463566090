//! `loadgen scenario`, `serve` and `join`: a scenario file carried out, by workers of this machine or of
//! several.
//!
//! Exit codes: 0 every threshold was met; 1 it could not be carried out; 2 the command line or a file is
//! wrong; 3 a threshold was missed, or not all clients were welcome; 4 the generator could not keep its
//! schedule, so that the numbers say more of it than of the server: more than one send in a hundred began 10 ms late,
//! or never, in a second in which a worker had no moment to spare; 130 somebody stopped it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway_loadgen::fleet::{Crowd, FleetError, JoinError, KEY_VARIABLE, Lead, Progress, join, lead};
use ringway_loadgen::logins::{LoginError, Source};
use ringway_loadgen::report::live::{Live, Plan};
use ringway_loadgen::report::results::ExitVerdict;
use ringway_loadgen::report::summary;
use ringway_loadgen::report::threshold::Threshold;
use ringway_loadgen::scenario::{Scenario, Stage, StageKind};
use ringway_loadgen::target::Trust;

use crate::report_verbs::Outputs;

/// It could not be carried out.
const FAILED: u8 = 1;
/// The command line, or a file that it names, is wrong.
const INPUT: u8 = 2;
/// A threshold was missed.
const MISSED: u8 = 3;
/// Somebody stopped it, as a shell tells of Ctrl-C.
const INTERRUPTED: i32 = 130;

/// What a scenario runs against.
#[derive(Args)]
pub(crate) struct Access {
    /// The socket's URL; the HTTP API is on the same port
    #[arg(long, default_value = "wss://127.0.0.1:8443/ws")]
    pub(crate) url: String,
    /// Take any certificate
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// PEM file of the certificate that the server's must be signed by
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Lines `USER TOKEN`, from `ringway token --prefix u --count N`
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    pub(crate) tokens: Option<PathBuf>,
    /// The server's development signing key, to mint tokens
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// What users are called when their tokens are minted
    #[arg(long, default_value = "u")]
    pub(crate) user_prefix: String,
    /// Process id of the server, to measure its processor time and memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
}

/// The scenario, and what is changed of it.
#[derive(Args)]
pub(crate) struct ScenarioChoice {
    /// The scenario file
    pub(crate) file: PathBuf,
    /// So many clients, whatever the file says
    #[arg(long)]
    pub(crate) clients: Option<usize>,
    /// Messages a second at the highest, whatever the file says
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// A threshold more, like `delivery.response.p99 <= 100ms`
    #[arg(long, value_name = "THRESHOLD")]
    pub(crate) threshold: Vec<Threshold>,
}

#[derive(Args)]
pub(crate) struct ScenarioOptions {
    #[command(flatten)]
    choice: ScenarioChoice,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    outputs: Outputs,
    /// Lines rather than a live screen, also on a terminal
    #[arg(long)]
    plain: bool,
}

#[derive(Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    scenario: ScenarioOptions,
    /// Where workers join
    #[arg(long, default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// How many workers will join; as many as the scenario needs if not given
    #[arg(long)]
    workers: Option<usize>,
    /// What workers must know; made up if not given
    #[arg(long, env = KEY_VARIABLE, hide_env_values = true)]
    key: Option<String>,
}

#[derive(Args)]
pub(crate) struct JoinOptions {
    /// Where the coordinator listens
    coordinator: String,
    /// The key that it printed
    #[arg(long, env = KEY_VARIABLE, hide_env_values = true)]
    key: String,
}

impl ScenarioChoice {
    /// Reads it.
    pub(crate) fn read(&self) -> Result<Scenario, FleetError> {
        let mut scenario = Scenario::read(&self.file)?;
        if let Some(clients) = self.clients {
            scenario.set_clients(clients)?;
        }
        if let Some(rate) = self.rate {
            scenario.set_rate(rate);
        }
        scenario.thresholds.extend(self.threshold.iter().cloned());
        Ok(scenario)
    }
}

impl Access {
    /// What leads this scenario.
    pub(crate) fn lead(&self, scenario: Scenario, crowd: Crowd) -> Result<Lead, FleetError> {
        let trust = match (&self.ca, self.insecure) {
            (Some(path), _) => Trust::Authority(path.clone()),
            (None, true) => Trust::Anything,
            (None, false) => Trust::Nothing,
        };
        let source = match (&self.tokens, &self.secret_file) {
            (Some(path), _) => Source::Tokens(path.clone()),
            (None, Some(path)) => Source::Secret { path: path.clone(), prefix: self.user_prefix.clone() },
            (None, None) => return Err(LoginError::NoSource.into()),
        };
        Ok(Lead {
            scenario,
            url: self.url.clone(),
            trust,
            source,
            crowd,
            server_process: self.server_pid,
            command: std::env::args().collect::<Vec<_>>().join(" "),
        })
    }
}

/// Workers of this machine.
pub(crate) fn local() -> Result<Crowd, FleetError> {
    let program = std::env::current_exe()
        .map_err(|source| FleetError::Machine { what: "finding this program".into(), source })?;
    Ok(Crowd::Local { program })
}

/// The verb `scenario`.
pub(crate) fn scenario(options: &ScenarioOptions) -> ExitCode {
    finish(local().and_then(|crowd| carry_out(options, crowd)))
}

/// The verb `serve`.
pub(crate) fn serve(options: &ServeOptions) -> ExitCode {
    let carried_out = options.scenario.choice.read().and_then(|scenario| {
        let key = options.key.clone().unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        let workers = options.workers.unwrap_or_else(|| scenario.workers());
        eprintln!("loadgen: waiting for {workers} times\n  loadgen join {} --key {key}", options.listen);
        carry_out(&options.scenario, Crowd::Joined { listen: options.listen, workers, key })
    });
    finish(carried_out)
}

/// The verb `join`.
pub(crate) fn join_coordinator(options: &JoinOptions) -> ExitCode {
    match join(&options.coordinator, &options.key) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            let is_input = matches!(error, JoinError::Work { is_input: true, .. });
            ExitCode::from(if is_input { INPUT } else { FAILED })
        }
    }
}

fn carry_out(options: &ScenarioOptions, crowd: Crowd) -> Result<ExitVerdict, FleetError> {
    let load = options.access.lead(options.choice.read()?, crowd)?;
    let mut live = Live::new(plan(&load.scenario), options.plain);
    let outcome = lead(&load, |progress| match progress {
        Progress::Line(line) => live.say(&line),
        Progress::Stage { number, name } => live.stage(number, name),
        Progress::Second { number, second, workers } => {
            live.second(number, second, workers);
            if live.stop_is_wanted() {
                live.close();
                // The workers end when their coordinator does.
                std::process::exit(INTERRUPTED);
            }
        }
    });
    live.close();
    let outcome = outcome?;
    print!("{}", summary::text(&outcome.results));
    if let Some(bytes) = outcome.bytes_a_client {
        println!("{bytes:.0} bytes of the generator's memory a client");
    }
    if let Some(check) = &outcome.check {
        println!("{check}");
    }
    options.outputs.write(&outcome.results).map_err(|reason| FleetError::Machine {
        what: "writing the results".into(),
        source: std::io::Error::other(reason),
    })?;
    Ok(outcome.results.verdict)
}

/// What is known of a scenario before it begins.
fn plan(scenario: &Scenario) -> Plan {
    let clients = scenario.population.clients;
    let length = |stage: &Stage| match stage.kind {
        StageKind::Connect { rate } => Duration::from_secs_f64(clients as f64 / rate),
        _ => stage.duration,
    };
    Plan {
        title: scenario.name.clone(),
        length: scenario.stages.iter().map(length).sum(),
        stages: scenario.stages.len(),
        connections: clients as u64,
    }
}

/// The exit code; an error is told.
fn finish(carried_out: Result<ExitVerdict, FleetError>) -> ExitCode {
    match carried_out {
        Ok(verdict) => ExitCode::from(verdict.code()),
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(match error {
                FleetError::NotWelcome { .. } => MISSED,
                error if error.is_input() => INPUT,
                _ => FAILED,
            })
        }
    }
}
