//! The tables of `bench/RESULTS.md` that need a server: the gateway's processor time for a message, beside a floor or
//! a baseline that does the same work, run by run in turn.
//!
//! The server has CPU 0, the client CPU 1, both before all other work (SCHED_FIFO, where that is allowed); both ends
//! talk over loopback. The machine has slow and fast phases, so
//! only ratios within one row mean something: each run starts every server anew, one after the other, and the row
//! has the median of each and their ratio. Utilisation says whether the server was what the run waited for.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::crashes::scratch;
use crate::idle;
use crate::process::{Failure, Profile, binary, cargo, output, pinned, run as run_command};
use crate::rows::{self, Rerun};
use crate::server::{Plan, Server};

/// Code that every row measures: the socket plane, and how it is measured.
const SOCKET_PLANE: &[&str] =
    &["Cargo.lock", "gateway/ring/src", "gateway/src", "protocol/src", "xtask/src/bench.rs"];

/// Receive buffers of the gateway, and so of the floor.
const BUFFERS: [&str; 2] = ["1024", "4096"];
/// The floor's table.
const SLOTS: &str = "16384";
/// The 99th percentile of an ack may be so much above that of the disk's own fsync, in microseconds.
const ACK_OVER_FSYNC_MAX_US: f64 = 3_000.0;
/// Pairs of a relay.
const PAIRS: u32 = 500;

/// What is measured, and how often.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    table: Table,
    /// Runs of each server in a row.
    #[arg(long, global = true, default_value_t = 5)]
    runs: usize,
    /// Only the rows whose name has this in it.
    #[arg(long, global = true, default_value = "")]
    only: String,
    /// Run again what still stands.
    #[arg(long, global = true)]
    again: bool,
    /// Measure the release binaries that are there, as they are.
    #[arg(long, global = true)]
    no_build: bool,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Table {
    /// One to one, 500 pairs, 128 bytes, windows of 1, 8 and 32: a raw ring, the gateway, and the gateway over TLS.
    Relay,
    /// One to 1,000 and to 10,000: a raw ring and the gateway.
    FanOut,
    /// Full TLS handshakes with connect and upgrade: tokio-rustls and the gateway.
    Handshakes,
    /// A send on its whole way, one to one over wss: order, fsync, ack and delivery, for 500 pairs.
    Durable,
    /// User memory of an idle connection, plain and over TLS.
    Memory,
}

/// One row of a table.
struct Job {
    name: String,
    /// Of which the first is what the others are held against.
    servers: Vec<(Kind, Option<f64>)>,
    /// What the first may cost, in microseconds.
    bar_us: Option<f64>,
    client: Client,
}

/// A server, and what of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Floor,
    TokioRustls,
    GatewayPlain,
    GatewayTls,
    /// All of `ringway serve`, on the way of a message.
    Serve,
}

