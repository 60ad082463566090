//! One connection's TLS: records in, plaintext out; plaintext in, records out.
//!
//! ```text
//!   Handshaking: rustls, boxed ─┬─▶ Open: `ringway_protocol::tls`, 248 bytes of plain data (TLS 1.3)
//!                               └─▶ Tls12: rustls, boxed (tls12.rs)
//! ```
//! Everything above knows only [`RecordLayer`]'s methods. An idle TLS 1.3 connection keeps no object of
//! rustls and no buffer; it alone can be frozen.

use std::ops::Range;
use std::sync::Arc;

use bytes::BufMut;
use ringway_protocol::byte_cursor::{ByteCursor, put_bytes};
use ringway_protocol::tls::{self, Established, HandshakeError, SealError, ServerHandshake};
use rustls::ServerConfig;

use super::tls12::Tls12;
use crate::send_chunks::SendChunks;

/// What a record adds to its plaintext at most, in either version: in TLS 1.2 5 bytes of header, an
/// explicit nonce of 8 and a tag of 16, in TLS 1.3 less.
pub(crate) const SEAL_OVERHEAD_BYTES: usize = 32;

const _: () = assert!(SEAL_OVERHEAD_BYTES >= tls::limits::SEAL_OVERHEAD_BYTES);

/// Why a TLS connection cannot go on. An alert, where one is due, waits in the output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// No connection comes of it.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    /// The peer broke the rules of TLS 1.3, or found fault with us.
    #[error(transparent)]
    Record(#[from] tls::RecordError),
    /// Nothing more can be sent.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The same of TLS 1.2.
    #[error("{0}")]
    Tls12(rustls::Error),
    /// A TLS 1.2 handshake message that goes on and on.
    #[error("more than a record arrived that says nothing")]
    TooLong,
    /// A TLS 1.2 key has sealed as much as it may.
    #[error("the connection's keys are used up")]
    KeysUsedUp,
    /// It has failed, or is not open yet.
    #[error("nothing can be sealed")]
    Over,
}

/// One connection's TLS state.
pub(crate) struct RecordLayer {
    state: State,
    /// What the handshake or TLS 1.2 has said and is not sent: before anything that is sealed later.
    outgoing: Option<Box<Outgoing>>,
}

#[expect(clippy::large_enum_variant, reason = "the large one is what half a million of these are")]
enum State {
    Handshaking(Box<ServerHandshake>),
    Open(tls::RecordLayer),
    Tls12(Box<Tls12>),
    /// The end of the handshake failed.
    Over,
}

// One allocation of the 256-byte class an idle connection.
const _: () = assert!(size_of::<RecordLayer>() <= 256, "a connection's TLS state");

/// Bytes that are ready to be sent.
struct Outgoing {
    bytes: Vec<u8>,
    taken: usize,
}

/// What [`RecordLayer::open`] made of received bytes: plaintext in two pieces, first `apart`, then
/// `in_place`. Both count even if `outcome` is an error: they came whole before it.
#[must_use]
pub(crate) struct Opened {
    /// What a record said that had begun in an earlier reception.
    pub(crate) apart: Vec<u8>,
    /// Where in the received bytes the rest lies, in one piece.
    pub(crate) in_place: Range<usize>,
    /// Whether the connection goes on.
    pub(crate) outcome: Result<(), RecordError>,
}

impl Opened {
    fn nothing(outcome: Result<(), RecordError>) -> Self {
        Self { apart: Vec::new(), in_place: 0..0, outcome }
    }
}

impl RecordLayer {
    /// The server's end of a new connection. `config` comes from `tls::with_server_secrets`.
    pub(crate) fn accept(config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        let handshake = ServerHandshake::accept(config)?;
        Ok(Self { state: State::Handshaking(Box::new(handshake)), outgoing: None })
    }

