//! Latencies of a run: HdrHistograms, written as an HdrHistogram log, one line a second and kind.
//!
//! Each is kept twice, from the time that the schedule intended and from the actual send. The log has the
//! former; it is the standard one (V2, compressed, base64), so that the usual viewers read it; values are
//! microseconds.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::report::hdr_log::{TaggedInterval, write_tagged};
use crate::report::latency_histogram::LatencyHistogram;
use crate::report::results::Latency;

/// The two latencies of messages.
#[derive(Clone, Default)]
pub struct Latencies {
    /// From the send to the ack.
    pub ack: Latency,
    /// From the send to the delivery, once for each device that gets it live.
    pub delivery: Latency,
}

impl Latencies {
    /// Adds all of another's.
    pub fn merge(&mut self, other: &Latencies) {
        self.ack.merge(&other.ack);
        self.delivery.merge(&other.delivery);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        for latency in [&mut self.ack, &mut self.delivery] {
            latency.response.clear();
            latency.service.clear();
        }
    }
}

/// The percentiles that are told.
pub fn percentiles(histogram: &LatencyHistogram) -> serde_json::Value {
    serde_json::json!({
        "count": histogram.count(),
        "p50_us": histogram.quantile(0.5),
        "p90_us": histogram.quantile(0.9),
        "p99_us": histogram.quantile(0.99),
        "p999_us": histogram.quantile(0.999),
        "max_us": histogram.max(),
    })
}

/// The percentiles in a line for people.
pub fn describe(histogram: &LatencyHistogram) -> String {
    let milliseconds = |value: u64| value as f64 / 1000.0;
    format!(
        "p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms  ({} values)",
        milliseconds(histogram.quantile(0.5)),
        milliseconds(histogram.quantile(0.9)),
        milliseconds(histogram.quantile(0.99)),
        milliseconds(histogram.quantile(0.999)),
        milliseconds(histogram.max()),
        histogram.count()
    )
}

/// One interval of a log.
#[derive(Clone)]
pub struct Interval {
    /// When it began, from the start of the measured phase.
    pub begin: Duration,
    /// How long it lasted.
    pub length: Duration,
    /// What fell into it.
    pub latencies: Latencies,
}

/// Writes the intervals, with tags `ack` and `delivery`.
///
/// # Errors
/// The file can't be written.
pub fn write_log(path: &Path, start: SystemTime, intervals: &[Interval]) -> io::Result<()> {
    let tagged: Vec<TaggedInterval> = intervals
        .iter()
        .flat_map(|interval| {
            let Interval { begin, length, ref latencies } = *interval;
            let kinds = [("ack", &latencies.ack.response), ("delivery", &latencies.delivery.response)];
            kinds.map(|(tag, histogram)| TaggedInterval { begin, length, tag, histogram: histogram.clone() })
        })
        .collect();
    write_tagged(
        path,
        "latency in microseconds from the intended send time, by loadgen",
        start,
        tagged.iter(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_log_is_read_back_as_it_was_written() {
        let mut latencies = Latencies::default();
        (1..=1000u64).for_each(|value| latencies.ack.record(0, 0, value * 1_000_000));
        latencies.delivery.record(0, 0, u64::MAX);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latency.hlog");
        let begin = Duration::from_secs(3);
        let interval = Interval { begin, length: Duration::from_secs(1), latencies: latencies.clone() };
        write_log(&path, SystemTime::now(), &[interval]).unwrap();

        let text = std::fs::read(&path).unwrap();
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(line) = entry.unwrap() {
                let bytes =
                    base64::engine::general_purpose::STANDARD.decode(line.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut std::io::Cursor::new(bytes)).unwrap();
                read.push((line.tag().unwrap().as_str().to_owned(), histogram));
            }
        }
        assert_eq!(read[0].1, *latencies.ack.response.histogram());
        assert_eq!(read[1].1, *latencies.delivery.response.histogram());
        assert_eq!((&*read[0].0, &*read[1].0), ("ack", "delivery"));
        assert_eq!(read[0].1.value_at_quantile(0.5), 500_223);
    }
}
