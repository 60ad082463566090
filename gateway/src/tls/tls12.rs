//! A TLS 1.2 connection behind its handshake, which stays with rustls: it has no key update, other nonces
//! and other rules, and an operator allows it for old clients only (`tls.allow_1_2`).
//!
//! It stands on rustls's unbuffered interface, so that no buffer stays with an idle connection.

use ringway_protocol::tls::limits::{HEADER_BYTES, PLAINTEXT_BYTES_MAX};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};

use super::record_layer::{RecordError, SEAL_OVERHEAD_BYTES};

/// A whole record, in bytes (RFC 5246 section 6.2.3): behind its handshake a client has nothing to say that
/// takes more than one.
const RECORD_BYTES_MAX: usize = HEADER_BYTES + PLAINTEXT_BYTES_MAX + 2_048;

/// One connection's state: about 3.5 KB with what rustls keeps on the heap.
pub(super) struct Tls12 {
    connection: Box<UnbufferedServerConnection>,
    /// What arrived and is no whole record yet.
    gathered: Vec<u8>,
    /// Alerts that wait.
    outgoing: Vec<u8>,
    peer_closed: bool,
    close_sent: bool,
}

impl Tls12 {
    /// Goes on with what the handshake left.
    pub(super) fn new(connection: Box<UnbufferedServerConnection>) -> Self {
        Self { connection, gathered: Vec::new(), outgoing: Vec::new(), peer_closed: false, close_sent: false }
    }

    pub(super) fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Alerts that wait.
    pub(super) fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Takes what arrived and appends what it says to `plaintext`.
    pub(super) fn open(&mut self, received: &[u8], plaintext: &mut Vec<u8>) -> Result<(), RecordError> {
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.extend_from_slice(received);
        let consumed = self.advance(&mut gathered, plaintext)?;
        if consumed < gathered.len() {
            gathered.drain(..consumed);
            self.gathered = gathered;
        }
        if self.gathered.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        Ok(())
    }

    /// Appends records to `out`, at most `capacity` bytes of them, with the plaintext that `fill` has.
    pub(super) fn seal_from(
        &mut self,
        out: &mut Vec<u8>,
        capacity: usize,
        mut fill: impl FnMut(&mut Vec<u8>, usize),
    ) -> Result<(), RecordError> {
        let records = capacity.div_ceil(PLAINTEXT_BYTES_MAX + SEAL_OVERHEAD_BYTES);
        let mut plaintext = Vec::new();
        fill(&mut plaintext, capacity.saturating_sub(records * SEAL_OVERHEAD_BYTES));
        if plaintext.is_empty() {
            return Ok(());
        }
        // The kept bytes go along: rustls remembers how far it has looked into them.
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.gathered);
        match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let room = plaintext.len() + records * SEAL_OVERHEAD_BYTES;
                append_sized(out, room, |space| match traffic.encrypt(&plaintext, space) {
                    Ok(len) => Ok(len),
                    Err(EncryptError::InsufficientSize(size)) => Err(Some(size.required_size)),
                    Err(EncryptError::EncryptExhausted) => Err(None),
                })
                .map_err(|()| RecordError::KeysUsedUp)
            }
            Ok(_) => Err(RecordError::Over),
            Err(error) => Err(RecordError::Tls12(error)),
        }
    }

    /// Queues the alert that we send nothing more. Called any number of times, it says so once.
    pub(super) fn close(&mut self) {
        if self.close_sent {
            return;
        }
        self.close_sent = true;
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.gathered);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            // A peer that is gone, or keys that are used up, make no difference: the socket closes.
            let _ = append_sized(&mut self.outgoing, SEAL_OVERHEAD_BYTES, |space| {
                traffic.queue_close_notify(space).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => Some(size.required_size),
                    EncryptError::EncryptExhausted => None,
                })
            });
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
                        let record = record.map_err(RecordError::Tls12)?;
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
                Ok(_) => true,
                Err(error) => {
                    consumed += discard;
                    self.collect_alert(&mut incoming[consumed..]);
                    return Err(RecordError::Tls12(error));
                }
            };
            // Only now: the state borrowed the bytes that go.
            consumed += discard;
            if waits {
                return Ok(consumed);
            }
        }
    }

    /// After an error, rustls still has the alert to give that tells the peer. `left` is what it had not
    /// consumed: it remembers how far it has looked into it. It is asked once: it would read what failed
    /// once more, and panic at a second alert.
    fn collect_alert(&mut self, left: &mut [u8]) {
        self.close_sent = true;
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(left);
        if let Ok(ConnectionState::EncodeTlsData(message)) = state {
            append_message(&mut self.outgoing, message);
        }
    }
}

/// Appends an alert that rustls has ready.
fn append_message(out: &mut Vec<u8>, mut message: EncodeTlsData<'_, ServerConnectionData>) {
    // It fails by our mistake only: the second try has the size that the first asked for.
    let _ = append_sized(out, SEAL_OVERHEAD_BYTES, |space| {
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
