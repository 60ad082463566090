//! What TLS adds to an idle connection, counted twice: by the Rust allocator, and by malloc, which also
//! serves the C heap of aws-lc. Alone in its process, so that nothing else grows meanwhile.
#![allow(dead_code, unreachable_pub, reason = "the helpers of another test binary")]

use std::io::{Read, Write};
use std::sync::Arc;

#[path = "support/counting.rs"]
mod counting;
#[path = "connection/pair.rs"]
mod pair;

use counting::LIVE;
use pair::{Gateway, Setup, Socket, client_frame, upgrade_request};
use ringway_gateway::connection::{Connection, Transport};
use ringway_gateway::limits::IdleConnection;
use ringway_gateway::tls::{HANDSHAKE_BYTES_MAX, TlsOptions, server_config};
use ringway_protocol::client::{ClientFrame, Encoding, Hello};
use ringway_protocol::user::DeviceId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Bytes in use of malloc's heap, Rust's and C's.
fn malloc_bytes() -> isize {
    // SAFETY: it takes nothing and answers a plain struct.
    unsafe { libc::mallinfo2() }.uordblks as isize
}

/// The record layer's one allocation, with malloc's own header, and the 16 bytes by which malloc makes a block larger
/// when what is left of a free one would be too small to be one. An AEAD kept on the heap of C would be some 600.
const TLS_BYTES_MAX: isize = 256 + 16 + 16;

const COUNT: usize = 100;
const DEVICE: &str = "0123456789abcdef0123456789abcdef";

/// One test, since malloc counts for the whole process.
#[test]
fn what_tls_takes_is_what_the_limits_say() {
    tls_adds_one_small_allocation_to_an_idle_session_and_nothing_on_the_heap_of_c();
    a_handshake_takes_no_more_than_the_limits_say();
}

fn tls_adds_one_small_allocation_to_an_idle_session_and_nothing_on_the_heap_of_c() {
    let (mut gateway, client) = gateway_and_client(TlsOptions::default());
    let plain = grown_by(&mut gateway, |gateway, index| {
        let mut socket = gateway.login(&name(index), DEVICE);
        socket.received = Vec::new();
        socket
    });
    let tls = grown_by(&mut gateway, |gateway, index| open_over_tls(gateway, &client, index));
    println!("inline {}; plain {plain:?}, TLS {tls:?} (Rust, malloc)", size_of::<Connection>());
    let idle = IdleConnection::new(name(0).len(), DEVICE.len());
    assert_eq!((tls.0 - plain.0) as usize, idle.over_tls().on_heap() - idle.on_heap(), "bytes of Rust");
    assert_eq!(plain.0 as usize, idle.on_heap(), "{idle:?}");
    assert!((tls.1 - plain.1) <= TLS_BYTES_MAX, "{} bytes of malloc", tls.1 - plain.1);
}

fn a_handshake_takes_no_more_than_the_limits_say() {
    for hybrid in [false, true] {
        let (mut gateway, client) = gateway_and_client(TlsOptions { hybrid, ..TlsOptions::default() });
        // A client that says hello and reads nothing, before and after our answer is on its way.
        for sends in [false, true] {
            let grown = grown_by(&mut gateway, |gateway, _| {
                let server = ServerName::try_from("localhost").unwrap();
                let mut client = ClientConnection::new(Arc::clone(&client), server).unwrap();
                let mut hello = Vec::new();
                client.write_tls(&mut hello).unwrap();
                let mut socket = gateway.accept(Transport::Tls);
                socket.send_bytes(gateway, &hello);
                assert!(socket.connection.has_output());
                if sends {
                    let mut down = Vec::new();
                    let now = gateway.now;
                    socket.connection.poll_transmit(&mut gateway.context, now, &mut down, 20 * 1024);
                    assert!(!socket.connection.has_output());
                }
                socket.received = Vec::new();
                socket
            });
            println!("in its handshake, hybrid {hybrid}, answered {sends}: {grown:?} (Rust, malloc)");
            assert!(grown.1 as usize <= HANDSHAKE_BYTES_MAX, "{} bytes of malloc", grown.1);
        }
    }
}

fn gateway_and_client(options: TlsOptions) -> (Gateway, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.pem();
    let key = made.signing_key.serialize_pem();
    let tls = server_config(certificate.as_bytes(), key.as_bytes(), options).unwrap();
    let gateway = Setup { tls: Some(tls), ..Setup::default() }.start();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (gateway, Arc::new(client))
}

fn name(index: usize) -> String {
    format!("user-of-usual-length-{index:04}")
}

/// What one of these sockets keeps, in the Rust allocator's bytes and in malloc's.
fn grown_by(gateway: &mut Gateway, open: impl Fn(&mut Gateway, usize) -> Socket) -> (isize, isize) {
    // First uses of everything.
    let first: Vec<Socket> = (0..COUNT).map(|index| open(gateway, index)).collect();
    gateway.script.take();
    let mut sockets = Vec::with_capacity(COUNT);
    let before = (LIVE.get(), malloc_bytes());
    sockets.extend((0..COUNT).map(|index| open(gateway, COUNT + index)));
    drop(gateway.script.take());
    let after = (LIVE.get(), malloc_bytes());
    for mut socket in first.into_iter().chain(sockets) {
        socket.connection.release(&mut gateway.context);
    }
    gateway.script.take();
    ((after.0 - before.0) / COUNT as isize, (after.1 - before.1) / COUNT as isize)
}

/// The same session as the plain one's, by a client that is gone when it stands.
fn open_over_tls(gateway: &mut Gateway, config: &Arc<ClientConfig>, index: usize) -> Socket {
    let name_of_server = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name_of_server).unwrap();
    let mut socket = gateway.accept(Transport::Tls);
    let hello = Hello {
        token: Some(gateway.token(&name(index), 3600)),
        device: Some(DeviceId::new(DEVICE).unwrap()),
        ..Hello::default()
    };
    client.writer().write_all(&upgrade_request("/ws", "")).unwrap();
    let hello = client_frame(Encoding::Json, &ClientFrame::Hello(hello));
    client.writer().write_all(&hello).unwrap();
    let mut said = Vec::new();
    for _ in 0..10 {
        let mut up = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        if !up.is_empty() {
            socket.send_bytes(gateway, &up);
        }
        gateway.answer_probes(&mut socket);
        let mut down = Vec::new();
        while socket.connection.has_output() {
            socket.connection.poll_transmit(&mut gateway.context, gateway.now, &mut down, 20 * 1024);
        }
        let mut down = &down[..];
        while !down.is_empty() {
            client.read_tls(&mut down).unwrap();
            let state = client.process_new_packets().unwrap();
            let start = said.len();
            said.resize(start + state.plaintext_bytes_to_read(), 0);
            client.reader().read_exact(&mut said[start..]).unwrap();
        }
    }
    assert!(said.windows(7).any(|word| word == b"welcome"), "{}", String::from_utf8_lossy(&said));
    socket
}
