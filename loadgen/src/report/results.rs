//! The results of a run: what the engine fills, and what every report, comparison and merge reads.
//!
//! One JSON document, versioned: it is written by one loadgen and read by another, perhaps years later, and
//! sent by a joined generator to the one that leads. Latencies come twice, as the literature on coordinated
//! omission has them: *response* time counts from the moment that the schedule intended, *service* time
//! from the moment when the send really began. A generator that is held up shows in the difference.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::latency_histogram::{HistogramError, LatencyHistogram};
use super::machine::Machine;
use super::series::Series;
use super::threshold::{Counted, From, Judged, Metric, Threshold, Timed, Verdict};

/// What the document calls itself.
const FORMAT: &str = "ringway loadgen results";

/// The version that is written. A field that an old reader may miss needs no new one.
pub const VERSION: u32 = 1;

/// Of all sends, so many may begin late, or not at all for want of the generator's time, before the generator itself is what was measured.
pub const LATE_SHARE_MAX: f64 = 0.01;

/// A send is late when it begins so many microseconds after the intended time.
pub const LATE_MICROSECONDS: u64 = 10_000;

/// The results of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    format: String,
    version: u32,
    /// The command line.
    pub command: String,
    /// The scenario file's text, or the options in its place.
    pub scenario: String,
    /// When the run began, in milliseconds since 1970.
    pub started_unix_milliseconds: u64,
    /// What took part, by name: `loadgen`, `server`.
    pub versions: Vec<(String, String)>,
    /// The generators' machines.
    pub machines: Vec<Machine>,
    /// What the run did, in order.
    pub stages: Vec<StageResults>,
    /// The same over time.
    pub series: Series,
    /// The thresholds with their verdicts.
    pub thresholds: Vec<Judged>,
    /// What came out.
    pub verdict: ExitVerdict,
}

/// What one stage of a run showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageResults {
    /// Its name in the scenario.
    pub name: String,
    /// What it does: connect, hold, send, ramp, storm, slow readers.
    pub kind: String,
    /// When it began, in seconds from the start of the run.
    pub begin_seconds: f64,
    /// How long it lasted.
    pub length_seconds: f64,
    /// Whether thresholds that name no stage are about it; not a warm-up.
    pub measured: bool,
    /// What happened, in numbers.
    pub counts: Counts,
    /// From a send to its ack.
    pub ack: Latency,
    /// From a send to each delivery.
    pub delivery: Latency,
    /// From the intended, or the real, start of a connection to the server's welcome.
    pub connect: Latency,
    /// The TLS handshake alone.
    pub handshake: LatencyHistogram,
    /// How late sends began: the generator's own fault, or its machine's.
    pub lateness: LatencyHistogram,
    /// The server's process over the stage, when it is known.
    pub server: Option<ServerUse>,
}

/// A latency from both of its moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// From the moment that the schedule intended.
    pub response: LatencyHistogram,
    /// From the moment when it really began.
    pub service: LatencyHistogram,
}

/// What a server's process used in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerUse {
    /// User and system time, in microseconds.
    pub cpu_microseconds: u64,
    /// Resident memory at the beginning.
    pub resident_bytes_begin: u64,
    /// Resident memory at the end.
    pub resident_bytes_end: u64,
}

/// What happened in a stage, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Sends that the schedule wanted.
    pub intended: u64,
    /// Sends that began.
    pub sent: u64,
    /// Of these, how many more than [`LATE_MICROSECONDS`] after the intended time.
    pub late: u64,
    /// Sends that never began, because their connection was away or had too many open.
    pub dropped: u64,
    /// Of these, those of seconds in which a generator never waited: it, not the server, had no room for them.
    pub starved: u64,
    /// Acks.
    pub acked: u64,
    /// Sends that the server refused.
    pub refused: u64,
    /// Deliveries that the acks promise: each acked message at each recipient.
    pub expected: u64,
    /// Deliveries, without repeats.
    pub delivered: u64,
    /// Deliveries promised that never came.
    pub lost: u64,
    /// Deliveries that came once too often.
    pub duplicated: u64,
    /// Deliveries whose payload was not what its sender wrote.
    pub corrupted: u64,
    /// Connections that were to be made.
    pub connects_intended: u64,
    /// Connections that the server welcomed.
    pub connected: u64,
    /// Of these, how many had been there before.
    pub reconnects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Connections that ended without the generator's doing.
    pub disconnects: u64,
    /// Connections that the generator closed or cut on purpose.
    pub left: u64,
}

