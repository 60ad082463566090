//! The plots of a report: the latency spectrum, a run over time, and how busy cores and workers were.

use std::fmt::Write as _;

use super::chart::{Axis, Band, Chart, Line, escape};
use super::latency_histogram::{EncodedHistogram, HistogramError, LatencyHistogram};
use super::results::{Latency, StageResults};
use super::series::{BusyKind, BusyRow, Second, Series};
use super::units;

/// A plot of more points than this is no better; longer runs show several seconds as one.
const POINTS_MAX: usize = 600;

/// Several seconds of a run as one point of a plot.
pub(crate) struct Bin {
    /// From the start of the run.
    begin_seconds: f64,
    seconds: f64,
    /// Sums of counts, the last of gauges.
    second: Second,
    server_cpu_percent: Option<f64>,
}

/// A run in at most [`POINTS_MAX`] points.
///
/// # Errors
/// A histogram is damaged.
pub(crate) fn bins(series: &Series) -> Result<Vec<Bin>, HistogramError> {
    let size = series.seconds.len().div_ceil(POINTS_MAX).max(1);
    let parts = series.seconds.chunks(size).enumerate();
    parts
        .map(|(number, part)| {
            let mut sum = Second::default();
            part.iter().try_for_each(|second| sum.merge(second))?;
            let last = &part[part.len() - 1];
            sum.open = last.open;
            sum.server_resident_bytes = last.server_resident_bytes;
            let read: Vec<f64> = part.iter().filter_map(|second| second.server_cpu_percent).collect();
            Ok(Bin {
                begin_seconds: (number * size) as f64,
                seconds: part.len() as f64,
                second: sum,
                server_cpu_percent: (!read.is_empty()).then(|| read.iter().sum::<f64>() / read.len() as f64),
            })
        })
        .collect()
}

/// The percentiles of a latency against their rarity: what one in ten, in a hundred, in a thousand waits.
pub(crate) fn spectrum(name: &str, latency: &Latency) -> Option<Chart> {
    let count = latency.response.count().max(latency.service.count());
    if count == 0 {
        return None;
    }
    // The rarest that so many values can show: one of them.
    let end = (count as f64).log10().max(1.0);
    let steps = (end * 40.0).ceil() as usize;
    let x: Vec<f64> = (0..=steps).map(|step| end * step as f64 / steps as f64).collect();
    let quantiles: Vec<f64> = x.iter().map(|place| 1.0 - 10f64.powf(-place)).collect();
    let line = |name: &str, class, histogram: &LatencyHistogram| {
        let value = |(place, quantile): (usize, &f64)| {
            let quantile = if place == steps { 1.0 } else { *quantile };
            (!histogram.is_empty()).then(|| histogram.quantile(quantile) as f64)
        };
        Line { name: name.into(), class, values: quantiles.iter().enumerate().map(value).collect() }
    };
    let lines =
        vec![line("response time", "a", &latency.response), line("service time", "b", &latency.service)];
    let ticks = (0..=end.floor() as i32).map(|nines| (f64::from(nines), percentile_label(nines)));
    Some(Chart {
        width: 530.0,
        height: 300.0,
        description: format!("latency of {name} by percentile"),
        x_texts: x.iter().map(|place| percentile_text(*place, end)).collect(),
        x_axis: Axis::with_ticks(0.0, end, ticks.collect()),
        y_axis: latency_axis(&lines),
        show: units::microseconds,
        lines,
        bands: Vec::new(),
        x,
    })
}

/// The percentile with so many nines.
fn percentile_label(nines: i32) -> String {
    match nines {
        0 => "0%".into(),
        1 => "90%".into(),
        2 => "99%".into(),
        nines => format!("99.{}%", "9".repeat(nines as usize - 2)),
    }
}

fn percentile_text(place: f64, end: f64) -> String {
    if place >= end {
        return "the largest".into();
    }
    let percent = 100.0 * (1.0 - 10f64.powf(-place));
    let decimals = (place.floor() as usize).saturating_sub(1) + 1;
    format!("{percent:.decimals$} % wait at most")
}

