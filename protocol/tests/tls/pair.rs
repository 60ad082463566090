//! Our end and rustls's, in memory, after a real handshake in which bytes came in pieces.

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use ringway_protocol::tls::{
    ClientHandshake, Endpoint, Established, Handshake, RecordError, RecordLayer, Role, ServerHandshake,
    Suite, with_client_secrets, with_server_secrets,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

pub(crate) const SUITES: [Suite; 3] =
    [Suite::Aes128GcmSha256, Suite::Aes256GcmSha384, Suite::Chacha20Poly1305Sha256];

/// Our end, and rustls's.
pub(crate) struct Pair {
    pub(crate) ours: RecordLayer,
    pub(crate) theirs: Connection,
}

fn provider(suite: Suite) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|candidate| u16::from(candidate.suite()) == suite.number());
    assert_eq!(provider.cipher_suites.len(), 1);
    Arc::new(provider)
}

fn certificate() -> &'static (CertificateDer<'static>, Vec<u8>) {
    static MADE: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.der().clone(), made.signing_key.serialize_der())
    })
}

pub(crate) fn server_config(suite: Suite, tickets: usize) -> ServerConfig {
    let (certificate, key) = certificate();
    let key = PrivateKeyDer::try_from(key.clone()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.send_tls13_tickets = tickets;
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    config
}

pub(crate) fn client_config(suite: Suite) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0.clone()).unwrap();
    ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

impl Pair {
    /// A connection in which we have this role.
    pub(crate) fn new(role: Role, suite: Suite) -> Self {
        Self::with_pieces(role, suite, 1, usize::MAX, b"")
    }

    /// The same; the server sends so many tickets, what comes to us comes in pieces of this length, and
    /// the peer says `early` behind its end of the handshake at once.
    pub(crate) fn with_pieces(role: Role, suite: Suite, tickets: usize, piece: usize, early: &[u8]) -> Self {
        let (mut pair, said) = match role {
            Role::Server => {
                let theirs = ClientConnection::new(Arc::new(client_config(suite)), name()).unwrap();
                let ours =
                    ServerHandshake::accept(with_server_secrets(server_config(suite, tickets))).unwrap();
                shake_hands(ours, theirs.into(), piece, early)
            }
            Role::Client => {
                let theirs = ServerConnection::new(Arc::new(server_config(suite, tickets))).unwrap();
                let ours =
                    ClientHandshake::connect(with_client_secrets(client_config(suite)), name()).unwrap();
                shake_hands(ours, theirs.into(), piece, early)
            }
        };
        let mut all = said;
        // A server says it only when our Finished has come.
        all.extend(pair.receive(piece).unwrap());
        assert_eq!(all, early);
        assert_eq!(pair.ours.suite(), suite);
        pair
    }

    /// What rustls has to send comes to us in pieces; answers what it said.
    pub(crate) fn receive(&mut self, piece: usize) -> Result<Vec<u8>, RecordError> {
        let sent = written(&mut self.theirs);
        let mut said = Vec::new();
        for arrival in sent.chunks(piece.clamp(1, sent.len().max(1))) {
            said.extend(open_all(&mut self.ours, arrival)?);
        }
        Ok(said)
    }

    /// What we have to send beside data.
    pub(crate) fn outgoing(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.ours.take_outgoing(&mut out, 64).unwrap();
        out
    }

    /// Data of ours, sealed.
    pub(crate) fn sealed(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.ours.seal(data, &mut out).unwrap();
        out
    }

    /// Data of ours on its way to rustls; answers what that understood.
    pub(crate) fn send(&mut self, data: &[u8]) -> Vec<u8> {
        let sealed = self.sealed(data);
        read(&mut self.theirs, &sealed).unwrap()
    }
}

/// Opens one reception.
pub(crate) fn open_all(layer: &mut RecordLayer, received: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut received = received.to_vec();
    let opened = layer.open(&mut received);
    let mut said = opened.gathered;
    said.extend_from_slice(&received[opened.in_place]);
    opened.outcome.map(|()| said)
}

/// What rustls has to send.
pub(crate) fn written(theirs: &mut Connection) -> Vec<u8> {
    let mut sent = Vec::new();
    while theirs.wants_write() {
        theirs.write_tls(&mut sent).unwrap();
    }
    sent
}

/// Gives rustls what was sent; answers what it understood.
pub(crate) fn read(theirs: &mut Connection, mut sent: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut said = Vec::new();
    while !sent.is_empty() {
        theirs.read_tls(&mut sent).unwrap();
        theirs.process_new_packets()?;
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = theirs.reader().read(&mut buffer) {
            said.extend_from_slice(&buffer[..count]);
        }
    }
    Ok(said)
}

/// Goes on until we are done; then whatever came behind the handshake goes to the record layer.
fn shake_hands<E: Endpoint>(
    mut ours: Handshake<E>,
    mut theirs: Connection,
    piece: usize,
    early: &[u8],
) -> (Pair, Vec<u8>) {
    theirs.writer().write_all(early).unwrap();
    for _ in 0..20 {
        read(&mut theirs, &ours.take_outgoing()).unwrap();
        let sent = written(&mut theirs);
        let mut used = 0;
        while used < sent.len() && !ours.is_done() {
            let end = used.saturating_add(piece).min(sent.len());
            used += ours.handle_received(&sent[used..end]).unwrap();
        }
        if ours.is_done() {
            read(&mut theirs, &ours.take_outgoing()).unwrap();
            let Ok(Established::Compact(mut layer)) = ours.finish() else { panic!("TLS 1.3 was agreed on") };
            let said = open_all(&mut layer, &sent[used..]).unwrap();
            return (Pair { ours: layer, theirs }, said);
        }
    }
    panic!("the handshake goes on and on");
}
