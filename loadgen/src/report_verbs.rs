//! `loadgen report`, `diff` and `doctor`, and where a run leaves its results.
//!
//! Exit codes: 0 good; 2 the command line or a file is wrong, or the host is too small; 3 the second run
//! is worse.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringway_loadgen::doctor::{Examination, Load};
use ringway_loadgen::report::comparison::Comparison;
use ringway_loadgen::report::results::{ExitVerdict, Results};
use ringway_loadgen::report::{hdr_log, html, summary};

/// A file is wrong, or the host is too small.
const INPUT: u8 = 2;

/// Where a run leaves its results.
#[derive(Args, Clone, Default)]
pub(crate) struct Outputs {
    /// Write the whole results here; `report` and `diff` read them
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report here, one page that needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the latencies by second here, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<PathBuf>,
}

/// Options of the verb `report`.
#[derive(Args)]
pub(crate) struct ReportOptions {
    /// Results that --json wrote; several generators' results of one run are merged
    #[arg(required = true)]
    results: Vec<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

/// Options of the verb `diff`.
#[derive(Args)]
pub(crate) struct DiffOptions {
    /// Results of the first run, that --json wrote
    before: PathBuf,
    /// Results of the second run
    after: PathBuf,
    /// Percent by which a number may be worse
    #[arg(long, default_value_t = 10.0)]
    tolerance: f64,
}

/// Options of the verb `doctor`.
#[derive(Args)]
pub(crate) struct DoctorOptions {
    /// Connections at the same time
    #[arg(long, default_value_t = 1000)]
    users: u64,
    /// They speak TLS
    #[arg(long)]
    tls: bool,
    /// Connections of a worker process, per_worker of a scenario
    #[arg(long)]
    per_worker: Option<u64>,
    /// Addresses that they come from; one for each 900 connections if not given, as from loopback addresses
    #[arg(long)]
    sources: Option<u64>,
    /// The server is on another machine
    #[arg(long)]
    remote: bool,
}

impl Outputs {
    /// Writes what was asked for.
    pub(crate) fn write(&self, results: &Results) -> Result<(), String> {
        let file = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| format!("{path}: {error}")
        };
        if let Some(path) = &self.json {
            results.write(path).map_err(|error| error.to_string())?;
        }
        if let Some(path) = &self.html {
            html::write(path, results).map_err(file(path))?;
        }
        if let Some(path) = &self.hdr_log {
            hdr_log::write(path, results).map_err(file(path))?;
        }
        Ok(())
    }
}

/// The verb `report`.
pub(crate) fn report(options: &ReportOptions) -> ExitCode {
    let merged = || -> Result<Results, String> {
        let read =
            |path: &PathBuf| Results::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let mut results = options.results.iter().map(read);
        let mut merged = results.next().ok_or("no results were given")??;
        for other in results {
            merged.merge(&other?).map_err(|error| error.to_string())?;
        }
        options.outputs.write(&merged)?;
        Ok(merged)
    };
    match merged() {
        Ok(results) => {
            eprint!("{}", summary::text(&results));
            println!("{}", summary::json(&results));
            ExitCode::SUCCESS
        }
        Err(error) => wrong(&error),
    }
}

/// The verb `diff`.
pub(crate) fn diff(options: &DiffOptions) -> ExitCode {
    if !(0.0..=1000.0).contains(&options.tolerance) {
        return wrong("--tolerance is a number of percent, 0 to 1000");
    }
    let read = |path: &PathBuf| Results::read(path).map_err(|error| format!("{}: {error}", path.display()));
    match read(&options.before).and_then(|before| Ok((before, read(&options.after)?))) {
        Ok((before, after)) => {
            let comparison = Comparison::new(&before, &after, options.tolerance / 100.0);
            println!("{comparison}");
            match comparison.worse().is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(ExitVerdict::Missed.code()),
            }
        }
        Err(error) => wrong(&error),
    }
}

/// The verb `doctor`.
pub(crate) fn doctor(options: &DoctorOptions) -> ExitCode {
    let usual = Load::of(options.users);
    let load = Load {
        tls: options.tls,
        per_worker: options.per_worker.unwrap_or(usual.per_worker).max(1),
        // To a server elsewhere, connections come from the one address that leads there.
        sources: options.sources.unwrap_or(if options.remote { 1 } else { usual.sources }),
        server_is_here: !options.remote,
        ..usual
    };
    let examination = Examination::of_this_host(&load);
    println!("{examination}");
    if examination.passed() { ExitCode::SUCCESS } else { ExitCode::from(INPUT) }
}

fn wrong(error: &str) -> ExitCode {
    eprintln!("loadgen: {error}");
    ExitCode::from(INPUT)
}
