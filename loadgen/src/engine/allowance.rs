//! What opening connections may cost a worker.
//!
//! An allowance of processor time that grows with the clock and is spent by handshakes. While it is used
//! up, clients at the doorway wait, and those inside are served.

use crate::clock::{MILLISECOND, SECOND};

/// What is saved up, at most: a little more than two ticks' worth.
const SAVED_MAX: f64 = 50.0 * MILLISECOND as f64;

/// Processor time that may be spent, in nanoseconds.
pub(super) struct Allowance {
    /// For each nanosecond that goes by; none, and there is no bound.
    share: Option<f64>,
    left: f64,
    since: u64,
}

impl Allowance {
    /// This part of one core from now on; 0 is no bound.
    pub(super) fn new(cores: f64, now: u64) -> Self {
        Self { share: (cores > 0.0).then_some(cores), left: 0.0, since: now }
    }

    /// Time goes by.
    pub(super) fn grow(&mut self, now: u64) {
        let Some(share) = self.share else { return };
        let most = SAVED_MAX.min(share * SECOND as f64);
        self.left = (self.left + now.saturating_sub(self.since) as f64 * share).min(most);
        self.since = now;
    }

    /// Whether something may be spent.
    pub(super) fn is_left(&self) -> bool {
        self.share.is_none() || self.left > 0.0
    }

    /// Whether what is spent is to be measured.
    pub(super) fn is_bounded(&self) -> bool {
        self.share.is_some()
    }

    /// So much was spent; more than was left is owed.
    pub(super) fn spend(&mut self, nanoseconds: u64) {
        self.left -= nanoseconds as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_second_a_share_of_it_is_spent() {
        let mut allowance = Allowance::new(0.1, 0);
        let (mut spent, mut now) = (0, 0);
        while now < SECOND {
            now += MILLISECOND;
            allowance.grow(now);
            if allowance.is_left() {
                allowance.spend(MILLISECOND);
                spent += MILLISECOND;
            }
        }
        assert!((95 * MILLISECOND..=105 * MILLISECOND).contains(&spent), "{spent}");
    }

    #[test]
    fn without_a_share_there_is_no_bound_and_nothing_is_saved_for_ever() {
        let mut free = Allowance::new(0.0, 0);
        free.spend(SECOND);
        assert!(free.is_left() && !free.is_bounded());
        let mut allowance = Allowance::new(0.5, 0);
        allowance.grow(100 * SECOND);
        allowance.spend(60 * MILLISECOND);
        assert!(!allowance.is_left());
    }
}
