//! The event loop of one core: the whole program in one pass.
//!
//! ```text
//!   submit and wait ─▶ take completions ─▶ handle each ─▶ inbox ─▶ HTTP news ─▶ timers ─▶ settle
//!        ▲                                                                                  │
//!        └──────────────────────────── one system call a pass ─────────────────────────────┘
//! ```
//! Handlers give bytes, time and news to connections ([`Connection`], plain data without a socket) and
//! note which ones they touched. At the end of the pass each of those is *settled* once: all that it has
//! to say goes out in one send, reading is stopped or started, its deadline is noted, its socket closed.
//! That is what makes many frames one record and one system call.
//!
//! Who may come in is `admission.rs`, how a core empties itself `drain.rs`, the rules of io_uring the
//! crate `ring`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_protocol::ids::{ConnectionId, EndpointId};
use ringway_protocol::trunk::ToEndpoint;
use ringway_ring::{Chunk, Completion, Driver, ListenerId, Ring, RingCounters, RingError, Token, Wait};
use ringway_trunk::Inbox;

use crate::admission::{AddressKey, Admission};
use crate::clock::{Tick, wall_clock};
use crate::connection::{Connection, Delivery, Disposition, Transport, TrunkEvent};
use crate::context::Context;
use crate::core_message::{Command, CoreMessage};
use crate::drain::Drain;
use crate::limits::{
    ACCEPT_RETRY_MILLISECONDS, DELIVERIES_A_PASS, OWED_RETRY_MILLISECONDS, REFUSAL_MILLISECONDS,
    table_headroom,
};
use crate::metrics::CoreMetrics;
use crate::relay::{deliver_posted, deliver_relayed};
use crate::slots::{Slots, Stage};
use crate::timer_wheel::TimerWheel;

/// How often a core looks up when nothing happens: to follow the wall clock and to give memory back.
const HOUSEKEEPING_MILLISECONDS: u64 = 1_000;

/// Connections touched in one pass from which on it pays to settle them in the order of memory.
const SORTED_FROM: usize = 512;

/// What a plain connection reads that finds no place. TLS ones are closed: an answer would cost a
/// handshake, which is what there is too much of.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\
                          Connection: close\r\n\r\n";

/// What an event loop is made of.
pub struct EventLoopParts<D> {
    /// Its number among the endpoints of the router.
    pub endpoint: EndpointId,
    /// Its ring, made on its thread.
    pub ring: Ring<D>,
    /// Its listeners, and what they speak.
    pub listeners: Vec<(TcpListener, Transport)>,
    /// Where other threads reach it.
    pub inbox: Inbox<CoreMessage>,
    /// What its connections share.
    pub context: Context,
    /// Who may come in, shared with the other cores.
    pub admission: Arc<Admission>,
    /// Follow the machine's clock; a simulation has its own.
    pub follow_wall_clock: bool,
}

/// One core. Everything in it belongs to one thread.
pub struct EventLoop<D> {
    endpoint: EndpointId,
    ring: Ring<D>,
    listeners: Vec<(ListenerId, Transport)>,
    inbox: Inbox<CoreMessage>,
    context: Context,
    admission: Arc<Admission>,
    metrics: Arc<CoreMetrics>,
    slots: Slots,
    timers: TimerWheel,
    expired: Vec<u32>,
    accepting: Accepting,
    drain: Option<Drain>,
    stopping: bool,
    /// Messages were left in the inbox for the next pass.
    inbox_unfinished: bool,
    housekeeping_at: Tick,
    follow_wall_clock: bool,
    /// What of the ring's counters is in the metrics already.
    counted: RingCounters,
    counts: PassCounts,
}

/// What a pass counts, to be added to the metrics at its end.
#[derive(Default)]
struct PassCounts {
    bytes_in: u64,
    bytes_out: u64,
    sends: u64,
}

