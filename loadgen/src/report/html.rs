//! The report of a run as one HTML file: it needs no server and no network, and goes along in an e-mail.
//!
//! Plots are inline SVG (`plots.rs`, `chart.rs`), style and script are inline, and the policy in its head
//! forbids every request. What the run was told (scenario, command, names) is text from outside and is
//! escaped wherever it is written.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::chart::{Chart, escape};
use super::latency_histogram::{HistogramError, LatencyHistogram, TOLD};
use super::plots;
use super::results::{ExitVerdict, Results, StageResults};
use super::threshold::Verdict;
use super::units;

/// Writes the report of a run.
///
/// # Errors
/// The file cannot be written, or a histogram of the results is damaged.
pub fn write(path: &Path, results: &Results) -> io::Result<()> {
    let page = page(results).map_err(io::Error::other)?;
    fs::write(path, page)
}

/// The report of a run.
///
/// # Errors
/// A histogram of the results is damaged.
pub fn page(results: &Results) -> Result<String, HistogramError> {
    let total = results.total();
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Load report</title><style>",
    );
    html.push_str(include_str!("report.css"));
    html.push_str("</style></head><body><main>");
    head(&mut html, results);
    tiles(&mut html, results, &total);
    thresholds(&mut html, results);
    spectra(&mut html, &total);
    over_time(&mut html, results)?;
    latencies(&mut html, results, &total);
    counts(&mut html, results);
    about(&mut html, results);
    html.push_str("</main><script>");
    html.push_str(include_str!("report.js"));
    html.push_str("</script></body></html>\n");
    Ok(html)
}

fn head(html: &mut String, results: &Results) {
    let (class, sign) = match results.verdict {
        ExitVerdict::Passed => ("passed", "✓"),
        ExitVerdict::Missed => ("missed", "✗"),
        ExitVerdict::GeneratorBottleneck => ("bottleneck", "⚠"),
    };
    let sentence = match results.thresholds.is_empty() && results.verdict == ExitVerdict::Passed {
        true => "no thresholds were set",
        false => results.verdict.sentence(),
    };
    let length =
        results.stages.iter().map(|stage| stage.begin_seconds + stage.length_seconds).fold(0.0, f64::max);
    let names: Vec<&str> = results.stages.iter().map(|stage| stage.name.as_str()).collect();
    let _ = write!(
        html,
        "<h1>Load report</h1><p class=\"quiet\">{}, {} long: {}</p><p class=\"verdict {class}\">{sign} {sentence}</p>",
        utc(results.started()),
        units::run_time(length),
        escape(&names.join(", ")),
    );
}

fn tiles(html: &mut String, results: &Results, total: &StageResults) {
    let mut tiles: Vec<(String, &str)> = Vec::new();
    let delivery = &total.delivery.response;
    if !delivery.is_empty() {
        tiles.push((units::microseconds(delivery.quantile(0.5) as f64), "delivery p50, response"));
        tiles.push((units::microseconds(delivery.quantile(0.99) as f64), "delivery p99, response"));
        tiles.push((units::microseconds(delivery.max() as f64), "slowest delivery, response"));
        tiles.push((units::rate(total.delivery_rate()), "delivered"));
    }
    if let Some(most) = results.series.seconds.iter().map(|second| second.open).max().filter(|most| *most > 0)
    {
        tiles.push((units::count(most), "connections at most"));
    }
    tiles.push((units::count(total.counts.lost), "lost"));
    if !total.lateness.is_empty() {
        tiles.push((
            units::microseconds(total.lateness.quantile(0.99) as f64),
            "p99 lateness of the generator",
        ));
    }
    if let Some(cost) = total.server_cpu_per_delivery() {
        tiles.push((units::microseconds(cost), "server's processor a delivery"));
    }
    if let Some(server) = total.server {
        tiles.push((units::bytes(server.resident_bytes_end as f64), "server's memory at the end"));
    }
    html.push_str("<div class=\"tiles\">");
    for (value, name) in tiles {
        let _ = write!(html, "<div class=\"tile\"><b>{}</b><span>{name}</span></div>", escape(&value));
    }
    html.push_str("</div>");
}

