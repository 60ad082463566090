//! What the connections of one core share: settings, keys, the way to the router's workers, how far
//! deliveries have come, and the budgets that no single connection may eat.
//!
//! One a core and owned by its event loop, so nothing here is locked. It holds no socket and reads no
//! clock: the time comes in as a [`Tick`] with every call, the randomness as a seed at the start.
//!
//! `connection/` asks for all of it; `session/fan_out.rs` spreads one entry over many connections.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ringway_protocol::client::BodyMemory;
use ringway_protocol::ids::{ConversationId, Position, SessionId, ShardId, Timestamp, mix};
use ringway_protocol::limits;
use ringway_protocol::token::KeySet;
use ringway_protocol::trunk::ToRouter;
use ringway_trunk::Workers;

use crate::clock::Tick;
use crate::connection::ReadMemory;
use crate::connection::limits::{GAP_SPREAD_MILLISECONDS, PARTIAL_BYTES_DEFAULT};
use crate::http_stream::HttpDoor;
use crate::metrics::CoreMetrics;
use crate::relay::{Relay, RelayHub};
use crate::send_chunks::SendChunks;
use crate::session::CursorKey;

/// What the operator decides about connections. Each field is a setting of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// `limits.max_frame_bytes`: the longest message of a client, in bytes.
    pub message_bytes_max: usize,
    /// `limits.max_inflight`: sends without their ack.
    pub inflight_max: u32,
    /// `limits.max_queue_bytes`: bytes that may wait for one reader.
    pub queue_bytes_max: usize,
    /// `limits.send_per_s`: sends a second in the long run.
    pub sends_per_second: u32,
    /// `limits.send_burst`: sends at once after a rest.
    pub send_burst: u32,
    /// `limits.dedup_window_s`: how long a `client_msg_id` is known for sure; told, and the router's to keep.
    pub dedup_window_seconds: u64,
    /// `limits.partial_bytes`: bytes of messages received in part, all connections of one core together.
    pub partial_bytes_max: usize,
    /// `gateway.allowed_origins`: the exact values of `Origin` that may upgrade; `None` allows every one. A request
    /// without `Origin` comes from no browser and is always allowed.
    pub origins: Option<Vec<String>>,
    /// `diagnostics.echo`: whether `GET /echo` upgrades to a plain echo.
    pub echo: bool,
    /// `diagnostics.relay`: whether `GET /relay` upgrades to a relay between sockets, without a login.
    pub relay: bool,
    /// The key that resume cursors are authenticated with; the same on every gateway of a fleet.
    pub resume_key: [u8; 32],
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            message_bytes_max: limits::MESSAGE_BYTES_DEFAULT,
            inflight_max: limits::INFLIGHT_DEFAULT,
            queue_bytes_max: limits::QUEUE_BYTES_DEFAULT,
            sends_per_second: limits::SEND_PER_SECOND_DEFAULT,
            send_burst: limits::SEND_BURST_DEFAULT,
            dedup_window_seconds: limits::DEDUPLICATION_SECONDS,
            partial_bytes_max: PARTIAL_BYTES_DEFAULT,
            origins: None,
            echo: false,
            relay: false,
            resume_key: [0; 32],
        }
    }
}

/// What a [`Context`] is made of.
pub struct ContextParts {
    /// What the operator decided.
    pub settings: Arc<ConnectionSettings>,
    /// The keys that sign tokens; replaced at a rotation.
    pub keys: Arc<ArcSwap<KeySet>>,
    /// The TLS configuration for new handshakes, if any listener speaks TLS; replaced at SIGHUP.
    pub tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// The router.
    pub workers: Arc<dyn Workers>,
    /// What is counted.
    pub metrics: Arc<CoreMetrics>,
    /// Where connections go whose first request is no upgrade of ours.
    pub http: HttpDoor,
    /// What the relays of all cores share, if `/relay` is on.
    pub relay: Option<Arc<RelayHub>>,
    /// The server's wall clock at tick 0, in milliseconds since 1970.
    pub epoch_ms: u64,
    /// Random, from outside: two cores or two starts must not share it.
    pub seed: u64,
}