/// Whether the listeners accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// The table is nearly full; a close lets it go on.
    Full,
    /// The machine refused (no memory, no descriptor): tried again then.
    Until(Tick),
    /// For good.
    Over,
}

impl<D: Driver> EventLoop<D> {
    /// Joins the parts and begins to accept.
    ///
    /// # Errors
    /// When the inbox's event cannot be duplicated: no descriptor is left.
    pub fn new(parts: EventLoopParts<D>) -> std::io::Result<Self> {
        let EventLoopParts { endpoint, mut ring, listeners, inbox, context, admission, follow_wall_clock } =
            parts;
        ring.watch_event(inbox.event().try_clone_to_owned()?);
        let listeners: Vec<(ListenerId, Transport)> = listeners
            .into_iter()
            .map(|(listener, transport)| (ring.add_listener(listener), transport))
            .collect();
        for (listener, _) in &listeners {
            ring.start_accepting(*listener);
        }
        let now = Tick(ring.now_milliseconds());
        Ok(Self {
            endpoint,
            slots: Slots::new(endpoint, ring.slots()),
            timers: TimerWheel::new(now),
            metrics: Arc::clone(context.metrics()),
            ring,
            listeners,
            inbox,
            context,
            admission,
            expired: Vec::new(),
            accepting: Accepting::Yes,
            drain: None,
            stopping: false,
            inbox_unfinished: false,
            housekeeping_at: now,
            follow_wall_clock,
            counted: RingCounters::default(),
            counts: PassCounts::default(),
        })
    }

    /// Serves until told to stop, and all sockets are closed.
    ///
    /// # Errors
    /// The ring is lost.
    pub fn run(&mut self) -> Result<(), RingError> {
        while !self.is_over() {
            self.pass()?;
        }
        Ok(())
    }

    /// Whether it was told to stop and has.
    pub fn is_over(&self) -> bool {
        self.stopping && self.ring.open_slots() == 0
    }

    /// One pass: waits for something to happen and handles all that has.
    ///
    /// # Errors
    /// The ring is lost.
    pub fn pass(&mut self) -> Result<(), RingError> {
        let wait = self.prepare_to_wait();
        self.ring.submit_and_wait(wait)?; // the only system call of a pass
        self.inbox.awake();
        let began = Instant::now();
        let now = Tick(self.ring.now_milliseconds()); // one reading of the clock a pass, handed down
        self.keep_house(now);
        let mut completions = 0;
        while let Some(completion) = self.ring.next_completion() {
            completions += 1;
            self.slots.prefetch(self.ring.upcoming(2), false);
            self.slots.prefetch(self.ring.upcoming(0), true);
            self.on_completion(now, completion);
        }
        self.take_core_messages(now);
        self.take_http_news(now);
        self.continue_drain(now);
        self.expire_timers(now);
        self.settle_touched(now);
        self.context.flush_wakes();
        self.count_pass(completions, began);
        Ok(())
    }

    fn on_completion(&mut self, now: Tick, completion: Completion) {
        match completion {
            Completion::Accepted { listener, token } => self.on_accepted(listener, token),
            Completion::AcceptEnded { error, .. } => self.on_accept_ended(now, &error),
            Completion::Peer { token, address } => self.on_peer(now, token, address),
            Completion::Received { token, buffer } => {
                if let Stage::Open(connection) = &mut self.slots.entry(token).stage {
                    let bytes = self.ring.buffer_mut(&buffer);
                    self.counts.bytes_in += bytes.len() as u64;
                    connection.handle_received(&mut self.context, now, bytes);
                }
                self.ring.give_back(buffer);
                self.slots.touch(token.slot);
                if self.context.relay.as_ref().is_some_and(|relay| relay.has_posted()) {
                    deliver_posted(&mut self.slots, &mut self.context, now, self.endpoint);
                }
            }
            Completion::ReceiveEnded { token, result } => self.on_receive_ended(now, token, result),
            Completion::Sent { token, chunk, result } => self.on_sent(token, chunk, result),
            // What woke us is in the inbox, which is looked at in every pass.
            Completion::Event => {}
            Completion::Closed { token } => self.on_closed(token),
        }
    }