fn latency_axis(lines: &[Line]) -> Axis {
    let values = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let smallest = values().fold(f64::INFINITY, f64::min);
    let largest = values().fold(0.0, f64::max);
    Axis::logarithmic(if smallest.is_finite() { smallest } else { 1.0 }, largest, units::microseconds)
}

/// A chart over the time of a run.
fn over_time(
    description: &str,
    bins: &[Bin],
    stages: &[StageResults],
    lines: Vec<Line>,
    y: Y,
) -> Option<Chart> {
    if lines.iter().all(|line| line.values.iter().flatten().next().is_none()) {
        return None;
    }
    let largest = lines.iter().flat_map(|line| line.values.iter().flatten().copied()).fold(0.0, f64::max);
    let (y_axis, show): (Axis, fn(f64) -> String) = match y {
        Y::Latency => (latency_axis(&lines), units::microseconds),
        Y::Linear(show) => (Axis::linear(largest, show), show),
        Y::Bytes => (Axis::binary(largest, units::bytes), units::bytes),
    };
    let end = bins.last().map_or(1.0, |bin| bin.begin_seconds + bin.seconds);
    let band = |stage: &StageResults| Band {
        begin: stage.begin_seconds,
        end: stage.begin_seconds + stage.length_seconds,
        name: stage.name.clone(),
    };
    Some(Chart {
        width: 1080.0,
        height: 240.0,
        description: description.into(),
        x: bins.iter().map(|bin| bin.begin_seconds + bin.seconds / 2.0).collect(),
        x_texts: bins.iter().map(|bin| units::run_time(bin.begin_seconds)).collect(),
        x_axis: Axis::time(end),
        y_axis,
        show,
        lines,
        bands: stages.iter().map(band).collect(),
    })
}

/// What the vertical axis is.
enum Y {
    Latency,
    Linear(fn(f64) -> String),
    Bytes,
}

fn line(name: &str, class: &'static str, bins: &[Bin], value: impl Fn(&Bin) -> Option<f64>) -> Line {
    Line { name: name.into(), class, values: bins.iter().map(value).collect() }
}

/// Sends and deliveries a second.
pub(crate) fn throughput(bins: &[Bin], stages: &[StageResults]) -> Option<Chart> {
    if bins.iter().all(|bin| bin.second.intended + bin.second.sent + bin.second.delivered == 0) {
        return None;
    }
    let rate = |count: fn(&Second) -> u64| move |bin: &Bin| Some(count(&bin.second) as f64 / bin.seconds);
    let lines = vec![
        line("intended", "c wide", bins, rate(|second| second.intended)),
        line("sent", "b", bins, rate(|second| second.sent)),
        line("delivered", "a", bins, rate(|second| second.delivered)),
    ];
    over_time("messages a second over time", bins, stages, lines, Y::Linear(units::rate))
}

/// Percentiles of a latency by second.
///
/// # Errors
/// A histogram is damaged.
pub(crate) fn latency_over_time(
    name: &str,
    bins: &[Bin],
    stages: &[StageResults],
    response: fn(&Second) -> &EncodedHistogram,
    service: fn(&Second) -> &EncodedHistogram,
) -> Result<Option<Chart>, HistogramError> {
    let quantiles = |histogram: fn(&Second) -> &EncodedHistogram| {
        let of_bin = |bin: &Bin| {
            let histogram = histogram(&bin.second).decode()?;
            let value = |quantile| (!histogram.is_empty()).then(|| histogram.quantile(quantile) as f64);
            Ok((value(0.5), value(0.99)))
        };
        bins.iter().map(of_bin).collect::<Result<Vec<_>, HistogramError>>()
    };
    let (response, service) = (quantiles(response)?, quantiles(service)?);
    let (p50, p99): (Vec<_>, Vec<_>) = response.into_iter().unzip();
    let (service_p50, service_p99): (Vec<_>, Vec<_>) = service.into_iter().unzip();
    let line = |name: &str, class, values| Line { name: name.into(), class, values };
    let lines = vec![
        line("p99 response", "a", p99),
        line("p50 response", "a dashed", p50),
        line("p99 service", "b", service_p99),
        line("p50 service", "b dashed", service_p50),
    ];
    Ok(over_time(&format!("latency of {name} over time"), bins, stages, lines, Y::Latency))
}