/// What came out of a run; its number is the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitVerdict {
    /// Every threshold was met.
    #[default]
    Passed,
    /// A threshold was missed.
    Missed,
    /// The generator could not keep its schedule: the numbers say more of it than of the server.
    GeneratorBottleneck,
}

/// Results that cannot be read or merged.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// No file, or no permission.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else.
    #[error("these are no results of loadgen: {0}. Give a file that `loadgen` wrote with --json")]
    Foreign(String),
    /// Written by a newer loadgen.
    #[error(
        "these results have version {found} and this loadgen reads {VERSION}: use the loadgen that wrote them, or a newer one"
    )]
    Version {
        /// What the document says.
        found: u32,
    },
    /// Two generators that did different things.
    #[error("results of different scenarios cannot be merged: give every generator the same scenario file")]
    Scenario,
    /// A histogram in it.
    #[error(transparent)]
    Histogram(#[from] HistogramError),
}

impl Results {
    /// Results of a run that begins now, on this machine, with nothing in them.
    pub fn new(command: impl Into<String>, scenario: impl Into<String>) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            format: FORMAT.into(),
            version: VERSION,
            command: command.into(),
            scenario: scenario.into(),
            started_unix_milliseconds: started.as_millis() as u64,
            versions: vec![("loadgen".into(), env!("CARGO_PKG_VERSION").into())],
            machines: vec![Machine::this()],
            stages: Vec::new(),
            series: Series::default(),
            thresholds: Vec::new(),
            verdict: ExitVerdict::Passed,
        }
    }

    /// When the run began.
    pub fn started(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.started_unix_milliseconds)
    }

    /// Adds another generator's results of the same run, and judges anew.
    ///
    /// # Errors
    /// It ran another scenario, or a histogram is damaged.
    pub fn merge(&mut self, other: &Results) -> Result<(), ResultsError> {
        if self.scenario != other.scenario {
            return Err(ResultsError::Scenario);
        }
        self.started_unix_milliseconds = self.started_unix_milliseconds.min(other.started_unix_milliseconds);
        for version in &other.versions {
            if !self.versions.contains(version) {
                self.versions.push(version.clone());
            }
        }
        for machine in &other.machines {
            if !self.machines.contains(machine) {
                self.machines.push(machine.clone());
            }
        }
        for stage in &other.stages {
            match self.stages.iter_mut().find(|own| own.name == stage.name) {
                Some(own) => own.merge(stage),
                None => self.stages.push(stage.clone()),
            }
        }
        self.series.merge(&other.series)?;
        for judged in &other.thresholds {
            if !self.thresholds.iter().any(|own| own.threshold == judged.threshold) {
                self.thresholds.push(judged.clone());
            }
        }
        let thresholds: Vec<Threshold> =
            self.thresholds.iter().map(|judged| judged.threshold.clone()).collect();
        self.judge(&thresholds);
        Ok(())
    }

    /// Takes the verdict on each threshold, and on the whole run.
    pub fn judge(&mut self, thresholds: &[Threshold]) -> ExitVerdict {
        self.thresholds =
            thresholds.iter().map(|threshold| threshold.judge(self.measure(threshold))).collect();
        let total = self.total();
        let is_late = share(total.counts.late, total.counts.sent) > LATE_SHARE_MAX;
        let is_starved = share(total.counts.starved, total.counts.intended) > LATE_SHARE_MAX;
        self.verdict = if is_late || is_starved {
            ExitVerdict::GeneratorBottleneck
        } else if self.thresholds.iter().any(|judged| judged.verdict != Verdict::Passed) {
            ExitVerdict::Missed
        } else {
            ExitVerdict::Passed
        };
        self.verdict
    }

    /// All measured stages as one; all stages if none is measured.
    pub fn total(&self) -> StageResults {
        let mut total = StageResults { name: "all measured stages".into(), ..StageResults::default() };
        let any_measured = self.stages.iter().any(|stage| stage.measured);
        for stage in self.stages.iter().filter(|stage| stage.measured || !any_measured) {
            total.append(stage);
        }
        total
    }

    fn measure(&self, threshold: &Threshold) -> Option<f64> {
        match &threshold.stage {
            Some(name) => self.stages.iter().find(|stage| stage.name == *name)?.measure(threshold.metric),
            None => self.total().measure(threshold.metric),
        }
    }

    /// The whole document.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("results have only strings for keys")
    }

    /// Reads a document.
    ///
    /// # Errors
    /// It is something else, or of a version that this loadgen does not know.
    pub fn from_json(text: &str) -> Result<Self, ResultsError> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let foreign = |error: serde_json::Error| ResultsError::Foreign(error.to_string());
        let head: Head = serde_json::from_str(text).map_err(foreign)?;
        if head.format != FORMAT {
            return Err(ResultsError::Foreign(format!("the format is {:?}", head.format)));
        }
        if head.version != VERSION {
            return Err(ResultsError::Version { found: head.version });
        }
        serde_json::from_str(text).map_err(foreign)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`Self::from_json`], or the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, ResultsError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ResultsError::File { path: path.to_path_buf(), source })?;
        Self::from_json(&text)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ResultsError> {
        fs::write(path, self.to_json() + "\n")
            .map_err(|source| ResultsError::File { path: path.to_path_buf(), source })
    }
}

