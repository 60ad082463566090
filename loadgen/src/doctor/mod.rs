//! `loadgen doctor`: whether this host can carry a load, before a run finds out in its middle.
//!
//! - `host.rs`: what the kernel allows
//! - `checks.rs`: what a load needs, and the command that mends what is too little

mod checks;
mod host;

use std::fmt;

use crate::report::units;
use host::Host;

/// A load that is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections at the same time.
    pub clients: u64,
    /// Whether they speak TLS.
    pub tls: bool,
    /// Connections of one worker process.
    pub per_worker: u64,
    /// Addresses that they come from.
    pub sources: u64,
    /// Whether the server is on this host too.
    pub server_is_here: bool,
}

/// One number of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// Whether it is enough.
    pub state: State,
    /// What there is.
    pub found: String,
    /// What the load needs.
    pub needed: String,
    /// How it is mended.
    pub mend: String,
}

/// Whether a number is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Good,
    /// The run can go on, and would be better without.
    Advice,
    /// The run would fail, or measure this.
    TooLittle,
}

/// All numbers of a host.
#[derive(Clone, Debug)]
pub struct Examination {
    /// One after the other.
    pub checks: Vec<Check>,
}

impl Load {
    /// Plain clients against a server on this host, with what scenarios have by default: 18,600 connections
    /// of a worker, and 900 from a loopback address.
    pub fn of(clients: u64) -> Self {
        Self {
            clients,
            tls: false,
            per_worker: 18_600,
            sources: clients.div_ceil(900).max(1),
            server_is_here: true,
        }
    }
}

impl State {
    fn of(is_enough: bool) -> Self {
        if is_enough { Self::Good } else { Self::TooLittle }
    }
}

impl Examination {
    /// Examines this host.
    pub fn of_this_host(load: &Load) -> Self {
        Self { checks: checks::all(&Host::this(), load) }
    }

    /// Whether nothing is too little.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.state != State::TooLittle)
    }
}

impl fmt::Display for Examination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Check) -> &str| {
            self.checks.iter().map(|check| text(check).chars().count()).max().unwrap_or(0)
        };
        let (name, found) = (width(|check| check.name), width(|check| &check.found));
        for check in &self.checks {
            let state = match check.state {
                State::Good => "ok",
                State::Advice => "advice",
                State::TooLittle => "TOO LITTLE",
            };
            writeln!(
                formatter,
                "{state:<10}  {:<name$}  {:<found$}  needed {}",
                check.name, check.found, check.needed
            )?;
            if check.state != State::Good {
                writeln!(formatter, "            mend: {}", check.mend)?;
            }
        }
        let too_little = self.checks.iter().filter(|check| check.state == State::TooLittle).count() as u64;
        match too_little {
            0 => write!(formatter, "this host can carry it"),
            count => write!(formatter, "this host cannot carry it: {} too little", units::count(count)),
        }
    }
}
