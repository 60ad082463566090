//! How a core empties itself: everybody is sent elsewhere, one after the other.
//!
//! ```text
//!   0 ── connection 1, 2, 3 … is each told its moment ──────── over ── + grace ── what is left is cut
//! ```
//! If all came back at once, whoever takes them would drown (a storm); so each is told a moment of its
//! own, evenly spread, and closes by itself when that is past. Telling them is itself done a thousand a
//! pass, so that those who are still served do not wait for it.

use std::time::Duration;

use crate::clock::Tick;

/// Connections told in one pass: about 5 ms of sends.
const TOLD_A_PASS: u32 = 1_024;

/// Longest time that one connection is given around its moment, in milliseconds.
const SLICE_MILLISECONDS_MAX: u64 = 1_000;

/// Time after the window for close handshakes and last acks, in milliseconds.
const GRACE_MILLISECONDS: u64 = 2_000;

pub(crate) struct Drain {
    began: Tick,
    /// Milliseconds over which they are spread.
    window: u64,
    /// Slots below are told.
    cursor: u32,
    /// Slots to tell in all.
    end: u32,
}

/// When a connection is to go, from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) after_ms: u64,
    pub(crate) within_ms: u64,
}

impl Drain {
    /// Begins with `slots` to go through.
    pub(crate) fn new(now: Tick, over: Duration, slots: u32) -> Self {
        let window = u64::try_from(over.as_millis()).unwrap_or(u64::MAX / 4);
        Self { began: now, window, cursor: 0, end: slots }
    }

    /// The slots to tell in this pass.
    pub(crate) fn next_slots(&mut self) -> std::ops::Range<u32> {
        let first = self.cursor;
        self.cursor = self.end.min(first.saturating_add(TOLD_A_PASS));
        first..self.cursor
    }

    /// Whether some are still to be told.
    pub(crate) fn is_telling(&self) -> bool {
        self.cursor < self.end
    }

    /// The moment of a slot, told at `now`.
    pub(crate) fn moment_of(&self, slot: u32, now: Tick) -> Moment {
        let slice = SLICE_MILLISECONDS_MAX.min(self.window / 4);
        let spread = self.window - slice;
        let at = spread * u64::from(slot) / u64::from(self.end.max(1));
        Moment { after_ms: at.saturating_sub(now.since(self.began)), within_ms: slice }
    }

    /// When what is left is cut.
    pub(crate) fn deadline(&self) -> Tick {
        self.began + self.window + GRACE_MILLISECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spread_over_the_window_and_end_in_it() {
        let drain = Drain::new(Tick(50), Duration::from_secs(10), 1_000);
        let moments: Vec<Moment> = (0..1_000).map(|slot| drain.moment_of(slot, Tick(50))).collect();
        assert!(moments.is_sorted_by_key(|moment| moment.after_ms));
        for (second, part) in moments.chunks(100).enumerate() {
            let middle = second as u64 * 900..(second as u64 + 1) * 900 + 1;
            assert!(part.iter().all(|moment| middle.contains(&moment.after_ms)), "{second}");
        }
        assert!(moments.iter().all(|moment| moment.after_ms + moment.within_ms <= 10_000));
        assert_eq!(drain.deadline(), Tick(12_050));
    }

    #[test]
    fn everybody_is_told_once_a_thousand_at_a_time() {
        let mut drain = Drain::new(Tick(0), Duration::ZERO, 2_500);
        let mut told = Vec::new();
        while drain.is_telling() {
            let slots = drain.next_slots();
            assert!(slots.len() <= 1_024);
            told.extend(slots);
        }
        assert_eq!(told, (0..2_500).collect::<Vec<u32>>());
    }
}
