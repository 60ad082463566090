//! Ids that rise: 42 bits of milliseconds since 1970, 3 of region, 7 of worker, 12 of sequence.
//!
//! The time of an id is `max(now, last)`: when the clock steps back, the last time is kept and sequence
//! numbers are spent; past 4,096 of one millisecond the next one is begun, ahead of the clock, so that
//! nothing waits and no id repeats. Order in a conversation is `seq`; nobody sorts by an id, yet ids rise
//! within a conversation, and a new epoch begins above all that an older one gave.

use ringway_protocol::ids::{MessageId, Timestamp};

/// Bits below the time.
const LOW_BITS: u32 = 22;
/// The last sequence number of a millisecond.
const SEQUENCE_LAST: u64 = (1 << 12) - 1;

/// Makes the ids of one worker.
#[derive(Debug)]
pub(crate) struct Snowflake {
    /// Region and worker, in their place.
    origin: u64,
    last: u64,
    sequence: u64,
}

impl Snowflake {
    /// For a region below 8 and a worker below 128.
    pub(crate) fn new(region: u8, worker: u16) -> Self {
        assert!(region < 8, "3 bits of region");
        assert!(worker < 128, "7 bits of worker");
        Self { origin: u64::from(region) << 19 | u64::from(worker) << 12, last: 0, sequence: SEQUENCE_LAST }
    }

    /// Nothing at or below this time is given from now on.
    pub(crate) fn rise_above(&mut self, newest: Timestamp) {
        if newest.0 >= self.last {
            self.last = newest.0;
            self.sequence = SEQUENCE_LAST;
        }
    }

    /// The next id and its time, above `after` (the last of its conversation).
    pub(crate) fn next(&mut self, now: Timestamp, after: MessageId) -> (MessageId, Timestamp) {
        self.advance(now.0);
        if self.current() <= after.0 {
            // Another worker gave `after`, with a clock ahead of ours: begin above its millisecond.
            self.last = (after.0 >> LOW_BITS) + 1;
            self.sequence = 0;
        }
        (MessageId(self.current()), Timestamp(self.last))
    }

    fn advance(&mut self, now: u64) {
        if now > self.last {
            self.last = now;
            self.sequence = 0;
        } else if self.sequence < SEQUENCE_LAST {
            self.sequence += 1;
        } else {
            self.last += 1;
            self.sequence = 0;
        }
    }

    fn current(&self) -> u64 {
        self.last << LOW_BITS | self.origin | self.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the clock does, ids rise and never fall back below what an older epoch gave.
        #[test]
        fn ids_rise_under_any_clock(
            clocks in proptest::collection::vec(0u64..50, 1..300),
            newest in 0u64..60,
            worker in 0u16..128,
        ) {
            let mut snowflake = Snowflake::new(7, worker);
            snowflake.rise_above(Timestamp(newest));
            let (mut last, mut last_time) = (0, 0);
            for now in clocks {
                let (id, time) = snowflake.next(Timestamp(now), MessageId(0));
                prop_assert!(id.0 > last);
                prop_assert!(time.0 >= last_time && time.0 > newest && time.0 >= now);
                prop_assert_eq!(id.0 >> LOW_BITS, time.0);
                prop_assert_eq!(id.0 >> 12 & 0x3ff, 7 << 7 | u64::from(worker));
                (last, last_time) = (id.0, time.0);
            }
        }
    }

    #[test]
    fn past_4096_a_millisecond_the_next_one_begins() {
        let mut snowflake = Snowflake::new(0, 0);
        let ids: Vec<_> = (0..4097).map(|_| snowflake.next(Timestamp(5), MessageId(0))).collect();
        assert_eq!(ids[4095].1, Timestamp(5));
        assert_eq!(ids[4096].1, Timestamp(6));
        assert!(ids.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn an_id_is_above_the_last_of_its_conversation_from_whichever_worker() {
        let (mut high, mut low) = (Snowflake::new(0, 127), Snowflake::new(0, 0));
        let (theirs, _) = high.next(Timestamp(100), MessageId(0));
        let (ours, time) = low.next(Timestamp(100), theirs);
        assert!(ours > theirs);
        assert_eq!(time, Timestamp(101));
    }
}
