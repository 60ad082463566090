//! Two runs side by side: what changed, and whether the second is worse than a tolerance allows.
//!
//! Only what repeats is judged. A percentile with fewer than ten values beyond it, and every maximum, is
//! told and not judged: another run of the same server has another one. Lost, duplicated and corrupted
//! deliveries know no tolerance.

use std::fmt;

use super::latency_histogram::TOLD;
use super::results::{Results, StageResults};
use super::threshold::{From, Timed};
use super::units;

/// A percentile is judged when so many values lie beyond it in both runs.
const VALUES_BEYOND_MIN: f64 = 10.0;

/// One number of both runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its stage, and what it is.
    pub name: String,
    /// In the first run.
    pub before: Option<f64>,
    /// In the second run.
    pub after: Option<f64>,
    judged: Judged,
    show: fn(f64) -> String,
}

/// How a change is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// More is worse, beyond the tolerance.
    MoreIsWorse,
    /// Less is worse, beyond the tolerance.
    LessIsWorse,
    /// Any more is worse.
    AnyMoreIsWorse,
    /// It is only told.
    Told,
}

/// Two runs side by side.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Number by number.
    pub changes: Vec<Change>,
    /// By how much a number may be worse, as a share of 1.
    pub tolerance: f64,
    /// The runs were told different things, and are compared all the same.
    pub scenarios_differ: bool,
}

impl Comparison {
    /// Compares the measured stages as a whole, and one by one where both runs have several.
    pub fn new(before: &Results, after: &Results, tolerance: f64) -> Self {
        let mut changes = Vec::new();
        compare("", &before.total(), &after.total(), &mut changes);
        let measured: Vec<&StageResults> = before.stages.iter().filter(|stage| stage.measured).collect();
        if measured.len() > 1 {
            for stage in measured {
                if let Some(other) = after.stages.iter().find(|other| other.name == stage.name) {
                    compare(&format!("{}: ", stage.name), stage, other, &mut changes);
                }
            }
        }
        Self { changes, tolerance, scenarios_differ: before.scenario != after.scenario }
    }

    /// The changes for the worse.
    pub fn worse(&self) -> Vec<&Change> {
        self.changes.iter().filter(|change| change.is_worse(self.tolerance)).collect()
    }
}

fn compare(prefix: &str, before: &StageResults, after: &StageResults, changes: &mut Vec<Change>) {
    let mut add = |name: &str, before: Option<f64>, after: Option<f64>, judged, show: fn(f64) -> String| {
        // What neither run has is no line.
        if before.is_some() || after.is_some() {
            changes.push(Change { name: format!("{prefix}{name}"), before, after, judged, show });
        }
    };
    let latencies = [
        ("delivery response", Timed::Delivery, From::Response),
        ("delivery service", Timed::Delivery, From::Service),
        ("ack response", Timed::Ack, From::Response),
        ("ack service", Timed::Ack, From::Service),
        ("connect response", Timed::Connect, From::Response),
        ("handshake", Timed::Handshake, From::Service),
        ("lateness", Timed::Lateness, From::Service),
    ];
    for (name, of, from) in latencies {
        let (before, after) = (before.histogram(of, from), after.histogram(of, from));
        let (some_before, some_after) = (!before.is_empty(), !after.is_empty());
        for (percentile, quantile) in TOLD {
            let beyond = before.count().min(after.count()) as f64 * (1.0 - quantile);
            // Lateness is the generator's: a change of it explains others and is no one's fault here.
            let told = beyond < VALUES_BEYOND_MIN || of == Timed::Lateness;
            let judged = if told && some_before && some_after { Judged::Told } else { Judged::MoreIsWorse };
            add(
                &format!("{name} {percentile}"),
                some_before.then(|| before.quantile(quantile) as f64),
                some_after.then(|| after.quantile(quantile) as f64),
                judged,
                units::microseconds,
            );
        }
        add(
            &format!("{name} max"),
            some_before.then(|| before.max() as f64),
            some_after.then(|| after.max() as f64),
            Judged::Told,
            units::microseconds,
        );
    }
    let delivers = before.counts.delivered + after.counts.delivered > 0;
    let rate = |stage: &StageResults| delivers.then(|| stage.delivery_rate());
    add("delivered", rate(before), rate(after), Judged::LessIsWorse, units::rate);
    let sends = before.counts.sent + after.counts.sent > 0;
    let rate = |stage: &StageResults| sends.then(|| stage.send_rate());
    add("sent", rate(before), rate(after), Judged::LessIsWorse, units::rate);
    let (cost, other) = (before.server_cpu_per_delivery(), after.server_cpu_per_delivery());
    add("server's processor a delivery", cost, other, Judged::MoreIsWorse, units::microseconds);
    let memory = |stage: &StageResults| stage.server.map(|server| server.resident_bytes_end as f64);
    add("server's memory", memory(before), memory(after), Judged::MoreIsWorse, units::bytes);
    for ((name, before), (_, after)) in before.counts.named().into_iter().zip(after.counts.named()) {
        let judged = match name {
            "lost" | "duplicated" | "corrupted" => Judged::AnyMoreIsWorse,
            "late" | "dropped" | "starved" | "refused" | "disconnects" | "connect failures" => Judged::Told,
            _ => continue,
        };
        add(name, Some(before as f64), Some(after as f64), judged, |value| units::count(value as u64));
    }
}

