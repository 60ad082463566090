//! When messages are to be sent: an open loop, whose times do not depend on the server's answers.
//!
//! A client that waits for the server before it sends again measures a slow server as a light load
//! (coordinated omission). Here the times are fixed in advance by rate and seed, and latency counts from
//! them: a send that had to wait, for whatever reason, is a slow send.

use crate::clock::SECOND;

/// How the sends are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    gap: f64,
    /// In nanoseconds of the clock; as a float, because fixed gaps add up without rounding.
    next: f64,
    until: u64,
    senders: usize,
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
        let gap = if rate > 0.0 && senders > 0 { SECOND as f64 / rate } else { f64::INFINITY };
        let mut schedule =
            Self { dice: fastrand::Rng::with_seed(seed), arrival, gap, next: begin as f64, until, senders };
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
        self.next += match self.arrival {
            Arrival::Fixed => self.gap,
            // 1 - f64() is in (0, 1], so its logarithm is finite.
            Arrival::Poisson => -(1.0 - self.dice.f64()).ln() * self.gap,
        };
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
    fn nothing_is_due_early_or_without_a_rate() {
        let mut schedule = Schedule::new(1, Arrival::Fixed, 10.0, 0, SECOND, 1);
        assert_eq!(schedule.take_due(SECOND / 10 - 1), None);
        assert!(schedule.take_due(SECOND / 10).is_some());
        assert_eq!(Schedule::new(1, Arrival::Fixed, 0.0, 0, SECOND, 1).next_time(), None);
    }
}