    /// Whether the handshake goes on.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking(_))
    }

    /// Whether the peer said that it sends nothing more.
    pub(crate) fn peer_has_closed(&self) -> bool {
        match &self.state {
            State::Open(layer) => layer.peer_has_closed(),
            State::Tls12(rustls) => rustls.peer_has_closed(),
            State::Handshaking(_) | State::Over => false,
        }
    }

    /// Opens what arrived, in place where it can. What lies apart is in one of the chunks.
    pub(crate) fn open(&mut self, received: &mut [u8], chunks: &mut SendChunks) -> Opened {
        let used = match self.shake_hands(received) {
            Ok(Some(used)) => used,
            Ok(None) => return Opened::nothing(Ok(())),
            Err(error) => return Opened::nothing(Err(error.into())),
        };
        let received = &mut received[used..];
        match &mut self.state {
            State::Open(layer) => {
                let tls::Opened { gathered, in_place, outcome } = layer.open_with(received, chunks);
                let in_place = in_place.start + used..in_place.end + used;
                Opened { apart: gathered, in_place, outcome: outcome.map_err(RecordError::Record) }
            }
            State::Tls12(rustls) => {
                let mut opened = Opened::nothing(Ok(()));
                opened.outcome = rustls.open(received, &mut opened.apart);
                let said = rustls.take_outgoing();
                self.queue(said);
                opened
            }
            State::Handshaking(_) | State::Over => Opened::nothing(Err(RecordError::Over)),
        }
    }

    /// Appends records to `out`, at most `capacity` bytes of them, with the plaintext that `fill` has: it is
    /// given `out` and how many bytes it may append at most. Before the handshake's end, or after
    /// [`close`](Self::close), nothing may be sealed.
    pub(crate) fn seal_from(
        &mut self,
        out: &mut Vec<u8>,
        capacity: usize,
        fill: impl FnMut(&mut Vec<u8>, usize),
    ) -> Result<(), RecordError> {
        match &mut self.state {
            State::Open(layer) => Ok(layer.seal_from(out, capacity, fill)?),
            State::Tls12(rustls) => rustls.seal_from(out, capacity, fill),
            State::Handshaking(_) | State::Over => Err(RecordError::Over),
        }
    }

    /// Queues the alert that we send nothing more. Called any number of times, it says so once.
    pub(crate) fn close(&mut self) {
        match &mut self.state {
            State::Open(layer) => layer.close(),
            State::Tls12(rustls) => {
                rustls.close();
                let said = rustls.take_outgoing();
                self.queue(said);
            }
            State::Handshaking(_) | State::Over => {}
        }
    }

    /// Whether handshake messages, a key update or alerts wait.
    pub(crate) fn has_outgoing(&self) -> bool {
        self.outgoing.is_some() || matches!(&self.state, State::Open(layer) if layer.has_outgoing())
    }

    /// Moves what waits to `chunk`, at most `capacity` bytes.
    pub(crate) fn take_outgoing(&mut self, chunk: &mut Vec<u8>, capacity: usize) -> Result<(), RecordError> {
        let end = chunk.len() + capacity;
        if let Some(outgoing) = &mut self.outgoing {
            let left = &outgoing.bytes[outgoing.taken..];
            let count = capacity.min(left.len());
            chunk.extend_from_slice(&left[..count]);
            outgoing.taken += count;
            if outgoing.taken < outgoing.bytes.len() {
                return Ok(());
            }
            self.outgoing = None;
        }
        if let State::Open(layer) = &mut self.state {
            layer.take_outgoing(chunk, end - chunk.len())?;
        }
        Ok(())
    }

    /// Whether [`freeze`](Self::freeze) can be called: TLS 1.3, behind its handshake.
    pub(crate) fn is_movable(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Bytes that [`freeze`](Self::freeze) appends at most.
    pub(crate) fn frozen_bytes_max(&self) -> usize {
        let outgoing = self.outgoing.as_ref().map_or(0, |outgoing| outgoing.bytes.len());
        let State::Open(layer) = &self.state else { return 0 };
        layer.frozen_bytes_max() + size_of::<u32>() + outgoing
    }

    /// Appends the state to `out`. It consumes the layer, and wipes it where it is: who thaws the bytes is its one
    /// owner.
    ///
    /// # Panics
    /// If it is not [movable](Self::is_movable).
    pub(crate) fn freeze(mut self: Box<Self>, out: &mut Vec<u8>) {
        let State::Open(layer) = &mut self.state else { panic!("only an open TLS 1.3 connection moves") };
        layer.freeze_in_place(out);
        match &self.outgoing {
            Some(outgoing) => put_bytes(out, &outgoing.bytes[outgoing.taken..]),
            None => out.put_u32_le(0),
        }
    }

    /// Makes a layer of what [`freeze`](Self::freeze) gave.
    pub(crate) fn thaw(cursor: &mut ByteCursor<'_>) -> Result<Self, tls::ThawError> {
        let layer = tls::RecordLayer::thaw(cursor)?;
        let mut thawed = Self { state: State::Open(layer), outgoing: None };
        thawed.queue(cursor.bytes()?.to_vec());
        Ok(thawed)
    }

    /// Shows a handshake what arrived. Answers how much it took, once it is done; `None` while it goes on.
    fn shake_hands(&mut self, received: &[u8]) -> Result<Option<usize>, HandshakeError> {
        let State::Handshaking(handshake) = &mut self.state else { return Ok(Some(0)) };
        let taken = handshake.handle_received(received);
        let (is_done, said) = (handshake.is_done(), handshake.take_outgoing());
        self.queue(said);
        let used = taken?;
        if !is_done {
            return Ok(None);
        }
        let State::Handshaking(handshake) = std::mem::replace(&mut self.state, State::Over) else {
            unreachable!("it was handshaking above")
        };
        self.state = match handshake.finish()? {
            Established::Compact(layer) => State::Open(layer),
            Established::Tls12(connection) => State::Tls12(Box::new(Tls12::new(connection))),
        };
        Ok(Some(used))
    }

    fn queue(&mut self, said: Vec<u8>) {
        if said.is_empty() {
            return;
        }
        match &mut self.outgoing {
            Some(outgoing) => outgoing.bytes.extend_from_slice(&said),
            none => *none = Some(Box::new(Outgoing { bytes: said, taken: 0 })),
        }
    }
}
