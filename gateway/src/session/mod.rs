//! One client's session on `/ws`: what its frames mean and what it is told (protocol.md section 1).
//!
//! - `hello.rs`: who it is, and until when: `hello`, `refresh`, the token's end.
//! - `sending.rs`: `send` and its `ack`, the window, the rate.
//! - `paging.rs`: `sync` and `heads`, page by page as the reader takes them.
//! - `delivery.rs`: live entries, encoded once for many; `gaps.rs`: what is left out for a slow reader.
//! - `work.rs`: what is under way, in a box of its own while there is something.
//! - `pending.rs`, `rate.rs`, `cursor.rs`: requests without answer, token buckets, resume cursors.
//! - `frozen.rs`: a session as bytes.
//!
//! Frames, silence and the closing are `connection/websocket.rs`. A client's clock is never asked.

mod cursor;
mod delivery;
pub(crate) mod frozen;
mod gaps;
mod hello;
mod paging;
mod pending;
mod rate;
mod sending;
mod work;

use ringway_protocol::client::{
    self, ClientFrame, DecodeCause, DecodeError, Encoding, ErrorCode, ErrorFrame, Gap, Pong, Reconnect,
    ServerFrame,
};
use ringway_protocol::ids::{ConnectionId, ConversationId, Position, RequestId};
use ringway_protocol::token::Claims;
use ringway_protocol::trunk::{Operation, ToRouter};
use ringway_protocol::user::UserId;
use ringway_protocol::websocket::{CloseCode, Opcode};

use crate::clock::Tick;
use crate::connection::limits::{BAD_FRAMES_MAX, OTHERS_BURST, OTHERS_PER_SECOND};
use crate::connection::{End, Exchange, Step, TrunkEvent};
use crate::context::Context;

pub(crate) use cursor::CursorKey;
pub use delivery::Delivery;

use gaps::Gaps;
use hello::{Identity, State};
use pending::{Asked, Request};
use rate::TokenBucket;
use work::Work;

/// The state of a session: here what one has that only listens, in [`Work`] what comes and goes.
pub(crate) struct Session {
    encoding: Encoding,
    state: State,
    /// Who it is, once `hello` said so.
    identity: Option<Identity>,
    /// Several objects in one frame are welcome.
    batch: bool,
    /// Malformed frames in a row.
    bad_frames: u8,
    /// Over the window: not read until half of it is acked.
    window_full: bool,
    /// Nothing more is said: it was closed.
    stopped: bool,
    others: TokenBucket,
    work: Option<Box<Work>>,
    /// The number of the next request, while there is no work.
    next_request: RequestId,
    drain: Drain,
}

// With it a WebSocket is as large as a size class of the allocator (`connection/websocket.rs`).
const _: () = assert!(size_of::<Session>() <= 88, "what every idle session has");

/// Whether the process drains, as this session sees it: the moment at which the session ends, since its client
/// was asked to connect anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Drain(Tick);

impl Drain {
    /// It does not.
    const NO: Drain = Drain(Tick(u64::MAX));
    /// The time is over: nothing is read, the acks that are due go out, then it closes.
    const OUT: Drain = Drain(Tick(0));
}

impl Session {
    /// A session whose upgrade is answered. `bearer` is what a Bearer token said.
    pub(crate) fn new(encoding: Encoding, bearer: Option<Box<Claims>>, now: Tick) -> Self {
        Self {
            encoding,
            state: State::awaiting_hello(bearer, now),
            identity: None,
            batch: false,
            bad_frames: 0,
            window_full: false,
            stopped: false,
            others: TokenBucket::default(),
            work: None,
            next_request: RequestId(0),
            drain: Drain::NO,
        }
    }

    /// Whether it got its `welcome`.
    pub(crate) fn is_welcome(&self) -> bool {
        matches!(self.state, State::Welcome)
    }

    /// Whether the socket must not be read: the window is full, the workers have not come to our `Attach`,
    /// or the drain waits for the last acks.
    pub(crate) fn is_paused(&self) -> bool {
        self.window_full || self.state.is_attaching() || self.is_draining_out()
    }