/// What the connections of one core share.
pub struct Context {
    pub(crate) settings: Arc<ConnectionSettings>,
    pub(crate) keys: Arc<ArcSwap<KeySet>>,
    pub(crate) tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    pub(crate) metrics: Arc<CoreMetrics>,
    pub(crate) http: HttpDoor,
    pub(crate) relay: Option<Box<Relay>>,
    workers: Arc<dyn Workers>,
    /// Workers that got something since the last [`flush_wakes`](Self::flush_wakes).
    to_wake: Vec<bool>,
    /// Ends of sessions that found a full inbox, oldest first.
    owed: VecDeque<(usize, ToRouter)>,
    /// How far each worker's deliveries to this core have come.
    watermarks: Vec<Position>,
    /// A conversation of each worker's own, for a request that only asks whether it is there.
    probes: Vec<ConversationId>,
    epoch_ms: u64,
    random: u64,
    pub(crate) partial: PartialBudget,
    /// The memory of what is to be sent.
    pub(crate) chunks: SendChunks,
    /// The memory of what arrives in parts.
    pub(crate) reading: ReadMemory,
    /// Space for one frame's payload, emptied within a call.
    pub(crate) payload: Vec<u8>,
    /// The memory of what goes to the router.
    pub(crate) bodies: BodyMemory,
    pub(crate) cursors: CursorKey,
    sessions_open: u64,
}

impl Context {
    /// Joins the parts.
    pub fn new(parts: ContextParts) -> Self {
        let count = parts.workers.count();
        let partial_bytes_max = parts.settings.partial_bytes_max;
        let cursors = CursorKey::new(&parts.settings.resume_key);
        Self {
            settings: parts.settings,
            keys: parts.keys,
            tls: parts.tls,
            metrics: parts.metrics,
            http: parts.http,
            relay: parts.relay.map(|hub| Box::new(Relay::new(hub))),
            to_wake: vec![false; count],
            owed: VecDeque::new(),
            watermarks: vec![Position(0); count],
            probes: (0..count).map(|worker| conversation_of(worker, &*parts.workers)).collect(),
            workers: parts.workers,
            epoch_ms: parts.epoch_ms,
            random: parts.seed,
            partial: PartialBudget { used: 0, max: partial_bytes_max },
            chunks: SendChunks::default(),
            reading: ReadMemory::default(),
            payload: Vec::new(),
            bodies: BodyMemory::default(),
            cursors,
            sessions_open: 0,
        }
    }

    /// New settings from here on, for open sessions too, except the longest message of a socket that is
    /// upgraded already.
    pub fn set_settings(&mut self, settings: Arc<ConnectionSettings>) {
        self.partial.max = settings.partial_bytes_max;
        self.cursors = CursorKey::new(&settings.resume_key);
        self.settings = settings;
    }

    /// Sets the wall clock: `epoch_ms` is the time at tick 0. A step of the machine's clock is followed
    /// by calling it again.
    pub fn set_clock(&mut self, epoch_ms: u64) {
        self.epoch_ms = epoch_ms;
    }

    /// The wall clock at `now`.
    pub fn timestamp(&self, now: Tick) -> Timestamp {
        Timestamp(self.epoch_ms + now.0)
    }

    /// The tick of a wall-clock time; one before the start is tick 0.
    pub(crate) fn tick_of(&self, timestamp: Timestamp) -> Tick {
        Tick(timestamp.0.saturating_sub(self.epoch_ms))
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<CoreMetrics> {
        &self.metrics
    }

    /// The way to the HTTP server, for who asks which connections have news of it.
    pub fn http_door(&self) -> &HttpDoor {
        &self.http
    }

    /// A worker's deliveries to this core have come to `position`.
    pub fn handle_watermark(&mut self, worker: u16, position: Position) {
        if let Some(watermark) = self.watermarks.get_mut(usize::from(worker)) {
            *watermark = position.max(*watermark);
        }
    }

    /// Everything up to here was delivered to this core, by every worker.
    pub fn resume_position(&self) -> Position {
        self.watermarks.iter().copied().min().unwrap_or_default()
    }

    /// Wakes the workers that were given something. Once at the end of a pass.
    pub fn flush_wakes(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.flush_wakes();
        }
        self.pay_owed();
        for (worker, wake) in self.to_wake.iter_mut().enumerate() {
            if std::mem::take(wake) {
                self.metrics.worker_wakes.add(u64::from(self.workers.wake(worker)));
            }
        }
    }

