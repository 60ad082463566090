//! A chart of lines as inline SVG: axes, grid, bands of stages, and what a pointer shows.
//!
//! Colours are classes of the page's style sheet, so that one chart serves a light and a dark page. The
//! values that the pointer shows are written into the chart as text; `report.js` only finds the nearest.

use std::fmt::Write as _;

use super::units;

/// Room for the labels of the axes.
const MARGIN_LEFT: f64 = 62.0;
const MARGIN_RIGHT: f64 = 14.0;
const MARGIN_TOP: f64 = 20.0;
const MARGIN_BOTTOM: f64 = 30.0;

/// How values are laid on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Equal distances.
    Linear,
    /// Equal ratios.
    Logarithmic,
}

/// An axis with its labelled ticks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

/// A line; a gap where there is no value.
pub(crate) struct Line {
    /// What the legend and the pointer call it.
    pub(crate) name: String,
    /// Class of its colour: `a`, `b`, `c`, `d`; with ` dashed` if it is one.
    pub(crate) class: &'static str,
    /// A value for each of the chart's `x`.
    pub(crate) values: Vec<Option<f64>>,
}

/// A span of x with a name: a stage.
pub(crate) struct Band {
    pub(crate) begin: f64,
    pub(crate) end: f64,
    pub(crate) name: String,
}

/// A chart.
pub(crate) struct Chart {
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// What it shows, for those who do not see it.
    pub(crate) description: String,
    pub(crate) x: Vec<f64>,
    /// What the pointer shows of each `x`.
    pub(crate) x_texts: Vec<String>,
    pub(crate) x_axis: Axis,
    pub(crate) y_axis: Axis,
    /// A value of y, for people.
    pub(crate) show: fn(f64) -> String,
    pub(crate) lines: Vec<Line>,
    pub(crate) bands: Vec<Band>,
}

impl Axis {
    /// From nothing to beyond the largest value.
    pub(crate) fn linear(largest: f64, show: fn(f64) -> String) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let step = nice_step(largest / 4.0);
        let count = (largest / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step).map(|tick| (tick, show(tick)));
        Self { scale: Scale::Linear, low: 0.0, high: step * count, ticks: ticks.collect() }
    }

    /// The same for bytes: steps are powers of two.
    pub(crate) fn binary(largest: f64, show: fn(f64) -> String) -> Self {
        let step = (largest.max(4.0) / 4.0).log2().ceil().exp2();
        let count = (largest / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step).map(|tick| (tick, show(tick)));
        Self { scale: Scale::Linear, low: 0.0, high: step * count, ticks: ticks.collect() }
    }

    /// Around these values, with ticks at 1, 2 and 5 of each decade, or at decades alone when there are many.
    pub(crate) fn logarithmic(smallest: f64, largest: f64, show: fn(f64) -> String) -> Self {
        let smallest = smallest.max(1.0);
        let largest = largest.max(smallest * 1.01);
        let steps: Vec<f64> =
            (0..12).flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade))).collect();
        let low = steps.iter().rev().find(|step| **step <= smallest).copied().unwrap_or(1.0);
        let high = steps.iter().find(|step| **step >= largest).copied().unwrap_or(largest);
        let decades = (high / low).log10();
        let is_labelled = |step: f64| decades <= 2.4 || (step.log10() - step.log10().round()).abs() < 1e-9;
        let within = steps.iter().filter(|step| (low..=high).contains(*step) && is_labelled(**step));
        Self {
            scale: Scale::Logarithmic,
            low,
            high,
            ticks: within.map(|step| (*step, show(*step))).collect(),
        }
    }

    /// The time of a run, from its begin to its end in seconds.
    pub(crate) fn time(end: f64) -> Self {
        const STEPS: [f64; 15] = [
            1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
            21600.0,
        ];
        let end = end.max(1.0);
        let step = STEPS.iter().copied().find(|step| end / step <= 11.0).unwrap_or(86_400.0);
        let ticks = (0..).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= end);
        Self {
            scale: Scale::Linear,
            low: 0.0,
            high: end,
            ticks: ticks.map(|tick| (tick, units::run_time(tick))).collect(),
        }
    }

    /// With ticks of one's own, linear.
    pub(crate) fn with_ticks(low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { scale: Scale::Linear, low, high, ticks }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        place.clamp(0.0, 1.0)
    }
}