fn thresholds(html: &mut String, results: &Results) {
    if results.thresholds.is_empty() {
        return;
    }
    html.push_str(
        "<section><h2>Thresholds</h2><div class=\"scroll\"><table><tr><th>threshold</th><th>measured</th>\
         <th>verdict</th></tr>",
    );
    for judged in &results.thresholds {
        let (class, verdict) = match judged.verdict {
            Verdict::Passed => ("passed", "✓ met"),
            Verdict::Missed => ("missed", "✗ missed"),
            Verdict::Unmeasured => ("unmeasured", "⚠ not measured"),
        };
        let measured = judged.measured.map_or("–".into(), |value| judged.threshold.show(value));
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{verdict}</td></tr>",
            escape(&judged.threshold.to_string()),
            escape(&measured)
        );
    }
    html.push_str("</table></div></section>");
}

fn spectra(html: &mut String, total: &StageResults) {
    let charts =
        [("Delivery", &total.delivery), ("Ack", &total.ack), ("Connect, to the welcome", &total.connect)];
    let charts = charts.map(|(name, latency)| (name, plots::spectrum(name, latency)));
    if charts.iter().all(|(_, chart)| chart.is_none()) {
        return;
    }
    html.push_str(
        "<section><h2>Latency spectrum</h2><p class=\"note\">Response time counts from the moment that the schedule \
         intended, as a user waits; service time from the moment when the send really began. Where they part, \
         something held up the sends.</p><div class=\"pair\">",
    );
    for (name, chart) in charts {
        if let Some(chart) = chart {
            let _ = write!(html, "<div><h3>{name}</h3>{}</div>", chart.html());
        }
    }
    html.push_str("</div></section>");
}

fn over_time(html: &mut String, results: &Results) -> Result<(), HistogramError> {
    let (bins, stages) = (plots::bins(&results.series)?, &results.stages);
    let mut section = |title: &str, note: &str, chart: Option<Chart>| {
        if let Some(chart) = chart {
            let _ = write!(html, "<section><h2>{title}</h2>");
            if !note.is_empty() {
                let _ = write!(html, "<p class=\"note\">{note}</p>");
            }
            let _ = write!(html, "{}</section>", chart.html());
        }
    };
    section("Throughput", "", plots::throughput(&bins, stages));
    let delivery = plots::latency_over_time(
        "delivery",
        &bins,
        stages,
        |second| &second.delivery_response,
        |second| &second.delivery_service,
    )?;
    section("Latency of delivery", "By second.", delivery);
    let ack = plots::latency_over_time(
        "ack",
        &bins,
        stages,
        |second| &second.ack_response,
        |second| &second.ack_service,
    )?;
    section("Latency of the ack", "By second.", ack);
    section("Connections", "", plots::connections(&bins, stages));
    section("Connections made and ended", "", plots::connects(&bins, stages));
    let note = "How long after its intended moment a send began: the generator's own delay, which response time holds.";
    section("Lateness of the generator", note, plots::lateness(&bins, stages)?);
    section("Server's processor", "Percent of one core.", plots::server_cpu(&bins, stages));
    section("Server's memory", "", plots::server_memory(&bins, stages));
    if let Some(heat) = plots::heat(&results.series) {
        let _ = write!(
            html,
            "<section><h2>Cores and workers</h2><p class=\"note\">Processor time by second, from faint (idle) to \
             full (100 %); the mean on the right. A worker that is full is the generator's limit, not the \
             server's.</p>{heat}</section>"
        );
    }
    Ok(())
}

fn latencies(html: &mut String, results: &Results, total: &StageResults) {
    let mut rows = String::new();
    let mut add = |stage: &str, name: &str, histogram: &LatencyHistogram| {
        if histogram.is_empty() {
            return;
        }
        let _ = write!(rows, "<tr><td>{}</td><td class=\"left\">{name}</td>", escape(stage));
        for (_, quantile) in TOLD {
            let _ = write!(rows, "<td>{}</td>", units::microseconds(histogram.quantile(quantile) as f64));
        }
        let (largest, count) = (units::microseconds(histogram.max() as f64), units::count(histogram.count()));
        let _ = write!(rows, "<td>{largest}</td><td>{count}</td></tr>");
    };
    let several = results.stages.iter().filter(|stage| stage.measured).count() > 1;
    for stage in results.stages.iter().chain(several.then_some(total)) {
        add(&stage.name, "delivery, response", &stage.delivery.response);
        add(&stage.name, "delivery, service", &stage.delivery.service);
        add(&stage.name, "ack, response", &stage.ack.response);
        add(&stage.name, "ack, service", &stage.ack.service);
        add(&stage.name, "connect, response", &stage.connect.response);
        add(&stage.name, "connect, service", &stage.connect.service);
        add(&stage.name, "TLS handshake", &stage.handshake);
        add(&stage.name, "lateness", &stage.lateness);
    }
    if rows.is_empty() {
        return;
    }
    html.push_str(
        "<section><h2>Latencies by stage</h2><div class=\"scroll\"><table><tr><th>stage</th><th class=\"left\">of</th>",
    );
    for (name, _) in TOLD {
        let _ = write!(html, "<th>{name}</th>");
    }
    let _ = write!(html, "<th>max</th><th>values</th></tr>{rows}</table></div></section>");
}

