//! The clients of a scenario in one worker: many thousand sockets on one thread.
//!
//! A client at rest must cost little: half a million of them share a machine with the server that they
//! measure. Measured as growth of a worker's resident memory over 15,000 idle clients, logged in, with
//! glibc's allocator:
//!
//! | | ws | wss |
//! |---|---|---|
//! | a task and a pending read of monoio each, rustls behind TLS (`link.rs`) | 5,530 | 13,730 |
//! | this engine | 765 | 1,081 |
//!
//! With the compact record layer monoio would come to some 5,700 bytes over TLS, most of them futures and
//! buffers that wait for a read. A raw ring would cost as little as this engine in user memory, and another
//! 781 bytes of the kernel's for each armed receive, which half a million clients pay twice, once at each
//! end; processor time is the same on either (a relayed message costs 6.5 us on a ring, tokio and
//! uWebSockets alike). So readiness it is: epoll by way of rustix, without a line of unsafe, one read
//! buffer for all. Monoio stays under `run`, `idle` and `abuse`, whose clients are few.
//!
//! - `event_loop.rs`: the loop, and what it does with each client; `opening.rs`: how they get their sockets
//! - `stages.rs`, `stage_run.rs`: the stages of the scenario, and one of them while it runs
//! - `seat.rs`, `records.rs`: a client's socket, its TLS
//! - `sources.rs`, `timers.rs`, `allowance.rs`, `tally.rs`: addresses, times, what handshakes may cost, counts
//!
//! `fleet/` starts workers, gives them orders and adds up what they report.

mod allowance;
mod event_loop;
mod opening;
mod records;
mod seat;
mod sources;
mod stage_run;
mod stages;
mod tally;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use ringway_protocol::ids::ConversationId;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::history::Recorder;
use crate::logins::Login;
use crate::scenario::Scenario;
use crate::target::Target;

pub(crate) use event_loop::Engine;
pub(crate) use tally::Tally;

/// What an engine is made of.
pub(crate) struct Setup {
    /// The scenario.
    pub(crate) scenario: Scenario,
    /// The number of this worker, and how many there are.
    pub(crate) worker: (usize, usize),
    /// The server.
    pub(crate) target: Target,
    /// With TLS, how to shake hands.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The clients of this worker; the first of them talk.
    pub(crate) logins: Vec<Login>,
    /// The conversations of those who talk.
    pub(crate) conversations: Vec<Vec<ConversationId>>,
    /// Each conversation, with how many of its members get a message of another.
    pub(crate) recipients: Vec<(ConversationId, u32)>,
    /// Tells the client message ids of this run from those of others.
    pub(crate) run: u32,
    /// Where events go.
    pub(crate) recorder: Recorder,
}

/// What an engine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A stage begins, so long after the start of the run.
    Begin {
        /// Its number.
        stage: usize,
        /// Since the start of the run.
        elapsed: Duration,
    },
    /// All clients leave.
    Leave,
}

/// What an engine tells.
pub(crate) enum Report {
    /// A second is over.
    Second {
        /// Its number, from the start of the run.
        number: usize,
        /// What was counted in it.
        tally: Box<Tally>,
        /// Connections that are open.
        open: u64,
        /// Processor time of the engine's thread in it, in percent.
        busy: f64,
    },
    /// A stage is over, and what it sent has ended.
    Over {
        /// Its number.
        stage: usize,
        /// When it began, from the start of the run.
        begin: Duration,
        /// How long it lasted, without its settling.
        length: Duration,
        /// What was counted in it.
        tally: Box<Tally>,
    },
    /// All clients are gone.
    Left,
}
