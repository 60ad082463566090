//! The client of the handshake table: connects, shakes hands in full (TLS 1.3, X25519, no resumption), upgrades to
//! a WebSocket, and closes; 64 at a time; and says what processor time the server took for each.
//!
//! What it leaves out: resumed handshakes, and what the client's side costs.
//!
//! `handshake_client PORT SERVER_PID PATH COUNT`
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connections under way.
const TOGETHER: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, pid, path, count] = &arguments[..] else {
        panic!("handshake_client PORT SERVER_PID PATH COUNT");
    };
    let (port, count) = (port.parse::<u16>().expect("a port"), count.parse::<u32>().expect("a number"));
    let connector = TlsConnector::from(config());
    let request: Arc<str> = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into();
    many(&connector, &request, port, count / 10).await;
    let (began, before) = (Instant::now(), processor_milliseconds(pid));
    many(&connector, &request, port, count).await;
    let seconds = began.elapsed().as_secs_f64();
    let [user, system] = [0, 1].map(|kind| (processor_milliseconds(pid)[kind] - before[kind]) as f64);
    println!(
        "{{\"us_a_connection\":{:.2},\"user_us_a_connection\":{:.2},\"connections_a_second\":{:.0},\"utilisation\":{:.3}}}",
        (user + system) * 1_000.0 / f64::from(count),
        user * 1_000.0 / f64::from(count),
        f64::from(count) / seconds,
        (user + system) / 1_000.0 / seconds,
    );
}

async fn many(connector: &TlsConnector, request: &Arc<str>, port: u16, count: u32) {
    let left = Rc::new(Cell::new(count));
    let tasks = tokio::task::LocalSet::new();
    for _ in 0..TOGETHER {
        let (left, connector, request) = (Rc::clone(&left), connector.clone(), Arc::clone(request));
        tasks.spawn_local(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                one(&connector, &request, port).await.expect("the server takes a connection");
            }
        });
    }
    tasks.await;
}

async fn one(connector: &TlsConnector, request: &str, port: u16) -> std::io::Result<()> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    Ok(())
}

/// User and system time of a process.
fn processor_milliseconds(pid: &str) -> [u64; 2] {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let field = |index: usize| fields.split_whitespace().nth(index).expect("a field").parse().unwrap_or(0u64);
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    [field(11) * 10, field(12) * 10]
}

/// A configuration that takes any certificate.
fn config() -> Arc<ClientConfig> {
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
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
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
