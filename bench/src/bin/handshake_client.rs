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

use ringway_bench::processor_time::processor_milliseconds;
use ringway_bench::tls_client;
use rustls::pki_types::ServerName;
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
    let pid = pid.parse().expect("a process id");
    let (port, count) = (port.parse::<u16>().expect("a port"), count.parse::<u32>().expect("a number"));
    let connector = TlsConnector::from(Arc::new(tls_client::config()));
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
