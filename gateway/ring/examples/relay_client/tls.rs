//! TLS 1.3 of the client: rustls shakes hands, then its keys are used here, on whole windows at a time.
//!
//! What is received is counted by its record headers, and only the first record of a connection is opened: the
//! client's work must not be what the server waits for.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConnectionTrafficSecrets, DigitallySignedStruct, SignatureScheme};

const HEADER_BYTES: usize = 5;
/// The content type and the tag.
const OVERHEAD_BYTES: usize = 17;
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The record layer of one connection.
pub(crate) struct Records {
    sealing: (u64, LessSafeKey, [u8; 12]),
    /// For the first record alone.
    opening: Option<(u64, LessSafeKey, [u8; 12])>,
    header: Vec<u8>,
    /// Bytes of the present record that have not come.
    missing: usize,
}

/// A configuration that takes any certificate, and AES-128-GCM alone.
pub(crate) fn config() -> Arc<ClientConfig> {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![provider::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// Shakes hands, sends the request, reads the answer, and takes over.
pub(crate) fn upgrade(
    config: &Arc<ClientConfig>,
    socket: &mut TcpStream,
    request: &[u8],
    read_head: impl Fn(&mut dyn std::io::Read),
) -> Records {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = rustls::ClientConnection::new(Arc::clone(config), name).expect("a client");
    let mut stream = rustls::Stream::new(&mut connection, socket);
    stream.write_all(request).expect("the server reads");
    read_head(&mut stream);
    let secrets = connection.dangerous_extract_secrets().expect("the secrets of a client");
    let keys = |(seq, secrets): (u64, ConnectionTrafficSecrets)| match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
            let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).expect("a key of its length");
            (seq, LessSafeKey::new(key), iv.as_ref().try_into().expect("twelve bytes"))
        }
        _ => panic!("only AES-128-GCM was offered"),
    };
    let (sealing, opening) = (keys(secrets.tx), keys(secrets.rx));
    Records { sealing, opening: Some(opening), header: Vec::new(), missing: 0 }
}

impl Records {
    /// Replaces what is in `out` by records with this plaintext.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let (seq, key, iv) = &mut self.sealing;
        for part in plaintext.chunks(RECORD_BYTES_MAX) {
            let [high, low] = ((part.len() + OVERHEAD_BYTES) as u16).to_be_bytes();
            let header = [23, 3, 3, high, low];
            let start = out.len() + HEADER_BYTES;
            out.extend(header);
            out.extend_from_slice(part);
            out.push(23);
            let tag = key.seal_in_place_separate_tag(nonce(iv, *seq), Aad::from(header), &mut out[start..]);
            out.extend_from_slice(tag.expect("a short record").as_ref());
            *seq += 1;
        }
    }

    /// Bytes of plaintext in the records that end in `bytes`.
    pub(crate) fn plaintext_in(&mut self, mut bytes: &mut [u8]) -> usize {
        let mut count = 0;
        while !bytes.is_empty() {
            if self.missing == 0 {
                let wanted = (HEADER_BYTES - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..wanted]);
                bytes = &mut bytes[wanted..];
                if self.header.len() < HEADER_BYTES {
                    break;
                }
                assert_eq!(self.header[0], 23, "an application record");
                self.missing = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                if self.missing <= bytes.len() {
                    self.check_first(bytes);
                }
                count += self.missing - OVERHEAD_BYTES;
            }
            let here = self.missing.min(bytes.len());
            self.missing -= here;
            bytes = &mut bytes[here..];
            if self.missing == 0 {
                self.header.clear();
            }
        }
        count
    }

    fn check_first(&mut self, bytes: &mut [u8]) {
        let Some((seq, key, iv)) = self.opening.take() else { return };
        let record = &mut bytes[..self.missing];
        let opened = key.open_in_place(nonce(&iv, seq), Aad::from(&self.header[..]), record);
        assert!(opened.expect("the server's record").starts_with(&[0x81, 126]), "a frame begins a record");
    }
}

fn nonce(iv: &[u8; 12], seq: u64) -> Nonce {
    let mut nonce = *iv;
    for (byte, seq) in nonce[4..].iter_mut().zip(seq.to_be_bytes()) {
        *byte ^= seq;
    }
    Nonce::assume_unique_for_key(nonce)
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
