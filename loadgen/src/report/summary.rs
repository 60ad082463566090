//! A run in one screen for people, and in one line for machines.
//!
//! The line has no histograms and no series: it is for `jq` and for a log. The whole document is
//! [`Results::to_json`].

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::latency_histogram::LatencyHistogram;
use super::results::{Latency, Results, StageResults};
use super::threshold::Verdict;
use super::units;

/// The summary for machines: one JSON object, latencies in microseconds.
pub fn json(results: &Results) -> Value {
    json!({
        "command": results.command,
        "started_unix_milliseconds": results.started_unix_milliseconds,
        "verdict": results.verdict,
        "exit_code": results.verdict.code(),
        "thresholds": results.thresholds,
        "total": stage_json(&results.total()),
        "stages": results.stages.iter().map(stage_json).collect::<Vec<_>>(),
    })
}

fn stage_json(stage: &StageResults) -> Value {
    json!({
        "name": stage.name,
        "seconds": stage.length_seconds,
        "counts": stage.counts,
        "sent_per_second": stage.send_rate(),
        "delivered_per_second": stage.delivery_rate(),
        "ack": latency_json(&stage.ack),
        "delivery": latency_json(&stage.delivery),
        "connect": latency_json(&stage.connect),
        "handshake": histogram_json(&stage.handshake),
        "lateness": histogram_json(&stage.lateness),
        "server": stage.server,
        "server_cpu_us_a_delivery": stage.server_cpu_per_delivery(),
    })
}

fn latency_json(latency: &Latency) -> Value {
    json!({ "response": histogram_json(&latency.response), "service": histogram_json(&latency.service) })
}

fn histogram_json(histogram: &LatencyHistogram) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    json!({
        "count": histogram.count(),
        "p50_us": histogram.quantile(0.5),
        "p90_us": histogram.quantile(0.9),
        "p99_us": histogram.quantile(0.99),
        "p999_us": histogram.quantile(0.999),
        "max_us": histogram.max(),
    })
}

/// The summary for people.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    for stage in &results.stages {
        describe(&mut text, stage);
    }
    for judged in &results.thresholds {
        let sign = match judged.verdict {
            Verdict::Passed => "met     ",
            Verdict::Missed => "MISSED  ",
            Verdict::Unmeasured => "UNKNOWN ",
        };
        let measured =
            judged.measured.map_or("nothing measured it".into(), |value| judged.threshold.show(value));
        let _ = writeln!(text, "{sign}{} ({measured})", judged.threshold);
    }
    let _ = writeln!(text, "{}", results.verdict.sentence());
    text
}

fn describe(text: &mut String, stage: &StageResults) {
    let counts = &stage.counts;
    let measured = if stage.measured { "" } else { ", not measured" };
    let _ = writeln!(text, "{} ({}{measured})", stage.name, units::run_time(stage.length_seconds));
    let told: Vec<String> = counts
        .named()
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {}", units::count(*count)))
        .collect();
    // Five to a line, so that they fit a terminal.
    for line in told.chunks(5) {
        let _ = writeln!(text, "  {}", line.join("  "));
    }
    let mut tell = |name: &str, histogram: &LatencyHistogram| {
        if !histogram.is_empty() {
            let at = |quantile| units::microseconds(histogram.quantile(quantile) as f64);
            let _ = writeln!(
                text,
                "  {name:<19} p50 {:<8} p90 {:<8} p99 {:<8} p99.9 {:<8} max {}",
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                units::microseconds(histogram.max() as f64)
            );
        }
    };
    tell("delivery, response", &stage.delivery.response);
    tell("delivery, service", &stage.delivery.service);
    tell("ack, response", &stage.ack.response);
    tell("ack, service", &stage.ack.service);
    tell("connect, response", &stage.connect.response);
    tell("handshake", &stage.handshake);
    tell("lateness", &stage.lateness);
    if counts.delivered > 0 {
        let cost = stage.server_cpu_per_delivery().map_or(String::new(), |cost| {
            format!(", the server's processor {} a delivery", units::microseconds(cost))
        });
        let _ = writeln!(text, "  delivered {}{cost}", units::rate(stage.delivery_rate()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;

    #[test]
    fn the_line_and_the_screen_tell_the_same() {
        let mut results = specimen(1, 10);
        results.judge(&["delivery.response.p99 <= 1ms".parse().unwrap(), "lost == 0".parse().unwrap()]);
        let line = json(&results);
        let p99 = line["total"]["delivery"]["response"]["p99_us"].as_u64().unwrap();
        assert_eq!(
            (line["exit_code"].as_u64(), line["thresholds"][1]["verdict"].as_str()),
            (Some(3), Some("passed"))
        );
        assert!(line.to_string().len() < 6_000 && !line.to_string().contains("hdr"));
        let text = text(&results);
        assert!(text.contains(&format!("p99 {}", units::microseconds(p99 as f64))), "{text}");
        assert!(text.contains("MISSED  delivery.response.p99 <= 1ms"), "{text}");
        assert!(text.contains("connected 10,000"), "{text}");
    }
}