/// How late sends began, by second.
///
/// # Errors
/// A histogram is damaged.
pub(crate) fn lateness(bins: &[Bin], stages: &[StageResults]) -> Result<Option<Chart>, HistogramError> {
    let (mut p99, mut largest) = (Vec::new(), Vec::new());
    for bin in bins {
        let histogram = bin.second.lateness.decode()?;
        let some = !histogram.is_empty();
        p99.push(some.then(|| histogram.quantile(0.99) as f64));
        largest.push(some.then(|| histogram.max() as f64));
    }
    let lines = vec![
        Line { name: "p99".into(), class: "c", values: p99 },
        Line { name: "largest".into(), class: "c dashed", values: largest },
    ];
    Ok(over_time("lateness of the generator's sends over time", bins, stages, lines, Y::Latency))
}

/// Open connections.
pub(crate) fn connections(bins: &[Bin], stages: &[StageResults]) -> Option<Chart> {
    let count = |value| units::count(f64::round(value) as u64);
    let lines = vec![line("open", "a", bins, |bin| Some(bin.second.open as f64))];
    over_time("open connections over time", bins, stages, lines, Y::Linear(count))
}

/// Connections made and ended, a second.
pub(crate) fn connects(bins: &[Bin], stages: &[StageResults]) -> Option<Chart> {
    if bins.iter().all(|bin| bin.second.connected + bin.second.disconnected == 0) {
        return None;
    }
    let lines = vec![
        line("made", "a", bins, |bin| Some(bin.second.connected as f64 / bin.seconds)),
        line("ended", "b", bins, |bin| Some(bin.second.disconnected as f64 / bin.seconds)),
    ];
    over_time("connections made and ended a second", bins, stages, lines, Y::Linear(units::rate))
}

/// The server's processor time.
pub(crate) fn server_cpu(bins: &[Bin], stages: &[StageResults]) -> Option<Chart> {
    let percent = |value| format!("{}%", units::three_figures(value));
    let lines = vec![line("server, of one core", "d", bins, |bin| bin.server_cpu_percent)];
    over_time("processor time of the server over time", bins, stages, lines, Y::Linear(percent))
}

/// The server's memory.
pub(crate) fn server_memory(bins: &[Bin], stages: &[StageResults]) -> Option<Chart> {
    let resident = |bin: &Bin| bin.second.server_resident_bytes.map(|bytes| bytes as f64);
    let lines = vec![line("resident memory of the server", "d", bins, resident)];
    over_time("resident memory of the server over time", bins, stages, lines, Y::Bytes)
}

