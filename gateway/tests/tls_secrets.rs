//! No block that holds a secret is given back with it: the allocator looks at each block of those sizes that the
//! gateway frees, through a handshake, a move to another core and the end. Alone in its process.
//!
//! Others are not looked at. rustls moves its keys from the block of one state of the handshake to that of the next
//! and does not wipe the first, and what a value that moves leaves on the stack may come into the padding of
//! another.
#![allow(dead_code, unreachable_pub, reason = "the helpers of another test binary")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;

#[path = "connection/pair.rs"]
mod pair;

use pair::{Gateway, MASK, Setup, Socket, upgrade_request};
use ringway_gateway::connection::{Connection, Transport};
use ringway_gateway::context::ConnectionSettings;
use ringway_gateway::tls::{STATE_BYTES, TlsOptions, server_config};
use ringway_protocol::tls::{SECRET_BYTES_MAX, ServerHandshake};
use ringway_protocol::websocket::{Opcode, append_masked_frame};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, KeyLog, RootCertStore};

/// Bytes of a secret that are looked for: by chance nobody else has them.
const LOOKED_FOR_BYTES: usize = 16;

/// Blocks with secrets: a handshake, and the two secrets that it catches. The state of an open connection is a third,
/// and one that is frozen is longer.
const HANDSHAKE_BYTES: usize = size_of::<ServerHandshake>();
const CAUGHT_BYTES: usize = 2 * (SECRET_BYTES_MAX + size_of::<usize>());

thread_local! {
    /// The beginnings of the client's and the server's traffic secret; not on the heap.
    static SECRETS: Cell<[Option<[u8; LOOKED_FOR_BYTES]>; 2]> = const { Cell::new([None; 2]) };
    /// Only what the gateway frees is looked at.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
    /// Something is frozen meanwhile.
    static FROZEN: Cell<bool> = const { Cell::new(false) };
    /// Blocks that were freed with a secret in them, by size.
    static FOUND: Cell<[usize; 8]> = const { Cell::new([0; 8]) };
}

struct Looking;

// SAFETY: every call goes to the system's allocator with the same arguments; the looking allocates nothing.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that what is looked at was written by its owner.
        // SAFETY: the caller's promise on `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if LOOKING.try_with(Cell::get).unwrap_or(false) {
            // SAFETY: the block is its owner's until it is freed, was zeroed at first, and nobody else writes to it.
            let block = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
            let is_ours = matches!(layout.size(), HANDSHAKE_BYTES | STATE_BYTES | CAUGHT_BYTES);
            for secret in SECRETS.get().into_iter().flatten() {
                if (is_ours || FROZEN.get() && layout.size() > STATE_BYTES)
                    && block.windows(LOOKED_FOR_BYTES).any(|window| window == secret)
                {
                    let mut found = FOUND.get();
                    if let Some(place) = found.iter_mut().find(|size| **size == 0) {
                        *place = layout.size();
                    }
                    FOUND.set(found);
                }
            }
        }
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// Tells the allocator the secrets of the client's handshake.
#[derive(Debug)]
struct Tell;

impl KeyLog for Tell {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let place = match label {
            "CLIENT_TRAFFIC_SECRET_0" => 0,
            "SERVER_TRAFFIC_SECRET_0" => 1,
            _ => return,
        };
        let mut secrets = SECRETS.get();
        secrets[place] = secret.first_chunk().copied();
        SECRETS.set(secrets);
    }
}

/// What the gateway does is looked at.
fn looking<T>(call: impl FnOnce() -> T) -> T {
    LOOKING.set(true);
    let answer = call();
    LOOKING.set(false);
    answer
}

fn binary(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_masked_frame(&mut bytes, Opcode::Binary, payload, MASK);
    bytes
}

fn carry(gateway: &mut Gateway, socket: &mut Socket, client: &mut ClientConnection) {
    for _ in 0..10 {
        let mut up = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        // In pieces, so that records are gathered.
        for piece in up.chunks(50) {
            looking(|| socket.send_bytes(gateway, piece));
        }
        let mut down = Vec::new();
        let now = gateway.now;
        while socket.connection.has_output() {
            looking(|| socket.connection.poll_transmit(&mut gateway.context, now, &mut down, 20 * 1024));
        }
        let mut down = &down[..];
        while !down.is_empty() {
            client.read_tls(&mut down).unwrap();
            client.process_new_packets().unwrap();
        }
    }
}

#[test]
fn no_block_is_freed_with_a_secret_in_it() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.pem();
    let key = made.signing_key.serialize_pem();
    let tls = server_config(certificate.as_bytes(), key.as_bytes(), TlsOptions::default()).unwrap();
    let settings = ConnectionSettings { echo: true, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, tls: Some(tls), ..Setup::default() }.start();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.key_log = Arc::new(Tell);
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();

    let mut socket = gateway.accept(Transport::Tls);
    client.writer().write_all(&upgrade_request("/echo", "")).unwrap();
    carry(&mut gateway, &mut socket, &mut client);
    assert!(SECRETS.get().iter().all(Option::is_some));
    assert_eq!(FOUND.get(), [0; 8], "sizes of blocks, behind the handshake");

    client.writer().write_all(&binary(&[7; 300])).unwrap();
    carry(&mut gateway, &mut socket, &mut client);
    assert_eq!(FOUND.get(), [0; 8], "behind a message");

    FROZEN.set(true);
    looking(|| {
        let frozen = socket.connection.freeze(&mut gateway.context, gateway.now).unwrap();
        socket.connection = Connection::thaw(&mut gateway.context, gateway.now, &frozen).unwrap();
    });
    FROZEN.set(false);
    assert_eq!(FOUND.get(), [0; 8], "behind a move");

    // Held up to what it is for: a secret that is there is found.
    let mut planted = Vec::with_capacity(STATE_BYTES);
    planted.extend(SECRETS.get()[0].unwrap());
    looking(|| drop(planted));
    assert_eq!(FOUND.get()[0], STATE_BYTES);
    FOUND.set([0; 8]);

    looking(|| {
        socket.connection.release(&mut gateway.context);
        drop(socket);
    });
    assert_eq!(FOUND.get(), [0; 8], "behind its end");
}
