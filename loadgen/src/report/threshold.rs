//! Thresholds: what a run must reach, in words a person would write, and whether it did.
//!
//! A threshold is one line, `delivery.response.p99 <= 100ms`, in a scenario file or on the command line,
//! optionally of one stage: `storm: delivery.response.p99 <= 300ms`. Its verdict is taken from results
//! (`results.rs`), so that merged results are judged anew. Without a stage it is about all stages that are
//! measured.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::units;

/// Something that must hold for a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Only of the stage with this name.
    pub stage: Option<String>,
    /// What is looked at.
    pub metric: Metric,
    /// How it compares.
    pub bound: Bound,
    /// With what: microseconds for latencies, a share of 1 for shares, otherwise a number.
    pub limit: f64,
}

/// A number that results have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// A latency at a quantile; the quantile 1 is the maximum.
    Latency {
        /// Of what.
        of: Timed,
        /// From which moment.
        from: From,
        /// Between 0 and 1.
        quantile: f64,
    },
    /// A count.
    Count(Counted),
    /// A count as a share of what it could be at most.
    Share(Counted),
    /// Deliveries a second over the stage.
    DeliveryRate,
    /// Sends a second over the stage.
    SendRate,
    /// Processor time of the server for each delivery, in microseconds.
    ServerCpuPerDelivery,
}

/// What has a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// From a send to the server's ack.
    Ack,
    /// From a send to the delivery at a recipient.
    Delivery,
    /// From the first packet to the server's welcome.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// From the intended to the real start of a send: the generator's own.
    Lateness,
}

/// The moment from which a latency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The moment that the schedule intended: what a user waits, with all queueing before the send.
    Response,
    /// The moment that the send really began: what the server took once it was asked.
    Service,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Sends that began late.
    Late,
    /// Sends that never began.
    Dropped,
    /// Acked messages that a recipient never got.
    Lost,
    /// Deliveries that came once too often.
    Duplicated,
    /// Deliveries whose payload was not what its sender wrote.
    Corrupted,
    /// Sends that were refused.
    Refused,
    /// Connections that ended without the generator's doing.
    Disconnects,
    /// Connections that could not be made.
    ConnectFailures,
}

/// How a metric compares with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `>`
    Above,
    /// `==`
    Exactly,
}

/// A threshold and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// What had to hold.
    pub threshold: Threshold,
    /// What was measured, in the limit's unit.
    pub measured: Option<f64>,
    /// Whether it held.
    pub verdict: Verdict,
}

/// Whether a threshold held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It did.
    Passed,
    /// It did not.
    Missed,
    /// The run has no such number, which counts as a miss: a threshold that nothing tests must not pass.
    Unmeasured,
}

/// A line that is no threshold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{line:?} is no threshold: {reason}. Write one like `delivery.response.p99 <= 100ms`, `lost == 0`, \
     `late.share <= 1%`, `delivery.rate >= 2000`, or `STAGE: …` for one stage"
)]
pub struct ThresholdError {
    line: String,
    reason: String,
}

impl Threshold {
    /// The verdict on a measured value.
    pub fn judge(&self, measured: Option<f64>) -> Judged {
        let verdict = match measured {
            None => Verdict::Unmeasured,
            Some(value) if self.bound.holds(value, self.limit) => Verdict::Passed,
            Some(_) => Verdict::Missed,
        };
        Judged { threshold: self.clone(), measured, verdict }
    }

    /// A value in the unit of this threshold, for people.
    pub fn show(&self, value: f64) -> String {
        match self.metric {
            Metric::Latency { .. } | Metric::ServerCpuPerDelivery => units::microseconds(value),
            Metric::Share(_) => format!("{}%", plain((value * 1e8).round() / 1e6)),
            Metric::DeliveryRate | Metric::SendRate => {
                format!("{}/s", plain((value * 100.0).round() / 100.0))
            }
            Metric::Count(_) => plain(value),
        }
    }
}

impl Bound {
    const ALL: [(&'static str, Bound); 5] = [
        // Longer signs first: `<` is a part of `<=`.
        ("<=", Bound::AtMost),
        (">=", Bound::AtLeast),
        ("==", Bound::Exactly),
        ("<", Bound::Below),
        (">", Bound::Above),
    ];

    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Bound::AtMost => value <= limit,
            Bound::AtLeast => value >= limit,
            Bound::Below => value < limit,
            Bound::Above => value > limit,
            Bound::Exactly => value == limit,
        }
    }

    fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, bound)| *bound == self).map_or("", |(sign, _)| sign)
    }
}

