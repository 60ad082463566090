//! Rows: runs too long for continuous integration, each recorded with the commit it ran on.
//!
//! A row still stands while no later commit touched what it measures; then it is not run again, so that a
//! series which was interrupted goes on where it stopped. The record is `bench/rows.ndjson`, one JSON
//! object a line, newest last.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::process::{Failure, output, root};

/// What a row on the whole server measures: the code of its parts and of the load, not their tests.
pub(crate) const SERVER: &[&str] = &[
    "Cargo.lock",
    "src",
    "api/src",
    "gateway/ring/src",
    "gateway/src",
    "loadgen/src",
    "metrics/src",
    "protocol/proto",
    "protocol/src",
    "router/src",
    "store-writer/src",
    "trunk/src",
    "xtask/src/crashes.rs",
    "xtask/src/power_cut",
];

/// What a row of the fuzzer measures.
pub(crate) const PARSERS: &[&str] = &["fuzz", "protocol/proto", "protocol/src"];

/// Options of a verb that records rows.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Rerun {
    /// Run again what still stands.
    #[arg(long)]
    pub(crate) again: bool,
}

/// One recorded run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its name: the verb, and what tells it from the verb's other rows.
    pub(crate) row: String,
    /// The commit it ran on; `+` behind it if the tree had uncommitted changes.
    pub(crate) commit: String,
    /// Whether it did what it must.
    pub(crate) passed: bool,
    /// What was measured, as the run printed it.
    pub(crate) figures: serde_json::Value,
}

/// Runs `measure` unless the row of that name still stands, and records it. `measured` are the paths
/// whose change ends its standing.
pub(crate) fn row(
    name: &str,
    measured: &[&str],
    rerun: &Rerun,
    measure: impl FnOnce() -> Result<serde_json::Value, Failure>,
) -> Result<(), Failure> {
    if !rerun.again && stands(name, measured)? {
        println!("{name}: stands");
        return Ok(());
    }
    println!("{name}: runs");
    let outcome = measure();
    let (passed, figures) = match &outcome {
        Ok(figures) => (true, figures.clone()),
        Err(failure) => (false, serde_json::json!({ "failure": failure.to_string() })),
    };
    record(&Row { row: name.to_owned(), commit: commit(measured)?, passed, figures })?;
    outcome.map(drop)
}

fn stands(name: &str, measured: &[&str]) -> Result<bool, Failure> {
    let Ok(text) = std::fs::read_to_string(path()) else { return Ok(false) };
    let last =
        text.lines().filter_map(|line| serde_json::from_str::<Row>(line).ok()).rfind(|row| row.row == name);
    let Some(row) = last.filter(|row| row.passed && !row.commit.ends_with('+')) else { return Ok(false) };
    let mut diff = Command::new("git");
    diff.args(["diff", "--quiet", &row.commit, "--"]).args(measured).current_dir(root());
    Ok(diff.status().is_ok_and(|status| status.success()))
}

fn record(row: &Row) -> Result<(), Failure> {
    let path = path();
    let mut file =
        std::fs::File::options().create(true).append(true).open(&path).map_err(Failure::file(&path))?;
    let line = serde_json::to_string(row).expect("a row has only strings and numbers");
    writeln!(file, "{line}").map_err(Failure::file(&path))
}

fn commit(measured: &[&str]) -> Result<String, Failure> {
    let mut head = Command::new("git");
    let head = output(head.args(["rev-parse", "--short=12", "HEAD"]).current_dir(root()))?;
    let mut status = Command::new("git");
    status.args(["status", "--porcelain", "--"]).args(measured).current_dir(root());
    let dirty = if output(&mut status)?.trim().is_empty() { "" } else { "+" };
    Ok(format!("{}{dirty}", head.trim()))
}

fn path() -> PathBuf {
    root().join("bench/rows.ndjson")
}