    // ---- coming in ----

    fn on_accepted(&mut self, listener: ListenerId, token: Token) {
        self.metrics.accepted.increment();
        self.slots.occupy(token, listener, self.admission.next_arrival());
        if self.accepting == Accepting::Over {
            self.close(token);
            return;
        }
        self.ring.ask_peer(token, listener);
        let full = self.ring.slots() - table_headroom(self.ring.slots());
        if self.accepting == Accepting::Yes && self.ring.open_slots() >= full {
            self.metrics.accept_pauses.increment();
            self.pause_accepting(Accepting::Full);
        }
    }

    fn on_accept_ended(&mut self, now: Tick, error: &std::io::Error) {
        self.metrics.refused.increment();
        if self.accepting != Accepting::Over {
            tracing::warn!(%error, "accepting pauses: the machine has no room for another socket");
            self.pause_accepting(Accepting::Until(now + ACCEPT_RETRY_MILLISECONDS));
        }
    }

    fn pause_accepting(&mut self, why: Accepting) {
        self.accepting = why;
        for (listener, _) in &self.listeners {
            self.ring.stop_accepting(*listener);
        }
    }

    fn resume_accepting(&mut self) {
        self.accepting = Accepting::Yes;
        for (listener, _) in &self.listeners {
            self.ring.start_accepting(*listener);
        }
    }