    /// How many workers there are.
    pub(crate) fn worker_count(&self) -> usize {
        self.to_wake.len()
    }

    /// The worker of a shard.
    pub(crate) fn worker_of(&self, shard: ShardId) -> usize {
        shard.worker(self.worker_count())
    }

    /// A conversation whose owner is this worker.
    pub(crate) fn probe_of(&self, worker: usize) -> ConversationId {
        self.probes[worker]
    }

    /// Gives a worker something to do. False if its inbox is full.
    pub(crate) fn push(&mut self, worker: usize, message: ToRouter) -> bool {
        // A full inbox has a worker behind it that may sleep on an older wake-up: it is woken either way.
        self.to_wake[worker] = true;
        // Behind an end that is still owed nothing may pass: the order of one worker's messages holds.
        !self.owes(worker) && self.workers.push(worker, message).is_ok()
    }

    /// Gives a worker something that must not be lost: the end of a session. What finds a full inbox
    /// waits here, one message a session, and goes first when there is room.
    pub(crate) fn push_owed(&mut self, worker: usize, message: ToRouter) {
        self.to_wake[worker] = true;
        if self.owes(worker) {
            self.owed.push_back((worker, message));
        } else if let Err(message) = self.workers.push(worker, message) {
            self.owed.push_back((worker, *message));
        }
    }

    /// Whether something waits for room in a worker's inbox: then [`flush_wakes`](Self::flush_wakes) has
    /// to be called again soon, also when nothing else happens.
    pub fn owes_any(&self) -> bool {
        !self.owed.is_empty()
    }

    fn owes(&self, worker: usize) -> bool {
        self.owed.iter().any(|(owed, _)| *owed == worker)
    }

    fn pay_owed(&mut self) {
        for _ in 0..self.owed.len() {
            let Some((worker, message)) = self.owed.pop_front() else { return };
            self.to_wake[worker] = true;
            if let Err(message) = self.workers.push(worker, message) {
                // Back to the front: what one worker is owed keeps its order.
                self.owed.push_front((worker, *message));
                return;
            }
        }
    }

    /// A random number for ids that need to be unique, not secret.
    pub(crate) fn random_u64(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random)
    }

    /// A part of [`GAP_SPREAD_MILLISECONDS`] for one client to wait: a gap without an id mostly means that
    /// many clients get one.
    pub(crate) fn gap_spread(&mut self) -> u64 {
        self.random_u64() % GAP_SPREAD_MILLISECONDS
    }

    /// A session got its welcome.
    pub(crate) fn note_session_begin(&mut self) {
        self.sessions_open += 1;
        self.metrics.sessions.increment();
        self.metrics.sessions_open.set(self.sessions_open);
    }

    /// A session that was welcome is over.
    pub(crate) fn note_session_end(&mut self) {
        self.sessions_open -= 1;
        self.metrics.sessions_open.set(self.sessions_open);
    }

    /// A new session's id.
    pub(crate) fn session_id(&mut self) -> SessionId {
        SessionId(self.random_u64())
    }
}

/// Finds a conversation id whose shard belongs to `worker`. It names no conversation that exists: real
/// ids are Snowflakes, far above.
fn conversation_of(worker: usize, workers: &dyn Workers) -> ConversationId {
    (1..).map(ConversationId).find(|id| workers.of(id.shard()) == worker).expect("every worker has a shard")
}

/// Bytes of messages received in part, all connections of a core together.
#[derive(Debug)]
pub(crate) struct PartialBudget {
    used: usize,
    max: usize,
}

impl PartialBudget {
    /// Replaces a connection's share. False, and its old share stays, if the budget does not hold it.
    pub(crate) fn replace(&mut self, old: usize, new: usize) -> bool {
        debug_assert!(self.used >= old, "a share was taken before it is given back");
        let used = self.used - old + new;
        if new > old && used > self.max {
            return false;
        }
        self.used = used;
        true
    }
}
