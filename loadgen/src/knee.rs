//! The knee: the highest rate at which a scenario still meets its thresholds.
//!
//! The rate doubles until a threshold is missed, then the gap between the last rate that was met and the
//! first that was not is halved until it is small. What runs a rate is a [`Trial`]; this file knows no
//! socket. A rate that the generator could not keep is no finding about the server: if it bounds the
//! search, the knee is said to be at least what was met.

use std::error::Error;
use std::fmt;

use crate::report::results::{ExitVerdict, Results};
use crate::report::threshold::{From, Timed, Verdict};
use crate::report::units;

/// Rates of one search, at most: doubling from 1 to a million and halving to a thousandth are 30.
const RATES_MAX: usize = 64;

/// Runs a scenario at a rate.
pub trait Trial {
    /// Runs it with so many messages a second, and judges it.
    ///
    /// # Errors
    /// The run could not be carried out.
    fn run(&mut self, rate: f64) -> Result<Results, Box<dyn Error>>;
}

/// How a knee is searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The first rate.
    pub from: f64,
    /// The last rate that is tried.
    pub to: f64,
    /// The gap that is small enough, as a share of the rate.
    pub precision: f64,
    /// Runs of a rate; the majority decides, because one hiccup is no knee.
    pub repeats: u32,
}

/// A search that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The rates.
    #[error("the search needs 0 < --from < --to")]
    Range,
    /// The precision.
    #[error("the precision must lie between 0.001 and 1")]
    Precision,
    /// The repeats.
    #[error("the repeats must be 1 to 9")]
    Repeats,
}

/// A rate that was tried.
#[derive(Debug, Clone)]
pub struct Try {
    /// Messages a second.
    pub rate: f64,
    /// What the majority of its runs said.
    pub verdict: ExitVerdict,
    /// Its last run.
    pub results: Results,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Knee {
    /// Every rate that was tried, in order.
    pub tries: Vec<Try>,
    /// The highest that met the thresholds.
    pub met: Option<f64>,
    /// The lowest above it that did not, and why; `None` if the end of the range was met.
    pub unmet: Option<(f64, ExitVerdict)>,
}

impl Search {
    /// Whether it can be made.
    ///
    /// # Errors
    /// [`SearchError`].
    pub fn check(&self) -> Result<(), SearchError> {
        if !(self.from > 0.0 && self.from < self.to && self.to.is_finite()) {
            return Err(SearchError::Range);
        }
        if !(0.001..=1.0).contains(&self.precision) {
            return Err(SearchError::Precision);
        }
        if !(1..=9).contains(&self.repeats) {
            return Err(SearchError::Repeats);
        }
        Ok(())
    }

    /// Searches. `progress` gets each rate once it is tried.
    ///
    /// # Errors
    /// The search makes no sense, or a run could not be carried out.
    pub fn run(
        &self,
        trial: &mut impl Trial,
        mut progress: impl FnMut(&Try),
    ) -> Result<Knee, Box<dyn Error>> {
        self.check()?;
        let mut knee = Knee { tries: Vec::new(), met: None, unmet: None };
        let mut rate = self.from;
        while knee.tries.len() < RATES_MAX {
            let tried = self.try_rate(trial, rate)?;
            progress(&tried);
            match tried.verdict {
                ExitVerdict::Passed => knee.met = Some(rate),
                verdict => knee.unmet = Some((rate, verdict)),
            }
            knee.tries.push(tried);
            let Some(next) = self.next_rate(&knee) else { break };
            rate = next;
        }
        Ok(knee)
    }

    /// The rate to try next, if there is one.
    fn next_rate(&self, knee: &Knee) -> Option<f64> {
        match (knee.met, knee.unmet) {
            // Not even the first was met: there is nothing to halve.
            (None, _) => None,
            (Some(met), None) => (met < self.to).then(|| (met * 2.0).min(self.to)),
            (Some(met), Some((unmet, _))) => {
                (unmet - met > self.precision * met).then(|| (met + unmet) / 2.0)
            }
        }
    }

