//! How far a worker has handled the durable log: everything of this worker at or below the watermark was
//! delivered before the watermark is said. Clients resume from the least over all workers.
//!
//! Positions count the flushes of all workers, so an idle worker's watermark rises with the log. It is
//! read conservatively: with nothing under way, all flushes of this worker are handled and whatever is
//! durable is covered; with a flush under way, what was durable before it was handed over; with entries
//! whose outcome is unknown, nothing more than before.

use ringway_protocol::ids::Position;

use super::gather::UnderWay;

/// The pace at which endpoints are told: a cursor that is this much older names a few more
/// conversations after a reconnect, and costs nothing else.
const INTERVAL_MICROSECONDS: u64 = 50_000;

/// One worker's watermark.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    /// The last flush of this worker that was handled.
    flushed: Position,
    /// All of this worker up to here was handled, also what was in limbo.
    handled: Position,
    said: Position,
    said_at: u64,
}

impl Watermark {
    /// A flush of this worker was handled, and all before it but what is in limbo.
    pub(crate) fn flush_handled(&mut self, position: Position) {
        self.flushed = self.flushed.max(position);
    }

    /// At the end of a pass: the position to tell, if it is time. `durable` was read when the pass began.
    pub(crate) fn end_of_pass(
        &mut self,
        durable: Position,
        under_way: Option<&UnderWay>,
        unknown: bool,
        now_microseconds: u64,
    ) -> Option<Position> {
        if !unknown {
            let reached = under_way.map_or(durable, |flush| flush.above);
            self.handled = self.handled.max(reached).max(self.flushed);
        }
        let due = self.said == Position(0) || now_microseconds >= self.said_at + INTERVAL_MICROSECONDS;
        if self.handled <= self.said || !due {
            return None;
        }
        self.said = self.handled;
        self.said_at = now_microseconds;
        Some(self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::event::FlushId;
    use ringway_protocol::ids::Epoch;

    #[test]
    fn it_follows_the_log_when_idle_and_stays_below_what_is_under_way_or_unknown() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.end_of_pass(Position(5), None, false, 0), Some(Position(5)));
        assert_eq!(watermark.end_of_pass(Position(6), None, false, 10), None, "too soon");
        assert_eq!(watermark.end_of_pass(Position(7), None, true, 60_000), Some(Position(6)));
        assert_eq!(watermark.end_of_pass(Position(9), None, true, 200_000), None);
        assert_eq!(watermark.end_of_pass(Position(9), None, false, 200_000), Some(Position(9)));
        watermark.flush_handled(Position(11));
        assert_eq!(watermark.end_of_pass(Position(9), None, true, 290_000), None, "older ones are unknown");
        assert_eq!(watermark.end_of_pass(Position(9), None, false, 300_000), Some(Position(11)));
        let under_way =
            UnderWay { id: FlushId(0), epoch: Epoch(1), above: Position(13), entries: Vec::new(), bytes: 0 };
        let said = watermark.end_of_pass(Position(15), Some(&under_way), false, 400_000);
        assert_eq!(said, Some(Position(13)));
    }
}
