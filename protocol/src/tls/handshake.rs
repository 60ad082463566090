//! A handshake by rustls, for either end, that ends in a [`RecordLayer`] of ours.
//!
//! ```text
//!   accept / connect ─▶ handle_received, take_outgoing, … ─▶ is_done ─▶ finish ─┬─▶ RecordLayer (TLS 1.3)
//!                                                                               └─▶ rustls's (TLS 1.2)
//! ```
//! rustls is shown one record more at a time, so that it never takes one that lies behind the peer's
//! `Finished`: [`Handshake::handle_received`] says how much it took, and the rest is the record layer's.
//! What rustls has to say (a server's tickets among it) is collected before the sequence numbers are read.

use std::ops::Deref;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    ClientConfig, CommonState, ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion, ServerConfig,
};
use rustls_pki_types::ServerName;

use super::Role;
use super::limits::{HEADER_BYTES, PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX};
use super::record_layer::{Direction, RecordLayer};
use super::secret_log::{CaughtSecrets, Secret, catching};
use super::suite::Suite;
use super::traffic_keys::TrafficKeys;

/// Received bytes that do not yet make a record or a handshake message, at most: 64 KiB is the longest
/// handshake message that rustls takes, and one record may be begun behind it.
pub const GATHERED_BYTES_MAX: usize = 64 * 1024 + PLAINTEXT_BYTES_MAX + 512;

/// The same for a server: what a client says in its handshake, a hello with its tickets above all, fits in one
/// record by far, and who says it is a stranger.
pub const HELLO_GATHERED_BYTES_MAX: usize = RECORD_BYTES_MAX;

/// Types of TLS records (RFC 8446 section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// Why a handshake fails. An alert, where one is due, waits in what is outgoing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer broke the protocol, or has nothing in common with us.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The peer said that it sends nothing more.
    #[error("the peer closed in the middle of the handshake")]
    PeerClosed,
    /// Longer than rustls takes, or a server a stranger's.
    #[error("more than {0} bytes arrived without a whole handshake message")]
    TooLong(usize),
    /// The configuration does not show its secrets.
    #[error(
        "the TLS configuration shows no secrets: make it with tls::with_server_secrets or with_client_secrets"
    )]
    SecretsHidden,
    /// The secrets that were caught do not give the keys that are in use.
    #[error("the handshake's secrets do not belong to its keys")]
    SecretsDiffer,
    /// A suite that the record layer does not have.
    #[error("no record layer for the suite {0:?}")]
    Suite(Option<rustls::CipherSuite>),
    /// The peer's `Finished` must end its record.
    #[error("more in a record behind the end of the handshake")]
    Unaligned,
    /// It is not done.
    #[error("the handshake is not done")]
    Unfinished,
}

/// One end of a handshake, as rustls has it.
pub trait Endpoint: Deref<Target: Deref<Target = CommonState>> + Sized + private::Sealed {
    /// rustls's name for it.
    type Data;
    /// Its name here.
    const ROLE: Role;
    /// Bytes that may be gathered.
    const GATHERED_BYTES_MAX: usize;

    /// rustls's step.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Keys, IVs and sequence numbers; rustls's state is gone then.
    ///
    /// # Errors
    /// In the middle of a handshake, or if the configuration does not allow it.
    fn extract(self) -> Result<ExtractedSecrets, rustls::Error>;
}

mod private {
    pub trait Sealed {}
    impl Sealed for rustls::server::UnbufferedServerConnection {}
    impl Sealed for rustls::client::UnbufferedClientConnection {}
}

impl Endpoint for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const ROLE: Role = Role::Server;
    const GATHERED_BYTES_MAX: usize = HELLO_GATHERED_BYTES_MAX;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn extract(self) -> Result<ExtractedSecrets, rustls::Error> {
        Ok(self.dangerous_into_kernel_connection()?.0)
    }
}

impl Endpoint for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const ROLE: Role = Role::Client;
    const GATHERED_BYTES_MAX: usize = GATHERED_BYTES_MAX;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn extract(self) -> Result<ExtractedSecrets, rustls::Error> {
        Ok(self.dangerous_into_kernel_connection()?.0)
    }
}

/// A server's handshake.
pub type ServerHandshake = Handshake<UnbufferedServerConnection>;

/// A client's handshake.
pub type ClientHandshake = Handshake<UnbufferedClientConnection>;