    fn try_rate(&self, trial: &mut impl Trial, rate: f64) -> Result<Try, Box<dyn Error>> {
        let majority = self.repeats / 2 + 1;
        let (mut met, mut unmet) = (0, 0);
        loop {
            let results = trial.run(rate)?;
            let verdict = results.verdict;
            match verdict {
                ExitVerdict::Passed => met += 1,
                // Another run does not make the generator faster.
                ExitVerdict::GeneratorBottleneck => return Ok(Try { rate, verdict, results }),
                ExitVerdict::Missed => unmet += 1,
            }
            if met.max(unmet) >= majority {
                return Ok(Try { rate, verdict, results });
            }
        }
    }
}

impl Knee {
    /// The exit code's verdict: whether there is a knee, and whether it is the server's.
    pub fn verdict(&self) -> ExitVerdict {
        match (self.met, self.unmet) {
            (_, Some((_, ExitVerdict::GeneratorBottleneck))) => ExitVerdict::GeneratorBottleneck,
            (None, _) => ExitVerdict::Missed,
            (Some(_), _) => ExitVerdict::Passed,
        }
    }

    /// The results at the knee.
    pub fn results(&self) -> Option<&Results> {
        let met = self.met?;
        self.tries.iter().rev().find(|tried| tried.rate == met).map(|tried| &tried.results)
    }

