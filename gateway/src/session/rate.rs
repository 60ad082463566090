//! How often a client may do something: a token bucket, and strikes for who does not listen.

use crate::clock::Tick;
use crate::connection::limits::{STRIKE_MILLISECONDS, STRIKES_MAX};

/// Refills evenly up to a burst. All that is kept is when it will be full (the generic cell rate algorithm of
/// ITU-T I.371), so a bucket that nobody took from lately has no state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenBucket {
    /// In nanoseconds of the clock; full, if that is over.
    full_at: u64,
}

impl TokenBucket {
    /// One that will be full so many nanoseconds after `now`.
    pub(super) fn full_after(nanoseconds: u64, now: Tick) -> Self {
        Self { full_at: nanoseconds_of(now).saturating_add(nanoseconds) }
    }

    /// Nanoseconds until it is full.
    pub(super) fn full_in(self, now: Tick) -> u64 {
        self.full_at.saturating_sub(nanoseconds_of(now))
    }

    /// Takes one token.
    ///
    /// # Errors
    /// Milliseconds until there is one.
    pub(super) fn take(&mut self, now: Tick, per_second: u32, burst: u32) -> Result<(), u64> {
        let full_in = self.full_in(now).saturating_add(nanoseconds_of_a_token(per_second));
        let missing = full_in.saturating_sub(nanoseconds_of_a_token(per_second) * u64::from(burst));
        if missing > 0 {
            return Err(missing.div_ceil(1_000_000));
        }
        *self = Self::full_after(full_in, now);
        Ok(())
    }

    /// When there is a token again.
    pub(super) fn token_at(self, per_second: u32, burst: u32) -> Tick {
        let others = nanoseconds_of_a_token(per_second) * u64::from(burst.saturating_sub(1));
        Tick(self.full_at.saturating_sub(others).div_ceil(1_000_000))
    }
}

fn nanoseconds_of(tick: Tick) -> u64 {
    tick.0.saturating_mul(1_000_000)
}

fn nanoseconds_of_a_token(per_second: u32) -> u64 {
    1_000_000_000 / u64::from(per_second.max(1))
}

/// Counts refusals until it was quiet for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strikes {
    pub(super) count: u16,
    pub(super) last: Tick,
}

impl Strikes {
    /// One more refusal. True if it was one too many.
    pub(super) fn strike(&mut self, now: Tick) -> bool {
        if self.are_forgiven(now) {
            self.count = 0;
        }
        self.last = now;
        self.count = self.count.saturating_add(1);
        self.count > STRIKES_MAX
    }

    /// Whether it was quiet for long enough.
    pub(super) fn are_forgiven(self, now: Tick) -> bool {
        self.count == 0 || now.since(self.last) >= STRIKE_MILLISECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let mut bucket = TokenBucket::default();
        for _ in 0..5 {
            assert_eq!(bucket.take(Tick(0), 50, 5), Ok(()));
        }
        assert_eq!(bucket.take(Tick(0), 50, 5), Err(20));
        assert_eq!(bucket.token_at(50, 5), Tick(20));
        assert_eq!(bucket.take(Tick(19), 50, 5), Err(1));
        assert_eq!(bucket.take(Tick(20), 50, 5), Ok(()));
        assert_eq!(bucket.full_in(Tick(20)), 100_000_000, "all five are gone");
        for _ in 0..5 {
            assert_eq!(bucket.take(Tick(1_000_000), 50, 5), Ok(()));
        }
        assert_eq!(bucket.take(Tick(1_000_000), 50, 5), Err(20), "a rest fills it and no more");
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_is_kept_over_an_hour() {
        let mut bucket = TokenBucket::default();
        let passed = (0..3_600_000).filter(|now| bucket.take(Tick(*now), 300, 7).is_ok()).count();
        assert!((1_080_000..=1_080_010).contains(&passed), "{passed}");
    }

    #[test]
    fn quiet_forgives() {
        let mut strikes = Strikes::default();
        for _ in 0..STRIKES_MAX {
            assert!(!strikes.strike(Tick(1)));
        }
        assert!(strikes.strike(Tick(2)));
        assert!(!strikes.are_forgiven(Tick(3)));
        assert!(!strikes.strike(Tick(2 + STRIKE_MILLISECONDS)));
    }
}