const TIMED: [(&str, Timed); 5] = [
    ("ack", Timed::Ack),
    ("delivery", Timed::Delivery),
    ("connect", Timed::Connect),
    ("handshake", Timed::Handshake),
    ("lateness", Timed::Lateness),
];

const COUNTED: [(&str, Counted); 8] = [
    ("late", Counted::Late),
    ("dropped", Counted::Dropped),
    ("lost", Counted::Lost),
    ("duplicated", Counted::Duplicated),
    ("corrupted", Counted::Corrupted),
    ("refused", Counted::Refused),
    ("disconnects", Counted::Disconnects),
    ("connect_failures", Counted::ConnectFailures),
];

impl Metric {
    fn parse(name: &str) -> Result<Self, String> {
        let parts: Vec<&str> = name.split('.').collect();
        let timed = |name: &str| TIMED.iter().find(|(known, _)| *known == name).map(|(_, timed)| *timed);
        let counted =
            |name: &str| COUNTED.iter().find(|(known, _)| *known == name).map(|(_, counted)| *counted);
        match parts.as_slice() {
            ["delivery", "rate"] => return Ok(Self::DeliveryRate),
            ["send", "rate"] => return Ok(Self::SendRate),
            ["server", "cpu"] => return Ok(Self::ServerCpuPerDelivery),
            [count] => return counted(count).map(Self::Count).ok_or(format!("nothing is called {name:?}")),
            [count, "share"] => {
                return counted(count).map(Self::Share).ok_or(format!("nothing is called {name:?}"));
            }
            _ => {}
        }
        let (of, rest) = parts.split_first().ok_or("it has no name")?;
        let of = timed(of).ok_or(format!("nothing is called {name:?}"))?;
        let (from, quantile) = match rest {
            ["response", quantile @ ..] => (From::Response, quantile),
            ["service", quantile @ ..] => (From::Service, quantile),
            // These have one moment only.
            quantile if matches!(of, Timed::Handshake | Timed::Lateness) => (From::Service, quantile),
            _ => return Err(format!("{name:?} must say `response` or `service`")),
        };
        // p99.9 was split at its point.
        Ok(Self::Latency { of, from, quantile: parse_quantile(&quantile.join("."))? })
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |counted: &Counted| {
            COUNTED.iter().find(|(_, known)| known == counted).map_or("", |(name, _)| *name)
        };
        match self {
            Self::Latency { of, from, quantile } => {
                let name = TIMED.iter().find(|(_, known)| known == of).map_or("", |(name, _)| *name);
                let from = match from {
                    _ if matches!(of, Timed::Handshake | Timed::Lateness) => "",
                    From::Response => "response.",
                    From::Service => "service.",
                };
                if *quantile >= 1.0 {
                    write!(formatter, "{name}.{from}max")
                } else {
                    // Rounded, so that 0.999 is 99.9 and not 99.90000000000001.
                    write!(formatter, "{name}.{from}p{}", plain((quantile * 1e10).round() / 1e8))
                }
            }
            Self::Count(what) => formatter.write_str(counted(what)),
            Self::Share(what) => write!(formatter, "{}.share", counted(what)),
            Self::DeliveryRate => formatter.write_str("delivery.rate"),
            Self::SendRate => formatter.write_str("send.rate"),
            Self::ServerCpuPerDelivery => formatter.write_str("server.cpu"),
        }
    }
}

fn parse_quantile(text: &str) -> Result<f64, String> {
    if text == "max" {
        return Ok(1.0);
    }
    let percent = text.strip_prefix('p').and_then(|number| number.parse::<f64>().ok());
    match percent {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(format!("{text:?} is no percentile; write p50, p99.9 or max")),
    }
}