impl Change {
    /// The change in percent of the first run's number.
    pub fn percent(&self) -> Option<f64> {
        let (before, after) = self.before.zip(self.after)?;
        (before != 0.0).then(|| 100.0 * (after - before) / before)
    }

    /// Whether it is worse by more than this share. A number that only one run has is no better.
    fn is_worse(&self, tolerance: f64) -> bool {
        let Some((before, after)) = self.before.zip(self.after) else {
            return self.judged != Judged::Told && self.after.is_none();
        };
        match self.judged {
            Judged::MoreIsWorse => after > before * (1.0 + tolerance),
            Judged::LessIsWorse => after < before * (1.0 - tolerance),
            Judged::AnyMoreIsWorse => after > before,
            Judged::Told => false,
        }
    }

    fn shown(&self, value: Option<f64>) -> String {
        value.map_or("–".into(), self.show)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scenarios_differ {
            writeln!(formatter, "The two runs had different scenarios.")?;
        }
        let name_width = self.changes.iter().map(|change| change.name.chars().count()).max().unwrap_or(0);
        writeln!(formatter, "{:name_width$} {:>12} {:>12} {:>9}", "", "before", "after", "change")?;
        for change in &self.changes {
            let percent = change.percent().map_or(String::new(), |percent| format!("{percent:+.1} %"));
            let mark = match (change.is_worse(self.tolerance), change.judged) {
                (true, _) => "  worse",
                (false, Judged::Told) => "  (not judged)",
                (false, _) => "",
            };
            let (before, after) = (change.shown(change.before), change.shown(change.after));
            writeln!(formatter, "{:name_width$} {before:>12} {after:>12} {percent:>9}{mark}", change.name)?;
        }
        let (worse, tolerance) = (self.worse().len(), units::three_figures(self.tolerance * 100.0));
        match worse {
            0 => write!(formatter, "nothing is worse by more than {tolerance} %"),
            worse => write!(formatter, "{worse} numbers are worse by more than {tolerance} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;

    fn names(comparison: &Comparison) -> Vec<&str> {
        comparison.worse().iter().map(|change| change.name.as_str()).collect()
    }

    #[test]
    fn two_runs_of_the_same_server_are_equal_within_a_tolerance() {
        let comparison = Comparison::new(&specimen(1, 20), &specimen(2, 20), 0.1);
        assert_eq!(names(&comparison), Vec::<&str>::new(), "{comparison}");
        assert!(comparison.to_string().contains("nothing is worse by more than 10 %"));
    }

    #[test]
    fn what_is_worse_is_named_and_what_is_better_is_not() {
        let before = specimen(1, 10);
        let mut after = before.clone();
        let send = &mut after.stages[1];
        // A second pause, of a tenth of a second for one in ten.
        (0..2_000).for_each(|_| send.delivery.response.record_microseconds(100_000));
        send.counts.delivered -= 4_000;
        send.counts.lost = 1;
        send.server.as_mut().unwrap().cpu_microseconds /= 2;
        let comparison = Comparison::new(&before, &after, 0.05);
        let worse = names(&comparison);
        assert!(worse.contains(&"delivery response p90"), "{comparison}");
        assert!(worse.contains(&"delivered") && worse.contains(&"lost"), "{comparison}");
        assert!(
            !worse.iter().any(|name| name.contains("service") || name.contains("processor")),
            "{comparison}"
        );
        assert_eq!(names(&Comparison::new(&after, &before, 0.05)), ["server's processor a delivery"]);
        let text = comparison.to_string();
        assert!(text.contains("delivered") && text.contains("-20.0 %") && text.contains("max"), "{text}");
    }

    #[test]
    fn a_rare_percentile_is_told_and_not_judged() {
        let (mut before, mut after) = (specimen(1, 0), specimen(1, 0));
        let ack = |results: &mut Results, slow| {
            let response = &mut results.stages[1].ack.response;
            (0..500).for_each(|_| response.record_microseconds(100));
            (0..slow).for_each(|_| response.record_microseconds(90_000));
        };
        ack(&mut before, 0);
        ack(&mut after, 6);
        let comparison = Comparison::new(&before, &after, 0.1);
        assert_eq!(names(&comparison), Vec::<&str>::new());
        assert!(comparison.to_string().contains("(not judged)"));
        // A run that no longer measures it is not better.
        after.stages[1].ack = Default::default();
        assert!(names(&Comparison::new(&before, &after, 0.1)).contains(&"ack response p50"));
    }
}
