//! What a worker counts: each second for the series, and each stage for its results.

use crate::device::Figures;
use crate::report::latency_histogram::LatencyHistogram;
use crate::report::results::{Counts, Latency};
use crate::report::series::Second;

/// Everything that was counted since it was last taken.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// What devices did and saw.
    pub(crate) figures: Figures,
    /// Sends that the schedule wanted.
    pub(crate) intended: u64,
    /// Of these, how many were looked at late.
    pub(crate) late: u64,
    /// Sends that were never given to a device, as their stage was over.
    pub(crate) overdue: u64,
    /// Sends that never began in seconds in which the worker had no moment for them.
    pub(crate) starved: u64,
    /// Connections that were to be made.
    pub(crate) connects_intended: u64,
    /// Connections that arrived.
    pub(crate) connected: u64,
    /// Of these, how many had been there before.
    pub(crate) reconnects: u64,
    /// Sockets that ended after their welcome.
    pub(crate) ended: u64,
    /// Messages that acks promise and that did not come.
    pub(crate) lost: u64,
    /// From the wish for a connection to its arrival.
    pub(crate) connect: Latency,
    /// From the first packet of a connection to the end of its TLS handshake.
    pub(crate) handshake: LatencyHistogram,
    /// How late the schedule was looked at.
    pub(crate) lateness: LatencyHistogram,
}

impl Tally {
    /// Adds all of another's.
    pub(crate) fn merge(&mut self, other: &Tally) {
        self.figures.merge(&other.figures);
        self.intended += other.intended;
        self.late += other.late;
        self.overdue += other.overdue;
        self.starved += other.starved;
        self.connects_intended += other.connects_intended;
        self.connected += other.connected;
        self.reconnects += other.reconnects;
        self.ended += other.ended;
        self.lost += other.lost;
        self.connect.merge(&other.connect);
        self.handshake.merge(&other.handshake);
        self.lateness.merge(&other.lateness);
    }

    /// Sends that will never begin, as their device had too many open or their stage was over.
    pub(crate) fn given_up(&self) -> u64 {
        self.figures.counts.dropped + self.overdue
    }

    /// The counts as results have them.
    pub(crate) fn counts(&self) -> Counts {
        let counts = &self.figures.counts;
        Counts {
            intended: self.intended,
            sent: counts.begun,
            late: self.late,
            dropped: self.intended.saturating_sub(counts.begun),
            starved: self.starved,
            acked: counts.acked,
            refused: counts.refusals,
            expected: counts.expected,
            delivered: counts.delivered,
            lost: self.lost,
            duplicated: counts.duplicates,
            corrupted: counts.corrupted + counts.unreadable,
            connects_intended: self.connects_intended,
            connected: self.connected,
            reconnects: self.reconnects,
            connect_failures: counts.connect_failures,
            disconnects: counts.disconnects,
            left: counts.left,
        }
    }

    /// One second of the series, at whose end so many connections were open.
    pub(crate) fn second(&self, open: u64) -> Second {
        let (counts, latencies) = (&self.figures.counts, &self.figures.latencies);
        Second {
            intended: self.intended,
            sent: counts.begun,
            late: self.late,
            dropped: self.given_up() + counts.homeless,
            acked: counts.acked,
            delivered: counts.delivered,
            open,
            connected: self.connected,
            disconnected: self.ended,
            ack_response: latencies.ack.response.encode(),
            ack_service: latencies.ack.service.encode(),
            delivery_response: latencies.delivery.response.encode(),
            delivery_service: latencies.delivery.service.encode(),
            lateness: self.lateness.encode(),
            ..Second::default()
        }
    }
}