/// What came of a handshake.
#[expect(
    clippy::large_enum_variant,
    reason = "who gets it puts it where it stays: a box here would be a second one"
)]
pub enum Established<E> {
    /// TLS 1.3.
    Compact(RecordLayer),
    /// TLS 1.2: rustls goes on.
    Tls12(Box<E>),
}

/// A handshake under way: about 1.2 KB and what rustls keeps on the heap. Box it.
pub struct Handshake<E> {
    connection: E,
    secrets: Option<Box<CaughtSecrets>>,
    /// What arrived and rustls has not let go of.
    gathered: Vec<u8>,
    /// Where in `gathered` the first record begins that rustls was not shown whole.
    shown: usize,
    outgoing: Vec<u8>,
    is_done: bool,
}

impl ServerHandshake {
    /// The server's end of a new connection. `config` comes from
    /// [`with_server_secrets`](super::with_server_secrets).
    ///
    /// # Errors
    /// [`HandshakeError::SecretsHidden`] for another one; rustls's own.
    pub fn accept(config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::SecretsHidden);
        }
        UnbufferedServerConnection::new(config).map(Self::new).map_err(HandshakeError::Tls)
    }
}

impl ClientHandshake {
    /// The client's end of a new connection; its hello is outgoing at once. `config` comes from
    /// [`with_client_secrets`](super::with_client_secrets).
    ///
    /// # Errors
    /// [`HandshakeError::SecretsHidden`] for another one; rustls's own.
    pub fn connect(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::SecretsHidden);
        }
        let connection = UnbufferedClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
        let mut handshake = Self::new(connection);
        handshake.advance()?;
        Ok(handshake)
    }
}

impl<E: Endpoint> Handshake<E> {
    fn new(connection: E) -> Self {
        Self {
            connection,
            secrets: None,
            gathered: Vec::new(),
            shown: 0,
            outgoing: Vec::new(),
            is_done: false,
        }
    }

    /// Whether the handshake is done: then it is time to [`finish`](Self::finish), and what waits to be
    /// sent is still to be sent first.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes what arrived, up to the end of the handshake, and answers how much that was. The rest is what
    /// the peer says behind its handshake.
    ///
    /// # Errors
    /// [`HandshakeError`]: send what is outgoing and close.
    pub fn handle_received(&mut self, received: &[u8]) -> Result<usize, HandshakeError> {
        let mut used = 0;
        while used < received.len() && !self.is_done {
            let left = &received[used..];
            let room = E::GATHERED_BYTES_MAX.saturating_sub(self.gathered.len());
            if room == 0 {
                return Err(HandshakeError::TooLong(E::GATHERED_BYTES_MAX));
            }
            let taken = self.missing().min(left.len()).min(room);
            if self.gathered.capacity() - self.gathered.len() < taken {
                // It doubles as vectors do, but not past its bound.
                self.gathered.reserve_exact(taken.max(self.gathered.len()).min(room));
            }
            self.gathered.extend_from_slice(&left[..taken]);
            used += taken;
            self.advance()?;
        }
        Ok(used)
    }

    /// Bytes on the heap for what has arrived and is not whole.
    pub fn gathered_bytes(&self) -> usize {
        self.gathered.capacity()
    }

