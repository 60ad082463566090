//! Latencies of a run: HdrHistograms, written as an HdrHistogram log, one line a second and kind.
//!
//! Both count from the time that the schedule intended. The log is the standard one (V2, compressed,
//! base64), so that the usual viewers read it; values are microseconds.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// Three digits: a value is known to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Values above a minute are counted as a minute: whatever takes longer is a fault, not a latency.
const MICROSECONDS_MAX: u64 = 60_000_000;

/// The two latencies of messages.
#[derive(Clone)]
pub struct Latencies {
    /// From the intended send to the ack.
    pub ack: Histogram<u64>,
    /// From the intended send to the delivery, once for each device that gets it live.
    pub delivery: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, MICROSECONDS_MAX, SIGNIFICANT_DIGITS)
                .expect("the bounds of a histogram are right")
        };
        Self { ack: histogram(), delivery: histogram() }
    }
}

impl Latencies {
    /// Adds an ack that came `nanoseconds` after the intended time.
    pub fn add_ack(&mut self, nanoseconds: u64) {
        self.ack.saturating_record((nanoseconds / 1_000).clamp(1, MICROSECONDS_MAX));
    }

    /// Adds a delivery that came `nanoseconds` after the intended time.
    pub fn add_delivery(&mut self, nanoseconds: u64) {
        self.delivery.saturating_record((nanoseconds / 1_000).clamp(1, MICROSECONDS_MAX));
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Latencies) {
        self.ack.add(&other.ack).expect("the bounds are the same");
        self.delivery.add(&other.delivery).expect("the bounds are the same");
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ack.reset();
        self.delivery.reset();
    }
}

/// The percentiles that are told.
pub fn percentiles(histogram: &Histogram<u64>) -> serde_json::Value {
    serde_json::json!({
        "count": histogram.len(),
        "p50_us": histogram.value_at_quantile(0.5),
        "p90_us": histogram.value_at_quantile(0.9),
        "p99_us": histogram.value_at_quantile(0.99),
        "p999_us": histogram.value_at_quantile(0.999),
        "max_us": histogram.max(),
    })
}

/// The percentiles in a line for people.
pub fn describe(histogram: &Histogram<u64>) -> String {
    let milliseconds = |value: u64| value as f64 / 1000.0;
    format!(
        "p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms  ({} values)",
        milliseconds(histogram.value_at_quantile(0.5)),
        milliseconds(histogram.value_at_quantile(0.9)),
        milliseconds(histogram.value_at_quantile(0.99)),
        milliseconds(histogram.value_at_quantile(0.999)),
        milliseconds(histogram.max()),
        histogram.len()
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
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("latency in microseconds from the intended send time, by loadgen")
        .with_start_time(start)
        .with_base_time(start);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    for interval in intervals {
        let kinds = [("ack", &interval.latencies.ack), ("delivery", &interval.latencies.delivery)];
        for (tag, histogram) in kinds {
            log.write_histogram(histogram, interval.begin, interval.length, Tag::new(tag))
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
    }
    drop(log);
    io::Write::flush(&mut file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_log_is_read_back_as_it_was_written() {
        let mut latencies = Latencies::default();
        (1..=1000u64).for_each(|value| latencies.add_ack(value * 1_000_000));
        latencies.add_delivery(u64::MAX);
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
        assert_eq!(read[0], ("ack".into(), latencies.ack));
        assert_eq!(read[1], ("delivery".into(), latencies.delivery));
        assert_eq!(read[0].1.value_at_quantile(0.5), 500_223);
    }
}