    /// A whole message came.
    pub(crate) fn handle_message(
        &mut self,
        exchange: &mut Exchange<'_>,
        opcode: Opcode,
        payload: &[u8],
    ) -> Step {
        if opcode != self.encoding.opcode() {
            let reason = match self.encoding {
                Encoding::Json => "ringway.v1.json has text frames only",
                Encoding::Protobuf => "ringway.v1.proto has binary frames only",
            };
            return Err(End::close(CloseCode::UNSUPPORTED_DATA, reason));
        }
        if self.batch && self.encoding == Encoding::Json {
            for line in payload.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                self.handle_frame(exchange, line)?;
            }
        } else {
            self.handle_frame(exchange, payload)?;
        }
        self.check_queue(exchange)
    }

    /// A Ping came.
    pub(crate) fn handle_ping(&mut self, exchange: &mut Exchange<'_>, payload: &[u8]) -> Step {
        if self.take_other(exchange.now).is_ok() {
            if let Some(work) = &mut self.work {
                work.owed_pong = None;
            }
            self.rest(exchange.now);
            queue_pong(exchange, payload);
            return self.check_queue(exchange);
        }
        self.work().owed_pong = Some(payload.into());
        self.strike(exchange)
    }

    /// A Pong came: it answers nothing of ours, but it costs a reading.
    pub(crate) fn handle_pong(&mut self, exchange: &mut Exchange<'_>) -> Step {
        match self.take_other(exchange.now) {
            Ok(()) => Ok(()),
            Err(_) => self.strike(exchange),
        }
    }

    /// The router says something.
    pub(crate) fn handle_trunk(&mut self, exchange: &mut Exchange<'_>, event: TrunkEvent) -> Step {
        match event {
            TrunkEvent::Close { code } => {
                let reason = match CloseCode(code) {
                    CloseCode::REPLACED => "this device connected anew",
                    CloseCode::TOO_MANY_CONNECTIONS => "too many connections of this user",
                    _ => "",
                };
                return Err(End::close(CloseCode(code), reason));
            }
            TrunkEvent::Lost => {
                if self.is_welcome() {
                    self.gaps_from_here(exchange.context).note_everything();
                    self.tell_gaps(exchange);
                }
            }
            TrunkEvent::Reply { request, outcome } => {
                // One that is not there was given up at its deadline.
                let request = self.work.as_mut().and_then(|work| work.pending.take(request));
                let Some(request) = request else { return Ok(()) };
                match request.asked {
                    Asked::Probe => self.handle_probe_answer(exchange)?,
                    Asked::Send(_) => self.handle_send_answer(exchange, request, outcome),
                    Asked::Page(conversation, after) => {
                        self.handle_page(exchange, conversation, after, outcome);
                    }
                    Asked::Heads => self.handle_heads(exchange, outcome),
                }
            }
        }
        self.close_if_drained()?;
        self.check_queue(exchange)
    }

    /// Bytes left the queue: what waited for that goes on.
    pub(crate) fn handle_drained(&mut self, exchange: &mut Exchange<'_>) -> Step {
        if exchange.output.len() <= exchange.context.settings.queue_bytes_max / 4 {
            if let Some(paging) = self.paging_mut() {
                paging.queued_bytes = 0;
            }
            self.tell_gaps(exchange);
            self.go_on_paging(exchange);
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Tick {
        let mut earliest = self.state.deadline();
        if self.drain != Drain::OUT {
            earliest = earliest.min(self.drain.0);
        }
        if let Some(identity) = &self.identity {
            earliest = earliest.min(identity.next_tick(self.is_welcome()));
        }
        let Some(work) = &self.work else { return earliest };
        earliest = earliest.min(work.pending.deadline());
        if let Some(paging) = &work.paging {
            earliest = earliest.min(paging.retry_at);
        }
        if work.owed_pong.is_some() {
            earliest = earliest.min(self.others.token_at(OTHERS_PER_SECOND, OTHERS_BURST));
        }
        earliest
    }

    /// Time has come to `exchange.now`.
    pub(crate) fn handle_timeout(&mut self, exchange: &mut Exchange<'_>) -> Step {
        let now = exchange.now;
        self.check_hello_deadline(now)?;
        self.check_token(exchange)?;
        while let Some(request) = self.work.as_mut().and_then(|work| work.pending.take_overdue(now)) {
            self.give_up(exchange, request)?;
        }
        if self.paging().is_some_and(|paging| now >= paging.retry_at) {
            self.go_on_paging(exchange);
        }
        if let Some(payload) = self.work.as_mut().and_then(|work| work.owed_pong.take()) {
            if self.take_other(now).is_ok() {
                queue_pong(exchange, &payload);
            } else {
                self.work().owed_pong = Some(payload);
            }
        }
        if now >= self.drain.0 {
            self.drain = Drain::OUT;
        }
        self.close_if_drained()?;
        self.check_queue(exchange)
    }

    /// The process drains: see `Connection::begin_drain`.
    pub(crate) fn begin_drain(&mut self, exchange: &mut Exchange<'_>, after_ms: u64, within_ms: u64) -> Step {
        if !self.is_welcome() {
            return Err(End::close(CloseCode::DRAIN, "the server drains: connect again"));
        }
        let reconnect = Reconnect { reason: "the server drains".to_owned(), url: None, after_ms, within_ms };
        self.queue(exchange, &ServerFrame::Reconnect(reconnect));
        self.drain = Drain(exchange.now + after_ms + within_ms);
        self.check_queue(exchange)
    }

    /// Its WebSocket closes: nothing more is said.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.window_full = false;
        if let Some(work) = &mut self.work {
            work.owed_pong = None;
            work.paging = None;
            work.gaps = None;
        }
    }

    /// Takes leave of every worker that was told of the session. Once, however often it is called.
    pub(crate) fn release(&mut self, connection: ConnectionId, context: &mut Context) {
        let Some(identity) = &mut self.identity else { return };
        let attached = std::mem::take(&mut identity.attached);
        for worker in 0..usize::from(attached) {
            let (user, device) = (identity.user.clone(), identity.device.clone());
            context.push_owed(worker, ToRouter::Detach { connection, user, device });
        }
        if self.is_welcome() && attached > 0 {
            context.note_session_end();
        }
    }

    /// Whether the core counts it among its open sessions.
    pub(crate) fn is_counted(&self) -> bool {
        self.is_welcome() && self.identity.as_ref().is_some_and(|identity| identity.attached > 0)
    }

    fn handle_frame(&mut self, exchange: &mut Exchange<'_>, payload: &[u8]) -> Step {
        let frame = match client::decode_into(self.encoding, payload, &mut exchange.context.bodies) {
            Ok(frame) => frame,
            Err(error) => return self.handle_bad_frame(exchange, &error),
        };
        self.bad_frames = 0;
        match frame {
            ClientFrame::Hello(hello) => self.handle_hello(exchange, hello),
            _ if !self.is_welcome() => {
                Err(End::close(CloseCode::UNAUTHORIZED, "the first frame must be hello"))
            }
            ClientFrame::Send(send) => self.handle_send(exchange, send),
            ClientFrame::Refresh { token } => self.handle_refresh(exchange, &token),
            ClientFrame::Sync(sync) => self.handle_sync(exchange, sync),
            ClientFrame::Ping { nonce } => {
                if !self.allow_other(exchange)? {
                    return Ok(());
                }
                self.rest(exchange.now);
                // What was left out is told first: the cursor in the pong must not run ahead of it.
                self.tell_gaps(exchange);
                let resume = self.cursor(exchange.context);
                let server_ts = exchange.context.timestamp(exchange.now);
                self.queue(exchange, &ServerFrame::Pong(Pong { nonce, server_ts, resume }));
                Ok(())
            }
        }
    }

    /// What cannot be taken costs like any frame that is no `send`. Only what is no frame of ours counts
    /// towards the ten in a row: a frame whose fields make no sense was understood.
    fn handle_bad_frame(&mut self, exchange: &mut Exchange<'_>, error: &DecodeError) -> Step {
        if error.code() == ErrorCode::BadFrame {
            self.bad_frames += 1;
        } else {
            self.bad_frames = 0;
        }
        if self.bad_frames >= BAD_FRAMES_MAX {
            return Err(End::close(CloseCode::BAD_REQUEST, "ten malformed frames in a row"));
        }
        if let Err(retry_after_ms) = self.take_other(exchange.now) {
            return self.queue_rate_limited(exchange, error.client_message_id.clone(), retry_after_ms);
        }
        self.queue(exchange, &ServerFrame::Error(error.to_frame()));
        if !self.is_welcome() && !matches!(error.cause, DecodeCause::BadFrame(_)) {
            return Err(End::close(CloseCode::UNAUTHORIZED, "the first frame must be a good hello"));
        }
        Ok(())
    }

    /// A request had no answer in time.
    fn give_up(&mut self, exchange: &mut Exchange<'_>, request: Request) -> Step {
        match request.asked {
            Asked::Probe => {
                return Err(End::close(
                    CloseCode::OVERLOADED,
                    "the server does not keep up: come back later",
                ));
            }
            Asked::Send(client_message_id) => self.give_up_send(exchange, &client_message_id),
            Asked::Page(conversation, after) => self.give_up_page(exchange, conversation, after),
            Asked::Heads => self.give_up_heads(exchange),
        }
        Ok(())
    }

    /// Asks a worker. False if its inbox is full.
    fn ask(
        &mut self,
        exchange: &mut Exchange<'_>,
        worker: usize,
        user: UserId,
        operation: Operation,
        asked: Asked,
    ) -> bool {
        let pending = &mut self.work().pending;
        let request = pending.next_id();
        let message = ToRouter::Request { connection: exchange.id, request, user, operation };
        let taken = exchange.context.push(worker, message);
        if taken {
            exchange.context.metrics.requests.increment();
            pending.push(asked, exchange.now);
        }
        taken
    }

    /// Tells a worker something whose answer says nothing and which must not be lost.
    fn tell(&mut self, exchange: &mut Exchange<'_>, worker: usize, user: UserId, operation: Operation) {
        let request = self.work().pending.skip();
        let message = ToRouter::Request { connection: exchange.id, request, user, operation };
        exchange.context.push_owed(worker, message);
    }

    /// Queues a frame for this client alone.
    fn queue(&self, exchange: &mut Exchange<'_>, frame: &ServerFrame) -> usize {
        if matches!(frame, ServerFrame::Error(error) if error.code == ErrorCode::RateLimited) {
            exchange.context.metrics.rate_refusals.increment();
        }
        let mut payload = std::mem::take(&mut exchange.context.payload);
        payload.clear();
        client::encode(self.encoding, frame, &mut payload);
        let opcode = self.encoding.opcode();
        let added = exchange.output.append_frame(&mut exchange.context.chunks, opcode, &payload);
        exchange.context.metrics.frames_out.increment();
        exchange.context.payload = payload;
        added
    }

    fn queue_error(&self, exchange: &mut Exchange<'_>, code: ErrorCode, message: &str) {
        self.queue(exchange, &ServerFrame::Error(ErrorFrame::new(code, message)));
    }

    /// Past `max_queue_bytes`, with everything left out that may be, the reader is too slow. A page that
    /// we sent because there was room counts apart.
    fn check_queue(&self, exchange: &Exchange<'_>) -> Step {
        let paged = self.paging().map_or(0, |paging| paging.queued_bytes);
        if exchange.output.len() > exchange.context.settings.queue_bytes_max + paged {
            let reason = "too much waits for you to read: come back and sync";
            return Err(End::close(CloseCode::SLOW_READER, reason));
        }
        Ok(())
    }

    fn take_other(&mut self, now: Tick) -> Result<(), u64> {
        self.others.take(now, OTHERS_PER_SECOND, OTHERS_BURST)
    }

    /// Whether a frame that is no `send` is within the rate; if not, the client is told.
    fn allow_other(&mut self, exchange: &mut Exchange<'_>) -> Result<bool, End> {
        match self.take_other(exchange.now) {
            Ok(()) => Ok(true),
            Err(retry_after_ms) => {
                self.queue_rate_limited(exchange, None, retry_after_ms)?;
                Ok(false)
            }
        }
    }

    fn queue_rate_limited(
        &mut self,
        exchange: &mut Exchange<'_>,
        client_message_id: Option<String>,
        retry_after_ms: u64,
    ) -> Step {
        let message = "too many frames: wait retry_after_ms before the next";
        let error = ErrorFrame {
            client_message_id,
            retry_after_ms: Some(retry_after_ms),
            ..ErrorFrame::new(ErrorCode::RateLimited, message)
        };
        self.queue(exchange, &ServerFrame::Error(error));
        self.strike(exchange)
    }

    fn strike(&mut self, exchange: &mut Exchange<'_>) -> Step {
        if self.work().strikes.strike(exchange.now) {
            return Err(End::close(CloseCode::RATE_LIMITED, "over the rate again and again"));
        }
        Ok(())
    }

    /// The position that the client may resume from: everything up to it was queued for it.
    fn cursor_position(&self, context: &Context) -> Position {
        let of_gaps = self.gaps().map(|gaps| gaps.held);
        let of_syncs = self.paging().and_then(|paging| paging.held);
        let held = [of_gaps, of_syncs, self.resuming()];
        held.into_iter().flatten().fold(context.resume_position(), Position::min)
    }

    fn cursor(&self, context: &Context) -> String {
        let position = self.cursor_position(context);
        self.identity
            .as_ref()
            .map_or_else(String::new, |identity| context.cursors.encode(&identity.user, position))
    }

    /// The gaps, begun now if there are none.
    fn gaps_from_here(&mut self, context: &Context) -> &mut Gaps {
        let held = self.cursor_position(context);
        let gaps = self.work().gaps.get_or_insert_with(|| Box::new(Gaps::new(held)));
        // A sync may hold it back further than the gaps before did.
        gaps.held = held;
        gaps
    }

    /// Queues the gap frames that are due.
    fn tell_gaps(&mut self, exchange: &mut Exchange<'_>) {
        if !self.gaps().is_some_and(Gaps::is_untold) {
            return;
        }
        let after_ms = exchange.context.gap_spread();
        while let Some(gap) = self.gaps_mut().and_then(|gaps| gaps.tell(after_ms)) {
            self.queue_gap(exchange, gap);
        }
    }

    /// Queues the gap frame that must go before the next seq of this conversation.
    fn tell_gap_before(&mut self, exchange: &mut Exchange<'_>, conversation: ConversationId) {
        let Some(gaps) = self.gaps_mut() else { return };
        let after_ms = exchange.context.gap_spread();
        if let Some(gap) = gaps.tell_before(conversation, after_ms) {
            self.queue_gap(exchange, gap);
        }
    }

    fn queue_gap(&self, exchange: &mut Exchange<'_>, gap: Gap) {
        self.queue(exchange, &ServerFrame::Gap(gap));
        exchange.context.metrics.gaps.increment();
    }

    fn drop_gaps_if_over(&mut self) {
        if let Some(work) = &mut self.work {
            work.gaps.take_if(|gaps| gaps.is_over());
        }
    }

    fn is_draining_out(&self) -> bool {
        self.drain == Drain::OUT
    }

    fn close_if_drained(&self) -> Step {
        if self.is_draining_out() && self.inflight() == 0 {
            return Err(End::close(CloseCode::DRAIN, "the server drains: connect again"));
        }
        Ok(())
    }
}

fn queue_pong(exchange: &mut Exchange<'_>, payload: &[u8]) {
    exchange.output.append_frame(&mut exchange.context.chunks, Opcode::Pong, payload);
    exchange.context.metrics.frames_out.increment();
}
