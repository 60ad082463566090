//! A run over time: what happened in each second, and how busy each core, worker and the server were.
//!
//! Seconds count from the start of the run, which generators that work together agree on, so that their
//! series are merged second by second. A second keeps its latencies as histograms at rest (some hundred
//! bytes each), because a percentile of two generators cannot be had from theirs.

use serde::{Deserialize, Serialize};

use super::latency_histogram::{EncodedHistogram, HistogramError};

/// What happened in one second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Sends that the schedule wanted.
    pub intended: u64,
    /// Sends that began.
    pub sent: u64,
    /// Of these, how many began late.
    #[serde(default)]
    pub late: u64,
    /// Sends that never began.
    #[serde(default)]
    pub dropped: u64,
    /// Acks that came.
    pub acked: u64,
    /// Deliveries that came.
    pub delivered: u64,
    /// Connections that were open at its end.
    pub open: u64,
    /// Connections that were made.
    pub connected: u64,
    /// Connections that ended, for whatever reason.
    pub disconnected: u64,
    /// Acks from the intended send.
    pub ack_response: EncodedHistogram,
    /// Acks from the real send.
    pub ack_service: EncodedHistogram,
    /// Deliveries from the intended send.
    pub delivery_response: EncodedHistogram,
    /// Deliveries from the real send.
    pub delivery_service: EncodedHistogram,
    /// How late the generator's sends began.
    pub lateness: EncodedHistogram,
    /// Processor time of the server in this second, in percent of one core, when its process is known.
    pub server_cpu_percent: Option<f64>,
    /// Resident memory of the server at its end, likewise.
    pub server_resident_bytes: Option<u64>,
}

impl Second {
    /// Adds another generator's same second. Of the server there is one: the first who knows it tells.
    ///
    /// # Errors
    /// A histogram is damaged.
    pub fn merge(&mut self, other: &Second) -> Result<(), HistogramError> {
        self.intended += other.intended;
        self.sent += other.sent;
        self.late += other.late;
        self.dropped += other.dropped;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.open += other.open;
        self.connected += other.connected;
        self.disconnected += other.disconnected;
        self.ack_response.merge(&other.ack_response)?;
        self.ack_service.merge(&other.ack_service)?;
        self.delivery_response.merge(&other.delivery_response)?;
        self.delivery_service.merge(&other.delivery_service)?;
        self.lateness.merge(&other.lateness)?;
        self.server_cpu_percent = self.server_cpu_percent.or(other.server_cpu_percent);
        self.server_resident_bytes = self.server_resident_bytes.or(other.server_resident_bytes);
        Ok(())
    }
}

/// How busy one thing was, second by second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyRow {
    /// The machine it is of, as [`super::results::Machine::name`].
    pub machine: String,
    /// What it is.
    pub kind: BusyKind,
    /// Its name: `cpu0`, `worker 3`.
    pub name: String,
    /// In percent of one core; `None` where it was not read.
    pub percent: Vec<Option<u8>>,
}

/// What can be busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusyKind {
    /// A core of a machine, whoever used it.
    Core,
    /// A thread or a process of the generator.
    Worker,
}

impl BusyRow {
    /// A row without readings.
    pub fn new(machine: &str, kind: BusyKind, name: impl Into<String>) -> Self {
        Self { machine: machine.into(), kind, name: name.into(), percent: Vec::new() }
    }

    /// Notes a reading of a second.
    pub fn set(&mut self, second: usize, percent: f64) {
        if self.percent.len() <= second {
            self.percent.resize(second + 1, None);
        }
        self.percent[second] = Some(percent.round().clamp(0.0, 100.0) as u8);
    }

    /// The mean of its readings.
    pub fn mean(&self) -> Option<f64> {
        let read: Vec<f64> = self.percent.iter().flatten().map(|percent| f64::from(*percent)).collect();
        (!read.is_empty()).then(|| read.iter().sum::<f64>() / read.len() as f64)
    }

    fn is_same(&self, other: &BusyRow) -> bool {
        self.kind == other.kind && self.machine == other.machine && self.name == other.name
    }

    /// Takes the readings that this row lacks.
    fn fill(&mut self, other: &BusyRow) {
        for (second, percent) in other.percent.iter().enumerate() {
            if let Some(percent) = percent
                && self.percent.get(second).is_none_or(Option::is_none)
            {
                self.set(second, f64::from(*percent));
            }
        }
    }
}

/// A run over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// By second from the start.
    pub seconds: Vec<Second>,
    /// By core and worker.
    pub busy: Vec<BusyRow>,
}

impl Series {
    /// A second, which is there from then on.
    pub fn second(&mut self, number: usize) -> &mut Second {
        if self.seconds.len() <= number {
            self.seconds.resize_with(number + 1, Second::default);
        }
        &mut self.seconds[number]
    }

    /// A row, which is there from then on.
    pub fn row(&mut self, machine: &str, kind: BusyKind, name: &str) -> &mut BusyRow {
        let wanted = BusyRow::new(machine, kind, name);
        let found = self.busy.iter().position(|row| row.is_same(&wanted));
        let number = found.unwrap_or_else(|| {
            self.busy.push(wanted);
            self.busy.len() - 1
        });
        &mut self.busy[number]
    }

    /// Adds another generator's. Two that looked at the same core tell of it once.
    ///
    /// # Errors
    /// A histogram is damaged.
    pub fn merge(&mut self, other: &Series) -> Result<(), HistogramError> {
        for (number, second) in other.seconds.iter().enumerate() {
            self.second(number).merge(second)?;
        }
        for row in &other.busy {
            self.row(&row.machine, row.kind, &row.name).fill(row);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::latency_histogram::LatencyHistogram;

    fn second(sent: u64, microseconds: u64) -> Second {
        let mut histogram = LatencyHistogram::default();
        (0..sent).for_each(|_| histogram.record_microseconds(microseconds));
        Second { sent, ack_response: histogram.encode(), ..Second::default() }
    }

    #[test]
    fn series_of_two_generators_are_added_by_second() {
        let mut one = Series { seconds: vec![second(1, 10)], busy: Vec::new() };
        one.row("a", BusyKind::Worker, "worker 0").set(0, 50.0);
        one.row("a", BusyKind::Core, "cpu0").set(1, 90.0);
        let mut two = Series { seconds: vec![second(3, 40), second(2, 5)], busy: Vec::new() };
        two.seconds[1].server_cpu_percent = Some(12.5);
        two.row("b", BusyKind::Worker, "worker 0").set(1, 7.0);
        two.row("a", BusyKind::Core, "cpu0").set(0, 80.0);
        two.row("a", BusyKind::Core, "cpu0").set(1, 10.0);
        one.merge(&two).unwrap();

        assert_eq!(one.seconds.iter().map(|second| second.sent).collect::<Vec<_>>(), [4, 2]);
        let first = one.seconds[0].ack_response.decode().unwrap();
        assert_eq!((first.count(), first.quantile(0.25), first.quantile(0.5)), (4, 10, 40));
        assert_eq!(one.seconds[1].server_cpu_percent, Some(12.5));
        assert_eq!(one.busy.len(), 3);
        assert_eq!(one.row("a", BusyKind::Core, "cpu0").percent, [Some(80), Some(90)]);
        assert_eq!(one.row("b", BusyKind::Worker, "worker 0").percent, [None, Some(7)]);
        assert_eq!(one.row("b", BusyKind::Worker, "worker 0").mean(), Some(7.0));
    }
}
