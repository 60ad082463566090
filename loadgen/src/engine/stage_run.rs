//! A stage of the scenario while it runs in one worker.
//!
//! It begins, it is over by the clock (a connect stage: when all are there), and then it settles: what was
//! sent is to end, who was cut is to be back, and what acks promise is to have come. Only then is it known
//! what is lost.

use std::time::Duration;

use crate::clock::SECOND;
use crate::scenario::{Stage, StageKind, share_of};
use crate::schedule::{Arrival, Schedule};

/// A connect stage has this long at least, and beside it twice the time that its rate asks for.
const CONNECT_MIN: u64 = 60 * SECOND;

/// A stage of one worker.
pub(super) struct StageRun {
    /// Its number in the scenario.
    pub(super) number: usize,
    /// What happens in it.
    pub(super) kind: StageKind,
    /// When it began.
    pub(super) begin: u64,
    /// When it is over; for a connect stage, when the last connection is begun.
    pub(super) end: u64,
    /// When it is given up on what has not ended.
    pub(super) deadline: u64,
    /// Its sends.
    pub(super) schedule: Schedule,
    /// Connections that leave and come back, a second.
    pub(super) churn: f64,
    /// How many clients are to be cut, or to read slowly.
    pub(super) chosen_count: usize,
    /// Who was cut, or reads slowly.
    pub(super) chosen: Vec<u32>,
    /// Of those who are to be cut, how many were.
    cut: usize,
    /// Bytes that each slow reader may read, a second.
    pub(super) slow_bytes: u32,
    /// Connections of a connect stage that were begun.
    pub(super) begun: usize,
    /// Its clock has run out, and what it did at its end is done.
    pub(super) is_settling: bool,
    connect_gap: f64,
}

/// The worker's part in a stage.
pub(super) struct Part {
    /// Number of this worker, and of all.
    pub(super) worker: (usize, usize),
    /// Clients of this worker.
    pub(super) clients: usize,
    /// Of these, how many talk.
    pub(super) chatters: usize,
    /// Of everything, how much this worker does.
    pub(super) share: f64,
    /// For its random choices.
    pub(super) seed: u64,
    /// How its sends are spread.
    pub(super) arrival: Arrival,
}

impl StageRun {
    /// The worker's part of a stage that begins now.
    pub(super) fn new(number: usize, stage: &Stage, part: &Part, now: u64) -> Self {
        let nanoseconds = |duration: Duration| duration.as_nanos() as u64;
        let (worker, workers) = part.worker;
        let (connect_gap, length) = match stage.kind {
            StageKind::Connect { rate } => {
                let gap = SECOND as f64 / (rate * part.share).max(1e-6);
                (gap, (gap * part.clients as f64) as u64)
            }
            _ => (0.0, nanoseconds(stage.duration)),
        };
        let end = now + length;
        let patience = match stage.kind {
            StageKind::Connect { .. } => CONNECT_MIN + length,
            _ => nanoseconds(stage.settle),
        };
        let (chosen_count, slow_bytes) = match stage.kind {
            StageKind::Storm { cut, .. } => (share_of(cut as usize, worker, workers).len(), 0),
            StageKind::SlowReaders { readers, bytes } => {
                (share_of(readers as usize, worker, workers).len(), bytes)
            }
            _ => (0, 0),
        };
        let seed = part.seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rate = stage.rate.times(part.share);
        Self {
            number,
            kind: stage.kind,
            begin: now,
            end,
            deadline: end + patience,
            schedule: Schedule::of_rate(seed, part.arrival, rate, now, end, part.chatters),
            churn: stage.churn * part.share,
            chosen_count,
            chosen: Vec::new(),
            cut: 0,
            slow_bytes,
            begun: 0,
            is_settling: false,
            connect_gap,
        }
    }

    /// Whether a client is still to be cut.
    pub(super) fn has_to_cut(&self) -> bool {
        matches!(self.kind, StageKind::Storm { .. }) && self.cut < self.chosen.len()
    }

    /// The next client that is to be cut, and within which time it comes back.
    pub(super) fn take_cut(&mut self) -> Option<(u32, Duration)> {
        let StageKind::Storm { return_over, .. } = self.kind else { return None };
        let number = self.chosen.get(self.cut).copied()?;
        self.cut += 1;
        Some((number, return_over))
    }

    /// The next connection of a connect stage that is due: its number, and when it was to be begun.
    pub(super) fn take_connect(&mut self, clients: usize, now: u64) -> Option<(usize, u64)> {
        let time = self.next_connect(clients).filter(|time| *time <= now)?;
        self.begun += 1;
        Some((self.begun - 1, time))
    }

    /// When the next connection of a connect stage is to be begun.
    pub(super) fn next_connect(&self, clients: usize) -> Option<u64> {
        let connects = matches!(self.kind, StageKind::Connect { .. });
        (connects && self.begun < clients).then(|| self.begin + (self.connect_gap * self.begun as f64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Rate;

    fn stage(kind: StageKind) -> Stage {
        Stage {
            name: "one".into(),
            kind,
            duration: Duration::from_secs(10),
            measured: true,
            rate: Rate::steady(100.0),
            churn: 10.0,
            settle: Duration::from_secs(3),
        }
    }

    fn part(worker: usize) -> Part {
        Part { worker: (worker, 4), clients: 10, chatters: 5, share: 0.25, seed: 1, arrival: Arrival::Fixed }
    }

    #[test]
    fn four_workers_do_the_whole_of_it() {
        let kind = StageKind::Storm { cut: 10, return_over: Duration::from_secs(1) };
        let runs: Vec<StageRun> =
            (0..4).map(|worker| StageRun::new(2, &stage(kind), &part(worker), SECOND)).collect();
        assert_eq!(runs.iter().map(|run| run.chosen_count).sum::<usize>(), 10);
        assert_eq!(runs.iter().map(|run| run.churn).sum::<f64>(), 10.0);
        assert_eq!((runs[0].end, runs[0].deadline), (11 * SECOND, 14 * SECOND));
        let mut schedule = StageRun::new(2, &stage(StageKind::Send), &part(0), SECOND).schedule;
        let sends = std::iter::from_fn(|| schedule.take_due(u64::MAX)).count();
        assert!((249..=250).contains(&sends), "{sends}");
    }

    #[test]
    fn connections_begin_at_their_rate() {
        let mut run = StageRun::new(0, &stage(StageKind::Connect { rate: 4.0 }), &part(0), SECOND);
        assert_eq!(run.next_connect(10), Some(SECOND));
        assert_eq!(run.take_connect(10, SECOND), Some((0, SECOND)));
        assert_eq!(run.take_connect(10, SECOND), None, "not yet");
        run.begun = 3;
        assert_eq!(run.next_connect(10), Some(4 * SECOND), "one a second of the worker's part");
        run.begun = 10;
        assert_eq!(run.next_connect(10), None);
        assert_eq!(StageRun::new(0, &stage(StageKind::Hold), &part(0), 0).next_connect(10), None);
    }
}
