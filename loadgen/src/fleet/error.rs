//! Why a load could not be carried out.

use std::io;

use crate::history::HistoryError;
use crate::logins::LoginError;
use crate::scenario::ScenarioError;
use crate::target::TargetError;

/// Why a load could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The URL or the certificate.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The logins.
    #[error(transparent)]
    Logins(#[from] LoginError),
    /// A history that cannot be read back.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// This machine.
    #[error("{what}: {source}")]
    Machine {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Too few workers joined.
    #[error("{joined} of {wanted} workers joined within {seconds} s")]
    NotJoined {
        /// Who did.
        joined: usize,
        /// Wanted.
        wanted: usize,
        /// How long was waited.
        seconds: u64,
    },
    /// A worker cannot go on.
    #[error("worker {worker}: {reason}")]
    Worker {
        /// Which.
        worker: usize,
        /// Why.
        reason: String,
        /// Whether what it was given is at fault.
        is_input: bool,
    },
    /// A worker says nothing.
    #[error("worker {worker} did not say that it {what} within {seconds} s")]
    Silent {
        /// Which.
        worker: usize,
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// Clients did not come in.
    #[error(
        "only {open} of {wanted} clients were welcome: is the server there, and do its limits allow so many \
         (gateway.connections_max, limits.connections_per_address)?"
    )]
    NotWelcome {
        /// Who was.
        open: u64,
        /// Wanted.
        wanted: u64,
    },
}

impl FleetError {
    /// Whether what the load was given is at fault, rather than the server or the machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Scenario(_) | Self::Target(_) | Self::Logins(_) => true,
            Self::Worker { is_input, .. } => *is_input,
            _ => false,
        }
    }
}
