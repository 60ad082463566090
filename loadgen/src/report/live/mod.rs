//! A run while it goes on: a screen where standard error is a terminal, otherwise a line now and then.
//!
//! The engine tells each second once it is over; nothing here measures. Everything goes to standard error,
//! so that standard output stays the summary's.

mod dashboard;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::series::Second;
use super::units;
use dashboard::Dashboard;
use screen::Screen;

/// Between two lines, where there is no screen.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is known of a run before it begins.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What the run is called.
    pub title: String,
    /// From its start to its end.
    pub length: Duration,
    /// How many stages it has.
    pub stages: usize,
    /// Connections that there should be.
    pub connections: u64,
}

/// Where a run is, at the end of a second.
#[derive(Clone, Debug, Default)]
struct Now {
    /// Seconds since its start.
    elapsed: f64,
    /// The stage that goes on.
    stage: String,
    /// Its number, from 1.
    stage_number: usize,
    /// How busy each worker was, in percent of a core.
    workers: Vec<u8>,
    /// Since the start.
    late: u64,
    dropped: u64,
    disconnected: u64,
}

/// What a run shows of itself.
pub struct Live {
    form: Form,
    plan: Plan,
    now: Now,
}

enum Form {
    Screen(Box<(Screen, Dashboard)>),
    Lines { last: Option<Instant> },
}

impl Live {
    /// A screen if standard error is a terminal and `plain` is not wished.
    pub fn new(plan: Plan, plain: bool) -> Self {
        let screen = (!plain && io::stderr().is_terminal()).then(Screen::open).and_then(Result::ok);
        let form = match screen {
            Some(screen) => Form::Screen(Box::new((screen, Dashboard::new(plan.clone())))),
            None => Form::Lines { last: None },
        };
        Self { form, plan, now: Now::default() }
    }

    /// A stage begins; its number counts from 0.
    pub fn stage(&mut self, number: usize, name: &str) {
        self.now.stage = name.into();
        self.now.stage_number = number + 1;
        self.say(&format!("stage {} of {}: {name}", number + 1, self.plan.stages));
    }

    /// A second of the run is over, in which the workers were so busy, in percent of a core.
    pub fn second(&mut self, number: usize, second: &Second, workers: Vec<u8>) {
        let now = &mut self.now;
        now.elapsed = number as f64 + 1.0;
        now.workers = workers;
        now.late += second.late;
        now.dropped += second.dropped;
        now.disconnected += second.disconnected;
        match &mut self.form {
            Form::Screen(both) => {
                let (screen, dashboard) = &mut **both;
                dashboard.second(now, second);
                screen.draw(|frame| dashboard.draw(frame));
            }
            Form::Lines { last } => {
                if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    let _ = writeln!(io::stderr(), "loadgen: {}", line(now, second));
                }
            }
        }
    }

    /// Something worth a line.
    pub fn say(&mut self, text: &str) {
        match &mut self.form {
            Form::Screen(both) => {
                let (screen, dashboard) = &mut **both;
                dashboard.say(text);
                screen.draw(|frame| dashboard.draw(frame));
            }
            Form::Lines { .. } => {
                let _ = writeln!(io::stderr(), "loadgen: {text}");
            }
        }
    }

    /// Whether the user asked to stop, by `q` or Ctrl-C, which a screen takes for itself.
    pub fn stop_is_wanted(&mut self) -> bool {
        match &mut self.form {
            Form::Screen(both) => both.0.stop_is_wanted(),
            Form::Lines { .. } => false,
        }
    }

    /// Gives the terminal back; from then on it is lines.
    pub fn close(&mut self) {
        if let Form::Screen(_) = &self.form {
            self.form = Form::Lines { last: None };
        }
    }
}

/// A second as a line.
fn line(now: &Now, second: &Second) -> String {
    let time = units::run_time(now.elapsed);
    let mut line = format!("{time:>6}  {}  open {}", now.stage, units::count(second.open));
    if second.connected > 0 {
        line += &format!("  connected {}", units::rate(second.connected as f64));
    }
    if second.sent + second.delivered > 0 {
        line += &format!(
            "  sent {}  delivered {}",
            units::rate(second.sent as f64),
            units::rate(second.delivered as f64)
        );
    }
    if let Some((p50, p99)) = percentiles(second) {
        line += &format!("  p50 {}  p99 {}", units::microseconds(p50), units::microseconds(p99));
    }
    for (name, count) in [("late", now.late), ("dropped", now.dropped), ("disconnected", now.disconnected)] {
        if count > 0 {
            line += &format!("  {name} {}", units::count(count));
        }
    }
    line
}

/// p50 and p99 of the response time of deliveries; of acks where nothing was delivered.
fn percentiles(second: &Second) -> Option<(f64, f64)> {
    let some =
        [&second.delivery_response, &second.ack_response].into_iter().find(|encoded| !encoded.is_empty())?;
    let histogram = some.decode().ok()?;
    Some((histogram.quantile(0.5) as f64, histogram.quantile(0.99) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;

    #[test]
    fn a_line_tells_rates_and_only_the_trouble_there_is() {
        let results = specimen(1, 6);
        let mut now = Now { elapsed: 125.0, stage: "send".into(), ..Now::default() };
        let text = line(&now, &results.series.seconds[6]);
        assert!(
            text.starts_with("  2:05  send  open 10,000  sent 2,000/s  delivered 2,000/s  p50 "),
            "{text}"
        );
        assert!(text.contains("p99 1") && !text.contains("dropped"), "{text}");
        now.dropped = 3;
        assert!(line(&now, &Second::default()).ends_with("  dropped 3"));
    }

    #[test]
    fn what_is_told_by_second_adds_up() {
        let mut live = Live::new(Plan { stages: 2, ..Plan::default() }, true);
        live.stage(1, "send");
        for number in 0..3 {
            let second = Second { late: 2, dropped: 1, disconnected: 5, ..Second::default() };
            live.second(number, &second, vec![10]);
        }
        let now = &live.now;
        assert_eq!(
            (now.stage_number, now.elapsed, now.late, now.dropped, now.disconnected),
            (2, 3.0, 6, 3, 15)
        );
        assert!(!live.stop_is_wanted());
    }
}
