//! A connection whose first request was no upgrade: for the rest of its life the HTTP server has it, and
//! this end only carries bytes, through `http_stream.rs`, between its queue and the socket.
//!
//! Neither side outruns the other: the pipe is bounded both ways, and a full one stops the socket. What the
//! requests may take, and how long a connection may rest between them, is the server's to say; that a
//! client reads what it asked for is looked at here.

use super::limits::STALL_MILLISECONDS;
use crate::clock::Tick;
use crate::http_stream::HttpPipe;

/// The state of a handed-over connection.
pub(super) struct HttpHandOver {
    pipe: HttpPipe,
    /// The client sends nothing more.
    peer_ended: bool,
    /// When the client has taken nothing for too long, while something waits for it.
    stalled: Tick,
}

impl HttpHandOver {
    /// Begins with all that arrived so far.
    pub(super) fn new(pipe: HttpPipe, received: &[u8]) -> Self {
        if !received.is_empty() {
            pipe.push_received(received);
        }
        Self { pipe, peer_ended: false, stalled: Tick(u64::MAX) }
    }

    /// Takes what the client sent.
    pub(super) fn handle_received(&mut self, received: &[u8]) {
        self.pipe.push_received(received);
    }

    /// The client sends nothing more.
    pub(super) fn handle_peer_closed(&mut self) {
        self.peer_ended = true;
        self.pipe.end_input();
    }

    /// The server's end has news: looked at by the calls below.
    pub(super) fn handle_news(&mut self, now: Tick) {
        self.pipe.acknowledge();
        if self.pipe.has_output() {
            self.stalled = self.stalled.min(now + STALL_MILLISECONDS);
        }
    }

    /// When the connection ends because its client does not read.
    pub(super) fn poll_timeout(&self) -> Tick {
        self.stalled
    }

    /// Whether the server wrote its last byte and all were taken.
    pub(super) fn is_finished(&self) -> bool {
        self.pipe.is_finished()
    }

    /// Whether the server has bytes for the client.
    pub(super) fn has_output(&self) -> bool {
        self.pipe.has_output()
    }

    /// Appends at most `limit` bytes of the server's to `chunk`.
    pub(super) fn take_output(&mut self, now: Tick, chunk: &mut Vec<u8>, limit: usize) {
        self.pipe.take_output(chunk, limit);
        self.stalled = if self.pipe.has_output() { now + STALL_MILLISECONDS } else { Tick(u64::MAX) };
    }

    /// Whether the client may send more.
    pub(super) fn wants_read(&self) -> bool {
        !self.peer_ended && self.pipe.has_room()
    }
}
