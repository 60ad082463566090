//! When which client is to be looked at: a heap with at most a few entries a client.
//!
//! An entry that is no longer wanted stays until its time, and then finds nothing to do: cheaper than
//! taking it out, as most of a client's times only ever move later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Times of clients, by number.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Timers {
    /// Looks at a client at this time.
    pub(super) fn add(&mut self, time: u64, client: u32) {
        self.heap.push(Reverse((time, client)));
    }

    /// The earliest time.
    fn next_time(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// A client whose time has come, and that time.
    pub(super) fn take_due(&mut self, now: u64) -> Option<(u64, u32)> {
        if self.next_time()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_nothing_early() {
        let mut timers = Timers::default();
        timers.add(30, 1);
        timers.add(10, 2);
        timers.add(20, 3);
        assert_eq!((timers.take_due(9), timers.next_time()), (None, Some(10)));
        assert_eq!(timers.take_due(25), Some((10, 2)));
        assert_eq!(timers.take_due(25), Some((20, 3)));
        assert_eq!((timers.take_due(25), timers.next_time()), (None, Some(30)));
    }
}
