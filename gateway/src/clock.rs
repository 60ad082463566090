//! Time as the socket plane counts it: one reading of the clock a pass, handed down as a [`Tick`].
//!
//! A tick is a millisecond of CLOCK_MONOTONIC since the core's ring was made, so it never steps back and a
//! suspended clock of the wall does not matter. What clients are told is wall time ([`Timestamp`]), read
//! beside it once a second. Nothing below the event loop asks for the time itself.

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway_protocol::ids::Timestamp;

/// Milliseconds of the monotonic clock since the core began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// A time that does not come.
    pub const NEVER: Tick = Tick(u64::MAX);

    /// This much later.
    pub fn after(self, duration: Duration) -> Tick {
        self + u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since `earlier`, 0 if it is later.
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Tick {
    type Output = Tick;
    /// Milliseconds later.
    fn add(self, milliseconds: u64) -> Tick {
        Tick(self.0.saturating_add(milliseconds))
    }
}

impl Sub<u64> for Tick {
    type Output = Tick;
    /// Milliseconds earlier.
    fn sub(self, milliseconds: u64) -> Tick {
        Tick(self.0.saturating_sub(milliseconds))
    }
}

/// The wall clock of the machine: what clients are told. It may step.
pub fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
