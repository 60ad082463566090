//! The latencies of a run as an HdrHistogram log, for the usual viewers: a line for each second and kind.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::latency_histogram::{EncodedHistogram, LatencyHistogram};
use super::results::Results;
use super::series::Second;

/// A histogram of an interval, with the kind that it is of.
pub struct TaggedInterval {
    /// When it began, from the start of the log.
    pub begin: Duration,
    /// How long it lasted.
    pub length: Duration,
    /// Its kind.
    pub tag: &'static str,
    /// What fell into it.
    pub histogram: LatencyHistogram,
}

type Kind = (&'static str, fn(&Second) -> &EncodedHistogram);

/// The tags of a log.
const KINDS: [Kind; 5] = [
    ("ack.response", |second| &second.ack_response),
    ("ack.service", |second| &second.ack_service),
    ("delivery.response", |second| &second.delivery_response),
    ("delivery.service", |second| &second.delivery_service),
    ("lateness", |second| &second.lateness),
];

/// Writes the log; a second in which nothing was measured has no line.
///
/// # Errors
/// The file cannot be written, or a histogram is damaged.
pub fn write(path: &Path, results: &Results) -> io::Result<()> {
    let mut intervals = Vec::new();
    for (number, second) in results.series.seconds.iter().enumerate() {
        for (tag, histogram) in KINDS {
            let encoded = histogram(second);
            if !encoded.is_empty() {
                intervals.push(TaggedInterval {
                    begin: Duration::from_secs(number as u64),
                    length: Duration::from_secs(1),
                    tag,
                    histogram: encoded.decode().map_err(io::Error::other)?,
                });
            }
        }
    }
    let comment =
        "latency in microseconds: response from the intended, service from the real send, by loadgen";
    write_tagged(path, comment, results.started(), intervals.iter())
}

/// Writes histograms of intervals, in the order of their begins.
///
/// # Errors
/// The file can't be written.
pub fn write_tagged<'a>(
    path: &Path,
    comment: &str,
    start: SystemTime,
    intervals: impl Iterator<Item = &'a TaggedInterval>,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment(comment).with_start_time(start).with_base_time(start);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    for TaggedInterval { begin, length, tag, histogram } in intervals {
        log.write_histogram(histogram.histogram(), *begin, *length, Tag::new(tag))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    drop(log);
    io::Write::flush(&mut file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_has_a_line_for_each_second_and_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.hlog");
        let results = specimen(1, 4);
        write(&path, &results).unwrap();
        let text = std::fs::read(&path).unwrap();
        let mut lines = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(line) = entry.unwrap() {
                lines.push((line.start_timestamp().as_secs(), line.tag().unwrap().as_str().to_owned()));
            }
        }
        // The first two seconds only connected.
        assert_eq!(lines.len(), 4 * KINDS.len());
        assert_eq!(lines[0], (2, "ack.response".into()));
        assert_eq!(lines[19], (5, "lateness".into()));
        assert!(String::from_utf8(text).unwrap().contains("#[StartTime: 1764000000"));
    }
}