impl Chart {
    fn right(&self) -> f64 {
        self.width - MARGIN_RIGHT
    }

    fn bottom(&self) -> f64 {
        self.height - MARGIN_BOTTOM
    }

    fn place_x(&self, value: f64) -> f64 {
        MARGIN_LEFT + self.x_axis.place(value) * (self.right() - MARGIN_LEFT)
    }

    fn place_y(&self, value: f64) -> f64 {
        self.bottom() - self.y_axis.place(value) * (self.bottom() - MARGIN_TOP)
    }

    /// The legend and the chart.
    pub(crate) fn html(&self) -> String {
        let mut html = String::from("<div class=\"legend\">");
        for line in &self.lines {
            let (class, name) = (line.class, escape(&line.name));
            let _ = write!(html, "<span><i class=\"swatch {class}\"></i>{name}</span>");
        }
        html.push_str("</div>");
        let (width, height) = (self.width, self.height);
        let _ = write!(
            html,
            "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\" data-chart=\"{}\">",
            escape(&self.description),
            escape(&self.pointer_values())
        );
        self.write_bands(&mut html);
        self.write_axes(&mut html);
        for line in &self.lines {
            let _ = write!(html, "<path class=\"line {}\" d=\"{}\"/>", line.class, self.path(&line.values));
        }
        html.push_str("<line class=\"pointer\" hidden=\"\"/></svg>");
        html
    }

    fn write_bands(&self, html: &mut String) {
        let bottom = self.bottom();
        for (number, band) in self.bands.iter().enumerate() {
            let (left, right) = (self.place_x(band.begin), self.place_x(band.end));
            let (width, height, parity) = (right - left, bottom - MARGIN_TOP, number % 2);
            let name = escape(&band.name);
            let _ = write!(
                html,
                "<rect class=\"band band{parity}\" x=\"{left:.1}\" y=\"{MARGIN_TOP}\" width=\"{width:.1}\" \
                 height=\"{height}\"><title>{name}</title></rect>"
            );
            // A name that is wider than its stage would run into the next one's; the title still has it.
            if width > band.name.chars().count() as f64 * 6.2 + 6.0 {
                let left = left + 3.0;
                let _ = write!(html, "<text class=\"bandname\" x=\"{left:.1}\" y=\"13\">{name}</text>");
            }
        }
    }

    fn write_axes(&self, html: &mut String) {
        let (right, bottom) = (self.right(), self.bottom());
        for (value, label) in &self.y_axis.ticks {
            let (y, label_x) = (self.place_y(*value), MARGIN_LEFT - 8.0);
            let (label_y, label) = (y + 4.0, escape(label));
            let _ = write!(
                html,
                "<line class=\"grid\" x1=\"{MARGIN_LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick y\" x=\"{label_x}\" y=\"{label_y:.1}\">{label}</text>"
            );
        }
        for (value, label) in &self.x_axis.ticks {
            let (x, label_y, end) = (self.place_x(*value), bottom + 18.0, bottom + 4.0);
            let label = escape(label);
            let _ = write!(
                html,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{end}\"/>\
                 <text class=\"tick x\" x=\"{x:.1}\" y=\"{label_y}\">{label}</text>"
            );
        }
        let _ = write!(
            html,
            "<line class=\"axis\" x1=\"{MARGIN_LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
        );
    }

