//! What a live screen shows: progress, rates, latency of the last minutes, connections, lateness, workers.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Gauge, Paragraph, Sparkline};

use super::{Now, Plan, percentiles};
use crate::report::series::Second;
use crate::report::units;

/// Seconds that a sparkline remembers; a wide terminal shows so many.
const SECONDS_MAX: usize = 300;

/// Lines that were said and are still seen.
const SAID_MAX: usize = 3;

/// Label of a bar.
const NAME: Style = Style::new().fg(Color::DarkGray);

/// The state of the screen.
pub(super) struct Dashboard {
    plan: Plan,
    now: Now,
    second: Second,
    latency: Option<(f64, f64)>,
    lateness: Option<f64>,
    p99: VecDeque<u64>,
    delivered: VecDeque<u64>,
    said: VecDeque<String>,
}

impl Dashboard {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            now: Now::default(),
            second: Second::default(),
            latency: None,
            lateness: None,
            p99: VecDeque::new(),
            delivered: VecDeque::new(),
            said: VecDeque::new(),
        }
    }

    pub(super) fn second(&mut self, now: &Now, second: &Second) {
        self.latency = percentiles(second);
        let lateness = second.lateness.decode().ok().filter(|histogram| !histogram.is_empty());
        self.lateness = lateness.map(|histogram| histogram.quantile(0.99) as f64);
        push(&mut self.p99, self.latency.map_or(0, |(_, p99)| p99 as u64), SECONDS_MAX);
        push(&mut self.delivered, second.delivered, SECONDS_MAX);
        self.now = now.clone();
        self.second = second.clone();
    }

    pub(super) fn say(&mut self, text: &str) {
        push(&mut self.said, text.into(), SAID_MAX);
    }

    pub(super) fn draw(&self, frame: &mut Frame) {
        let workers = self.now.workers.len().clamp(1, 8) as u16;
        let [head, bars, numbers, latency, throughput, busy, said] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Length(5),
            Constraint::Min(4),
            Constraint::Min(4),
            Constraint::Length(workers + 1),
            Constraint::Length(SAID_MAX as u16),
        ])
        .areas(frame.area());
        self.draw_head(frame, head);
        self.draw_bars(frame, bars);
        self.draw_numbers(frame, numbers);
        let now = self.latency.map_or(String::from("–"), |(_, p99)| units::microseconds(p99));
        spark(frame, latency, &format!("p99 response, by second: {now}"), &self.p99, Color::Blue);
        let now = units::rate(self.second.delivered as f64);
        spark(frame, throughput, &format!("delivered, by second: {now}"), &self.delivered, Color::Green);
        self.draw_workers(frame, busy);
        let lines: Vec<Line> = self.said.iter().map(|text| Line::styled(text.as_str(), NAME)).collect();
        frame.render_widget(Paragraph::new(lines), said);
    }

    fn draw_head(&self, frame: &mut Frame, area: Rect) {
        let now = &self.now;
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let line = Line::from(vec![
            Span::styled(self.plan.title.as_str(), bold),
            Span::raw(format!("   {} ", now.stage)),
            Span::styled(format!("stage {} of {}   q stops", now.stage_number, self.plan.stages), NAME),
        ]);
        frame.render_widget(Paragraph::new(line), area);
    }

    fn draw_bars(&self, frame: &mut Frame, area: Rect) {
        let [time, connections] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
        let (elapsed, planned) = (self.now.elapsed, self.plan.length.as_secs_f64());
        let label = format!("{} of {}", units::run_time(elapsed), units::run_time(planned));
        bar(frame, time, "time", share(elapsed, planned), &label, Color::Blue);
        let (open, wanted) = (self.second.open, self.plan.connections);
        let label = format!("{} of {}", units::count(open), units::count(wanted));
        bar(frame, connections, "connections", share(open as f64, wanted as f64), &label, Color::Cyan);
    }

    fn draw_numbers(&self, frame: &mut Frame, area: Rect) {
        let (second, now) = (&self.second, &self.now);
        let microseconds = |value: Option<f64>| value.map_or("–".into(), units::microseconds);
        let rates = [
            ("intended", units::rate(second.intended as f64)),
            ("sent", units::rate(second.sent as f64)),
            ("acked", units::rate(second.acked as f64)),
            ("delivered", units::rate(second.delivered as f64)),
        ];
        let latencies = [
            ("p50 response", microseconds(self.latency.map(|(p50, _)| p50))),
            ("p99 response", microseconds(self.latency.map(|(_, p99)| p99))),
            ("lateness p99", microseconds(self.lateness)),
            ("server", second.server_cpu_percent.map_or("–".into(), |percent| format!("{percent:.0} %"))),
        ];
        let [left, middle, right] = Layout::horizontal([Constraint::Ratio(1, 3); 3]).areas(area);
        frame.render_widget(column("a second", &rates, false), left);
        frame.render_widget(column("latency", &latencies, false), middle);
        let troubles = [
            ("late", units::count(now.late)),
            ("dropped", units::count(now.dropped)),
            ("disconnected", units::count(now.disconnected)),
        ];
        frame.render_widget(column("so far", &troubles, true), right);
    }

    fn draw_workers(&self, frame: &mut Frame, area: Rect) {
        let lines: Vec<Rect> =
            Layout::vertical(vec![Constraint::Length(1); usize::from(area.height)]).split(area).to_vec();
        let title = match self.now.workers.len() {
            0..=8 => "workers".to_owned(),
            count => format!("workers, 8 of {count}"),
        };
        if let Some(line) = lines.first() {
            frame.render_widget(Paragraph::new(Line::styled(title, NAME)), *line);
        }
        for (number, (percent, line)) in self.now.workers.iter().zip(lines.iter().skip(1)).enumerate() {
            // A worker that is nearly full is about to be late.
            let color = if *percent >= 90 { Color::Red } else { Color::Magenta };
            let percent = f64::from(*percent);
            bar(frame, *line, &format!("{number}"), percent / 100.0, &format!("{percent:.0} %"), color);
        }
    }
}