enum Client {
    /// Mode, sockets, window, messages.
    Relay(&'static str, u32, u32, u64),
    /// Connections.
    Handshakes(u32),
    /// Encoding, window, messages.
    Durable(&'static str, u32, u64),
    /// Messages a second on a schedule, seconds: beside the disk's own fsyncs.
    DurableOpen(u32, u32),
}

/// The verb.
pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    if let Table::Memory = bench.table {
        return idle::run(&Rerun { again: bench.again });
    }
    if !bench.no_build {
        build()?;
    }
    let mut missed = Vec::new();
    for job in jobs(bench.table) {
        let rerun = Rerun { again: bench.again };
        if job.name.contains(&bench.only)
            && let Err(failure) =
                rows::row(&job.name, &job.client.measured(), &rerun, || job.measure(bench.runs))
        {
            missed.push(failure.to_string());
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(Failure::Unmet(missed.join("\n"))) }
}

fn build() -> Result<(), Failure> {
    Profile::Release.build("")?;
    let release = ["build", "--quiet", "--release", "--package"];
    run_command(cargo(&release).args(["ringway-ring", "--examples"]))?;
    run_command(cargo(&release).args(["ringway-bench", "--bins"]))
}

fn jobs(table: Table) -> Vec<Job> {
    let relay = |window, messages, plain, tls| Job {
        name: format!("bench relay, window {window}"),
        servers: vec![(Kind::Floor, None), (Kind::GatewayPlain, plain), (Kind::GatewayTls, tls)],
        bar_us: None,
        client: Client::Relay("relay", PAIRS, window, messages),
    };
    let fan_out = |members, window, messages, bar| Job {
        name: format!("bench fan-out to {members}, window {window}"),
        servers: vec![(Kind::Floor, None), (Kind::GatewayPlain, Some(bar))],
        bar_us: None,
        client: Client::Relay("fan-out", members, window, messages),
    };
    let durable = |encoding, window, messages, bar| Job {
        name: format!("bench durable, {encoding}, window {window}"),
        servers: vec![(Kind::Serve, None)],
        bar_us: Some(bar),
        client: Client::Durable(encoding, window, messages),
    };
    match table {
        Table::Relay => vec![
            relay(1, 500_000, Some(1.15), Some(1.25)),
            relay(8, 4_000_000, None, None),
            relay(32, 8_000_000, Some(1.3), Some(2.0)),
        ],
        Table::FanOut => vec![
            fan_out(1_000, 1, 1_000_000, 1.1),
            fan_out(1_000, 8, 8_000_000, 1.15),
            fan_out(10_000, 1, 500_000, 1.1),
        ],
        Table::Handshakes => vec![Job {
            name: "bench handshakes, full".into(),
            servers: vec![(Kind::TokioRustls, None), (Kind::GatewayTls, Some(1.0))],
            bar_us: None,
            client: Client::Handshakes(20_000),
        }],
        Table::Durable => vec![
            durable("json", 1, 200_000, 40.0),
            durable("protobuf", 1, 200_000, 40.0),
            durable("json", 32, 600_000, 7.0),
            durable("protobuf", 32, 600_000, 7.0),
            Job {
                name: "bench durable, 20000 a second".into(),
                servers: vec![(Kind::Serve, None)],
                bar_us: None,
                client: Client::DurableOpen(20_000, 10),
            },
        ],
        Table::Memory => Vec::new(),
    }
}

impl Job {
    fn measure(&self, runs: usize) -> Result<Value, Failure> {
        let mut figures: Vec<Vec<Value>> = vec![Vec::new(); self.servers.len()];
        for _ in 0..runs {
            for (index, (kind, _)) in self.servers.iter().enumerate() {
                let figure = self.client.measure(*kind)?;
                println!("  {kind:?}: {figure}");
                figures[index].push(figure);
            }
        }
        let medians: Vec<f64> = figures.iter().map(|runs| median(runs, self.client.unit())).collect();
        let (mut row, mut missed) = (serde_json::Map::new(), Vec::new());
        for (index, (kind, bar)) in self.servers.iter().enumerate() {
            let ratio = medians[index] / medians[0];
            println!("  {kind:?}: median {:.3} us, {ratio:.3} times the first", medians[index]);
            if bar.is_some_and(|bar| ratio > bar) {
                missed.push(format!("{kind:?} {ratio:.3}"));
            }
            row.insert(
                format!("{kind:?}"),
                json!({
                    "median_us": medians[index], "ratio": ratio, "bar": bar,
                    "utilisation_median": median(&figures[index], "utilisation"), "runs": figures[index],
                }),
            );
        }
        if self.bar_us.is_some_and(|bar| medians[0] > bar) {
            missed.push(format!("{:.3} us", medians[0]));
        }
        if let Client::DurableOpen(..) = self.client {
            let [ack, sync] = ["ack_p99_us", "sync_p99_us"].map(|field| median(&figures[0], field));
            println!("  ack p99 {ack} us, fsync p99 {sync} us");
            if ack > sync + ACK_OVER_FSYNC_MAX_US {
                missed.push(format!("ack p99 {ack} us, fsync p99 {sync} us"));
            }
        }
        if missed.is_empty() {
            Ok(Value::Object(row))
        } else {
            Err(Failure::Unmet(format!(
                "{}: over the bar: {}: {}",
                self.name,
                missed.join(", "),
                Value::Object(row)
            )))
        }
    }
}

impl Client {
    /// The paths whose change ends a row's standing.
    fn measured(&self) -> Vec<&'static str> {
        let more: &[&str] = match self {
            Client::Relay(..) => &["gateway/ring/examples"],
            Client::Handshakes(_) => &["bench/src"],
            Client::Durable(..) | Client::DurableOpen(..) => {
                &["bench/src", "router/src", "store-writer/src", "trunk/src"]
            }
        };
        [SOCKET_PLANE, more].concat()
    }

    fn unit(&self) -> &'static str {
        match self {
            Client::Relay(..) | Client::Durable(..) | Client::DurableOpen(..) => "us_a_message",
            Client::Handshakes(_) => "us_a_connection",
        }
    }