fn counts(html: &mut String, results: &Results) {
    html.push_str("<section><h2>Counts by stage</h2><div class=\"scroll\"><table><tr><th></th>");
    for stage in &results.stages {
        let _ = write!(html, "<th title=\"{}\">{}</th>", escape(&stage.kind), escape(&stage.name));
    }
    html.push_str("</tr>");
    let stages: Vec<_> = results.stages.iter().map(|stage| stage.counts.named()).collect();
    let names = results.total().counts.named();
    for (number, (name, _)) in names.iter().enumerate() {
        let _ = write!(html, "<tr><td>{name}</td>");
        for stage in &stages {
            let value = stage[number].1;
            let class = if value == 0 { " class=\"zero\"" } else { "" };
            let _ = write!(html, "<td{class}>{}</td>", units::count(value));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table></div></section>");
}

fn about(html: &mut String, results: &Results) {
    html.push_str("<section><h2>The run</h2><dl>");
    let mut line = |name: &str, value: &str| {
        let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escape(value));
    };
    line("command", &results.command);
    for (name, version) in &results.versions {
        line("version", &format!("{name} {version}"));
    }
    for machine in &results.machines {
        let memory = units::bytes(machine.memory_bytes as f64);
        line(
            "machine",
            &format!(
                "{}: {} cores, {}, {memory}, {}",
                machine.name, machine.cores, machine.processor, machine.kernel
            ),
        );
    }
    let _ = write!(html, "</dl><pre>{}</pre></section>", escape(&results.scenario));
}

/// A moment as `2026-11-25 02:20:39 UTC`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    // Days to a civil date, with years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level
    // Date Algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", clock / 3600, clock / 60 % 60, clock % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;
    use std::time::Duration;

    fn judged() -> Results {
        let mut results = specimen(1, 20);
        let lines = ["delivery.response.p99 <= 100ms", "lost == 0", "storm: ack.response.p50 <= 1ms"];
        results.judge(&lines.map(|line| line.parse().unwrap()));
        results
    }

    #[test]
    fn the_page_holds_every_part_and_asks_for_nothing() {
        let page = page(&judged()).unwrap();
        for part in [
            "Latency spectrum",
            "Throughput",
            "Latency of delivery",
            "Lateness of the generator",
            "Cores and workers",
            "Thresholds",
            "✗ missed",
            "⚠ not measured",
            "Counts by stage",
            "prefers-color-scheme: dark",
            "default-src 'none'",
            "99.9%",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for request in ["http://", "https://", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(request), "{request}");
        }
    }

    #[test]
    fn every_element_is_closed_and_what_comes_from_outside_is_text() {
        let mut results = judged();
        results.scenario = "</pre><script>alert(1)</script>".into();
        results.stages[0].name = "<b>\"'".into();
        results.command = "<img>".into();
        let page = page(&results).unwrap();
        assert!(!page.contains("alert(1)</script>") && !page.contains("<img>") && !page.contains("<b>\"'"));
        for element in
            ["section", "div", "table", "svg", "tr", "td", "text", "pre", "dl", "main", "script", "style"]
        {
            let opened =
                page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
        assert!(!page.contains("NaN") && !page.contains(">inf"));
    }

    #[test]
    fn results_with_nothing_in_them_are_a_page_too() {
        let page = page(&Results::new("loadgen", "")).unwrap();
        assert!(page.contains("no thresholds were set") && !page.contains("Throughput"));
    }

    #[test]
    fn moments_are_told_in_utc() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_795_573_239), "2026-11-25 02:20:39 UTC");
    }
}
