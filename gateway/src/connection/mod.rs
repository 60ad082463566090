//! One client's connection, from accept to its end, without a socket: bytes and time go in by
//! `handle_*`, bytes come out by [`Connection::poll_transmit`].
//!
//! ```text
//!   accept ─▶ TLS handshake ─▶ request's head ─┬─▶ WebSocket: session, or echo ─▶ close handshake
//!              (tls/)            (head.rs)     ├─▶ HTTP server (http_hand_over.rs)
//!                                              └─▶ refused with an HTTP status
//! ```
//! After any `handle_*` or `poll_transmit` the event loop asks, in any order: [`Connection::has_output`]
//! (then it sends), [`Connection::wants_read`], [`Connection::disposition`], [`Connection::poll_timeout`].
//! When the socket is gone, however that came, it calls [`Connection::release`] once.
//! `frozen.rs` moves a connection to another core or process.

mod frozen;
mod head;
mod http_hand_over;
pub mod limits;
mod output;
mod websocket;

use std::net::SocketAddr;

use bytes::Bytes;
use ringway_protocol::ids::{ConnectionId, RequestId};
use ringway_protocol::trunk::{Outcome, Refusal};
use ringway_protocol::websocket::CloseCode;
use ringway_protocol::websocket::upgrade::UpgradeRefusal;
use ringway_ring::{Chunk, prefetch};

use crate::clock::Tick;
use crate::context::Context;
use crate::limits::SEND_CHUNK_BYTES;
use crate::send_chunks::SendChunks;
use crate::tls::{Opened, RecordError, RecordLayer, SEAL_OVERHEAD_BYTES};

pub use crate::session::Delivery;
pub use frozen::{FreezeError, ThawError};
pub(crate) use output::Output;
pub(crate) use websocket::{End, Exchange, ReadMemory, Step, WEBSOCKET_BYTES};

use head::{Head, Request, Upgrade, UpgradeKind};
use http_hand_over::HttpHandOver;
use limits::{CLOSE_MILLISECONDS, HANDSHAKE_MILLISECONDS, HEAD_MILLISECONDS};
use websocket::WebSocket;

/// What the listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Bytes as they are.
    Plain,
    /// TLS, with the context's configuration.
    Tls,
}

/// What the event loop is to do with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Go on.
    Open,
    /// When all output is sent, shut the sending side down, and go on reading: the peer's end, or a
    /// deadline, makes it [`CloseAfterFlush`](Self::CloseAfterFlush) or [`Abort`](Self::Abort). A socket
    /// closed with unread bytes would reset, and the peer might lose our last frame.
    ShutdownAfterFlush,
    /// Read nothing more; when all output is sent, close.
    CloseAfterFlush,
    /// Close now; what waits is lost.
    Abort,
}

/// What comes from the router for one connection.
#[derive(Clone, Debug, PartialEq)]
pub enum TrunkEvent {
    /// The answer to a request.
    Reply {
        /// The request's number.
        request: RequestId,
        /// How it ended.
        outcome: Result<Outcome, Refusal>,
    },
    /// Close with this code of ours.
    Close {
        /// 4009 or 4029, mostly.
        code: u16,
    },
    /// Deliveries to this core were dropped: a `gap` without an id.
    Lost,
}

/// How far a connection has come, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the TLS handshake or the request's head.
    Arriving,
    /// With the HTTP server.
    Http,
    /// On `/echo` or `/relay`.
    Echo,
    /// On `/ws`, not yet welcome.
    Unwelcome,
    /// On `/ws`, welcome.
    Session,
    /// Nothing but its end is left.
    Ending,
}

/// One client's connection.
pub struct Connection {
    id: ConnectionId,
    /// The TLS state, of a connection that has one.
    tls: Option<Box<RecordLayer>>,
    output: Output,
    stage: Stage,
    /// When the present stage is over, whatever happens; [`Tick::NEVER`] for never.
    deadline: Tick,
    disposition: Disposition,
}

enum Stage {
    /// The TLS handshake, then the request's head.
    Head(Box<Head>),
    /// The HTTP server has it.
    Http(Box<HttpHandOver>),
    /// Frames flow both ways, or the closing handshake does.
    WebSocket(Box<WebSocket>),
    /// Our last byte is queued; what arrives is dropped.
    Ending,
}