impl StageResults {
    /// Adds another generator's same stage: they ran side by side.
    pub fn merge(&mut self, other: &StageResults) {
        let end = (self.begin_seconds + self.length_seconds).max(other.begin_seconds + other.length_seconds);
        self.begin_seconds = self.begin_seconds.min(other.begin_seconds);
        self.length_seconds = end - self.begin_seconds;
        self.measured |= other.measured;
        self.add_figures(other);
        self.server = self.server.or(other.server);
    }

    /// Adds a stage that ran after it.
    fn append(&mut self, later: &StageResults) {
        if self.length_seconds == 0.0 {
            self.begin_seconds = later.begin_seconds;
            self.server = later.server;
        } else if let (Some(server), Some(other)) = (&mut self.server, later.server) {
            server.cpu_microseconds += other.cpu_microseconds;
            server.resident_bytes_end = other.resident_bytes_end;
        } else {
            // Half of it is not what the server used for the whole.
            self.server = None;
        }
        self.length_seconds += later.length_seconds;
        self.add_figures(later);
    }

    fn add_figures(&mut self, other: &StageResults) {
        self.counts.merge(&other.counts);
        self.ack.merge(&other.ack);
        self.delivery.merge(&other.delivery);
        self.connect.merge(&other.connect);
        self.handshake.merge(&other.handshake);
        self.lateness.merge(&other.lateness);
    }

    /// Deliveries a second.
    pub fn delivery_rate(&self) -> f64 {
        self.counts.delivered as f64 / self.length_seconds.max(1e-9)
    }

    /// Sends a second.
    pub fn send_rate(&self) -> f64 {
        self.counts.sent as f64 / self.length_seconds.max(1e-9)
    }

    /// The server's processor time for each delivery, in microseconds.
    pub fn server_cpu_per_delivery(&self) -> Option<f64> {
        let server = self.server.filter(|_| self.counts.delivered > 0)?;
        Some(server.cpu_microseconds as f64 / self.counts.delivered as f64)
    }

    /// A latency histogram.
    pub fn histogram(&self, of: Timed, from: From) -> &LatencyHistogram {
        let latency = match of {
            Timed::Ack => &self.ack,
            Timed::Delivery => &self.delivery,
            Timed::Connect => &self.connect,
            Timed::Handshake => return &self.handshake,
            Timed::Lateness => return &self.lateness,
        };
        match from {
            From::Response => &latency.response,
            From::Service => &latency.service,
        }
    }

    /// The number that a threshold looks at; `None` if the stage has none.
    pub fn measure(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Latency { of, from, quantile } => {
                let histogram = self.histogram(of, from);
                (!histogram.is_empty()).then(|| histogram.quantile(quantile) as f64)
            }
            Metric::Count(what) => Some(self.counts.of(what).0 as f64),
            Metric::Share(what) => {
                let (count, most) = self.counts.of(what);
                (most > 0).then(|| share(count, most))
            }
            Metric::DeliveryRate => (self.length_seconds > 0.0).then(|| self.delivery_rate()),
            Metric::SendRate => (self.length_seconds > 0.0).then(|| self.send_rate()),
            Metric::ServerCpuPerDelivery => self.server_cpu_per_delivery(),
        }
    }
}

impl Latency {
    /// Counts a latency by its moments, in nanoseconds of one clock.
    pub fn record(&mut self, intended: u64, began: u64, ended: u64) {
        self.response.record(ended.saturating_sub(intended));
        self.service.record(ended.saturating_sub(began));
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Latency) {
        self.response.merge(&other.response);
        self.service.merge(&other.service);
    }
}