fn column<'a>(title: &'a str, rows: &'a [(&'a str, String)], is_trouble: bool) -> Paragraph<'a> {
    let mut lines = vec![Line::styled(title, NAME)];
    for (name, value) in rows {
        let style = match is_trouble && value != "0" {
            true => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            false => Style::new().add_modifier(Modifier::BOLD),
        };
        lines.push(Line::from(vec![
            Span::raw(format!("{name:<13}")),
            Span::styled(format!("{value:>11}"), style),
        ]));
    }
    Paragraph::new(lines)
}

fn bar(frame: &mut Frame, area: Rect, name: &str, share: f64, label: &str, color: Color) {
    let [left, right] = Layout::horizontal([Constraint::Length(13), Constraint::Min(10)]).areas(area);
    frame.render_widget(Paragraph::new(Line::styled(name, NAME)), left);
    let gauge =
        Gauge::default().gauge_style(Style::new().fg(color)).ratio(share.clamp(0.0, 1.0)).label(label);
    frame.render_widget(gauge, right);
}

/// The last values, as many as there is room for.
fn spark(frame: &mut Frame, area: Rect, title: &str, values: &VecDeque<u64>, color: Color) {
    let block = Block::new().borders(Borders::TOP).border_style(NAME).title(title);
    let room = usize::from(area.width);
    let last: Vec<u64> = values.iter().skip(values.len().saturating_sub(room)).copied().collect();
    frame.render_widget(Sparkline::default().block(block).data(&last).style(Style::new().fg(color)), area);
}

fn push<T>(values: &mut VecDeque<T>, value: T, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn screen(width: u16, height: u16, dashboard: &Dashboard) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| dashboard.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_screen_shows_the_last_second_and_the_way_there() {
        let results = specimen(1, 20);
        let plan = Plan {
            title: "specimen.toml".into(),
            length: Duration::from_secs(22),
            stages: 2,
            connections: 20_000,
        };
        let mut dashboard = Dashboard::new(plan);
        let mut now = Now { stage: "send".into(), stage_number: 2, workers: vec![42, 97], ..Now::default() };
        for (number, second) in results.series.seconds.iter().take(12).enumerate() {
            now.elapsed = number as f64 + 1.0;
            now.dropped += 1;
            dashboard.second(&now, second);
        }
        dashboard.say("all devices are welcome");
        let screen = screen(100, 30, &dashboard);
        for part in [
            "specimen.toml",
            "stage 2 of 2",
            "12 s of 22 s",
            "10,000 of 20,000",
            "2,000/s",
            "p99 response",
            "97 %",
            "all devices are welcome",
            "█",
        ] {
            assert!(screen.contains(part), "{part}\n{screen}");
        }
        let dropped = screen.lines().find(|line| line.contains("dropped")).unwrap();
        assert!(dropped.contains("12"), "{dropped}");
    }

    #[test]
    fn no_terminal_is_too_small_and_no_run_too_long() {
        let mut dashboard = Dashboard::new(Plan::default());
        let now = Now { workers: vec![1; 64], ..Now::default() };
        for _ in 0..2 * SECONDS_MAX {
            dashboard.second(&now, &Second::default());
        }
        assert_eq!(dashboard.p99.len(), SECONDS_MAX);
        for (width, height) in [(1, 1), (10, 3), (20, 60), (300, 10)] {
            screen(width, height, &dashboard);
        }
        assert!(screen(80, 40, &dashboard).contains("8 of 64"));
    }
}
