//! I8: a read of history returns what was acked before it began, to whomever, and what the reader's device
//! had seen before.
//!
//! A read answers for a range of places. Within it, up to the highest place that was known to be there when
//! the read began, no place may be missing that the reader may see.

use super::dataset::{Dataset, Delivery, Read, Step, groups, seconds};
use super::interner::QuickMap;
use super::members::Members;
use super::verdict::{Invariant, Verdict};

/// Times and the highest place known at each: both rise.
#[derive(Default)]
struct Known(Vec<(u64, u64)>);

impl Known {
    fn of(mut seen: Vec<(u64, u64)>) -> Self {
        seen.sort_unstable();
        let mut highest = 0;
        for (_, seq) in &mut seen {
            highest = highest.max(*seq);
            *seq = highest;
        }
        Self(seen)
    }

    fn before(&self, time: u64) -> u64 {
        let count = self.0.partition_point(|(at, _)| *at < time);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

pub(super) fn check(data: &Dataset, members: &Members, verdict: &mut Verdict) {
    let acked = acked(data);
    let rows = rows_of(data);
    let seen = seen_by_readers(data, &rows);
    for (index, read) in data.reads.iter().enumerate() {
        let Some((returned, low, high)) = read.returned.filter(|_| read.invoked > 0) else { continue };
        verdict.checked(Invariant::I8, 1);
        let acked = acked.get(&read.conversation).map_or(0, |known| known.before(read.invoked));
        let seen = seen.get(&(read.device, read.conversation)).map_or(0, |known| known.before(read.invoked));
        let rows = &data.history_rows[rows[index].clone()];
        let stays = members.stays(read.conversation, data.user_of(read.device));
        // An earlier stay may be out of sight by now.
        let Some(stay) = stays.iter().rev().find(|stay| stay.0 <= acked.max(seen)) else { continue };
        let from = low.max(stay.0);
        let until = high.min(stay.1).min(acked.max(seen));
        if let Some(missing) = first_missing(rows, from, until) {
            verdict.violated(Invariant::I8, || {
                format!(
                    "{} read {} from seq {low} at {} (answer {}): seq {missing} is missing, acked were {acked} \
                     and seen by the device {seen}",
                    data.device_name(read.device),
                    data.conversation_name(read.conversation),
                    seconds(read.invoked),
                    seconds(returned)
                )
            });
        }
    }
}

/// By conversation, what had been acked when.
fn acked(data: &Dataset) -> QuickMap<u32, Known> {
    let mut acks: QuickMap<u32, Vec<(u64, u64)>> = QuickMap::default();
    for send in &data.sends {
        if let Step::Acknowledged { seq, .. } = send.step {
            acks.entry(send.conversation).or_default().push((send.time, seq));
        }
    }
    acks.into_iter().map(|(conversation, acks)| (conversation, Known::of(acks))).collect()
}

/// By read, where its rows lie.
fn rows_of(data: &Dataset) -> Vec<std::ops::Range<usize>> {
    let mut rows = vec![0..0; data.reads.len()];
    for range in groups(&data.history_rows, |row| row.connection) {
        let read = data.history_rows[range.start].connection;
        rows[read as usize] = range;
    }
    rows
}

/// By (device, conversation) that reads: what the device had seen when, over sockets and by reads that had
/// returned.
fn seen_by_readers(data: &Dataset, rows: &[std::ops::Range<usize>]) -> QuickMap<(u32, u32), Known> {
    let mut seen: QuickMap<(u32, u32), Vec<(u64, u64)>> = QuickMap::default();
    for (index, read) in data.reads.iter().enumerate() {
        let Read { device, conversation, returned: Some((returned, ..)), .. } = *read else { continue };
        let list = seen.entry((device, conversation)).or_insert_with(|| {
            data.view(device, conversation).iter().map(|row| (row.time, row.seq)).collect()
        });
        list.extend(data.history_rows[rows[index].clone()].last().map(|row| (returned, row.seq)));
    }
    seen.into_iter().map(|(reader, seen)| (reader, Known::of(seen))).collect()
}

/// The first place of `from..=until` that `rows`, ascending, lack.
fn first_missing(rows: &[Delivery], from: u64, until: u64) -> Option<u64> {
    let mut next = from;
    for row in &rows[rows.partition_point(|row| row.seq < from)..] {
        if row.seq > next {
            break;
        }
        next = row.seq + 1;
    }
    (next <= until).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_rises_with_time() {
        let known = Known::of(vec![(30, 2), (10, 1), (20, 5)]);
        let before: Vec<u64> = [10, 11, 20, 21, 31].map(|time| known.before(time)).into();
        assert_eq!(before, [0, 1, 1, 5, 5]);
    }
}
