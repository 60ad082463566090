//! What the tests of the gateway share: a router that answers at once, and a client's WebSocket bytes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use ringway_gateway::context::{ConnectionSettings, Context, ContextParts};
use ringway_gateway::http_stream::{HttpDoor, HttpServer};
use ringway_gateway::metrics::CoreMetrics;
use ringway_protocol::ids::{ConversationId, MessageId, Seq, Timestamp};
use ringway_protocol::token::KeySet;
use ringway_protocol::trunk::{Operation, Outcome, ToEndpoint, ToRouter};
use ringway_trunk::{Endpoint, Workers};

/// The key of the tests' tokens.
pub(crate) const SECRET: &[u8] = b"a key of thirty-two bytes or more, for tests";

/// One worker that stores nothing and answers everything at once.
#[derive(Default)]
pub(crate) struct TestWorkers {
    endpoints: Mutex<Vec<Arc<dyn Endpoint>>>,
    queue: Mutex<Vec<ToRouter>>,
    seq: AtomicU64,
    pub(crate) attached: AtomicU64,
    pub(crate) detached: AtomicU64,
}

impl TestWorkers {
    /// Who is answered.
    pub(crate) fn set_endpoints(&self, endpoints: Vec<Arc<dyn Endpoint>>) {
        *self.endpoints.lock().unwrap() = endpoints;
    }

    fn handle(&self, message: ToRouter) {
        match message {
            ToRouter::Attach { .. } => {
                self.attached.fetch_add(1, Ordering::SeqCst);
            }
            ToRouter::Detach { .. } => {
                self.detached.fetch_add(1, Ordering::SeqCst);
            }
            ToRouter::Request { connection, request, operation, .. } => {
                let outcome = match operation {
                    Operation::Send { .. } => {
                        let seq = self.seq.fetch_add(1, Ordering::SeqCst) + 1;
                        Outcome::Sent {
                            conversation: ConversationId(77),
                            message: MessageId(1_000 + seq),
                            seq: Seq(seq),
                            server_ts: Timestamp(1),
                            duplicate: false,
                        }
                    }
                    Operation::Heads { .. } => Outcome::Heads { heads: Vec::new(), recovered: true },
                    _ => Outcome::Done,
                };
                let endpoints = self.endpoints.lock().unwrap();
                let endpoint = &endpoints[usize::from(connection.endpoint().0)];
                let reply = ToEndpoint::Reply { connection, request, outcome: Ok(outcome) };
                endpoint.push(reply).expect("the core takes the answer");
                endpoint.wake();
            }
        }
    }
}

impl Workers for TestWorkers {
    fn count(&self) -> usize {
        1
    }

    fn push(&self, _: usize, message: ToRouter) -> Result<(), Box<ToRouter>> {
        self.queue.lock().unwrap().push(message);
        Ok(())
    }

    fn wake(&self, _: usize) -> bool {
        let queue = std::mem::take(&mut *self.queue.lock().unwrap());
        for message in queue {
            self.handle(message);
        }
        true
    }
}

/// Keys that take the tests' tokens.
pub(crate) fn keys() -> Arc<ArcSwap<KeySet>> {
    Arc::new(ArcSwap::from_pointee(KeySet::development(SECRET, 86_400).unwrap()))
}

/// What the connections of a core share, without TLS.
pub(crate) fn context(
    settings: ConnectionSettings,
    workers: Arc<dyn Workers>,
    http: Option<Arc<dyn HttpServer>>,
    seed: u64,
) -> Context {
    Context::new(ContextParts {
        settings: Arc::new(settings),
        keys: keys(),
        tls: None,
        workers,
        metrics: Arc::new(CoreMetrics::default()),
        http: HttpDoor::new(http, Arc::new(|| {})),
        relay: None,
        epoch_ms: 1_800_000_000_000,
        seed,
    })
}

/// The request that opens a WebSocket.
pub(crate) fn upgrade(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A client's frame with the mask 1, 2, 3, 4.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ (index as u8 % 4 + 1)));
    frame
}

/// Takes one whole frame of the server's off the front: its opcode and payload.
pub(crate) fn take_server_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (header, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    };
    if bytes.len() < header + length {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..header + length).collect();
    Some((frame[0] & 0x0f, frame[header..].to_vec()))
}

/// Takes a response's head off the front.
pub(crate) fn take_head(bytes: &mut Vec<u8>) -> Option<String> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head: Vec<u8> = bytes.drain(..end).collect();
    Some(String::from_utf8(head).unwrap())
}
