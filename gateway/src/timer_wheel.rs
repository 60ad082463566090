//! One deadline a slot, for hundreds of thousands of slots.
//!
//! A wheel of 4,096 buckets of 16 ms: about a minute ahead, past the longest silence that a connection is
//! allowed. Heartbeats push a deadline away again and again, so a later deadline only notes itself (one
//! store); the slot stays in its old bucket, is found there too early, and is put where it belongs then.
//! An earlier deadline moves the slot at once. A deadline further than a minute waits in the last bucket
//! and is looked at again from there.
//!
//! A slot keeps the low 32 bits of its deadline, which say enough of what is at most twelve days ahead; one that
//! is further ahead is found too early too.
//!
//! The ring is asked for one timeout, that of the first bucket that is not empty: timeouts of the kernel
//! are searched one by one.

use crate::clock::Tick;

/// Milliseconds of a bucket.
const BUCKET_MILLISECONDS: u64 = 16;
const BUCKETS: usize = 4_096;
const NONE: u32 = u32::MAX;

pub(crate) struct TimerWheel {
    /// First slot of each bucket.
    heads: Vec<u32>,
    /// A bit for each bucket that is not empty.
    occupied: [u64; BUCKETS / 64],
    /// By slot; grows with the highest slot that had a deadline.
    timers: Vec<Timer>,
    /// The bucket (counted from tick 0, never wrapped) up to which all has been looked at.
    position: u64,
}

/// Bytes that a slot's deadline takes.
pub(crate) const TIMER_BYTES: usize = size_of::<Timer>();

const _: () = assert!(TIMER_BYTES == 16, "every connection has one, and four fit a line of the cache");

/// How far ahead a deadline is noted, in milliseconds: half of what the comparison of two could tell.
const AHEAD_MAX: u64 = 1 << 30;

#[derive(Clone, Copy)]
struct Timer {
    deadline: ShortTick,
    /// The bucket it is in, wrapped; `NONE` if in none.
    bucket: u32,
    previous: u32,
    next: u32,
}

/// The low 32 bits of a [`Tick`] that is less than 2^31 milliseconds away.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ShortTick(u32);

impl ShortTick {
    fn new(tick: Tick) -> Self {
        ShortTick(tick.0 as u32)
    }

    fn is_before(self, other: ShortTick) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Milliseconds from `now` to here, 0 if it is over.
    fn since(self, now: Tick) -> u64 {
        u64::try_from(self.0.wrapping_sub(now.0 as u32) as i32).unwrap_or(0)
    }
}

impl TimerWheel {
    pub(crate) fn new(now: Tick) -> Self {
        Self {
            heads: vec![NONE; BUCKETS],
            occupied: [0; BUCKETS / 64],
            timers: Vec::new(),
            position: now.0 / BUCKET_MILLISECONDS,
        }
    }

    /// Sets the slot's deadline, in place of the one it had.
    pub(crate) fn schedule(&mut self, slot: u32, deadline: Tick) {
        let index = slot as usize;
        if self.timers.len() <= index {
            let empty = Timer { deadline: ShortTick(0), bucket: NONE, previous: NONE, next: NONE };
            self.timers.resize(index + 1, empty);
        }
        let latest = self.time() + AHEAD_MAX;
        let deadline = ShortTick::new(deadline.min(latest).max(self.time()));
        let timer = &mut self.timers[index];
        let earlier = deadline.is_before(timer.deadline);
        timer.deadline = deadline;
        if timer.bucket == NONE {
            self.link(slot);
        } else if earlier {
            self.unlink(slot);
            self.link(slot);
        }
    }

    /// Takes the slot's deadline away.
    pub(crate) fn cancel(&mut self, slot: u32) {
        if self.timers.get(slot as usize).is_some_and(|timer| timer.bucket != NONE) {
            self.unlink(slot);
        }
    }

    /// Appends the slots whose deadline has come to `expired`. They have none any more.
    pub(crate) fn expire(&mut self, now: Tick, expired: &mut Vec<u32>) {
        let end = now.0 / BUCKET_MILLISECONDS;
        // A thread that slept past a whole turn finds every bucket due; once around is enough.
        let buckets = (end + 1).saturating_sub(self.position).min(BUCKETS as u64);
        let first = self.position;
        self.position = self.position.max(end);
        for bucket in first..first + buckets {
            self.expire_bucket(bucket as usize % BUCKETS, now, expired);
        }
    }

