//! What others notice of a client that behaves badly: the delivery latency of a steady load without and
//! with it, and the server's memory before, during and after.
//!
//! Each kind is a row. One server takes the load again and again, in turn alone and beside `loadgen abuse`;
//! what counts is the median over the pairs of neighbours, because a shared machine is never quiet. The bad
//! client is the load's first user, so that it is sent what others say; it runs at a low priority, because
//! in truth it is another machine's work. Left out: latency under a load that fills the machine.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::crashes::scratch;
use crate::process::{Failure, Profile, binary};
use crate::rows::{self, Rerun};
use crate::server::{Plan, Server};

/// Options of the verb.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Abuse {
    /// Kinds, as `loadgen abuse` names them; all of them if none is named.
    kinds: Vec<String>,
    #[command(flatten)]
    rerun: Rerun,
}

/// Each kind with the seconds of one run, and how many pairs of runs without and with the bad client: the
/// median of few long ones is as steady as that of more short ones. A half-open peer is ended after 45 s of
/// silence.
const KINDS: [(&str, u32, usize); 7] = [
    ("slow-reader", 10, 5),
    ("half-open", 50, 3),
    ("ping-flood", 10, 5),
    ("byte-at-a-time", 10, 5),
    ("reset-mid-frame", 10, 5),
    ("huge-length", 10, 5),
    ("stalled-handshakes", 10, 5),
];

/// Runs before that, and their seconds: what a server needs once, and what its store's tables take until
/// they are written, is there afterwards.
const WARM_UPS: usize = 2;
const WARM_UP_SECONDS: u32 = 15;

/// The load: half of the users in groups of 50, the others in pairs.
const USERS: u32 = 200;
const MESSAGES_PER_SECOND: u32 = 200;

/// How many times as long the others' p99 may be.
const LATENCY_RATIO_MAX: f64 = 1.5;

/// How many times as much memory there may be afterwards.
const MEMORY_RATIO_MAX: f64 = 1.1;

/// Time for memory to come back.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// The verb.
pub(crate) fn run(options: &Abuse) -> Result<(), Failure> {
    if let Some(unknown) = options.kinds.iter().find(|kind| KINDS.iter().all(|(name, ..)| name != kind)) {
        return Err(Failure::Unmet(format!("{unknown} is no kind: {:?}", KINDS.map(|(name, ..)| name))));
    }
    Profile::Release.build("")?;
    let wanted = |kind: &str| options.kinds.is_empty() || options.kinds.iter().any(|name| name == kind);
    let mut failures = Vec::new();
    for (kind, seconds, pairs) in KINDS.into_iter().filter(|(kind, ..)| wanted(kind)) {
        let row = format!("abuse {kind}");
        // One kind that failed says nothing of the next one.
        if let Err(failure) = rows::row(&row, rows::SERVER, &options.rerun, || measure(kind, seconds, pairs))
        {
            eprintln!("{failure}");
            failures.push(kind);
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::Unmet(format!("not borne as they must be: {}", failures.join(", "))))
    }
}

/// What one run of the load showed.
struct Run {
    /// Of the deliveries, from the intended send time.
    p99_microseconds: u64,
    /// The server's memory at most.
    resident_bytes_max: u64,
    /// What the bad client said.
    report: Value,
}

fn measure(kind: &str, seconds: u32, pair_count: usize) -> Result<Value, Failure> {
    let folder = scratch()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data).map_err(Failure::file(&data))?;
    let plan = Plan::new(Profile::Release, &data)?;
    let server = plan.start()?;
    let tokens = folder.path().join("tokens");
    plan.tokens(USERS, &tokens)?;
    let load = Load { server: &server, folder: folder.path(), tokens: &tokens, seconds };

    for _ in 0..WARM_UPS {
        Load { seconds: WARM_UP_SECONDS, ..load }.run(None)?;
    }
    let (mut latencies, mut memories, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pair_count {
        let first = settle(&server, u64::MAX)?;
        let alone = load.run(None)?;
        let before = settle(&server, u64::MAX)?;
        let beside = load.run(Some(kind))?;
        let after = settle(&server, (before as f64 * MEMORY_RATIO_MAX) as u64)?;
        latencies.push(beside.p99_microseconds as f64 / alone.p99_microseconds as f64);
        memories.push(after as f64 / before as f64);
        let pair = json!({
            "p99_us_without": alone.p99_microseconds,
            "p99_us_with": beside.p99_microseconds,
            "resident_bytes_before_without": first,
            "resident_bytes_before": before,
            "resident_bytes_during": beside.resident_bytes_max,
            "resident_bytes_after": after,
            "abuse": beside.report,
        });
        println!("{pair}");
        pairs.push(pair);
    }
    let (latency, memory) = (median(latencies), median(memories));
    let figures = json!({
        "p99_ratio": latency,
        "resident_ratio": memory,
        "seconds": seconds,
        "users": USERS,
        "messages_per_second": MESSAGES_PER_SECOND,
        "pairs": pairs,
    });
    if latency > LATENCY_RATIO_MAX || memory > MEMORY_RATIO_MAX {
        return Err(Failure::Unmet(format!(
            "{kind}: others' p99 is {latency:.2} times as long (at most {LATENCY_RATIO_MAX}), memory \
             {memory:.2} times (at most {MEMORY_RATIO_MAX}): {figures}"
        )));
    }
    Ok(figures)
}