// 500,000 of these lie in tables: what only some connections need is boxed.
const _: () = assert!(size_of::<Connection>() <= 128, "a connection's inline part");

impl Connection {
    /// A connection that was just accepted.
    ///
    /// # Panics
    /// If `transport` is TLS and the context has no TLS configuration: a listener of the wrong kind.
    pub fn accept(
        context: &mut Context,
        id: ConnectionId,
        transport: Transport,
        peer: SocketAddr,
        now: Tick,
    ) -> Connection {
        let mut connection = Connection {
            id,
            tls: None,
            output: Output::default(),
            stage: Stage::Head(Box::new(Head::new(peer))),
            deadline: now + HEAD_MILLISECONDS,
            disposition: Disposition::Open,
        };
        if transport == Transport::Tls {
            let config = context.tls.as_ref().expect("a TLS listener has a configuration").load_full();
            connection.deadline = now + HANDSHAKE_MILLISECONDS;
            match RecordLayer::accept(config) {
                Ok(tls) => connection.tls = Some(Box::new(tls)),
                Err(error) => {
                    tracing::warn!(%error, "no TLS state for a new connection");
                    connection.abort();
                }
            }
        }
        connection
    }

    /// Has the caches fetch what it keeps elsewhere, for who is about to come to it.
    pub(crate) fn prefetch(&self) {
        if let Some(tls) = &self.tls {
            prefetch(&**tls);
        }
        if let Stage::WebSocket(websocket) = &self.stage {
            prefetch(&**websocket);
        }
    }

