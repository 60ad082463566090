//! The checker finds every planted bug, and passes what is good: on made-up histories, over many seeds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringway_loadgen::checker::{Invariant, check_files, check_records};
use ringway_loadgen::history::HistoryWriter;
use ringway_loadgen::specimen::{Bug, Size, good, plant};

/// Seeds that each bug is planted with. A seed may offer no place for a bug; most must.
const SEEDS: u64 = 12;

#[test]
fn a_good_history_passes_and_shows_something_of_every_promise() {
    for seed in 0..SEEDS {
        let verdict = check_records(&good(seed, Size::SMALL));
        assert!(verdict.passed(), "seed {seed}\n{verdict}");
        for invariant in Invariant::ALL {
            assert!(verdict.finding(invariant).checked > 0, "seed {seed}: nothing of {invariant:?}");
        }
    }
}

#[test]
fn each_planted_bug_is_found_by_its_invariant() {
    let mut planted: BTreeMap<String, u64> = BTreeMap::new();
    for bug in Bug::ALL {
        for seed in 0..SEEDS {
            let mut records = good(seed, Size::SMALL);
            if !plant(bug, seed ^ 0x5eed, &mut records) {
                continue;
            }
            *planted.entry(format!("{bug:?}")).or_default() += 1;
            let verdict = check_records(&records);
            let found = verdict.finding(bug.breaks());
            assert!(found.violations > 0, "{bug:?} with seed {seed} was not found\n{verdict}");
        }
    }
    for bug in Bug::ALL {
        let count = planted.get(&format!("{bug:?}")).copied().unwrap_or(0);
        assert!(count >= SEEDS / 4, "{bug:?} was planted only {count} times");
    }
}

#[test]
fn every_invariant_has_a_bug() {
    for invariant in Invariant::ALL {
        assert!(Bug::ALL.iter().any(|bug| bug.breaks() == invariant), "{invariant:?}");
    }
}

#[test]
fn a_history_gives_the_same_verdict_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = good(1, Size::SMALL);
    assert!(plant(Bug::LostAck, 1, &mut records));
    // The client's events and the server's trace may be two files.
    let paths = [folder.path().join("client.ndjson"), folder.path().join("trace.ndjson")];
    let [client, trace] = [0, 1].map(|index: usize| HistoryWriter::create(&paths[index]).unwrap());
    let (mut to_client, mut to_trace) = (client.recorder(), trace.recorder());
    for record in &records {
        use ringway_loadgen::history::Event::{Acked, Delivered, Durable, Loaded};
        match record.event {
            Acked { .. } | Delivered { .. } | Durable { .. } | Loaded { .. } => {
                to_trace.record_at(record.time, &record.event)
            }
            _ => to_client.record_at(record.time, &record.event),
        }
    }
    drop((to_client, to_trace));
    client.finish().unwrap();
    trace.finish().unwrap();

    let (from_file, from_memory) = (check_files(&paths).unwrap(), check_records(&records));
    for invariant in Invariant::ALL {
        assert_eq!(from_file.finding(invariant), from_memory.finding(invariant));
    }
    assert!(!from_file.passed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_good_history_passes_and_any_planted_bug_is_found(
        seed: u64,
        users in 8u32..40,
        group in 3u32..12,
        bug in prop::sample::select(&Bug::ALL[..]),
    ) {
        let mut records = good(seed, Size { users, group, events: 6_000 });
        let verdict = check_records(&records);
        prop_assert!(verdict.passed(), "{}", verdict);
        if plant(bug, seed, &mut records) {
            let verdict = check_records(&records);
            prop_assert!(verdict.finding(bug.breaks()).violations > 0, "{:?}\n{}", bug, verdict);
        }
    }
}
