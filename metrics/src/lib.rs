//! Counters, gauges and histograms that one thread writes and the metrics endpoint reads.
//!
//! A thread owns its own set, so a write is one uncontended relaxed store: no lock and no shared cache
//! line on the data path. Reading sums over the threads. `Text` renders the exposition format of
//! Prometheus, version 0.0.4.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds `count`, by the one thread that ever writes this counter: a plain store, without a lock on the bus.
    pub fn add_alone(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a histogram: powers of two from 1 microsecond to 67 seconds, and one above.
const BUCKETS: usize = 28;

/// Durations in buckets of powers of two, in microseconds: bucket `i` holds those of at most `2^i`.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_microseconds: AtomicU64,
}

impl Histogram {
    /// Adds a duration.
    pub fn record(&self, duration: std::time::Duration) {
        self.record_value(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a plain value: a size or a count, with the buckets read in its unit.
    pub fn record_value(&self, value: u64) {
        let bucket = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_microseconds.fetch_add(value, Ordering::Relaxed);
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }
}

/// What a histogram's buckets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Recorded in microseconds, shown in seconds as Prometheus wants them.
    Seconds,
    /// Shown as recorded.
    Plain,
}

/// The metrics page as it is written.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// A counter with one value a label set: `labels` is `core="0"` or empty.
    pub fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (String, u64)>) {
        self.family(name, help, "counter", values);
    }

    /// A gauge, like [`counter`](Self::counter).
    pub fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (String, u64)>) {
        self.family(name, help, "gauge", values);
    }

    /// A histogram with one set of buckets a label set.
    pub fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        unit: Unit,
        values: impl IntoIterator<Item = (String, &'a Histogram)>,
    ) {
        let scale = if unit == Unit::Seconds { 1e-6 } else { 1.0 };
        self.head(name, help, "histogram");
        for (labels, histogram) in values {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut cumulative = 0;
            for (index, bucket) in histogram.buckets.iter().enumerate() {
                cumulative += bucket.load(Ordering::Relaxed);
                let bound = if index == BUCKETS - 1 {
                    "+Inf".to_owned()
                } else {
                    format!("{}", (1u64 << index) as f64 * scale)
                };
                let _ = writeln!(self.0, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {cumulative}");
            }
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let sum = histogram.sum_microseconds.load(Ordering::Relaxed) as f64 * scale;
            let _ = writeln!(self.0, "{name}_sum{braces} {sum}\n{name}_count{braces} {cumulative}");
        }
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) {
        self.head(name, help, kind);
        for (labels, value) in values {
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "{name}{braces} {value}");
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_in_the_bucket_that_bounds_it() {
        let histogram = Histogram::default();
        for microseconds in [0, 1, 2, 3, 1 << 40] {
            histogram.record_value(microseconds);
        }
        let mut text = Text::default();
        text.histogram("ack_seconds", "Acks.", Unit::Plain, [(String::new(), &histogram)]);
        let page = text.finish();
        assert!(page.contains("ack_seconds_bucket{le=\"1\"} 2\n"), "{page}");
        assert!(page.contains("ack_seconds_bucket{le=\"2\"} 3\n"), "{page}");
        assert!(page.contains("ack_seconds_bucket{le=\"4\"} 4\n"), "{page}");
        assert!(page.contains("ack_seconds_bucket{le=\"+Inf\"} 5\n"), "{page}");
        assert!(page.contains("ack_seconds_count 5\n"), "{page}");
    }
}