    /// Everything, for machines.
    pub fn to_json(&self) -> serde_json::Value {
        let tries = self.tries.iter().map(|tried| {
            serde_json::json!({
                "rate": tried.rate,
                "verdict": tried.verdict,
                "thresholds": tried.results.thresholds,
            })
        });
        serde_json::json!({
            "rate": self.met,
            "unmet_rate": self.unmet.map(|(rate, _)| rate),
            "verdict": self.verdict(),
            "tries": tries.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Try {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.results.total();
        let response = total.histogram(Timed::Delivery, From::Response);
        write!(formatter, "{:>10}  ", units::rate(self.rate))?;
        match self.verdict {
            ExitVerdict::Passed => write!(formatter, "met")?,
            ExitVerdict::GeneratorBottleneck => write!(formatter, "the generator was too slow")?,
            ExitVerdict::Missed => {
                let missed =
                    self.results.thresholds.iter().filter(|judged| judged.verdict != Verdict::Passed);
                for (number, judged) in missed.enumerate() {
                    let comma = if number > 0 { ", " } else { "missed " };
                    let measured =
                        judged.measured.map_or("unknown".into(), |value| judged.threshold.show(value));
                    write!(formatter, "{comma}{} ({measured})", judged.threshold)?;
                }
            }
        }
        if !response.is_empty() {
            write!(formatter, "  p99 response {}", units::microseconds(response.quantile(0.99) as f64))?;
        }
        Ok(())
    }
}

impl fmt::Display for Knee {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.met, self.unmet) {
            (None, Some((rate, ExitVerdict::GeneratorBottleneck))) => {
                write!(formatter, "the generator cannot keep {}: give it more workers", units::rate(rate))
            }
            (None, _) => {
                write!(formatter, "not even the first rate meets the thresholds: begin lower with --from")
            }
            (Some(met), None) => {
                write!(formatter, "at least {}: the end of the range; raise --to", units::rate(met))
            }
            (Some(met), Some((rate, ExitVerdict::GeneratorBottleneck))) => write!(
                formatter,
                "at least {}: at {} it was the generator that was too slow; give it more workers",
                units::rate(met),
                units::rate(rate)
            ),
            (Some(met), Some((rate, _))) => write!(
                formatter,
                "the knee is at {}: the highest rate that meets the thresholds; {} does not",
                units::rate(met),
                units::rate(rate)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::results::StageResults;

    /// A server that holds a rate, and a generator that does.
    struct Model {
        server: f64,
        generator: f64,
        /// Runs whose threshold is missed for no reason.
        hiccups: Vec<usize>,
        runs: usize,
    }

    impl Trial for Model {
        fn run(&mut self, rate: f64) -> Result<Results, Box<dyn Error>> {
            self.runs += 1;
            let mut stage = StageResults { measured: true, length_seconds: 1.0, ..StageResults::default() };
            stage.counts.sent = rate as u64;
            stage.counts.late = if rate > self.generator { rate as u64 / 2 } else { 0 };
            let is_slow = rate > self.server || self.hiccups.contains(&self.runs);
            let latency = if is_slow { 500_000_000 } else { 2_000_000 };
            (0..100).for_each(|_| stage.delivery.record(0, 0, latency));
            let mut results = Results::new("test", "");
            results.stages.push(stage);
            results.judge(&["delivery.response.p99 <= 100ms".parse()?]);
            Ok(results)
        }
    }

    fn model(server: f64, generator: f64) -> Model {
        Model { server, generator, hiccups: Vec::new(), runs: 0 }
    }

    const SEARCH: Search = Search { from: 100.0, to: 100_000.0, precision: 0.02, repeats: 1 };

    #[test]
    fn the_knee_is_found_within_the_precision() {
        for server in [100.0, 333.0, 12_345.0, 99_000.0] {
            let mut model = model(server, f64::INFINITY);
            let knee = SEARCH.run(&mut model, |_| {}).unwrap();
            let (met, unmet) = (knee.met.unwrap(), knee.unmet.unwrap().0);
            assert!(met <= server && server < unmet && unmet - met <= 0.02 * met, "{server}: {knee}");
            assert_eq!(knee.verdict().code(), 0);
            assert!(model.runs <= 18, "{} runs", model.runs);
            assert!(knee.results().is_some_and(|results| results.total().counts.sent == met as u64));
        }
    }

    #[test]
    fn the_ends_of_the_range_are_told_as_such() {
        let knee = SEARCH.run(&mut model(1e9, 1e9), |_| {}).unwrap();
        assert_eq!((knee.met, knee.verdict().code()), (Some(100_000.0), 0));
        assert!(knee.to_string().contains("at least 100,000/s"), "{knee}");
        let knee = SEARCH.run(&mut model(50.0, 1e9), |_| {}).unwrap();
        assert_eq!((knee.met, knee.tries.len(), knee.verdict().code()), (None, 1, 3));
    }

    #[test]
    fn a_slow_generator_is_no_knee_of_the_server() {
        let mut told = Vec::new();
        let knee = SEARCH.run(&mut model(50_000.0, 3_000.0), |tried| told.push(tried.to_string())).unwrap();
        let met = knee.met.unwrap();
        assert!((2_900.0..=3_000.0).contains(&met), "{knee}");
        assert_eq!(knee.verdict().code(), 4);
        assert!(knee.to_string().contains("give it more workers"), "{knee}");
        assert!(told.iter().any(|line| line.contains("the generator was too slow")), "{told:?}");
        assert_eq!(knee.to_json()["tries"].as_array().unwrap().len(), told.len());
    }

    #[test]
    fn a_hiccup_is_outvoted() {
        let mut single = Model { hiccups: vec![2], ..model(10_000.0, 1e9) };
        assert!(SEARCH.run(&mut single, |_| {}).unwrap().met.unwrap() < 200.0);
        let mut three = Model { hiccups: vec![3], ..model(10_000.0, 1e9) };
        let knee = Search { repeats: 3, ..SEARCH }.run(&mut three, |_| {}).unwrap();
        assert!(knee.met.unwrap() > 9_800.0, "{knee}");
    }

    #[test]
    fn a_search_without_sense_is_refused() {
        let check = |search: Search| search.check().unwrap_err();
        assert_eq!(check(Search { from: 0.0, ..SEARCH }), SearchError::Range);
        assert_eq!(check(Search { to: 50.0, ..SEARCH }), SearchError::Range);
        assert_eq!(check(Search { precision: f64::NAN, ..SEARCH }), SearchError::Precision);
        assert_eq!(check(Search { repeats: 0, ..SEARCH }), SearchError::Repeats);
    }
}