    /// When to call [`expire`](Self::expire) next, if a deadline is set. It may find that all were pushed
    /// away.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        let start = self.position as usize % BUCKETS;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                // The end of the bucket: all in it are due then.
                return Some(Tick((self.position + ahead as u64 + 1) * BUCKET_MILLISECONDS));
            }
        }
        None
    }

    fn expire_bucket(&mut self, bucket: usize, now: Tick, expired: &mut Vec<u32>) {
        // The bucket is emptied first: a slot that is not due may belong into the very same one.
        let mut slot = std::mem::replace(&mut self.heads[bucket], NONE);
        self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        while slot != NONE {
            let timer = &mut self.timers[slot as usize];
            let next = timer.next;
            timer.bucket = NONE;
            if timer.deadline.since(now) == 0 {
                expired.push(slot);
            } else {
                self.link(slot);
            }
            slot = next;
        }
    }

    /// The beginning of the bucket that is looked at next.
    fn time(&self) -> Tick {
        Tick(self.position * BUCKET_MILLISECONDS)
    }

    fn link(&mut self, slot: u32) {
        let time = self.time();
        let timer = &mut self.timers[slot as usize];
        let wanted = (time + timer.deadline.since(time)).0 / BUCKET_MILLISECONDS;
        let bucket = wanted.clamp(self.position, self.position + BUCKETS as u64 - 1) as usize % BUCKETS;
        let next = self.heads[bucket];
        *timer = Timer { bucket: bucket as u32, previous: NONE, next, ..*timer };
        if next != NONE {
            self.timers[next as usize].previous = slot;
        }
        self.heads[bucket] = slot;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    fn unlink(&mut self, slot: u32) {
        let Timer { bucket, previous, next, .. } = self.timers[slot as usize];
        if previous == NONE {
            self.heads[bucket as usize] = next;
            if next == NONE {
                self.occupied[bucket as usize / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.timers[previous as usize].next = next;
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        self.timers[slot as usize].bucket = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expired(wheel: &mut TimerWheel, now: u64) -> Vec<u32> {
        let mut slots = Vec::new();
        wheel.expire(Tick(now), &mut slots);
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_deadline_pushed_away_again_and_again_comes_once() {
        let mut wheel = TimerWheel::new(Tick(0));
        for beat in 0..10 {
            wheel.schedule(3, Tick(45_000 + beat * 30_000));
            assert!(expired(&mut wheel, beat * 30_000).is_empty());
        }
        assert!(expired(&mut wheel, 314_999).is_empty());
        assert_eq!(expired(&mut wheel, 315_000), [3]);
        assert!(expired(&mut wheel, 1_000_000).is_empty());
    }

    #[test]
    fn an_earlier_deadline_counts_at_once() {
        let mut wheel = TimerWheel::new(Tick(1_000));
        wheel.schedule(0, Tick(46_000));
        wheel.schedule(0, Tick(2_000));
        assert!(wheel.next_deadline().unwrap() <= Tick(2_016));
        assert_eq!(expired(&mut wheel, 2_000), [0]);
    }

    #[test]
    fn nothing_to_wait_for_is_said() {
        let mut wheel = TimerWheel::new(Tick(5));
        assert_eq!(wheel.next_deadline(), None);
        wheel.schedule(9, Tick(100));
        wheel.cancel(9);
        wheel.cancel(9);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn the_low_half_of_a_tick_wraps_and_nothing_is_lost() {
        let start = u64::from(u32::MAX) - 1_000;
        let mut wheel = TimerWheel::new(Tick(start));
        wheel.schedule(7, Tick(start + 45_000));
        wheel.schedule(7, Tick(start + 75_000));
        wheel.schedule(8, Tick(start + 500));
        assert_eq!(expired(&mut wheel, start + 500), [8]);
        assert!(expired(&mut wheel, start + 74_999).is_empty());
        assert_eq!(expired(&mut wheel, start + 75_000), [7]);
        wheel.schedule(9, Tick(start));
        assert_eq!(expired(&mut wheel, start + 75_000), [9], "a deadline that is over is due at once");
    }

    #[test]
    fn a_deadline_of_next_year_is_looked_at_after_twelve_days() {
        let mut wheel = TimerWheel::new(Tick(0));
        wheel.schedule(1, Tick(u64::MAX - 1));
        let minutes = (0..20_000).map(|minute| minute * 60_000);
        let found = minutes.clone().find(|now| !expired(&mut wheel, *now).is_empty());
        assert_eq!(found, minutes.clone().find(|now| *now >= AHEAD_MAX));
    }

    proptest! {
        /// Against a plain list: the same slots expire, no earlier and no later than a bucket.
        #[test]
        fn it_does_what_a_list_does(
            steps in proptest::collection::vec((0u32..20, 0u64..200_000, 0u8..4, 0u64..30_000), 1..200)
        ) {
            let mut wheel = TimerWheel::new(Tick(0));
            let mut list = std::collections::BTreeMap::new();
            let mut now = 0;
            for (slot, ahead, action, passes) in steps {
                if action == 0 {
                    wheel.cancel(slot);
                    list.remove(&slot);
                } else {
                    wheel.schedule(slot, Tick(now + ahead));
                    list.insert(slot, now + ahead);
                }
                if let Some(first) = list.values().min() {
                    let next = wheel.next_deadline().expect("something is waited for").0;
                    prop_assert!(next <= (*first).max(now) + 2 * BUCKET_MILLISECONDS, "{next} {first} {now}");
                }
                now += passes;
                let due: Vec<u32> =
                    list.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect();
                prop_assert_eq!(expired(&mut wheel, now), due.clone());
                for slot in due {
                    list.remove(&slot);
                }
            }
        }
    }
}