    fn on_peer(&mut self, now: Tick, token: Token, address: std::io::Result<SocketAddr>) {
        let peer = match address {
            Ok(peer) => peer,
            // A kernel that cannot say it: everybody is one address, and the bound is on all of them.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                SocketAddr::from((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
            }
            // Gone before it said a word.
            Err(_) => return self.close(token),
        };
        let entry = self.slots.entry(token);
        let Stage::Naming { listener, arrival } = entry.stage else { return };
        let transport = self.listeners[usize::from(listener.0)].1;
        let key = AddressKey::from(peer.ip());
        if self.accepting == Accepting::Over || !self.admission.enter(key) {
            return self.refuse(now, token, transport);
        }
        let id = self.slots.id_of(token, arrival);
        let connection = Connection::accept(&mut self.context, id, transport, peer, now);
        let entry = self.slots.entry(token);
        entry.address = Some(key);
        entry.stage = Stage::Open(connection);
        self.slots.touch(token.slot);
    }

    fn refuse(&mut self, now: Tick, token: Token, transport: Transport) {
        self.metrics.refused.increment();
        if transport == Transport::Tls {
            return self.close(token);
        }
        let mut chunk = self.context.chunks.take(NO_PLACE.len());
        chunk.extend_from_slice(NO_PLACE);
        self.ring.send(token, chunk);
        // The request is read and dropped: a socket closed with unread bytes resets, and the peer would
        // lose the answer.
        self.ring.start_receiving(token);
        self.slots.entry(token).stage = Stage::Refused;
        self.timers.schedule(token.slot, now + REFUSAL_MILLISECONDS);
    }

    // ---- what sockets bring ----

    fn on_receive_ended(&mut self, now: Tick, token: Token, result: std::io::Result<()>) {
        match (&mut self.slots.entry(token).stage, result) {
            (Stage::Open(connection), Ok(())) => {
                connection.handle_peer_closed(&mut self.context, now);
                self.slots.touch(token.slot);
            }
            (Stage::Open(_) | Stage::Refused, _) => self.close(token),
            (Stage::Free | Stage::Naming { .. } | Stage::Closing, _) => {}
        }
    }

    fn on_sent(&mut self, token: Token, chunk: Chunk, result: std::io::Result<()>) {
        let length = chunk.len() as u64;
        self.context.chunks.take_back(chunk);
        match (&self.slots.entry(token).stage, result) {
            (Stage::Closing, _) => {}
            (_, Err(_)) => self.close(token),
            (Stage::Refused, Ok(())) => self.ring.shutdown(token),
            (Stage::Open(connection), Ok(())) => {
                self.counts.bytes_out += length;
                // Mostly nothing is left to do: what the send made room for was queued when it was made.
                if connection.has_output() || connection.disposition() != Disposition::Open {
                    self.slots.touch(token.slot);
                }
            }
            (Stage::Free | Stage::Naming { .. }, Ok(())) => {}
        }
    }

    fn on_closed(&mut self, token: Token) {
        let entry = self.slots.vacate(token);
        if let Some(address) = entry.address {
            self.admission.leave(address);
        }
        self.metrics.closed.increment();
        let full = self.ring.slots() - table_headroom(self.ring.slots());
        if self.accepting == Accepting::Full && self.ring.open_slots() < full {
            self.resume_accepting();
        }
    }

    /// Gives up a socket, whatever it is doing.
    fn close(&mut self, token: Token) {
        let entry = self.slots.entry(token);
        match std::mem::replace(&mut entry.stage, Stage::Closing) {
            Stage::Closing | Stage::Free => return,
            Stage::Open(mut connection) => connection.release(&mut self.context),
            Stage::Naming { .. } | Stage::Refused => {}
        }
        self.timers.cancel(token.slot);
        self.ring.close(token);
    }

    // ---- what other threads bring ----

    fn take_core_messages(&mut self, now: Tick) {
        let mut budget = DELIVERIES_A_PASS;
        self.inbox_unfinished = true;
        while budget > 0 {
            let Some(message) = self.inbox.pop() else {
                self.inbox_unfinished = false;
                break;
            };
            self.metrics.inbox_messages.increment();
            let cost = match message {
                CoreMessage::Router(message) => self.on_router_message(now, message),
                CoreMessage::Relayed(frames) => {
                    1 + deliver_relayed(&mut self.slots, &mut self.context, now, &frames)
                }
                CoreMessage::Command(command) => self.on_command(now, command),
            };
            budget = budget.saturating_sub(cost);
        }
    }

    /// Returns how many connections it concerned.
    fn on_router_message(&mut self, now: Tick, message: ToEndpoint) -> usize {
        match message {
            ToEndpoint::Reply { connection, request, outcome } => {
                self.tell(now, connection, TrunkEvent::Reply { request, outcome });
                1
            }
            ToEndpoint::Close { connection, code } => {
                self.tell(now, connection, TrunkEvent::Close { code });
                1
            }
            ToEndpoint::FanOut { body, notices } => {
                let mut delivery = Delivery::new(&body, notices.len());
                for notice in &notices {
                    let Some((slot, connection)) = self.slots.find(notice.connection) else { continue };
                    connection.deliver(&mut self.context, now, &mut delivery);
                    self.slots.touch(slot);
                }
                1 + notices.len()
            }
            ToEndpoint::Watermark { worker, position } => {
                self.context.handle_watermark(worker, position);
                1
            }
            ToEndpoint::Lost => {
                for slot in 0..self.slots.high_water() {
                    if let Stage::Open(connection) = &mut self.slots.entry_in(slot).stage {
                        connection.handle_trunk(&mut self.context, now, TrunkEvent::Lost);
                        self.slots.touch(slot);
                    }
                }
                DELIVERIES_A_PASS
            }
        }
    }

    fn tell(&mut self, now: Tick, connection: ConnectionId, event: TrunkEvent) {
        // Gone meanwhile: its worker hears of it by the Detach that is on its way.
        let Some((slot, connection)) = self.slots.find(connection) else { return };
        connection.handle_trunk(&mut self.context, now, event);
        self.slots.touch(slot);
    }

    fn on_command(&mut self, now: Tick, command: Command) -> usize {
        self.accepting = Accepting::Over;
        for (listener, _) in &self.listeners {
            self.ring.close_listener(*listener);
        }
        match command {
            Command::Drain { over } if self.drain.is_none() => {
                self.drain = Some(Drain::new(now, over, self.slots.high_water()));
            }
            Command::Drain { .. } => {}
            Command::Stop => self.close_all(),
        }
        1
    }

    fn continue_drain(&mut self, now: Tick) {
        let Some(drain) = &mut self.drain else { return };
        let slots = drain.next_slots();
        for slot in slots {
            let moment = drain.moment_of(slot, now);
            if let Stage::Open(connection) = &mut self.slots.entry_in(slot).stage {
                connection.begin_drain(&mut self.context, now, moment.after_ms, moment.within_ms);
                self.slots.touch(slot);
            }
        }
        let told = !drain.is_telling();
        if told && self.ring.open_slots() == 0 {
            self.stopping = true;
        } else if now >= drain.deadline() && !self.stopping {
            self.close_all();
        }
    }

    fn close_all(&mut self) {
        self.stopping = true;
        for slot in 0..self.slots.high_water() {
            let entry = self.slots.entry_in(slot);
            if !matches!(entry.stage, Stage::Free | Stage::Closing) {
                let token = entry.token;
                self.close(token);
            }
        }
    }

    fn take_http_news(&mut self, now: Tick) {
        // As many as are listed now: one that lists itself again is for the next pass.
        for _ in 0..self.context.http_door().ready_count() {
            let Some(connection) = self.context.http_door().next_ready() else { break };
            if let Some((slot, connection)) = self.slots.find(connection) {
                connection.handle_http(&mut self.context, now);
                self.slots.touch(slot);
            }
        }
    }

    // ---- time ----

    fn expire_timers(&mut self, now: Tick) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(now, &mut expired);
        for slot in expired.drain(..) {
            let entry = self.slots.entry_in(slot);
            entry.deadline = Tick::NEVER;
            let token = entry.token;
            match &mut entry.stage {
                Stage::Open(connection) => {
                    connection.handle_timeout(&mut self.context, now);
                    self.slots.touch(slot);
                }
                Stage::Refused => self.close(token),
                Stage::Free | Stage::Naming { .. } | Stage::Closing => {}
            }
        }
        self.expired = expired;
    }

    fn keep_house(&mut self, now: Tick) {
        if let Accepting::Until(tick) = self.accepting
            && now >= tick
        {
            self.resume_accepting();
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING_MILLISECONDS;
            if self.follow_wall_clock {
                self.context.set_clock(wall_clock().0.saturating_sub(now.0));
            }
            if self.ring.completions_waiting() == 0 {
                self.context.chunks.shrink();
            }
        }
    }

    /// How long the next enter may wait. Says to other threads that we sleep, if it is long.
    fn prepare_to_wait(&mut self) -> Wait {
        let busy = self.inbox_unfinished
            || self.is_over()
            || self.drain.as_ref().is_some_and(Drain::is_telling)
            || !self.inbox.prepare_to_sleep();
        if busy {
            return Wait::No;
        }
        // After having said that we sleep: either we see what was listed, or who lists it sees us.
        if !self.context.http_door().is_quiet() {
            self.inbox.awake();
            return Wait::No;
        }
        let now = Tick(self.ring.now_milliseconds());
        let mut until = self.housekeeping_at;
        if let Some(deadline) = self.timers.next_deadline() {
            until = until.min(deadline);
        }
        if let Accepting::Until(tick) = self.accepting {
            until = until.min(tick);
        }
        if let Some(drain) = &self.drain {
            until = until.min(drain.deadline());
        }
        if self.context.owes_any() {
            until = until.min(now + OWED_RETRY_MILLISECONDS);
        }
        // One more millisecond: a wait that ends within the last one would find nothing due.
        Wait::AtMost(Duration::from_millis(until.since(now) + 1))
    }

    // ---- the end of a pass ----

    fn settle_touched(&mut self, now: Tick) {
        let mut touched = self.slots.take_touched();
        if touched.len() > SORTED_FROM {
            // In the order of memory: at ten thousand sockets the caches are what a delivery costs.
            touched.sort_unstable();
        }
        for (index, slot) in touched.iter().enumerate() {
            self.slots.prefetch(touched.get(index + 3).copied(), false);
            self.slots.prefetch(touched.get(index + 1).copied(), true);
            self.slots.entry_in(*slot).touched = false;
            self.settle(now, *slot);
        }
        self.slots.keep_touched(touched);
    }

    /// Does to the socket what its connection wants now.
    fn settle(&mut self, now: Tick, slot: u32) {
        let entry = self.slots.entry_in(slot);
        let token = entry.token;
        let Stage::Open(connection) = &mut entry.stage else { return };
        let mut sending = self.ring.is_sending(token);
        if !sending
            && !entry.shut
            && connection.has_output()
            && let Some(chunk) = connection.poll_send(&mut self.context, now)
        {
            sending = true;
            self.counts.sends += 1;
            self.ring.send(token, chunk);
        }
        let flushed = !sending && !connection.has_output();
        match connection.disposition() {
            Disposition::Open => {}
            Disposition::ShutdownAfterFlush if flushed && !entry.shut => {
                entry.shut = true;
                self.ring.shutdown(token);
            }
            Disposition::CloseAfterFlush if flushed || entry.shut => return self.close(token),
            Disposition::ShutdownAfterFlush | Disposition::CloseAfterFlush => {}
            Disposition::Abort => return self.close(token),
        }
        let wants_read = connection.wants_read();
        if wants_read != entry.reading {
            entry.reading = wants_read;
            if wants_read {
                self.ring.start_receiving(token);
            } else {
                self.ring.stop_receiving(token);
            }
        }
        let deadline = connection.poll_timeout().unwrap_or(Tick::NEVER);
        // A later deadline need not be told: the connection is asked again when the one that is known has come.
        if deadline < entry.deadline || (deadline == Tick::NEVER && entry.deadline != Tick::NEVER) {
            entry.deadline = deadline;
            match deadline {
                Tick::NEVER => self.timers.cancel(slot),
                _ => self.timers.schedule(slot, deadline),
            }
        }
    }

    fn count_pass(&mut self, completions: u64, began: Instant) {
        let counters = self.ring.counters();
        let metrics = &self.metrics;
        metrics.passes.increment();
        metrics.connections.set(u64::from(self.ring.open_slots()));
        let before = std::mem::replace(&mut self.counted, counters);
        metrics.enters.add(counters.enters - before.enters);
        metrics.buffers_exhausted.add(counters.buffers_exhausted - before.buffers_exhausted);
        metrics.completion_overflows.add(counters.overflows - before.overflows);
        metrics.sends_short.add(counters.sends_short - before.sends_short);
        let counts = std::mem::take(&mut self.counts);
        metrics.bytes_in.add(counts.bytes_in);
        metrics.bytes_out.add(counts.bytes_out);
        metrics.sends.add(counts.sends);
        if completions > 0 {
            metrics.completions_a_pass.record_value(completions);
            metrics.pass_time.record(began.elapsed());
        }
    }

    /// The ring, for tests that look at what holds between passes.
    pub fn ring(&self) -> &Ring<D> {
        &self.ring
    }

    /// Connections that are open now, in any phase; for tests.
    pub fn open_connections(&mut self) -> usize {
        let open = |slots: &mut Slots, slot| matches!(slots.entry_in(slot).stage, Stage::Open(_));
        (0..self.slots.high_water()).filter(|slot| open(&mut self.slots, *slot)).count()
    }
}
