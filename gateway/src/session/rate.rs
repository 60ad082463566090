//! How often a client may do something: a token bucket, and strikes for who does not listen.

use crate::clock::Tick;
use crate::connection::limits::{STRIKE_MILLISECONDS, STRIKES_MAX};

/// Refills evenly up to a burst. Counts in thousandths, so that one a millisecond divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenBucket {
    pub(super) milli_tokens: u64,
    pub(super) refilled: Tick,
}

impl TokenBucket {
    /// A full one.
    pub(super) fn full(burst: u32, now: Tick) -> Self {
        Self { milli_tokens: u64::from(burst) * 1000, refilled: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// Milliseconds until there is one.
    pub(super) fn take(&mut self, now: Tick, per_second: u32, burst: u32) -> Result<(), u64> {
        let fresh = now.since(self.refilled).saturating_mul(u64::from(per_second));
        self.milli_tokens = self.milli_tokens.saturating_add(fresh).min(u64::from(burst) * 1000);
        self.refilled = now;
        match self.milli_tokens.checked_sub(1000) {
            Some(left) => {
                self.milli_tokens = left;
                Ok(())
            }
            None => Err((1000 - self.milli_tokens).div_ceil(u64::from(per_second).max(1)).max(1)),
        }
    }
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
        if now.since(self.last) >= STRIKE_MILLISECONDS {
            self.count = 0;
        }
        self.last = now;
        self.count = self.count.saturating_add(1);
        self.count > STRIKES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let mut bucket = TokenBucket::full(5, Tick(0));
        for _ in 0..5 {
            assert_eq!(bucket.take(Tick(0), 50, 5), Ok(()));
        }
        assert_eq!(bucket.take(Tick(0), 50, 5), Err(20));
        assert_eq!(bucket.take(Tick(19), 50, 5), Err(1));
        assert_eq!(bucket.take(Tick(20), 50, 5), Ok(()));
        assert_eq!(bucket.take(Tick(1_000_000), 50, 5), Ok(()));
        assert_eq!(bucket.milli_tokens, 4000, "a rest fills it and no more");
    }

    #[test]
    fn quiet_forgives() {
        let mut strikes = Strikes::default();
        for _ in 0..STRIKES_MAX {
            assert!(!strikes.strike(Tick(1)));
        }
        assert!(strikes.strike(Tick(2)));
        assert!(!strikes.strike(Tick(2 + STRIKE_MILLISECONDS)));
    }
}
