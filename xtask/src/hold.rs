//! What only very many connections show: half a million over TLS held for ten minutes while some talk, a million
//! plain ones that do nothing, and a storm in which 100,000 come back at once. Server and clients share this machine.
//!
//! Both ends run before what else goes on on the machine, if they may: what looks at each of a million sockets now and
//! then would be the 99th percentile of a delivery.
//!
//! The scenarios are `loadgen/scenarios/`; here is what a scenario cannot say: how the server is started, and what
//! memory everything took, the kernel's part with it (by how much MemAvailable of /proc/meminfo fell).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crashes::scratch;
use crate::process::{self, Failure, Profile, binary, root};
use crate::rows::{self, Rerun};
use crate::server::{Plan, Server};

/// All memory that a hold may take, server, clients and kernel, in bytes.
const MEMORY_MAX: u64 = 20 << 30;
/// What one client of the generator may take of its user memory, in bytes.
const CLIENT_BYTES_MAX: u64 = 6 << 10;
/// How many times longer than before a delivery may take for who stays in a storm, at the 99th percentile.
const STORM_RATIO_MAX: f64 = 2.0;
/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Which.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Hold {
    /// Only the rows whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    #[command(flatten)]
    rerun: Rerun,
}

struct Job {
    row: &'static str,
    scenario: &'static str,
    scheme: &'static str,
    connections: u32,
    /// The server's user memory that a connection may cost, in bytes.
    bytes_max: u64,
}

const JOBS: [Job; 3] = [
    Job {
        row: "hold 500000 wss, 5 % talk, 10 min",
        scenario: "half-million",
        scheme: "wss",
        connections: 500_000,
        bytes_max: 1_024,
    },
    Job {
        row: "hold 1000000 ws, idle",
        scenario: "million-idle",
        scheme: "ws",
        connections: 1_000_000,
        bytes_max: 512,
    },
    Job {
        row: "storm of 100000 wss among 200000",
        scenario: "reconnect-storm",
        scheme: "wss",
        connections: 200_000,
        bytes_max: 4_096,
    },
];

/// The verb.
pub(crate) fn run(hold: &Hold) -> Result<(), Failure> {
    Profile::Release.build("")?;
    let measured: Vec<&str> =
        rows::SERVER.iter().copied().chain(["loadgen/scenarios", "xtask/src/hold.rs"]).collect();
    let mut missed = Vec::new();
    for job in JOBS.iter().filter(|job| job.row.contains(&hold.only)) {
        if let Err(failure) = rows::row(job.row, &measured, &hold.rerun, || job.measure()) {
            missed.push(failure.to_string());
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(Failure::Unmet(missed.join("\n"))) }
}

impl Job {
    fn measure(&self) -> Result<Value, Failure> {
        let folder = scratch()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data).map_err(Failure::file(&data))?;
        let mut plan = Plan::new(Profile::Release, &data)?;
        // A ring passes its listener by when it is nearly full: room for what lands unevenly.
        plan.flags.extend(["--gateway.connections_max".into(), (self.connections / 25 * 26).to_string()]);
        plan.urgent = true;
        let available = meminfo("MemAvailable")?;
        let server = plan.start()?;
        let resident = resident_bytes(server.run.pid)?;
        let results = folder.path().join("results.json");
        let (passed, lowest, clients) = self.load(&server, &data, &results)?;
        if !results.exists() {
            return Err(Failure::Unmet(format!("{}: loadgen could not carry it out: see above", self.row)));
        }
        let text = std::fs::read_to_string(&results).map_err(Failure::file(&results))?;
        let results: Value =
            serde_json::from_str(&text).map_err(|error| Failure::Unmet(format!("the results: {error}")))?;
        let stages: Vec<Value> =
            results["stages"].as_array().into_iter().flatten().map(without_curves).collect();
        // While all are there and nobody has said anything: what the store keeps of messages is no connection's.
        let held = stages.iter().find(|stage| stage["kind"] == "hold").or(stages.last());
        let held = held.and_then(|stage| stage["server"]["resident_bytes_end"].as_u64());
        let held =
            held.ok_or_else(|| Failure::Unmet("the results do not know the server's memory".into()))?;
        let server_bytes = held.saturating_sub(resident);
        let bytes = server_bytes / u64::from(self.connections);
        let all = available.saturating_sub(lowest);
        let figures = json!({
            "connections": self.connections,
            "server_resident_bytes_before": resident,
            "server_bytes_a_connection": bytes,
            "loadgen_bytes_a_client": clients / u64::from(self.connections),
            "memory_of_everything_bytes": all,
            "stages": stages,
            "thresholds": results["thresholds"],
            "verdict": results["verdict"],
        });
        println!("{bytes} bytes of the server's memory a connection, {} MiB of everything", all >> 20);
        let mut missed = storm_misses(&stages);
        if !passed {
            missed.push(format!("loadgen says {}", results["verdict"]));
        }
        if bytes > self.bytes_max {
            missed.push(format!("a connection costs {bytes} bytes of at most {}", self.bytes_max));
        }
        if clients / u64::from(self.connections) > CLIENT_BYTES_MAX {
            missed.push(format!("a client costs more than {CLIENT_BYTES_MAX} bytes"));
        }
        if all > MEMORY_MAX {
            missed.push("everything costs more than 20 GiB".into());
        }
        if !missed.is_empty() {
            return Err(Failure::Unmet(format!("{}: {}: {figures}", self.row, missed.join(", "))));
        }
        Ok(figures)
    }

    /// Carries out the scenario. Whether it passed, the least memory that was available meanwhile, and the most
    /// that the generator's processes had.
    fn load(&self, server: &Server, data: &Path, results: &Path) -> Result<(bool, u64, u64), Failure> {
        let address = if self.scheme == "wss" { &server.run.wss } else { &server.run.ws };
        let url = format!("{}://{}/ws", self.scheme, address.as_deref().unwrap_or_default());
        let mut command = process::urgent();
        command
            .arg(binary(Profile::Release, "loadgen"))
            .arg("scenario")
            .arg(root().join(format!("loadgen/scenarios/{}.toml", self.scenario)));
        command.args(["--plain", "--insecure", "--url", &url, "--server-pid", &server.run.pid.to_string()]);
        command.arg("--secret-file").arg(data.join("dev-signing-key")).arg("--json").arg(results);
        let failed = |error| Failure::Start { command: "loadgen scenario".into(), error };
        let mut child = command.stdin(Stdio::null()).spawn().map_err(failed)?;
        let (mut lowest, mut clients) = (u64::MAX, 0);
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok((status.success(), lowest, clients));
            }
            lowest = lowest.min(meminfo("MemAvailable")?);
            clients = clients.max(family_bytes(child.id()));
            std::thread::sleep(SAMPLE_EVERY);
        }
    }
}

