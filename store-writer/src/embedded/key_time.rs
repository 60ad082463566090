//! The time by which idempotency keys age, which a wall clock that is set wrong for a while cannot fool.
//!
//! A key is stamped with the wall clock, and that may step a week ahead and back: judged by it, keys of a
//! minute ago would be past their lifetime. So the age is taken from a time of its own, which follows the
//! wall clock at no more than [`PACE`] times the pace of the steady clock and is never ahead of it, nor of
//! the newest stamp before this epoch, where that is later: every id given from now on is later still. So a
//! machine that starts in 1970, before it asks for the time, sets nothing back.
//! At the moment when a key is written this time is at most the key's stamp; so when it says that a lifetime
//! has passed, half a lifetime has passed for sure, and the lifetime is at least twice the window that
//! clients are promised.
//!
//! It is stored ([`SAVE_TICKS`]) and goes on from there at the next opening: the time in which a store is
//! closed ages nothing at first and is caught up with later. What it is late by costs space, never a key.

use std::time::Duration;

use ringway_protocol::ids::Timestamp;

/// How much faster than the steady clock it may run: enough to catch up, and what a lifetime allows.
const PACE: u64 = 2;

/// Looks at the clocks, one a sweep interval, between two writes of it: what a crash sets it back by.
pub(super) const SAVE_TICKS: u32 = 60;

/// See above.
#[derive(Debug)]
pub(super) struct KeyTime(Timestamp);

impl KeyTime {
    /// From what was stored. Only a store that was made before this time was kept has none: then from the
    /// latest time in the log.
    pub(super) fn new(stored: Option<Timestamp>, newest: Timestamp, wall: Timestamp) -> Self {
        Self(stored.unwrap_or(newest).min(wall.max(newest)))
    }

    /// `passed` by the steady clock since the last look, and the wall clock says this; no id of an earlier
    /// epoch is later than `newest`.
    pub(super) fn advance(&mut self, passed: Duration, wall: Timestamp, newest: Timestamp) {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let ahead = Timestamp(self.0.0.saturating_add(passed.saturating_mul(PACE)));
        self.0 = ahead.min(wall.max(newest));
    }

    /// What it says.
    pub(super) fn get(&self) -> Timestamp {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    #[test]
    fn a_step_a_week_ahead_and_back_makes_no_key_old() {
        let start = 20_000 * DAY;
        let mut time = KeyTime::new(Some(Timestamp(start)), Timestamp(0), Timestamp(start));
        let mut now = start;
        let mut look = |time: &mut KeyTime, minutes: u64, offset: u64| {
            for _ in 0..minutes {
                now += 60_000;
                time.advance(Duration::from_secs(60), Timestamp(now + offset), Timestamp(0));
            }
            now
        };
        assert_eq!(look(&mut time, 60, 0), time.get().0, "it is the wall clock while that is right");
        let written = time.get().0;
        look(&mut time, 60, 7 * DAY);
        assert_eq!(time.get().0 - written, 2 * 3_600_000, "an hour ahead of the true time, not a week");
        let true_time = look(&mut time, 1, 0);
        assert_eq!(time.get().0, true_time, "and back with the wall clock");
        look(&mut time, 7 * 24 * 60 / 2 - 200, 30 * DAY);
        assert!(time.get().0 < written + 7 * DAY, "not before half of a lifetime has really passed");
    }

    #[test]
    fn what_was_stored_goes_on_and_what_is_behind_catches_up() {
        let (wall, newest) = (Timestamp(100 * DAY), Timestamp(107 * DAY));
        let mut time = KeyTime::new(Some(Timestamp(99 * DAY)), newest, wall);
        assert_eq!(time.get().0, 99 * DAY, "not the times of entries that were written a week ahead");
        time.advance(Duration::from_millis(DAY), Timestamp(101 * DAY), newest);
        assert_eq!(time.get().0, 101 * DAY);
        assert_eq!(KeyTime::new(None, Timestamp(90 * DAY), wall).get().0, 90 * DAY);
        assert_eq!(KeyTime::new(Some(Timestamp(120 * DAY)), Timestamp(0), wall).get(), wall);
    }

    #[test]
    fn a_machine_that_wakes_in_1970_sets_nothing_back() {
        let newest = Timestamp(20_000 * DAY);
        let mut time = KeyTime::new(Some(newest), newest, Timestamp(0));
        time.advance(Duration::from_secs(10), Timestamp(10_000), newest);
        assert_eq!(time.get(), newest);
        let wall = Timestamp(newest.0 + 60_000);
        time.advance(Duration::from_secs(60), wall, newest);
        assert_eq!(time.get(), wall, "and it goes on when the clock is right");
    }
}
