//! Many connections that do nothing: what a connection costs the server in memory.
//!
//! Each is welcome and beats its heart; nobody sends. The figure is the growth of the server's VmRSS over
//! the number of connections, some seconds after the last one came. It leaves out what the kernel holds
//! for a socket, which is no memory of the process. A second figure counts only from the moment when a
//! tenth of them were there: the first connections also touch what a server has once (buffers, tables).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_protocol::client::Encoding;

use crate::descriptors::make_room;
use crate::device::Habits;
use crate::history::Recorder;
use crate::logins::Login;
use crate::run::{Crowd, RunError};
use crate::schedule::Arrival;
use crate::server_process::{Reading, read};
use crate::target::Target;
use crate::worker::{Orders, Share, Stage};

/// Bytes of a read: an idle connection hears pongs.
const READ_BYTES: usize = 512;

/// Everything that idle connections can be told.
#[derive(Clone, Debug)]
pub struct IdleSettings {
    /// The server.
    pub target: Target,
    /// A login each connection.
    pub logins: Vec<Login>,
    /// The subprotocols, given in turn.
    pub encodings: Vec<Encoding>,
    /// Threads.
    pub threads: usize,
    /// Connections opened, a second.
    pub connect_rate: f64,
    /// How long they stay when all are there.
    pub hold: Duration,
    /// The server's process, to measure it.
    pub server_process: Option<u32>,
}

/// What idle connections showed.
#[derive(Clone, Copy, Debug)]
pub struct IdleOutcome {
    /// Connections that were welcome at the end.
    pub open: u64,
    /// From the first to the last welcome.
    pub connecting: Duration,
    /// The server before the first, and at the end.
    pub server: Option<(Reading, Reading)>,
    /// Connections that were there at about a tenth, and the server then.
    pub tenth: Option<(u64, Reading)>,
    /// Processor time of the server while they were held, in microseconds.
    pub holding_microseconds: Option<u64>,
}

impl IdleOutcome {
    /// Growth of the server's resident memory for each connection, in bytes.
    pub fn bytes_a_connection(&self) -> Option<f64> {
        let (before, after) = self.server?;
        let growth = after.resident_bytes as f64 - before.resident_bytes as f64;
        (self.open > 0).then(|| growth / self.open as f64)
    }

    /// The same, from the moment when a tenth of them were there.
    pub fn bytes_a_further_connection(&self) -> Option<f64> {
        let ((first, tenth), (_, after)) = self.tenth.zip(self.server)?;
        let growth = after.resident_bytes as f64 - tenth.resident_bytes as f64;
        (self.open > first).then(|| growth / (self.open - first) as f64)
    }

    /// Everything, for machines.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "connections": self.open,
            "connecting_seconds": self.connecting.as_secs_f64(),
            "resident_bytes_a_connection": self.bytes_a_connection(),
            "resident_bytes_a_further_connection": self.bytes_a_further_connection(),
            "resident_bytes_before": self.server.map(|(before, _)| before.resident_bytes),
            "resident_bytes_after": self.server.map(|(_, after)| after.resident_bytes),
            "connect_cpu_us_a_connection": self.server.map(|(before, after)| {
                let cpu = after.cpu_microseconds - before.cpu_microseconds;
                cpu.saturating_sub(self.holding_microseconds.unwrap_or(0)) as f64 / self.open.max(1) as f64
            }),
            "holding_cpu_us": self.holding_microseconds,
        })
    }
}

/// Opens the connections, holds them and lets them go.
///
/// # Errors
/// They could not all be opened.
pub fn idle(settings: &IdleSettings, mut progress: impl FnMut(&str)) -> Result<IdleOutcome, RunError> {
    let wanted = settings.logins.len() as u64;
    make_room(wanted)?;
    let reading = || settings.server_process.map(read).transpose();
    let before = reading()?;
    let threads = settings.threads.clamp(1, settings.logins.len().max(1));
    let size = settings.logins.len().div_ceil(threads).max(1);
    let shares = settings.logins.chunks(size).map(|logins| Share {
        target: settings.target.clone(),
        users: logins.iter().map(|login| (login.clone(), Vec::new())).collect(),
        encodings: settings.encodings.clone(),
        rate: 0.0,
        arrival: Arrival::Fixed,
        churn: 0.0,
        connect_rate: settings.connect_rate / threads as f64,
        cold: 0,
        habits: Habits::default(),
        seed: 1,
        read_bytes: READ_BYTES,
    });
    let begin = Instant::now();
    let crowd = Crowd::start(shares.collect(), &Recorder::forgetful(), Arc::new(Orders::default()))
        .map_err(RunError::Worker)?;
    let most = Duration::from_secs_f64(60.0 + wanted as f64 / settings.connect_rate.max(1.0) * 3.0);
    let mut tenth = None;
    let all_open = crowd.wait(most, || {
        let open = crowd.open();
        if tenth.is_none() && open * 10 >= wanted {
            tenth = reading().ok().flatten().map(|reading| (open, reading));
        }
        open == wanted
    })?;
    if !all_open {
        return Err(RunError::NotWelcome { open: crowd.open(), wanted, seconds: most.as_secs() });
    }
    let connecting = begin.elapsed();
    progress(&format!("{wanted} connections after {:.1} s", connecting.as_secs_f64()));
    let all_there = reading()?;
    crowd.wait(settings.hold, || false)?;
    let after = reading()?;
    let outcome = IdleOutcome {
        open: crowd.open(),
        connecting,
        server: before.zip(after),
        tenth,
        holding_microseconds: all_there
            .zip(after)
            .map(|(there, after)| after.cpu_microseconds - there.cpu_microseconds),
    };
    crowd.orders.enter(Stage::Leave);
    crowd.join()?;
    Ok(outcome)
}
