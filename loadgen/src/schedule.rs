//! When messages are to be sent: an open loop, whose times do not depend on the server's answers.
//!
//! A client that waits for the server before it sends again measures a slow server as a light load
//! (coordinated omission). Here the times are fixed in advance by rate and seed, and latency counts from
//! them: a send that had to wait, for whatever reason, is a slow send.

use crate::clock::SECOND;

/// How the sends are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// Independently of each other, as of many people: gaps are exponential.
    Poisson,
    /// At equal distances.
    Fixed,
}

/// The sends of one thread, one after the other.
pub struct Schedule {
    dice: fastrand::Rng,
    arrival: Arrival,
    rate: Rate,
    /// Sends up to the next one, where time is stretched so that there is one a unit.
    count: f64,
    /// In nanoseconds of the clock.
    next: f64,
    begin: u64,
    until: u64,
    senders: usize,
}

/// Sends a second: the same all the time, or rising or falling evenly.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rate {
    /// At the beginning.
    pub from: f64,
    /// At the end.
    pub to: f64,
}

impl Rate {
    /// The same all the time.
    pub fn steady(rate: f64) -> Self {
        Self { from: rate, to: rate }
    }

    /// This share of it.
    pub fn times(self, share: f64) -> Self {
        Self { from: self.from * share, to: self.to * share }
    }

    /// After how many of `seconds` there have been so many sends; infinite if there never are.
    fn time_of(self, count: f64, seconds: f64) -> f64 {
        let slope = (self.to - self.from) / seconds;
        if slope.abs() < 1e-9 {
            return if self.from > 0.0 { count / self.from } else { f64::INFINITY };
        }
        // count = from t + slope t² / 2, solved for t in the form that does not cancel.
        let root = self.from * self.from + 2.0 * slope * count;
        if root < 0.0 { f64::INFINITY } else { 2.0 * count / (self.from + root.sqrt()) }
    }
}

/// One send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When it is to be sent.
    pub intended: u64,
    /// By which of the senders.
    pub sender: usize,
}

impl Schedule {
    /// `rate` sends a second from `begin` until `until`, each by one of `senders`.
    pub fn new(seed: u64, arrival: Arrival, rate: f64, begin: u64, until: u64, senders: usize) -> Self {
        Self::of_rate(seed, arrival, Rate::steady(rate), begin, until, senders)
    }

    /// Sends at a rate that may change from `begin` until `until`.
    pub fn of_rate(seed: u64, arrival: Arrival, rate: Rate, begin: u64, until: u64, senders: usize) -> Self {
        let rate = if senders > 0 { rate } else { Rate::steady(0.0) };
        let dice = fastrand::Rng::with_seed(seed);
        let mut schedule = Self { dice, arrival, rate, count: 0.0, next: 0.0, begin, until, senders };
        schedule.advance();
        schedule
    }

    /// When the next send is to happen; `None` after the last.
    pub fn next_time(&self) -> Option<u64> {
        (self.next < self.until as f64).then_some(self.next as u64)
    }

    /// The next send that is due by now.
    pub fn take_due(&mut self, now: u64) -> Option<Due> {
        let intended = self.next_time().filter(|time| *time <= now)?;
        self.advance();
        Some(Due { intended, sender: self.dice.usize(0..self.senders) })
    }

    fn advance(&mut self) {
        self.count += match self.arrival {
            Arrival::Fixed => 1.0,
            // 1 - f64() is in (0, 1], so its logarithm is finite.
            Arrival::Poisson => -(1.0 - self.dice.f64()).ln(),
        };
        let seconds = self.until.saturating_sub(self.begin) as f64 / SECOND as f64;
        self.next = self.begin as f64 + self.rate.time_of(self.count, seconds) * SECOND as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(arrival: Arrival, seed: u64) -> Vec<Due> {
        let mut schedule = Schedule::new(seed, arrival, 1_000.0, 5 * SECOND, 15 * SECOND, 10);
        std::iter::from_fn(|| schedule.take_due(u64::MAX)).collect()
    }

    #[test]
    fn the_rate_is_kept_and_a_seed_repeats_itself() {
        assert_eq!(all(Arrival::Fixed, 1).len(), 9_999);
        let poisson = all(Arrival::Poisson, 1);
        // 10,000 expected, with a deviation of 100.
        assert!((9_500..10_500).contains(&poisson.len()), "{}", poisson.len());
        assert!(poisson.is_sorted_by_key(|due| due.intended));
        assert_eq!(poisson, all(Arrival::Poisson, 1));
        assert_ne!(poisson, all(Arrival::Poisson, 2));
    }

    #[test]
    fn exponential_gaps_vary_as_much_as_they_last() {
        let times: Vec<f64> = all(Arrival::Poisson, 3).iter().map(|due| due.intended as f64).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.9..1.1).contains(&(variance.sqrt() / mean)));
    }

    #[test]
    fn a_ramp_has_the_mean_of_its_ends_and_its_halves_differ() {
        for (from, to) in [(0.0, 2_000.0), (2_000.0, 0.0), (500.0, 1_500.0)] {
            let rate = Rate { from, to };
            let mut schedule = Schedule::of_rate(1, Arrival::Fixed, rate, SECOND, 11 * SECOND, 3);
            let all: Vec<Due> = std::iter::from_fn(|| schedule.take_due(u64::MAX)).collect();
            assert!((9_990..=10_001).contains(&all.len()), "{from} to {to}: {}", all.len());
            let first = all.iter().filter(|due| due.intended < 6 * SECOND).count() as f64;
            let expected = (from + (from + to) / 2.0) / 2.0 * 5.0;
            assert!((first - expected).abs() < 5.0, "{from} to {to}: {first}, expected {expected}");
            assert!(all.is_sorted_by_key(|due| due.intended));
        }
    }

    #[test]
    fn nothing_is_due_early_or_without_a_rate() {
        let mut schedule = Schedule::new(1, Arrival::Fixed, 10.0, 0, SECOND, 1);
        assert_eq!(schedule.take_due(SECOND / 10 - 1), None);
        assert!(schedule.take_due(SECOND / 10).is_some());
        assert_eq!(Schedule::new(1, Arrival::Fixed, 0.0, 0, SECOND, 1).next_time(), None);
    }
}
