//! The project's chores: `cargo xtask VERB`.
//!
//! `test` is what continuous integration runs: it installs what the tests need and passes them all. The
//! other verbs are too slow for that: each run of theirs is a *row*, recorded with its commit in
//! `bench/rows.ndjson`, and a row that still stands is not run again (`rows.rs`).
#![forbid(unsafe_code)]

mod abuse;
mod bench;
mod browser;
mod crashes;
mod fuzz;
mod hold;
mod idle;
mod instructions;
mod planted;
mod power_cut;
mod process;
mod rows;
mod server;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use process::Failure;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Everything that continuous integration checks: format, lints, tests, browser, a short crash run.
    Test,
    /// Installs what tests need and this machine lacks (Chromium, valgrind, the web packages).
    Setup,
    /// Two headless Chromium windows chat over wss with a server of their own; screenshots are kept.
    Browser {
        /// Where the screenshots go.
        #[arg(long, default_value = "target/screenshots")]
        screenshots: std::path::PathBuf,
    },
    /// A minute of load by 1,000 users over wss, and the checker on what they saw.
    Load(rows::Rerun),
    /// The same load while the server is killed again and again (SIGKILL) and started anew.
    Kills(crashes::Crashes),
    /// The same load while the power of the server's disk is cut again and again.
    PowerCuts(crashes::Crashes),
    /// The same load while the disk is full, or fails its fsyncs, for two seconds again and again.
    DiskFaults(crashes::Crashes),
    /// Builds with a planted bug must fail: without the fsync the power cuts, with deduplication from
    /// memory alone the kills. This is a test of the checker.
    Planted(rows::Rerun),
    /// A steady load beside each kind of bad client: what others notice of it, and the server's memory.
    Abuse(abuse::Abuse),
    /// The server's memory for each of 15,000 connections that do nothing.
    Idle(rows::Rerun),
    /// Very many connections: half a million over TLS for ten minutes, a million plain ones, and a storm.
    Hold(hold::Hold),
    /// The gateway's processor time for a message or a handshake, beside a floor or a baseline in the same run.
    Bench(bench::Bench),
    /// The instructions that pieces of a message's way take, held against bench/instructions.toml.
    Instructions(instructions::Instructions),
    /// Each fuzz target for some minutes.
    Fuzz(fuzz::Fuzz),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Test => test::run(),
        Verb::Setup => setup::run(),
        Verb::Browser { screenshots } => browser::run(&screenshots),
        Verb::Load(rerun) => crashes::load(&rerun),
        Verb::Kills(crashes) => crashes::kills(&crashes),
        Verb::PowerCuts(crashes) => crashes::power_cuts(&crashes),
        Verb::DiskFaults(crashes) => crashes::disk_faults(&crashes),
        Verb::Planted(rerun) => planted::run(&rerun),
        Verb::Abuse(abuse) => abuse::run(&abuse),
        Verb::Idle(rerun) => idle::run(&rerun),
        Verb::Hold(hold) => hold::run(&hold),
        Verb::Bench(bench) => bench::run(&bench),
        Verb::Instructions(options) => instructions::run(&options),
        Verb::Fuzz(fuzz) => fuzz::run(&fuzz),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::FAILURE
        }
    }
}

fn report(failure: &Failure) {
    eprintln!("\nxtask: {failure}");
}
