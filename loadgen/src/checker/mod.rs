//! The checker: reads histories and says which promises of the contract were broken.
//!
//! `dataset.rs` loads the events into sorted tables; then one file an invariant group looks at them, each a
//! hash join or a pass over sorted rows, O(n log n) in all:
//!
//! - `durability.rs`: I1 no acked message lost or changed, I15 an ack implies durable
//! - `duplicates.rs`: I2 no duplicate after dedup, I11 an idempotent retry
//! - `order.rs`: I3 dense seq, I4 one order, I5 real-time order
//! - `membership.rs`: I6 no delivery to non-members, I7 nothing after a removal
//! - `history_reads.rs`: I8 read-your-writes and monotonic reads
//! - `integrity.rs`: I13 payload integrity, I16 unique ids
//! - `catch_up.rs`: I14 catch-up complete
//! - `ending.rs`: I17 every send ends
//!
//! `members.rs` has the member sets, `verdict.rs` the result. The other invariants of the contract concern
//! parts that this history does not show (receipts, presence, push, owners).

mod catch_up;
mod dataset;
mod duplicates;
mod durability;
mod ending;
mod history_reads;
mod integrity;
mod interner;
mod members;
mod membership;
mod order;
mod verdict;

use std::path::Path;
use std::time::Instant;

use crate::history::{HistoryError, Record, read_file};
use dataset::{Collector, Dataset};

pub use verdict::{Finding, Invariant, Verdict};

/// Reads the files, one history together, and checks it.
///
/// # Errors
/// A file can't be read.
pub fn check_files<P: AsRef<Path>>(paths: &[P]) -> Result<Verdict, HistoryError> {
    let begin = Instant::now();
    let mut collector = Collector::default();
    for path in paths {
        read_file(path.as_ref(), |record| collector.add(&record))?;
    }
    Ok(judge(collector, begin))
}

/// Checks records that are in memory, in any order.
pub fn check_records<'a>(records: impl IntoIterator<Item = &'a Record<'a>>) -> Verdict {
    let begin = Instant::now();
    let mut collector = Collector::default();
    for record in records {
        collector.add(record);
    }
    judge(collector, begin)
}

fn judge(collector: Collector, begin: Instant) -> Verdict {
    let dataset = collector.sort();
    let mut verdict = Verdict::new(dataset.events, begin.elapsed());
    run_checks(&dataset, &mut verdict);
    verdict.finish(begin.elapsed());
    verdict
}

fn run_checks(dataset: &Dataset, verdict: &mut Verdict) {
    let members = members::Members::of(dataset, verdict);
    durability::check(dataset, verdict);
    duplicates::check(dataset, verdict);
    order::check(dataset, &members, verdict);
    membership::check(dataset, &members, verdict);
    history_reads::check(dataset, &members, verdict);
    integrity::check(dataset, verdict);
    catch_up::check(dataset, &members, verdict);
    ending::check(dataset, verdict);
}
