//! A scenario: who the clients are, what they do in which order, and what must come out.
//!
//! It is a TOML file (`scenarios/` has some) that says nothing about where the server is, so that the same
//! one runs against a laptop and a fleet. Reading it checks everything that can be checked without a server;
//! what the file does not say has a default that is written here, beside the key.
//!
//! - `file.rs`: the keys as they are in the file, and what is wrong with them
//! - `population.rs`: who talks to whom
//!
//! `engine/` does what it says, `report/threshold.rs` judges what came of it.

mod file;
mod population;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringway_protocol::client::Encoding;
use serde::{Deserialize, Serialize};

use crate::report::threshold::Threshold;
use crate::schedule::{Arrival, Rate};

pub use population::{Arrangement, Population, share_of};

/// What a load does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// For everything random.
    pub seed: u64,
    /// The subprotocols, given to the clients in turn.
    pub subprotocol: Subprotocol,
    /// Whether everything is recorded and the checker reads it in the end.
    pub check: bool,
    /// Who the clients are.
    pub population: Population,
    /// How they connect.
    pub connections: Connections,
    /// What they send.
    pub messages: Messages,
    /// What they do, in order.
    pub stages: Vec<Stage>,
    /// What must come out.
    pub thresholds: Vec<Threshold>,
    /// The text it was read from.
    pub text: String,
}

/// Which subprotocol clients speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subprotocol {
    /// `ringway.v1.json`.
    Json,
    /// `ringway.v1.proto`.
    #[default]
    Proto,
    /// Half of each.
    Mixed,
}

impl Subprotocol {
    /// What to give to the clients in turn.
    pub fn encodings(self) -> Vec<Encoding> {
        match self {
            Self::Json => vec![Encoding::Json],
            Self::Proto => vec![Encoding::Protobuf],
            Self::Mixed => Encoding::ALL.to_vec(),
        }
    }
}

/// How clients connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Whether a client that comes back resumes its TLS session rather than shake hands in full.
    pub tls_resumption: bool,
    /// From the first packet to the server's welcome, at most, in seconds. Then a client tries again.
    pub patience_s: u32,
    /// Addresses that connections come from, in turn. Without any, those to a loopback address come from
    /// 127.1.1.1 and up, and others from where the kernel wants.
    pub sources: Vec<IpAddr>,
    /// Connections from one of these addresses: servers bound them, and ports are not endless.
    pub per_source: u32,
    /// Connections of one worker process: what its limit on open files allows.
    pub per_worker: u32,
    /// Cores that all workers together may spend on opening connections; 0 is as many as it takes. All
    /// clients of a storm knock at once in any case, but their half of the handshakes would take every core
    /// of a small machine, which real clients bring with them, and those who stayed would be measured late.
    pub opening_cores: f64,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            tls_resumption: false,
            patience_s: 30,
            sources: Vec::new(),
            per_source: 900,
            per_worker: 18_600,
            opening_cores: 0.0,
        }
    }
}

/// What clients send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Messages {
    /// Bytes of a body; it is longer where its proof of origin needs more.
    pub bytes: u32,
    /// How sends are spread over time.
    pub arrival: Arrival,
    /// Sends of one client that may be without their ack. The next waits in the client: its response time
    /// counts the wait, its service time does not.
    pub window: u32,
    /// Sends of one client that may wait or be without their ack. What the schedule wants beyond is dropped,
    /// and counted.
    pub open_max: u32,
}

impl Default for Messages {
    fn default() -> Self {
        Self { bytes: 128, arrival: Arrival::Poisson, window: 1, open_max: 64 }
    }
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name, which thresholds may give; its kind where the file gives none.
    pub name: String,
    /// What happens in it.
    pub kind: StageKind,
    /// How long, not counting what has to end after it. A connect stage lasts as long as it takes.
    pub duration: Duration,
    /// Whether thresholds without a stage look at it.
    pub measured: bool,
    /// Sends a second, of all clients.
    pub rate: Rate,
    /// Connections that leave and come back, a second.
    pub churn: f64,
    /// How long sends and deliveries may take to end after it.
    pub settle: Duration,
}

/// What happens in a stage, besides its sends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum StageKind {
    /// All clients connect, so many a second.
    Connect {
        /// A second.
        rate: f64,
    },
    /// Nobody sends; hearts beat.
    Hold,
    /// Sends at a steady rate.
    Send,
    /// Sends at a rate that rises or falls.
    Ramp,
    /// Connections are cut all at once, without a word, and come back.
    Storm {
        /// How many.
        cut: u32,
        /// Each comes back after a random part of this time.
        return_over: Duration,
    },
    /// Some clients read slowly, or not at all, while others send to them.
    SlowReaders {
        /// How many.
        readers: u32,
        /// Bytes that each reads, a second; 0 is not at all.
        bytes: u32,
    },
}

impl StageKind {
    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Hold => "hold",
            Self::Send => "send",
            Self::Ramp => "ramp",
            Self::Storm { .. } => "storm",
            Self::SlowReaders { .. } => "slow-readers",
        }
    }
}

/// Why a scenario is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// No file, or no permission.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or has a key that nobody knows.
    #[error("the scenario cannot be read: {0}")]
    Syntax(String),
    /// A value makes no sense.
    #[error("the scenario's {key} {reason}")]
    Value {
        /// Whose.
        key: String,
        /// Why not.
        reason: String,
    },
}

impl Scenario {
    /// Worker processes that hold this many clients.
    pub fn workers(&self) -> usize {
        self.population.clients.div_ceil(self.connections.per_worker as usize).max(1)
    }

    /// Takes so many clients, and of those who are cut or read slowly the same share.
    ///
    /// # Errors
    /// [`ScenarioError::Value`].
    pub fn set_clients(&mut self, clients: usize) -> Result<(), ScenarioError> {
        let share = clients as f64 / self.population.clients as f64;
        self.population.clients = clients;
        for stage in &mut self.stages {
            match &mut stage.kind {
                StageKind::Storm { cut: count, .. } | StageKind::SlowReaders { readers: count, .. } => {
                    *count = (f64::from(*count) * share) as u32;
                }
                StageKind::Connect { .. } | StageKind::Hold | StageKind::Send | StageKind::Ramp => {}
            }
        }
        self.validate()
    }

    /// Sets the rate of all stages that send to this many a second at their highest, keeping their shape.
    pub fn set_rate(&mut self, rate: f64) {
        let highest = self.stages.iter().map(|stage| stage.rate.from.max(stage.rate.to)).fold(0.0, f64::max);
        if highest > 0.0 {
            for stage in &mut self.stages {
                stage.rate = stage.rate.times(rate / highest);
            }
        }
    }
}
