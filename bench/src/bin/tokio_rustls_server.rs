//! The baseline of the handshake table: a WebSocket echo on tokio-rustls, as one would write it: one thread, a task
//! a connection, the upgrade read by the same code as the gateway's.
//!
//! Its TLS is what `rustls::ServerConfig` is by default but for the tickets, of which it sends one that is sealed, as
//! the gateway does: stored sessions would cost it a lock and a map that the gateway does not have.
//!
//! `tokio_rustls_server PORT`
#![forbid(unsafe_code)]

use std::sync::Arc;

use ringway_protocol::websocket::upgrade::{HeadScanner, RequestHead, UpgradeRequest};
use ringway_protocol::websocket::{Event, FrameReader, Opcode, Role, append_frame};
use rustls::crypto::aws_lc_rs as provider;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let acceptor = TlsAcceptor::from(Arc::new(config()));
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        // What goes wrong with one connection is no news here.
        tokio::spawn(async move {
            let _ = serve(acceptor, socket).await;
        });
    }
}

/// With a certificate of its own on P-256, as the gateway's development certificate.
fn config() -> rustls::ServerConfig {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("a key that fits");
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = provider::Ticketer::new().expect("randomness");
    config.send_tls13_tickets = 1;
    config
}

async fn serve(acceptor: TlsAcceptor, socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = acceptor.accept(socket).await?;
    let (mut head, mut scanner) = (Vec::with_capacity(1_024), HeadScanner::default());
    let refused = |_| std::io::Error::from(std::io::ErrorKind::InvalidData);
    let end = loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if let Some(end) = scanner.find_end(&head).map_err(refused)? {
            break end;
        }
    };
    let request = RequestHead::parse(&head[..end]).map_err(refused)?;
    let response = UpgradeRequest::check(&request).map_err(refused)?.accept_response(None);
    stream.write_all(&response).await?;
    let mut reader = FrameReader::new(Role::Server, MESSAGE_BYTES_MAX);
    let (mut received, mut answers) = (head.split_off(end), Vec::new());
    loop {
        let mut rest = &mut received[..];
        while let Ok(Some(event)) = reader.next(&mut rest) {
            match event {
                Event::Text(text) => append_frame(&mut answers, Opcode::Text, text.as_bytes()),
                Event::Binary(bytes) => append_frame(&mut answers, Opcode::Binary, bytes),
                Event::Ping(payload) => append_frame(&mut answers, Opcode::Pong, payload),
                Event::Pong(_) => {}
                Event::Close { .. } => return stream.shutdown().await,
            }
        }
        stream.write_all(&answers).await?;
        answers.clear();
        received.clear();
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}
