//! Two servers with a planted bug, built by features that are never on otherwise. Each must be caught by
//! the checker: a checker that passes them proves nothing about the real server.

use crate::crashes::{self, Fault, Load};
use crate::process::{Failure, Profile};
use crate::rows::{self, Rerun};

/// Tries before a planted bug counts as not found: each with another seed.
const TRIES: u64 = 5;

/// A load with few users and quick deaths: these bugs show at once.
const LOAD: Load = Load { users: 200, group_size: 50, messages_per_second: 400, seconds: 25 };

/// The verb.
pub(crate) fn run(rerun: &Rerun) -> Result<(), Failure> {
    // One cut, which takes everything: after half a loss the store may find its log torn in the middle and
    // refuse to start, which is right and proves nothing of the checker.
    let outcome = caught("planted-no-fsync", Fault::PowerCut, 1, rerun)
        .and_then(|()| caught("planted-memory-dedup", Fault::Kill, 5, rerun));
    // The next run of anything must not meet a planted server.
    Profile::Release.build("")?;
    outcome
}

fn caught(feature: &str, fault: Fault, count: u32, rerun: &Rerun) -> Result<(), Failure> {
    rows::row(feature, rows::SERVER, rerun, || {
        Profile::Release.build(feature)?;
        for seed in 1..=TRIES {
            let folder = crashes::scratch()?;
            match crashes::run(Profile::Release, folder.path(), LOAD, fault, count, seed) {
                Err(Failure::Broken(_)) => return Ok(serde_json::json!({ "caught_at_seed": seed })),
                Err(failure) => println!("{feature}, seed {seed}: no verdict: {failure}"),
                Ok(_) => println!("{feature}, seed {seed}: nothing found"),
            }
        }
        Err(Failure::Unmet(format!("{feature}: the checker found nothing in {TRIES} runs")))
    })
}