    /// One run against a server of its own.
    fn measure(&self, kind: Kind) -> Result<Value, Failure> {
        let folder = scratch()?;
        let disk = match self {
            Client::DurableOpen(..) => sync_probe(folder.path())?,
            _ => Value::Null,
        };
        let server = Running::start(kind, folder.path())?;
        let mut command = pinned(1);
        let (port, pid) = (server.port.to_string(), server.pid.to_string());
        match self {
            Client::Relay(mode, sockets, window, messages) => {
                let transport = if kind == Kind::GatewayTls { "tls" } else { "plain" };
                command.arg(example("relay_client")).args([&*port, &*pid, mode]);
                command.args([sockets.to_string(), window.to_string(), messages.to_string()]).arg(transport);
            }
            Client::Handshakes(count) => {
                command.arg(binary(Profile::Release, "handshake_client"));
                command.args([&*port, &*pid, "/echo", &*count.to_string()]);
            }
            Client::Durable(encoding, window, messages) => {
                command.arg(binary(Profile::Release, "durable_client")).args(["closed", &*port, &*pid]);
                command.arg(folder.path().join("tokens")).args([encoding, &*PAIRS.to_string()]);
                command.args([window.to_string(), messages.to_string()]);
            }
            Client::DurableOpen(rate, seconds) => {
                command.arg(binary(Profile::Release, "durable_client")).args(["open", &*port, &*pid]);
                command.arg(folder.path().join("tokens")).args(["protobuf", &*PAIRS.to_string()]);
                command.args([rate.to_string(), seconds.to_string()]);
            }
        }
        let mut figures = read(&output(&mut command)?)?;
        if let (Some(figures), Some(disk)) = (figures.as_object_mut(), disk.as_object()) {
            figures.extend(disk.clone());
        }
        Ok(figures)
    }
}

/// How long the disk alone takes to make durable what the store writes at a time.
fn sync_probe(folder: &Path) -> Result<Value, Failure> {
    let mut command = pinned(1);
    command.arg(binary(Profile::Release, "durable_client")).arg("sync").arg(folder);
    read(&output(command.args(["32768", "300", "5"]))?)
}

fn read(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::Unmet(format!("{text}: {error}")))
}

/// A server on CPU 0, ended when dropped.
struct Running {
    port: u16,
    pid: u32,
    _server: Handle,
}

enum Handle {
    Gateway { _server: Server },
    Child(Child),
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Handle::Child(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    fn start(kind: Kind, folder: &Path) -> Result<Self, Failure> {
        if let Kind::GatewayPlain | Kind::GatewayTls | Kind::Serve = kind {
            return Self::gateway(kind, folder);
        }
        let port = free_port()?;
        let mut command = pinned(0);
        if kind == Kind::Floor {
            command.arg(example("relay_floor")).arg(port.to_string()).args(BUFFERS).arg(SLOTS);
        } else {
            command.arg(binary(Profile::Release, "tokio_rustls_server")).arg(port.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child =
            command.spawn().map_err(|error| Failure::Start { command: "a server on CPU 0".into(), error })?;
        let running = Self { port, pid: child.id(), _server: Handle::Child(child) };
        let until = Instant::now() + Duration::from_secs(10);
        while !is_listening(port) {
            if Instant::now() > until {
                return Err(Failure::Unmet(format!("{kind:?} does not listen")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    fn gateway(kind: Kind, folder: &Path) -> Result<Self, Failure> {
        let data = folder.join("data");
        std::fs::create_dir(&data).map_err(Failure::file(&data))?;
        let mut plan = Plan::new(Profile::Release, &data)?;
        plan.cpu = Some(0);
        for (flag, value) in [
            ("--gateway.connections_max", "12000"),
            ("--gateway.rings_per_core", "1"),
            ("--diagnostics.relay", "true"),
            ("--diagnostics.echo", "true"),
            ("--limits.send_per_s", "1000000"),
            ("--limits.send_burst", "1000000"),
        ] {
            plan.flags.extend([flag.to_owned(), value.to_owned()]);
        }
        let server = plan.start()?;
        if kind == Kind::Serve {
            plan.tokens(2 * PAIRS, &folder.join("tokens"))?;
        }
        let address =
            if let Kind::GatewayTls | Kind::Serve = kind { &server.run.wss } else { &server.run.ws };
        let port = address.as_deref().and_then(|address| address.rsplit_once(':')?.1.parse().ok());
        let port = port.ok_or_else(|| Failure::Unmet("the server does not say its port".into()))?;
        Ok(Self { port, pid: server.run.pid, _server: Handle::Gateway { _server: server } })
    }
}

/// Whether somebody listens there, without connecting: a floor counts its connections.
fn is_listening(port: u16) -> bool {
    let wanted = format!("0100007F:{port:04X} 00000000:0000 0A");
    std::fs::read_to_string("/proc/net/tcp").is_ok_and(|sockets| sockets.contains(&wanted))
}

fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|error| Failure::Unmet(format!("no free port: {error}")))
}

fn example(name: &str) -> std::path::PathBuf {
    binary(Profile::Release, "examples").join(name)
}

fn median(runs: &[Value], field: &str) -> f64 {
    let mut values: Vec<f64> = runs.iter().filter_map(|run| run[field].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