    /// Its name, the same for as long as it lives.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Head(_) => Phase::Arriving,
            Stage::Http(_) => Phase::Http,
            Stage::WebSocket(websocket) => websocket.phase(),
            Stage::Ending => Phase::Ending,
        }
    }

    /// Takes bytes that just arrived. They are changed in place.
    pub fn handle_received(&mut self, context: &mut Context, now: Tick, received: &mut [u8]) {
        let Some(tls) = &mut self.tls else {
            return self.handle_plaintext(context, now, received);
        };
        if matches!(self.stage, Stage::Ending) {
            return;
        }
        let was_handshaking = tls.is_handshaking();
        let Opened { mut apart, in_place, outcome } = tls.open(received, &mut context.chunks);
        let (is_handshaking, peer_closed) = (tls.is_handshaking(), tls.peer_has_closed());
        if was_handshaking && !is_handshaking && !matches!(outcome, Err(RecordError::Handshake(_))) {
            context.metrics.handshakes.increment();
            self.deadline = now + HEAD_MILLISECONDS;
        }
        // What came whole before a broken record counts.
        if !apart.is_empty() {
            self.handle_plaintext(context, now, &mut apart);
            context.chunks.put(apart);
        }
        if in_place.start < in_place.end {
            self.handle_plaintext(context, now, &mut received[in_place]);
        }
        match outcome {
            Err(error) => self.fail_tls(context, now, &error),
            Ok(()) if peer_closed => self.handle_peer_closed(context, now),
            Ok(()) => {}
        }
    }

    /// The peer sends nothing more (end of file).
    pub fn handle_peer_closed(&mut self, context: &mut Context, now: Tick) {
        match &mut self.stage {
            Stage::Http(http) => return http.handle_peer_closed(),
            // Half a WebSocket is none, and a Close frame would not be answered.
            Stage::WebSocket(websocket) => {
                websocket.stop();
                websocket.release(self.id, context);
            }
            Stage::Head(_) | Stage::Ending => {}
        }
        self.close_after_flush(now);
    }

    /// Takes what the router says.
    pub fn handle_trunk(&mut self, context: &mut Context, now: Tick, event: TrunkEvent) {
        self.with_websocket(context, now, |websocket, exchange| websocket.handle_trunk(exchange, event));
    }

    /// The HTTP server has news for a handed-over connection (it came out of the door's ready list).
    pub fn handle_http(&mut self, _context: &mut Context, now: Tick) {
        let Stage::Http(http) = &mut self.stage else { return };
        http.handle_news(now);
        if http.is_finished() {
            self.end(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Tick> {
        let stage = match &self.stage {
            Stage::WebSocket(websocket) if !websocket.closing => websocket.poll_timeout(&self.output),
            Stage::Http(http) => http.poll_timeout(),
            _ => Tick::NEVER,
        };
        let earliest = self.deadline.min(stage);
        (earliest < Tick::NEVER).then_some(earliest)
    }

    /// Time has come to `now`. Too early is harmless.
    pub fn handle_timeout(&mut self, context: &mut Context, now: Tick) {
        let is_stalled = matches!(&self.stage, Stage::Http(http) if now >= http.poll_timeout());
        if now < self.deadline && !is_stalled {
            self.with_websocket(context, now, WebSocket::handle_timeout);
            return;
        }
        if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            context.metrics.handshakes_failed.increment();
        }
        // Whoever has not come this far in time reads no answer either.
        self.abort();
    }

    /// Appends what waits to `chunk`, sealed if the transport is TLS, at most `capacity` bytes of it.
    /// `capacity` is at least 64.
    pub fn poll_transmit(&mut self, context: &mut Context, now: Tick, chunk: &mut Vec<u8>, capacity: usize) {
        let end = chunk.len() + capacity;
        if self.tls.is_some() {
            self.transmit_sealed(context, now, chunk, end);
        } else {
            take_plaintext(&mut self.output, &mut self.stage, &mut context.chunks, now, chunk, capacity);
        }
        if let Stage::Http(http) = &self.stage
            && http.is_finished()
            && self.output.is_empty()
        {
            self.end(now);
        }
        self.with_websocket(context, now, WebSocket::handle_drained);
    }

    /// What waits, for one send: all of it, if it fits in one chunk. What is one piece already is not copied.
    pub(crate) fn poll_send(&mut self, context: &mut Context, now: Tick) -> Option<Chunk> {
        let is_http = matches!(self.stage, Stage::Http(_));
        if self.tls.is_none()
            && !is_http
            && self.output.len() <= SEND_CHUNK_BYTES
            && let Some(chunk) = self.output.take_whole()
        {
            self.with_websocket(context, now, WebSocket::handle_drained);
            return Some(chunk);
        }
        let has_more = is_http || self.tls.as_ref().is_some_and(|tls| tls.has_outgoing());
        let waiting = if has_more { SEND_CHUNK_BYTES } else { self.output.len() + SEAL_OVERHEAD_BYTES };
        let mut chunk = context.chunks.take(waiting.min(SEND_CHUNK_BYTES));
        let capacity = chunk.capacity();
        self.poll_transmit(context, now, &mut chunk, capacity);
        if chunk.is_empty() {
            context.chunks.put(chunk);
            return None;
        }
        Some(Chunk::Owned(chunk))
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something.
    pub fn has_output(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.has_outgoing())
            || (self.has_plaintext() && tls.is_none_or(|tls| !tls.is_handshaking()))
    }

    /// Whether the socket is to be read.
    pub fn wants_read(&self) -> bool {
        match self.disposition {
            Disposition::CloseAfterFlush | Disposition::Abort => false,
            Disposition::Open | Disposition::ShutdownAfterFlush => match &self.stage {
                Stage::Http(http) => http.wants_read(),
                Stage::WebSocket(websocket) => !websocket.is_paused(&self.output),
                Stage::Head(_) | Stage::Ending => true,
            },
        }
    }

    /// What to do with the socket.
    pub fn disposition(&self) -> Disposition {
        self.disposition
    }

    /// The process drains. A session is told to come back at a moment within `within_ms` after `after_ms`
    /// that its client picks; when that time is over and its sends are answered, it is closed with 4200.
    /// What is no session yet closes at once; the HTTP server ends its own connections within that time.
    pub fn begin_drain(&mut self, context: &mut Context, now: Tick, after_ms: u64, within_ms: u64) {
        match &self.stage {
            Stage::Head(head) if head.received.is_empty() => self.close_after_flush(now),
            Stage::Head(_) => {
                self.refuse(context, now, &UpgradeRefusal::Unavailable { retry_after_seconds: 1 })
            }
            Stage::Http(_) => self.deadline = self.deadline.min(now + after_ms + within_ms),
            Stage::WebSocket(_) => self.with_websocket(context, now, |websocket, exchange| {
                websocket.begin_drain(exchange, after_ms, within_ms)
            }),
            Stage::Ending => {}
        }
    }

    /// The socket is gone: gives back what the connection holds of shared things, and ends its session.
    /// Called once, as the last thing.
    pub fn release(&mut self, context: &mut Context) {
        if let Stage::WebSocket(websocket) = &mut self.stage {
            websocket.release(self.id, context);
        }
        self.stage = Stage::Ending;
        self.output.clear();
    }

    /// A live entry for many: queued if this connection is a welcome session, or noted as left out.
    pub fn deliver(&mut self, context: &mut Context, now: Tick, delivery: &mut Delivery<'_>) {
        self.with_websocket(context, now, |websocket, exchange| websocket.deliver(exchange, delivery));
    }

    /// Frames of the relay for this connection.
    pub(crate) fn relay(&mut self, context: &mut Context, now: Tick, frames: &[u8]) {
        self.with_websocket(context, now, |websocket, exchange| websocket.take_relayed(exchange, frames));
    }

    /// Frames of the relay for many.
    pub(crate) fn relay_shared(&mut self, context: &mut Context, now: Tick, frames: &Bytes) {
        self.with_websocket(context, now, |websocket, exchange| websocket.take_shared(exchange, frames));
    }

    fn handle_plaintext(&mut self, context: &mut Context, now: Tick, received: &mut [u8]) {
        match &mut self.stage {
            Stage::Head(head) => match head.handle_received(context, now, received) {
                Ok(None) => {}
                Ok(Some((request, end))) => self.answer_request(context, now, request, end),
                Err(refusal) => self.refuse(context, now, &refusal),
            },
            Stage::Http(http) => http.handle_received(received),
            Stage::WebSocket(_) => self.with_websocket(context, now, |websocket, exchange| {
                websocket.handle_received(exchange, received)
            }),
            Stage::Ending => {}
        }
    }

    /// The first request is whole: `end` bytes of what the head gathered.
    fn answer_request(&mut self, context: &mut Context, now: Tick, request: Request, end: usize) {
        let Stage::Head(head) = std::mem::replace(&mut self.stage, Stage::Ending) else { return };
        let Head { peer, mut received, .. } = *head;
        let Upgrade { response, kind } = match request {
            Request::Upgrade(upgrade) => upgrade,
            Request::Http => {
                match context.http.open(self.id, peer, self.tls.is_some()) {
                    Some(pipe) => {
                        context.metrics.http_connections.increment();
                        self.stage = Stage::Http(Box::new(HttpHandOver::new(pipe, &received)));
                        self.deadline = Tick::NEVER;
                    }
                    None => self.refuse(context, now, &UpgradeRefusal::NotFound),
                }
                return;
            }
        };
        self.output.append_bytes(&mut context.chunks, &response);
        self.deadline = Tick::NEVER;
        let websocket = match kind {
            UpgradeKind::Chat(encoding, claims) => WebSocket::chat(context, encoding, claims, now),
            UpgradeKind::Echo => WebSocket::echo(now),
            UpgradeKind::Relay(name, in_room) => WebSocket::relay(context, self.id, name, in_room, now),
        };
        self.stage = Stage::WebSocket(Box::new(websocket));
        // Only now, with the 101 in the queue, is what lies behind the head a client's frames.
        let pipelined = &mut received[end..];
        if !pipelined.is_empty() {
            self.with_websocket(context, now, |websocket, exchange| {
                websocket.handle_received(exchange, pipelined)
            });
        }
    }

    /// Lets the WebSocket take a step, if this is one, and ends it if the step says so.
    fn with_websocket(
        &mut self,
        context: &mut Context,
        now: Tick,
        step: impl FnOnce(&mut WebSocket, &mut Exchange<'_>) -> Step,
    ) {
        let Stage::WebSocket(websocket) = &mut self.stage else { return };
        let mut exchange = Exchange { id: self.id, now, context, output: &mut self.output };
        if let Err(end) = step(websocket, &mut exchange) {
            self.end_websocket(context, now, &end);
        }
    }

    fn end_websocket(&mut self, context: &mut Context, now: Tick, end: &End) {
        let Stage::WebSocket(websocket) = &mut self.stage else { return };
        if websocket.closing && matches!(end, End::Close(..)) {
            return; // We said so before.
        }
        if let End::Close(code, reason) = end {
            tracing::debug!(connection = ?self.id, %code, %reason, "closing");
            context.metrics.closes.count(*code);
            match *code {
                CloseCode::SLOW_READER => {
                    context.metrics.slow_readers.increment();
                    self.output.drop_untouched();
                }
                // Nothing is delivered after the end of a token.
                CloseCode::TOKEN_EXPIRED => self.output.drop_untouched(),
                _ => {}
            }
        }
        let is_over = websocket.finish(&mut self.output, &mut context.chunks, end);
        // The session ends here, not when the peer has taken leave: it gets nothing more.
        websocket.release(self.id, context);
        self.deadline = self.deadline.min(now + CLOSE_MILLISECONDS);
        if is_over {
            self.close_after_flush(now);
        } else {
            self.shut_down_after_flush();
        }
    }

    fn refuse(&mut self, context: &mut Context, now: Tick, refusal: &UpgradeRefusal) {
        tracing::debug!(connection = ?self.id, %refusal, "a request is refused");
        if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return self.abort();
        }
        context.metrics.requests_refused.increment();
        self.output.append_bytes(&mut context.chunks, &refusal.response());
        self.end(now);
    }

    fn fail_tls(&mut self, context: &mut Context, now: Tick, error: &RecordError) {
        tracing::debug!(connection = ?self.id, %error, "TLS failed");
        if matches!(error, RecordError::Handshake(_)) {
            context.metrics.handshakes_failed.increment();
        }
        // Nothing can be sealed any more; the alert is what is left to send.
        self.output.clear();
        self.release(context);
        self.end(now);
    }

    /// Nothing more is said or listened to, but what is queued goes out.
    fn end(&mut self, now: Tick) {
        self.stage = Stage::Ending;
        self.deadline = now + CLOSE_MILLISECONDS;
        self.shut_down_after_flush();
    }

    fn shut_down_after_flush(&mut self) {
        if self.disposition == Disposition::Open {
            self.disposition = Disposition::ShutdownAfterFlush;
        }
        self.say_tls_goodbye_if_drained();
    }

    fn close_after_flush(&mut self, now: Tick) {
        self.deadline = self.deadline.min(now + CLOSE_MILLISECONDS);
        if self.disposition != Disposition::Abort {
            self.disposition = Disposition::CloseAfterFlush;
        }
        self.say_tls_goodbye_if_drained();
    }

    fn abort(&mut self) {
        self.disposition = Disposition::Abort;
        self.deadline = Tick::NEVER;
    }

    fn has_plaintext(&self) -> bool {
        !self.output.is_empty() || matches!(&self.stage, Stage::Http(http) if http.has_output())
    }

    /// Handshake messages first, then plaintext in one record for each 16 KiB, up to `end` of the chunk.
    fn transmit_sealed(&mut self, context: &mut Context, now: Tick, chunk: &mut Vec<u8>, end: usize) {
        let Self { tls: Some(tls), output, stage, .. } = self else { return };
        let mut sealed = tls.take_outgoing(chunk, end - chunk.len());
        if sealed.is_ok() {
            if tls.has_outgoing() || tls.is_handshaking() {
                return;
            }
            if !output.is_empty() || matches!(stage, Stage::Http(http) if http.has_output()) {
                sealed = tls.seal_from(chunk, end - chunk.len(), |chunk, room| {
                    take_plaintext(output, stage, &mut context.chunks, now, chunk, room);
                });
            }
        }
        if let Err(error) = sealed {
            self.fail_tls(context, now, &error);
        }
        self.say_tls_goodbye_if_drained();
        if let Some(tls) = &mut self.tls {
            // It fails only where sealing has failed above.
            let _ = tls.take_outgoing(chunk, end - chunk.len());
        }
    }

    /// `close_notify`, once the last plaintext is sealed (RFC 8446 section 6.1).
    fn say_tls_goodbye_if_drained(&mut self) {
        let ends = matches!(self.disposition, Disposition::ShutdownAfterFlush | Disposition::CloseAfterFlush);
        if ends
            && !self.has_plaintext()
            && let Some(tls) = &mut self.tls
        {
            tls.close();
        }
    }
}

/// Moves plaintext to the end of `chunk`.
fn take_plaintext(
    output: &mut Output,
    stage: &mut Stage,
    chunks: &mut SendChunks,
    now: Tick,
    chunk: &mut Vec<u8>,
    capacity: usize,
) {
    let count = output.take(chunks, chunk, capacity);
    if let Stage::Http(http) = stage {
        http.take_output(now, chunk, capacity - count);
    }
}
