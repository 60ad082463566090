//! One connection's TLS: records in, plaintext out; plaintext in, records out.
//!
//! It stands on rustls's unbuffered interface, so that no buffer stays with an idle connection: what
//! arrived of an incomplete record is kept here and let go with it, handshake messages wait in `outgoing`
//! until they are sent. Everything above knows only [`RecordLayer`]'s methods. After the handshake rustls
//! still keeps about 3.5 KB of its own; a compact layer of two traffic secrets and two counters takes its
//! place behind these same methods, and only then can an open TLS connection be frozen.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};

use crate::connection::limits::{GATHERED_BYTES_MAX, RECORD_BYTES_MAX};

/// What a record adds to its plaintext at most: 5 bytes of header, then in TLS 1.3 the content type and
/// 16 of tag, in 1.2 an explicit nonce of 8 and 16 of tag.
pub(crate) const SEAL_OVERHEAD_BYTES: usize = 32;

/// Types of TLS records (RFC 8446 section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// Why a TLS connection cannot go on. An alert, where one is due, waits in the output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The peer broke the protocol, or has nothing in common with us.
    #[error("{0}")]
    Tls(rustls::Error),
    /// A record or handshake message longer than rustls takes.
    #[error("more than {GATHERED_BYTES_MAX} bytes arrived without a whole record")]
    TooLong,
    /// The keys of this connection have sealed as much as they may.
    #[error("the connection's keys are used up")]
    KeysUsedUp,
}

/// One connection's TLS state.
pub(crate) struct RecordLayer {
    connection: UnbufferedServerConnection,
    /// What arrived and is no whole record yet.
    gathered: Vec<u8>,
    /// Handshake messages and alerts, in the order of their sequence numbers: sent before anything that
    /// is sealed later.
    outgoing: Vec<u8>,
    peer_closed: bool,
    close_sent: bool,
}

impl RecordLayer {
    /// The server's end of a new connection.
    pub(crate) fn accept(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            gathered: Vec::new(),
            outgoing: Vec::new(),
            peer_closed: false,
            close_sent: false,
        })
    }

    /// Whether the handshake goes on.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer said that it sends nothing more.
    pub(crate) fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Takes what arrived and appends what it says to `plaintext`.
    pub(crate) fn open(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), RecordError> {
        if self.gathered.is_empty() {
            let consumed = self.advance(received, plaintext)?;
            self.gathered.extend_from_slice(&received[consumed..]);
        } else {
            let mut gathered = std::mem::take(&mut self.gathered);
            gathered.extend_from_slice(received);
            let consumed = self.advance(&mut gathered, plaintext)?;
            if consumed < gathered.len() {
                gathered.drain(..consumed);
                self.gathered = gathered;
            }
        }
        if self.gathered.len() > GATHERED_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        Ok(())
    }

    /// Appends `plaintext` to `out` in as few records as it fits in. Before the handshake's end, or after
    /// [`close`](Self::close), nothing may be sealed.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        // The kept bytes go along: rustls remembers how far it has looked into them.
        let mut gathered = std::mem::take(&mut self.gathered);
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut gathered);
        let sealed = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let records = plaintext.len().div_ceil(RECORD_BYTES_MAX);
                let room = plaintext.len() + records * SEAL_OVERHEAD_BYTES;
                append_sized(out, room, |space| match traffic.encrypt(plaintext, space) {
                    Ok(len) => Ok(len),
                    Err(EncryptError::InsufficientSize(size)) => Err(Some(size.required_size)),
                    Err(EncryptError::EncryptExhausted) => Err(None),
                })
            }
            Ok(_) => Err(()),
            Err(error) => return Err(RecordError::Tls(error)),
        };
        self.gathered = gathered;
        sealed.map_err(|()| RecordError::KeysUsedUp)
    }

    /// Queues the alert that we send nothing more. Called any number of times, it says so once.
    pub(crate) fn close(&mut self) {
        if self.close_sent {
            return;
        }
        self.close_sent = true;
        let mut gathered = std::mem::take(&mut self.gathered);
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut gathered);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            // A peer that is gone, or keys that are used up, make no difference: the socket closes.
            let _ = append_sized(&mut self.outgoing, SEAL_OVERHEAD_BYTES, |space| {
                traffic.queue_close_notify(space).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => Some(size.required_size),
                    EncryptError::EncryptExhausted => None,
                })
            });
        }
        self.gathered = gathered;
    }

    /// Whether handshake messages or alerts wait.
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Moves waiting handshake messages and alerts to `chunk`, at most `capacity` bytes.
    pub(crate) fn take_outgoing(&mut self, chunk: &mut Vec<u8>, capacity: usize) {
        let count = capacity.min(self.outgoing.len());
        chunk.extend_from_slice(&self.outgoing[..count]);
        if count == self.outgoing.len() {
            self.outgoing = Vec::new();
        } else {
            self.outgoing.drain(..count);
        }
    }

    /// Works through `incoming` as far as whole records go; answers how many bytes that were.
    fn advance(&mut self, incoming: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, RecordError> {
        let mut consumed = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut incoming[consumed..]);
            let waits = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(RecordError::Tls)?;
                        discard += record.discard;
                        plaintext.extend_from_slice(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(message)) => {
                    append_message(&mut self.outgoing, message);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    false
                }
                // Early data is never accepted; should it come, it is dropped unread.
                Ok(ConnectionState::ReadEarlyData(mut early)) => {
                    while let Some(Ok(record)) = early.next_record() {
                        discard += record.discard;
                    }
                    false
                }
                Ok(_) => true,
                Err(error) => {
                    consumed += discard;
                    self.collect_alert(&mut incoming[consumed..]);
                    return Err(RecordError::Tls(error));
                }
            };
            // Only now: the state borrowed the bytes that go.
            consumed += discard;
            if waits {
                return Ok(consumed);
            }
        }
    }

    /// After an error, rustls still has the alert to give that tells the peer, behind what it had said before
    /// (a ServerHello, where the extensions after it cannot be agreed on). `left` is what it had not consumed:
    /// it remembers how far it has looked into it. Behind the alert it is not asked again: it would read what
    /// failed once more, and panic at a second alert.
    fn collect_alert(&mut self, left: &mut [u8]) {
        self.close_sent = true;
        loop {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(left);
            let Ok(ConnectionState::EncodeTlsData(message)) = state else { return };
            let start = self.outgoing.len();
            append_message(&mut self.outgoing, message);
            // What may wait before it are a ServerHello and its ChangeCipherSpec, which are sent in the clear.
            if !matches!(self.outgoing.get(start), Some(&(HANDSHAKE | CHANGE_CIPHER_SPEC))) {
                return;
            }
        }
    }
}

/// Appends a handshake message or an alert that rustls has ready.
fn append_message(out: &mut Vec<u8>, mut message: EncodeTlsData<'_, ServerConnectionData>) {
    // It fails by our mistake only: the second try has the size that the first asked for.
    let _ = append_sized(out, 1024, |space| {
        message.encode(space).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Lets `write` fill space at the end of `out`: once with `room` bytes, and again with as many as it asks
/// for. `write` answers the bytes written, or what it needs, or that it cannot.
fn append_sized(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), ()> {
    let start = out.len();
    let mut room = room;
    for _ in 0..2 {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Some(needed)) => room = needed,
            Err(None) => break,
        }
    }
    out.truncate(start);
    Err(())
}
