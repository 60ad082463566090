//! The clock of a history: CLOCK_MONOTONIC in nanoseconds.
//!
//! Every process of one host reads the same one, so that the events of several load clients and of the
//! server's trace have a sound order in real time. `std::time::Instant` is the same clock, but does not
//! give its number.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;

/// Nanoseconds since the host started.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_fall() {
        let first = now();
        assert!(now() >= first);
        assert!(first > SECOND, "the host has been up for a second");
    }
}