    fn path(&self, values: &[Option<f64>]) -> String {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (number, (x, value)) in self.x.iter().zip(values).enumerate() {
            let Some(value) = value else {
                pen_is_down = false;
                continue;
            };
            let (x, y) = (self.place_x(*x), self.place_y(*value));
            let _ = write!(path, "{}{x:.1} {y:.1}", if pen_is_down { 'L' } else { 'M' });
            let next_is_gap = values.get(number + 1).is_none_or(Option::is_none);
            if !pen_is_down && next_is_gap {
                // A value alone would be a line without length.
                let _ = write!(path, "h0.1");
            }
            pen_is_down = true;
        }
        path
    }

    /// What `report.js` reads: where each x is, and its texts.
    fn pointer_values(&self) -> String {
        let places: Vec<f64> = self.x.iter().map(|x| (self.place_x(*x) * 10.0).round() / 10.0).collect();
        let lines: Vec<serde_json::Value> = self
            .lines
            .iter()
            .map(|line| {
                let texts: Vec<String> =
                    line.values.iter().map(|value| value.map_or(String::new(), self.show)).collect();
                serde_json::json!({ "name": line.name, "class": line.class, "texts": texts })
            })
            .collect();
        serde_json::json!({
            "top": MARGIN_TOP, "bottom": self.bottom(), "x": places, "labels": self.x_texts, "lines": lines,
        })
        .to_string()
    }
}

/// 1, 2 or 5 times a power of ten, not below the value.
fn nice_step(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .iter()
        .map(|digit| digit * power)
        .find(|step| *step >= value * 0.999)
        .unwrap_or(value)
}

/// Text within HTML or an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_hold_every_value() {
        let axis = Axis::linear(2_345.0, |value| units::count(value as u64));
        assert_eq!(labels(&axis), ["0", "1,000", "2,000", "3,000"]);
        let axis = Axis::logarithmic(130.0, 900.0, units::microseconds);
        assert_eq!(labels(&axis), ["100µs", "200µs", "500µs", "1ms"]);
        let axis = Axis::logarithmic(130.0, 700_000.0, units::microseconds);
        assert_eq!(labels(&axis), ["100µs", "1ms", "10ms", "100ms", "1s"]);
        assert_eq!(labels(&Axis::time(25.0)), ["0 s", "5 s", "10 s", "15 s", "20 s", "25 s"]);
        let axis = Axis::binary(94.0 * 1048576.0, units::bytes);
        assert_eq!(labels(&axis), ["0 B", "32 MiB", "64 MiB", "96 MiB"]);
        // Nothing at all is no division by zero.
        assert!(Axis::linear(0.0, units::rate).place(0.0) == 0.0);
        assert!(Axis::logarithmic(0.0, 0.0, units::microseconds).place(5.0).is_finite());
    }

    #[test]
    fn a_gap_in_the_values_is_a_gap_in_the_line() {
        let chart = Chart {
            width: 276.0,
            height: 150.0,
            description: "a \"test\"".into(),
            x: vec![0.0, 1.0, 2.0, 3.0],
            x_texts: ["0 s", "1 s", "2 s", "3 s"].map(String::from).to_vec(),
            x_axis: Axis::time(4.0),
            y_axis: Axis::linear(10.0, units::rate),
            show: units::rate,
            lines: vec![Line {
                name: "a<b".into(),
                class: "a",
                values: vec![Some(0.0), Some(10.0), None, Some(5.0)],
            }],
            bands: Vec::new(),
        };
        assert_eq!(chart.path(&chart.lines[0].values), "M62.0 120.0L112.0 20.0M212.0 70.0h0.1");
        let html = chart.html();
        assert!(
            html.contains("a&lt;b") && html.contains("a &quot;test&quot;") && !html.contains("a<b"),
            "{html}"
        );
        assert!(html.contains("&quot;texts&quot;:[&quot;0/s&quot;,&quot;10/s&quot;,&quot;&quot;"), "{html}");
    }
}