    /// Whether something waits to be sent.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// All that waits to be sent.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// What comes of it, once it [`is_done`](Self::is_done). What was outgoing before is sent before
    /// anything that the result seals: take it first.
    ///
    /// # Errors
    /// [`HandshakeError`]: our own mistake, mostly. Close.
    pub fn finish(self) -> Result<Established<E>, HandshakeError> {
        if !self.is_done {
            return Err(HandshakeError::Unfinished);
        }
        if !self.gathered.is_empty() {
            return Err(HandshakeError::Unaligned);
        }
        assert!(self.outgoing.is_empty(), "what is outgoing is taken first");
        if self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Ok(Established::Tls12(Box::new(self.connection)));
        }
        let number = self.connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let suite = number.and_then(|number| Suite::from_number(number.into()));
        let suite = suite.ok_or(HandshakeError::Suite(number))?;
        let caught = self.secrets.as_deref().ok_or(HandshakeError::SecretsHidden)?;
        let [client, server] = [&caught.client, &caught.server].map(Secret::as_slice);
        let (Some(client), Some(server)) = (client, server) else {
            return Err(HandshakeError::SecretsHidden);
        };
        let (transmit, receive) = match E::ROLE {
            Role::Server => (server, client),
            Role::Client => (client, server),
        };
        let extracted = self.connection.extract().map_err(HandshakeError::Tls)?;
        let layer = RecordLayer::new(
            E::ROLE,
            suite,
            Direction { secret: transmit, sequence: extracted.tx.0 },
            Direction { secret: receive, sequence: extracted.rx.0 },
        )
        .map_err(|_| HandshakeError::SecretsDiffer)?;
        let same = gives(&layer.transmit, &extracted.tx.1) && gives(&layer.receive, &extracted.rx.1);
        if same { Ok(Established::Compact(layer)) } else { Err(HandshakeError::SecretsDiffer) }
    }

    /// Bytes that the record at [`shown`](Self::shown) still needs.
    fn missing(&self) -> usize {
        let record = &self.gathered[self.shown..];
        match record.first_chunk::<HEADER_BYTES>() {
            None => HEADER_BYTES - record.len(),
            // At least one, so that a record of no byte is got over.
            Some(&[.., high, low]) => {
                let len = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
                len.saturating_sub(record.len()).max(1)
            }
        }
    }

    /// Shows rustls what is gathered, and collects what it says until it waits for more.
    fn advance(&mut self) -> Result<(), HandshakeError> {
        loop {
            let step = catching(&mut self.secrets, || {
                let UnbufferedStatus { discard, state } = self.connection.process(&mut self.gathered);
                let step = match state {
                    Ok(ConnectionState::EncodeTlsData(message)) => {
                        append_message(&mut self.outgoing, message);
                        Step::Again
                    }
                    Ok(ConnectionState::TransmitTlsData(transmit)) => {
                        transmit.done();
                        Step::Again
                    }
                    Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::PeerClosed,
                    Ok(ConnectionState::WriteTraffic(_)) => Step::Done,
                    Ok(_) => Step::Wait,
                    Err(error) => Step::Failed(error),
                };
                (step, discard)
            });
            let (step, discard) = step;
            self.gathered.drain(..discard);
            self.shown = self.shown.saturating_sub(discard);
            match step {
                Step::Again => {}
                Step::Wait => break,
                Step::Done => {
                    self.is_done = !self.connection.is_handshaking();
                    break;
                }
                Step::PeerClosed => return Err(HandshakeError::PeerClosed),
                Step::Failed(error) => {
                    self.collect_alert();
                    return Err(HandshakeError::Tls(error));
                }
            }
        }
        self.skip_shown();
        Ok(())
    }

    /// Moves [`shown`](Self::shown) over the record that is whole by now.
    fn skip_shown(&mut self) {
        if let Some((header, rest)) = self.gathered[self.shown..].split_first_chunk::<HEADER_BYTES>() {
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if rest.len() >= len {
                self.shown += HEADER_BYTES + len;
            }
        }
    }

    /// After an error, rustls still has the alert to give that tells the peer, behind what it had said
    /// before (a ServerHello, where the extensions after it cannot be agreed on). Behind the alert it is
    /// not asked again: it would read what failed once more, and panic at a second alert.
    fn collect_alert(&mut self) {
        loop {
            let UnbufferedStatus { state, .. } = self.connection.process(&mut self.gathered);
            let Ok(ConnectionState::EncodeTlsData(message)) = state else { return };
            let start = self.outgoing.len();
            append_message(&mut self.outgoing, message);
            // What may wait before it are a ServerHello and its ChangeCipherSpec, which are in the clear.
            if !matches!(self.outgoing.get(start), Some(&(HANDSHAKE | CHANGE_CIPHER_SPEC))) {
                return;
            }
        }
    }
}

enum Step {
    Again,
    Wait,
    Done,
    PeerClosed,
    Failed(rustls::Error),
}

/// Whether keys of ours are those that rustls has.
fn gives(keys: &TrafficKeys, extracted: &ConnectionTrafficSecrets) -> bool {
    let (of, key, iv) = match extracted {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128GcmSha256, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256GcmSha384, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20Poly1305Sha256, key, iv),
        _ => return false,
    };
    of == keys.suite() && keys.key() == key.as_ref() && keys.iv() == iv.as_ref()
}

/// Appends a handshake message or an alert that rustls has ready.
fn append_message<Data>(out: &mut Vec<u8>, mut message: EncodeTlsData<'_, Data>) {
    let start = out.len();
    let mut room = 1024;
    for _ in 0..2 {
        out.resize(start + room, 0);
        match message.encode(&mut out[start..]) {
            Ok(written) => return out.truncate(start + written),
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(EncodeError::AlreadyEncoded) => break,
        }
    }
    // By our mistake only: the second try has the size that the first asked for.
    out.truncate(start);
}
