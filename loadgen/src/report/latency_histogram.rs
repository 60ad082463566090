//! An HdrHistogram of latencies in microseconds, and its form at rest.
//!
//! Everything that is told of latencies (percentiles, spectra, thresholds) is derived from these: histograms
//! of several workers or generators are added, percentiles never are. At rest a histogram is the standard
//! V2 encoding, compressed, and in JSON its base64, as in an HdrHistogram log; the percentiles beside it
//! there are for readers without a decoder and are not read back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Deserializer as SerdeDeserializer, Serialize, Serializer, de};

/// Three digits: a value is known to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Values above an hour are counted as an hour: whatever takes longer is a fault, not a latency.
pub const MICROSECONDS_MAX: u64 = 3_600_000_000;

/// The percentiles that tables tell, as quantiles and by name.
pub const TOLD: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Latencies, counted by value. Its memory grows with the largest value: 16 KiB below 2 ms, 90 KiB at a second.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyHistogram(Histogram<u64>);

/// A histogram as its compressed bytes: some hundred, where the live one takes tens of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedHistogram(Vec<u8>);

/// Bytes that are no histogram of latencies.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a histogram cannot be read: {0}. The file is damaged, or was not written by loadgen")]
pub struct HistogramError(String);

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self(Histogram::new(SIGNIFICANT_DIGITS).expect("three digits are within the bounds of a histogram"))
    }
}

impl LatencyHistogram {
    /// Counts a latency of so many nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        self.record_microseconds(nanoseconds / 1_000);
    }

    /// Counts a latency of so many microseconds. Less than one counts as one.
    pub fn record_microseconds(&mut self, microseconds: u64) {
        self.0
            .record(microseconds.clamp(1, MICROSECONDS_MAX))
            .expect("a histogram that resizes takes every value");
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &LatencyHistogram) {
        self.0.add(&other.0).expect("a histogram that resizes takes every other");
    }

    /// Forgets all, and keeps its memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many latencies were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that this share of all (0.99 for p99) do not exceed, in microseconds; 0 if there are none.
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The largest, in microseconds; 0 if there are none.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The mean, in microseconds.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The histogram itself.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Its form at rest.
    pub fn encode(&self) -> EncodedHistogram {
        let mut bytes = Vec::new();
        if !self.is_empty() {
            V2DeflateSerializer::new().serialize(&self.0, &mut bytes).expect("a vector takes every byte");
        }
        EncodedHistogram(bytes)
    }
}

/// A histogram of microseconds with other bounds, as those of `latency.rs`.
impl From<&Histogram<u64>> for LatencyHistogram {
    fn from(histogram: &Histogram<u64>) -> Self {
        let mut own = Self::default();
        own.0.add(histogram).expect("a histogram that resizes takes every other");
        own
    }
}

impl EncodedHistogram {
    /// Whether no latency is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The live histogram.
    ///
    /// # Errors
    /// The bytes are not those of a histogram of microseconds with three digits.
    pub fn decode(&self) -> Result<LatencyHistogram, HistogramError> {
        if self.0.is_empty() {
            return Ok(LatencyHistogram::default());
        }
        let mut histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut self.0.as_slice())
            .map_err(|error| HistogramError(format!("{error:?}")))?;
        if histogram.sigfig() != SIGNIFICANT_DIGITS
            || histogram.low() != 1
            || histogram.max() > MICROSECONDS_MAX * 2
        {
            return Err(HistogramError("its bounds are not those of latencies".into()));
        }
        histogram.auto(true);
        Ok(LatencyHistogram(histogram))
    }

    /// Adds all of another's.
    ///
    /// # Errors
    /// One of them is damaged.
    pub fn merge(&mut self, other: &EncodedHistogram) -> Result<(), HistogramError> {
        if self.is_empty() {
            self.0.clone_from(&other.0);
        } else if !other.is_empty() {
            let mut sum = self.decode()?;
            sum.merge(&other.decode()?);
            *self = sum.encode();
        }
        Ok(())
    }

    fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    fn from_base64(text: &str) -> Result<Self, HistogramError> {
        STANDARD.decode(text).map(Self).map_err(|error| HistogramError(error.to_string()))
    }
}

impl Serialize for EncodedHistogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_base64().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EncodedHistogram {
    fn deserialize<D: SerdeDeserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_base64(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What JSON shows of a histogram.
#[derive(Serialize)]
struct Shown {
    count: u64,
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    hdr: EncodedHistogram,
}

/// What JSON must have of it.
#[derive(Deserialize)]
struct Kept {
    hdr: EncodedHistogram,
}

impl Serialize for LatencyHistogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shown {
            count: self.count(),
            mean_us: (self.mean() * 10.0).round() / 10.0,
            p50_us: self.quantile(0.5),
            p90_us: self.quantile(0.9),
            p99_us: self.quantile(0.99),
            p999_us: self.quantile(0.999),
            max_us: self.max(),
            hdr: self.encode(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LatencyHistogram {
    fn deserialize<D: SerdeDeserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Kept::deserialize(deserializer)?.hdr.decode().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::default();
        values.into_iter().for_each(|value| histogram.record_microseconds(value));
        histogram
    }

    #[test]
    fn a_histogram_survives_json_and_its_bytes_are_small() {
        let histogram = of((1..=1000).map(|value| value * 1000));
        let text = serde_json::to_string(&histogram).unwrap();
        assert!(text.contains("\"p50_us\":500223"), "{text}");
        assert!(text.contains("\"hdr\":\"HISTF"), "the head of an encoded histogram in base64: {text}");
        let read: LatencyHistogram = serde_json::from_str(&text).unwrap();
        assert_eq!(read, histogram);
        let one = of([5]);
        assert!(one.encode().0.len() < 100);
        assert_eq!(LatencyHistogram::default().encode().decode().unwrap().count(), 0);
    }

    #[test]
    fn histograms_are_added_and_one_that_was_read_still_grows() {
        let mut encoded = of([10, 20]).encode();
        encoded.merge(&of([30, 3_000_000]).encode()).unwrap();
        encoded.merge(&EncodedHistogram::default()).unwrap();
        let mut sum = encoded.decode().unwrap();
        assert_eq!((sum.count(), sum.quantile(0.5)), (4, 20));
        sum.record(u64::MAX);
        assert_eq!(sum.count(), 5);
        assert!(sum.max() >= MICROSECONDS_MAX);
        assert_eq!(sum.encode().decode().unwrap(), sum);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        assert!(serde_json::from_str::<EncodedHistogram>("\"%%\"").is_err());
        assert!(EncodedHistogram(vec![1, 2, 3]).decode().is_err());
        let other = Histogram::<u64>::new_with_bounds(1, 1000, 2).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&other, &mut bytes).unwrap();
        let error = EncodedHistogram(bytes).decode().unwrap_err();
        assert!(error.to_string().contains("bounds"), "{error}");
        // Cut anywhere, it is an error; or the same, where only the end of the compressed stream is missing.
        let histogram = of([1, 5, 900]);
        let whole = histogram.encode().0;
        for length in 1..whole.len() {
            if let Ok(read) = EncodedHistogram(whole[..length].to_vec()).decode() {
                assert_eq!(read, histogram, "{length} bytes of {}", whole.len());
            }
        }
        assert!(EncodedHistogram(whole[..whole.len() / 2].to_vec()).decode().is_err());
    }
}
