//! What the checker found: a count an invariant, the first counter-examples, a table for people and one
//! JSON line for machines.

use std::fmt;
use std::time::Duration;

/// Counter-examples that are kept of each invariant: the first ones show the cause, thousands hide it.
const EXAMPLES_MAX: usize = 5;

/// An invariant of the contract (contract.md 1.3) that the checker checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Invariant {
    /// No acked message lost or changed.
    I1,
    /// No duplicate after dedup.
    I2,
    /// Dense seq.
    I3,
    /// One order for all members and devices.
    I4,
    /// Real-time order.
    I5,
    /// No delivery to non-members.
    I6,
    /// Removed members get nothing after the change.
    I7,
    /// Read-your-writes, monotonic reads.
    I8,
    /// Idempotent retry.
    I11,
    /// Payload integrity and isolation.
    I13,
    /// Catch-up complete.
    I14,
    /// Ack implies durable.
    I15,
    /// Ids unique.
    I16,
    /// Every send ends.
    I17,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Invariant; 14] = [
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I4,
        Invariant::I5,
        Invariant::I6,
        Invariant::I7,
        Invariant::I8,
        Invariant::I11,
        Invariant::I13,
        Invariant::I14,
        Invariant::I15,
        Invariant::I16,
        Invariant::I17,
    ];

    /// What it promises.
    pub fn promise(self) -> &'static str {
        match self {
            Invariant::I1 => "no acked message lost or changed",
            Invariant::I2 => "no duplicate after dedup",
            Invariant::I3 => "dense seq",
            Invariant::I4 => "one order for all",
            Invariant::I5 => "real-time order",
            Invariant::I6 => "no delivery to non-members",
            Invariant::I7 => "nothing after removal",
            Invariant::I8 => "read-your-writes, monotonic reads",
            Invariant::I11 => "idempotent retry",
            Invariant::I13 => "payload integrity",
            Invariant::I14 => "catch-up complete",
            Invariant::I15 => "ack implies durable",
            Invariant::I16 => "ids unique",
            Invariant::I17 => "every send ends",
        }
    }
}

/// What was found about one invariant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Things looked at; 0 says that the history shows nothing about this invariant.
    pub checked: u64,
    /// Times that it was broken.
    pub violations: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Events read.
    pub events: u64,
    /// Time to read and sort them.
    pub loading: Duration,
    /// Time in all.
    pub took: Duration,
    findings: Vec<Finding>,
}

impl Verdict {
    pub(super) fn new(events: u64, loading: Duration) -> Self {
        Self { events, loading, took: loading, findings: vec![Finding::default(); Invariant::ALL.len()] }
    }

    pub(super) fn finish(&mut self, took: Duration) {
        self.took = took;
    }

    /// Counts things that were looked at.
    pub(super) fn checked(&mut self, invariant: Invariant, count: u64) {
        self.findings[invariant as usize].checked += count;
    }

    /// Counts a violation; `example` is made only if there is room for it.
    pub(super) fn violated(&mut self, invariant: Invariant, example: impl FnOnce() -> String) {
        let finding = &mut self.findings[invariant as usize];
        finding.violations += 1;
        if finding.examples.len() < EXAMPLES_MAX {
            finding.examples.push(example());
        }
    }

    /// What was found about one invariant.
    pub fn finding(&self, invariant: Invariant) -> &Finding {
        &self.findings[invariant as usize]
    }

    /// Whether nothing was broken.
    pub fn passed(&self) -> bool {
        self.violations() == 0
    }

    /// Violations of all invariants.
    pub fn violations(&self) -> u64 {
        self.findings.iter().map(|finding| finding.violations).sum()
    }

    /// One JSON object in one line.
    pub fn to_json(&self) -> serde_json::Value {
        let invariants: serde_json::Map<_, _> = Invariant::ALL
            .iter()
            .map(|invariant| {
                let finding = self.finding(*invariant);
                let mut value = serde_json::json!({
                    "checked": finding.checked,
                    "violations": finding.violations,
                });
                if !finding.examples.is_empty() {
                    value["examples"] = finding.examples.clone().into();
                }
                (format!("{invariant:?}"), value)
            })
            .collect();
        serde_json::json!({
            "verdict": if self.passed() { "pass" } else { "fail" },
            "violations": self.violations(),
            "events": self.events,
            "seconds": (self.took.as_secs_f64() * 1000.0).round() / 1000.0,
            "invariants": invariants,
        })
    }
}

/// The table for people.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} events, read in {:.1} s, checked in {:.1} s",
            self.events,
            self.loading.as_secs_f64(),
            (self.took - self.loading).as_secs_f64()
        )?;
        writeln!(f, "{:<5} {:<34} {:>12} {:>10}", "", "promise", "checked", "violations")?;
        for invariant in Invariant::ALL {
            let finding = self.finding(invariant);
            let note = if finding.checked == 0 { "  (the history shows nothing of it)" } else { "" };
            let name = format!("{invariant:?}");
            writeln!(
                f,
                "{name:<5} {:<34} {:>12} {:>10}{note}",
                invariant.promise(),
                finding.checked,
                finding.violations
            )?;
            for example in &finding.examples {
                writeln!(f, "      - {example}")?;
            }
            let hidden = finding.violations - finding.examples.len() as u64;
            if hidden > 0 {
                writeln!(f, "      - and {hidden} more")?;
            }
        }
        write!(f, "{}", if self.passed() { "PASS" } else { "FAIL" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invariant_is_found_at_its_place() {
        for (index, invariant) in Invariant::ALL.iter().enumerate() {
            assert_eq!(*invariant as usize, index);
        }
    }

    #[test]
    fn the_first_examples_are_kept_and_the_rest_counted() {
        let mut verdict = Verdict::new(1, Duration::ZERO);
        assert!(verdict.passed());
        for number in 0..9 {
            verdict.violated(Invariant::I5, || format!("example {number}"));
        }
        assert_eq!(verdict.finding(Invariant::I5).violations, 9);
        let text = verdict.to_string();
        assert!(text.contains("example 4") && text.contains("and 4 more") && text.ends_with("FAIL"));
        assert_eq!(verdict.to_json()["verdict"], "fail");
    }
}