/// A field of /proc/meminfo, in bytes (proc_meminfo(5)).
fn meminfo(field: &str) -> Result<u64, Failure> {
    let path = Path::new("/proc/meminfo");
    let text = std::fs::read_to_string(path).map_err(Failure::file(path))?;
    kilobytes(&text, field).ok_or_else(|| Failure::Unmet(format!("{} has no {field}", path.display())))
}

/// A process's resident memory, in bytes.
fn resident_bytes(process: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).map_err(Failure::file(Path::new(&path)))?;
    kilobytes(&text, "VmRSS").ok_or_else(|| Failure::Unmet(format!("{path} has no VmRSS")))
}

/// What a process and its children have of memory that is no file's, in bytes.
fn family_bytes(parent: u32) -> u64 {
    let children =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let family = children.split_whitespace().filter_map(|child| child.parse().ok()).chain([parent]);
    family
        .filter_map(|process: u32| std::fs::read_to_string(format!("/proc/{process}/status")).ok())
        .filter_map(|text| kilobytes(&text, "RssAnon"))
        .sum()
}

/// `field:   1234 kB`, in bytes.
fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// What a storm among these stages owes: all that were cut are back, and who stayed hardly noticed.
fn storm_misses(stages: &[Value]) -> Vec<String> {
    let p99 = |stage: &Value| stage["delivery"]["response"]["p99_us"].as_f64().unwrap_or(f64::NAN);
    let Some(storm) = stages.iter().find(|stage| stage["kind"] == "storm") else { return Vec::new() };
    let calm = stages.iter().find(|stage| stage["name"] == "calm").map_or(f64::NAN, p99);
    let [left, back] = ["left", "reconnects"].map(|count| storm["counts"][count].as_u64().unwrap_or(0));
    let mut missed = Vec::new();
    println!("{back} of {left} are back; p99 of who stayed {} us, before {calm} us", p99(storm));
    if left == 0 || back < left {
        missed.push(format!("of {left} that were cut, {back} are back"));
    }
    if !matches!((p99(storm) / calm).partial_cmp(&STORM_RATIO_MAX), Some(std::cmp::Ordering::Less)) {
        missed.push(format!("p99 of who stayed is {} us, before it was {calm} us", p99(storm)));
    }
    missed
}

/// A stage without its histograms, which are long.
fn without_curves(stage: &Value) -> Value {
    fn prune(value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .filter(|(name, _)| *name != "hdr")
                    .map(|(name, value)| (name.clone(), prune(value)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
    prune(stage)
}