impl Counts {
    /// Every count with its name, in the order of tables.
    pub fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("intended", self.intended),
            ("sent", self.sent),
            ("late", self.late),
            ("dropped", self.dropped),
            ("starved", self.starved),
            ("acked", self.acked),
            ("refused", self.refused),
            ("expected", self.expected),
            ("delivered", self.delivered),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("corrupted", self.corrupted),
            ("connects intended", self.connects_intended),
            ("connected", self.connected),
            ("reconnects", self.reconnects),
            ("connect failures", self.connect_failures),
            ("disconnects", self.disconnects),
            ("left", self.left),
        ]
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Counts) {
        self.intended += other.intended;
        self.sent += other.sent;
        self.late += other.late;
        self.dropped += other.dropped;
        self.starved += other.starved;
        self.acked += other.acked;
        self.refused += other.refused;
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.connects_intended += other.connects_intended;
        self.connected += other.connected;
        self.reconnects += other.reconnects;
        self.connect_failures += other.connect_failures;
        self.disconnects += other.disconnects;
        self.left += other.left;
    }

    /// A count, and what it could be at most.
    fn of(&self, what: Counted) -> (u64, u64) {
        match what {
            Counted::Late => (self.late, self.sent),
            Counted::Dropped => (self.dropped, self.intended),
            Counted::Lost => (self.lost, self.expected),
            Counted::Duplicated => (self.duplicated, self.delivered),
            Counted::Corrupted => (self.corrupted, self.delivered),
            Counted::Refused => (self.refused, self.sent),
            Counted::Disconnects => (self.disconnects, self.connected),
            Counted::ConnectFailures => (self.connect_failures, self.connects_intended),
        }
    }
}

impl ExitVerdict {
    /// The exit code of the command.
    pub fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Missed => 3,
            Self::GeneratorBottleneck => 4,
        }
    }

    /// A sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Passed => "every threshold was met",
            Self::Missed => "a threshold was missed",
            Self::GeneratorBottleneck => {
                "the generator could not keep its schedule: these numbers say more of it than of the server"
            }
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::specimen::specimen;

    fn thresholds(lines: &[&str]) -> Vec<Threshold> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    #[test]
    fn results_survive_a_file_and_other_versions_are_refused() {
        let mut results = specimen(1, 5);
        results.judge(&thresholds(&["delivery.response.p99 <= 100ms", "lost == 0"]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);

        let newer =
            results.to_json().replacen("\"version\":1", "\"version\":9,\"stages_of_another_form\":1", 1);
        let error = Results::from_json(&newer).unwrap_err();
        assert!(matches!(error, ResultsError::Version { found: 9 }), "{error}");
        for text in ["{}", "[1]", "", r#"{"format":"something","version":1}"#] {
            let error = Results::from_json(text).unwrap_err().to_string();
            assert!(error.contains("no results of loadgen"), "{error}");
        }
        assert!(Results::read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn merging_adds_histograms_and_judges_anew() {
        let (mut one, two) = (specimen(1, 5), specimen(2, 5));
        one.judge(&thresholds(&["send: dropped == 0"]));
        assert_eq!(one.verdict, ExitVerdict::Passed);
        let mut other = two.clone();
        other.stages[1].counts.dropped = 3;
        let before = one.total();
        one.merge(&other).unwrap();

        let total = one.total();
        assert_eq!(total.counts.sent, before.counts.sent + other.total().counts.sent);
        let mut sum = before.delivery.response.clone();
        sum.merge(&other.total().delivery.response);
        assert_eq!(total.delivery.response, sum);
        assert_eq!((one.verdict, one.thresholds[0].measured), (ExitVerdict::Missed, Some(3.0)));

        let foreign = Results { scenario: "another".into(), ..two };
        assert!(matches!(one.merge(&foreign), Err(ResultsError::Scenario)));
    }

    #[test]
    fn a_late_generator_is_told_before_any_threshold() {
        let mut results = specimen(1, 5);
        let sent = results.total().counts.sent;
        results.stages[1].counts.late = sent / 50;
        let verdict = results.judge(&thresholds(&["lost > 5"]));
        assert_eq!((verdict, verdict.code()), (ExitVerdict::GeneratorBottleneck, 4));
        results.stages[1].counts.late = 0;
        results.stages[1].counts.starved = results.total().counts.intended / 50;
        assert_eq!(results.judge(&thresholds(&["lost > 5"])).code(), 4);
        results.stages[1].counts.starved = 0;
        assert_eq!(results.judge(&thresholds(&["lost > 5"])).code(), 3);
        assert_eq!(results.judge(&[]).code(), 0);
        // A stage that is not there measures nothing, and that is no pass.
        assert_eq!(results.judge(&thresholds(&["strom: lost == 0"])).code(), 3);
    }

    #[test]
    fn response_counts_the_wait_before_the_send_and_service_does_not() {
        let mut latency = Latency::default();
        latency.record(1_000_000, 201_000_000, 202_000_000);
        assert_eq!((latency.service.max(), latency.response.max()), (1_000, 201_087));
    }
}