/// The load on one server.
#[derive(Clone, Copy)]
struct Load<'a> {
    server: &'a Server,
    folder: &'a Path,
    tokens: &'a Path,
    seconds: u32,
}

impl Load<'_> {
    /// Runs it once, beside a bad client from the moment that all are welcome.
    fn run(&self, abuse: Option<&str>) -> Result<Run, Failure> {
        let summary = self.folder.join("summary.json");
        let _ = std::fs::remove_file(&summary);
        let mut clients = self.start(&summary)?;
        let progress = BufReader::new(clients.stderr.take().expect("it is piped"));
        let mut lines = progress.lines();
        // Ends by itself too: a load that fails closes the pipe.
        let welcome = lines.by_ref().map_while(Result::ok).any(|line| line.contains("devices are welcome"));
        let drained = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        let bad = match abuse {
            Some(kind) if welcome => Some(self.start_abuse(kind)?),
            _ => None,
        };
        let mut resident_bytes_max = 0;
        let status = loop {
            resident_bytes_max = resident_bytes_max.max(resident_bytes(self.server.run.pid)?);
            match clients.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                Ok(Some(status)) => break status,
                Err(error) => return Err(Failure::Start { command: "wait for loadgen".into(), error }),
            }
        };
        let said = drained.join().unwrap_or_default();
        let report = bad.map_or(Ok(Value::Null), finish_abuse)?;
        if !status.success() {
            return Err(Failure::Unmet(format!("loadgen run ended with {status}: {said:#?}")));
        }
        let text = std::fs::read_to_string(&summary).map_err(Failure::file(&summary))?;
        let figures: Value = serde_json::from_str(&text).unwrap_or_default();
        let p99_microseconds = figures["delivery"]["p99_us"].as_u64().filter(|value| *value > 0);
        let p99_microseconds = p99_microseconds
            .ok_or_else(|| Failure::Unmet(format!("{} has no delivery.p99_us", summary.display())))?;
        Ok(Run { p99_microseconds, resident_bytes_max, report })
    }

    fn start(&self, summary: &Path) -> Result<Child, Failure> {
        let address = self.server.run.wss.as_deref().unwrap_or_default();
        let mut command = Command::new(binary(Profile::Release, "loadgen"));
        command.args(["run", "--insecure", "--no-check", "--url", &format!("wss://{address}/ws")]);
        command.args(["--users", &USERS.to_string()]);
        command.args(["--rate", &MESSAGES_PER_SECOND.to_string()]);
        command.args(["--duration", &self.seconds.to_string()]);
        for quiet in ["--churn", "--history-reads", "--member-changes", "--repeats", "--cold-devices"] {
            command.args([quiet, "0"]);
        }
        command.arg("--tokens").arg(self.tokens).arg("--summary").arg(summary);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().map_err(|error| Failure::Start { command: "loadgen run".into(), error })
    }

    fn start_abuse(&self, kind: &str) -> Result<Child, Failure> {
        let tokens = std::fs::read_to_string(self.tokens).map_err(Failure::file(self.tokens))?;
        let first = tokens.split_whitespace().nth(1).unwrap_or_default();
        let run = &self.server.run;
        let mut command = Command::new("nice");
        command.arg(binary(Profile::Release, "loadgen")).args(["abuse", kind]);
        command.args(["--ws", run.ws.as_deref().unwrap_or_default()]);
        command.args(["--wss", run.wss.as_deref().unwrap_or_default()]);
        command.args(["--token", first, "--seconds", &self.seconds.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().map_err(|error| Failure::Start { command: "loadgen abuse".into(), error })
    }
}

/// Waits for the bad client: what it saw, if the server ended it as it must.
fn finish_abuse(bad: Child) -> Result<Value, Failure> {
    let command = || "loadgen abuse".to_owned();
    let output = bad.wait_with_output().map_err(|error| Failure::Start { command: command(), error })?;
    if !output.status.success() {
        return Err(Failure::Exit { command: command(), status: output.status });
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// The server's memory when it has come down to `enough`, or does not come down any more.
fn settle(server: &Server, enough: u64) -> Result<u64, Failure> {
    // The housekeeping of every core comes by once a second.
    std::thread::sleep(Duration::from_secs(3));
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        let resident = resident_bytes(server.run.pid)?;
        if resident <= enough || Instant::now() > deadline {
            return Ok(resident);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// VmRSS of a process.
fn resident_bytes(process: u32) -> Result<u64, Failure> {
    let path = Path::new("/proc").join(process.to_string()).join("status");
    let status = std::fs::read_to_string(&path).map_err(Failure::file(&path))?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| Failure::Unmet(format!("{} has no VmRSS: the server is gone", path.display())))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