/// How busy each core and worker was: a row each, darker where busier.
pub(crate) fn heat(series: &Series) -> Option<String> {
    const WIDTH: f64 = 1080.0;
    const LEFT: f64 = 150.0;
    const RIGHT: f64 = 52.0;
    const ROW: f64 = 20.0;
    let mut rows: Vec<&BusyRow> = series.busy.iter().filter(|row| row.mean().is_some()).collect();
    let seconds = rows.iter().map(|row| row.percent.len()).max().filter(|seconds| *seconds > 0)?;
    rows.sort_by_key(|row| (row.machine.clone(), row.kind));
    let several_machines = rows.iter().any(|row| row.machine != rows[0].machine);
    let size = seconds.div_ceil(POINTS_MAX / 2).max(1);
    let cells = seconds.div_ceil(size);
    let cell = (WIDTH - LEFT - RIGHT) / cells as f64;
    let height = rows.len() as f64 * ROW + 26.0;
    let mut svg = format!(
        "<svg class=\"chart heat\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"processor time by core and worker over time\">"
    );
    for (number, row) in rows.iter().enumerate() {
        let top = number as f64 * ROW;
        let name = match (several_machines, row.kind) {
            (true, BusyKind::Core | BusyKind::Worker) => format!("{} {}", row.machine, row.name),
            (false, _) => row.name.clone(),
        };
        let (name, text_y) = (escape(&name), top + ROW / 2.0 + 4.0);
        let _ = write!(svg, "<text class=\"tick y\" x=\"{}\" y=\"{text_y}\">{name}</text>", LEFT - 8.0);
        for (place, part) in row.percent.chunks(size).enumerate() {
            let read: Vec<f64> = part.iter().flatten().map(|percent| f64::from(*percent)).collect();
            if read.is_empty() {
                continue;
            }
            let mean = read.iter().sum::<f64>() / read.len() as f64;
            let (x, opacity) = (LEFT + place as f64 * cell, 0.06 + 0.94 * mean / 100.0);
            let (width, inner, time) = (cell + 0.3, ROW - 2.0, units::run_time((place * size) as f64));
            let _ = write!(
                svg,
                "<rect class=\"cell\" x=\"{x:.2}\" y=\"{top}\" width=\"{width:.2}\" height=\"{inner}\" \
                 fill-opacity=\"{opacity:.2}\"><title>{name}, {time}: {mean:.0} %</title></rect>"
            );
        }
        let mean = row.mean().unwrap_or(0.0);
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{}\" y=\"{text_y}\">{mean:.0} %</text>",
            WIDTH - RIGHT + 8.0
        );
    }
    let axis_y = rows.len() as f64 * ROW + 18.0;
    for quarter in 0..=4 {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * f64::from(quarter) / 4.0;
        let time = units::run_time(seconds as f64 * f64::from(quarter) / 4.0);
        let _ = write!(svg, "<text class=\"tick x\" x=\"{x:.1}\" y=\"{axis_y}\">{time}</text>");
    }
    svg.push_str("</svg>");
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;

    #[test]
    fn the_spectrum_shows_a_pause_in_response_and_not_in_service() {
        let results = specimen(1, 10);
        let chart = spectrum("delivery", &results.total().delivery).unwrap();
        let last = |line: usize| chart.lines[line].values.last().unwrap().unwrap();
        assert!(last(0) > 150_000.0 && last(1) < 5_000.0, "{} {}", last(0), last(1));
        // The axis is in nines: a tenth of all is as wide as a hundredth.
        assert_eq!(chart.x_texts.last().unwrap(), "the largest");
        assert_eq!((percentile_label(1), percentile_label(4)), ("90%".into(), "99.99%".into()));
        assert!(spectrum("nothing", &Latency::default()).is_none());
    }

    #[test]
    fn a_long_run_has_no_more_points_and_loses_no_message() {
        let mut series = Series::default();
        for number in 0..1500 {
            let second = series.second(number);
            (second.sent, second.open) = (number as u64, 7);
            series.row("a", BusyKind::Core, "cpu0").set(number, 50.0);
        }
        let bins = bins(&series).unwrap();
        assert_eq!(bins.len(), 500);
        assert_eq!(bins.iter().map(|bin| bin.second.sent).sum::<u64>(), (0..1500).sum::<u64>());
        assert!(bins.iter().all(|bin| bin.second.open == 7));
        let heat = heat(&series).unwrap();
        assert_eq!(heat.matches("<rect").count(), 300);
        assert!(heat.contains("50 %"));
    }

    #[test]
    fn what_was_not_measured_has_no_plot() {
        let nothing = bins(&Series::default()).unwrap();
        assert!(throughput(&nothing, &[]).is_none() && connections(&nothing, &[]).is_none());
        assert!(heat(&Series::default()).is_none());
        let mut series = specimen(1, 3).series;
        series.seconds.iter_mut().for_each(|second| second.server_cpu_percent = None);
        assert!(server_cpu(&bins(&series).unwrap(), &[]).is_none());
    }
}