/// A limit with its unit, in the unit that the metric is kept in.
fn parse_limit(metric: Metric, text: &str) -> Result<f64, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    let scale = match (metric, unit.trim()) {
        (Metric::Latency { .. } | Metric::ServerCpuPerDelivery, unit) => match unit {
            "us" | "µs" => 1.0,
            "ms" => 1_000.0,
            "s" => 1_000_000.0,
            _ => return Err(format!("{text:?} needs a unit of time: us, ms or s")),
        },
        (Metric::Share(_), "%") => 0.01,
        (Metric::Share(_), "") => 1.0,
        (Metric::DeliveryRate | Metric::SendRate, "" | "/s") => 1.0,
        (Metric::Count(_), "") => 1.0,
        (_, unit) => return Err(format!("{unit:?} is no unit of this")),
    };
    Ok(number * scale)
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(line: &str) -> Result<Self, ThresholdError> {
        let wrong = |reason: String| ThresholdError { line: line.to_owned(), reason };
        let (stage, rest) = match line.split_once(':') {
            Some((stage, rest)) => (Some(stage.trim().to_owned()), rest),
            None => (None, line),
        };
        let (name, bound, limit) = Bound::ALL
            .iter()
            .find_map(|(sign, bound)| rest.split_once(sign).map(|(name, limit)| (name, *bound, limit)))
            .ok_or_else(|| wrong("it compares nothing".into()))?;
        let metric = Metric::parse(name.trim()).map_err(wrong)?;
        Ok(Self { stage, metric, bound, limit: parse_limit(metric, limit.trim()).map_err(wrong)? })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = &self.stage {
            write!(formatter, "{stage}: ")?;
        }
        // Not rounded: this is also how a threshold is kept.
        let limit = match self.metric {
            Metric::Latency { .. } | Metric::ServerCpuPerDelivery => match self.limit {
                limit if limit >= 1e6 => format!("{}s", limit / 1e6),
                limit if limit >= 1e3 => format!("{}ms", limit / 1e3),
                limit => format!("{limit}us"),
            },
            _ => self.show(self.limit),
        };
        write!(formatter, "{} {} {limit}", self.metric, self.bound.sign())
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A number without a fraction where it has none.
fn plain(value: f64) -> String {
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_and_written_alike() {
        for (line, limit) in [
            ("delivery.response.p99 <= 100ms", 100_000.0),
            ("ack.service.p99.9 < 2.5ms", 2_500.0),
            ("storm: delivery.response.max <= 60s", 60_000_000.0),
            ("lateness.p99 <= 500us", 500.0),
            ("lost == 0", 0.0),
            ("late.share <= 1%", 0.01),
            ("delivery.rate >= 2000/s", 2_000.0),
            ("server.cpu <= 40us", 40.0),
            ("ack.response.p50 <= 123.456ms", 123_456.0),
        ] {
            let threshold: Threshold = line.parse().unwrap();
            assert_eq!(threshold.limit, limit, "{line}");
            assert_eq!(threshold.to_string(), line);
            let json = serde_json::to_string(&threshold).unwrap();
            assert_eq!(serde_json::from_str::<Threshold>(&json).unwrap(), threshold);
        }
    }

    #[test]
    fn what_is_no_threshold_says_why() {
        for (line, reason) in [
            ("delivery.response.p99", "compares nothing"),
            ("delivery.p99 <= 1ms", "`response` or `service`"),
            ("delivery.response.p99 <= 100", "unit of time"),
            ("delivery.response.q99 <= 1ms", "no percentile"),
            ("delivery.response.p101 <= 1ms", "no percentile"),
            ("speed >= 1", "nothing is called"),
            ("lost == many", "does not begin with a number"),
            ("lost == 1ms", "no unit of this"),
        ] {
            let error = line.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn each_bound_holds_where_its_sign_says() {
        let verdict = |line: &str, value| line.parse::<Threshold>().unwrap().judge(value).verdict;
        assert_eq!(verdict("lost == 0", Some(0.0)), Verdict::Passed);
        assert_eq!(verdict("lost == 0", Some(1.0)), Verdict::Missed);
        assert_eq!(verdict("lost <= 1", Some(1.0)), Verdict::Passed);
        assert_eq!(verdict("lost < 1", Some(1.0)), Verdict::Missed);
        assert_eq!(verdict("delivery.rate > 5", Some(5.0)), Verdict::Missed);
        assert_eq!(verdict("delivery.rate >= 5", Some(5.0)), Verdict::Passed);
        assert_eq!(verdict("server.cpu <= 5us", None), Verdict::Unmeasured);
    }
}
