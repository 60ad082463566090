//! What a core allocates for a message that takes the whole way: `send` → router → `ack`, and the delivery to another
//! socket. Counted by the allocator, on the core's own thread, over real sockets, plain and TLS, in both encodings.
//!
//! One is left, and it is no garbage: the client's name for its message, which the router keeps as long as it tells
//! duplicates apart. The body goes along in memory that many messages share (`client/body_memory.rs`).
//!
//! The router is a double on a thread of its own, so that what it allocates is not counted.

#[path = "support/counting.rs"]
mod counting;
mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ringway_gateway::connection::Transport;
use ringway_gateway::context::{ConnectionSettings, Context, ContextParts};
use ringway_gateway::http_stream::HttpDoor;
use ringway_gateway::metrics::CoreMetrics;
use ringway_gateway::tls::{TlsOptions, server_config};
use ringway_gateway::{Admission, Command, CoreMessage, EventLoop, EventLoopParts};
use ringway_protocol::client::{
    self, ClientFrame, Destination, Encoding, Hello, Send as ClientSend, ServerFrame,
};
use ringway_protocol::entry::{Body, Content, Entry, Message};
use ringway_protocol::ids::{ConnectionId, ConversationId, EndpointId, Epoch, MessageId, Seq, Timestamp};
use ringway_protocol::token::mint_development;
use ringway_protocol::trunk::{BodyReference, FanOutBody, Notice, Operation, Outcome, ToEndpoint, ToRouter};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_ring::{KernelDriver, KernelSettings, Ring};
use ringway_trunk::{Inbox, Outbox, Workers, inbox};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use counting::ALLOCATIONS;
use support::{SECRET, client_frame, keys, take_head, take_server_frame};

const CONVERSATION: ConversationId = ConversationId(77);

/// The way to the router's thread.
struct ToThread {
    outbox: Outbox<ToRouter>,
    thread: OnceLock<std::thread::Thread>,
}

impl Workers for ToThread {
    fn count(&self) -> usize {
        1
    }

    fn push(&self, _: usize, message: ToRouter) -> Result<(), Box<ToRouter>> {
        self.outbox.push(message).map_err(Box::new)
    }

    fn wake(&self, _: usize) -> bool {
        self.thread.get().expect("the router runs").unpark();
        true
    }
}

/// A router of one conversation: a send is acked, and delivered to every other connection.
fn route(messages: &Inbox<ToRouter>, core: &Mutex<Option<Outbox<CoreMessage>>>) {
    let mut connections: Vec<ConnectionId> = Vec::new();
    let mut seq = 0;
    loop {
        let Some(message) = messages.pop() else {
            std::thread::park_timeout(Duration::from_millis(1));
            let core = core.lock().unwrap();
            if core.is_none() {
                return;
            }
            continue;
        };
        let core = core.lock().unwrap();
        let Some(core) = &*core else { return };
        let (connection, request, user, operation) = match message {
            ToRouter::Attach { connection, .. } => {
                connections.push(connection);
                continue;
            }
            ToRouter::Detach { connection, .. } => {
                connections.retain(|other| *other != connection);
                continue;
            }
            ToRouter::Request { connection, request, user, operation } => {
                (connection, request, user, operation)
            }
        };
        let mut said = VecDeque::new();
        let outcome = match operation {
            Operation::Send { client_message_id, message, .. } => {
                seq += 1;
                let entry = Entry {
                    conversation: CONVERSATION,
                    seq: Seq(seq),
                    message: MessageId(1_000 + seq),
                    server_ts: Timestamp(1),
                    epoch: Epoch(1),
                    sender: user,
                    client_message_id: Some(client_message_id),
                    content: Content::Message(message),
                };
                let reference = BodyReference(seq);
                // Who stores it holds it too.
                let encoded = entry.encode();
                let body = FanOutBody {
                    reference,
                    conversation: CONVERSATION,
                    seq: Seq(seq),
                    entry: encoded.clone(),
                };
                let others = connections.iter().filter(|other| **other != connection);
                let notices = others.map(|other| Notice { connection: *other, body: reference }).collect();
                said.push_back(ToEndpoint::FanOut { body: Arc::new(body), notices });
                Outcome::Sent {
                    conversation: CONVERSATION,
                    message: entry.message,
                    seq: entry.seq,
                    server_ts: entry.server_ts,
                    duplicate: false,
                }
            }
            Operation::Heads { .. } => Outcome::Heads { heads: Vec::new(), recovered: true },
            _ => Outcome::Done,
        };
        said.push_front(ToEndpoint::Reply { connection, request, outcome: Ok(outcome) });
        for message in said {
            assert!(core.push(CoreMessage::Router(message)).is_ok(), "the core takes it");
        }
        core.wake();
    }
}

/// A core and a router, each on a thread of its own.
struct Core {
    ws: SocketAddr,
    wss: SocketAddr,
    client: Arc<ClientConfig>,
    outbox: Outbox<CoreMessage>,
    ask: Sender<()>,
    answers: Receiver<u64>,
    to_core: Arc<Mutex<Option<Outbox<CoreMessage>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Core {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let key = made.signing_key.serialize_pem();
        let tls = server_config(certificate.as_bytes(), key.as_bytes(), TlsOptions::default()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();

        let [plain, sealed] = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        for listener in [&plain, &sealed] {
            // Accepted sockets have it from here.
            rustix::net::sockopt::set_tcp_nodelay(listener, true).unwrap();
        }
        let (ws, wss) = (plain.local_addr().unwrap(), sealed.local_addr().unwrap());
        let (core_inbox, outbox) = inbox(1_024).unwrap();
        let (router_inbox, to_router) = inbox(1_024).unwrap();
        let workers = Arc::new(ToThread { outbox: to_router, thread: OnceLock::new() });
        let to_core = Arc::new(Mutex::new(Some(outbox.clone())));
        let router = {
            let to_core = Arc::clone(&to_core);
            std::thread::spawn(move || route(&router_inbox, &to_core))
        };
        workers.thread.set(router.thread().clone()).unwrap();
        let (ask, asked) = channel::<()>();
        let (answer, answers) = channel();
        let core = std::thread::spawn(move || {
            let driver =
                KernelDriver::new(KernelSettings { slots: 64, ..KernelSettings::default() }).unwrap();
            let context = Context::new(ContextParts {
                settings: Arc::new(ConnectionSettings {
                    sends_per_second: 1_000_000,
                    send_burst: 1_000_000,
                    ..ConnectionSettings::default()
                }),
                keys: keys(),
                tls: Some(Arc::new(ArcSwap::new(tls))),
                workers,
                metrics: Arc::new(CoreMetrics::default()),
                http: HttpDoor::new(None, Arc::new(|| {})),
                relay: None,
                epoch_ms: 0,
                seed: 1,
            });
            let mut event_loop = EventLoop::new(EventLoopParts {
                endpoint: EndpointId(0),
                ring: Ring::new(driver),
                listeners: vec![(plain, Transport::Plain), (sealed, Transport::Tls)],
                inbox: core_inbox,
                context,
                admission: Arc::new(Admission::new(64, 64)),
                follow_wall_clock: true,
            })
            .unwrap();
            while !event_loop.is_over() {
                event_loop.pass().unwrap();
                let count = ALLOCATIONS.get();
                if asked.try_recv().is_ok() {
                    answer.send(count).unwrap();
                }
            }
        });
        Self { ws, wss, client: Arc::new(client), outbox, ask, answers, to_core, threads: vec![core, router] }
    }

    /// What the core has allocated by now. `stir` makes it take a pass.
    fn allocations(&self, mut stir: impl FnMut()) -> u64 {
        self.ask.send(()).unwrap();
        stir();
        self.answers.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn join(&self, transport: Transport, encoding: Encoding, user: &str) -> Client {
        let address = if transport == Transport::Plain { self.ws } else { self.wss };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let stream: Box<dyn Stream> = match transport {
            Transport::Plain => Box::new(stream),
            Transport::Tls => {
                let name = ServerName::try_from("localhost").unwrap();
                let tls = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
                Box::new(StreamOwned::new(tls, stream))
            }
        };
        Client::open(stream, encoding, user)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        assert!(self.outbox.send(CoreMessage::Command(Command::Stop)).is_ok());
        *self.to_core.lock().unwrap() = None;
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok());
        }
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

struct Client {
    stream: Box<dyn Stream>,
    encoding: Encoding,
    received: Vec<u8>,
}

impl Client {
    fn open(stream: Box<dyn Stream>, encoding: Encoding, user: &str) -> Self {
        let mut client = Self { stream, encoding, received: Vec::new() };
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {}\r\n\r\n",
            encoding.subprotocol()
        );
        client.stream.write_all(request.as_bytes()).unwrap();
        while take_head(&mut client.received).is_none() {
            client.read_more();
        }
        let user = UserId::new("", user).unwrap();
        let now = ringway_gateway::clock::wall_clock();
        let hello =
            Hello { token: Some(mint_development(SECRET, &user, None, now, 3_600)), ..Hello::default() };
        client.stream.write_all(&client.frame(&ClientFrame::Hello(hello))).unwrap();
        while !matches!(client.next(), ServerFrame::Welcome(_)) {}
        client
    }

    /// What a send to the conversation is, for a WebSocket.
    fn send(&self, text: &str) -> Vec<u8> {
        self.frame(&ClientFrame::Send(ClientSend {
            destination: Destination::Conversation(CONVERSATION),
            client_message_id: ClientMessageId::new("0b7a44f2-6ad9-4c6e-9d8e-1f2a3b4c5d6e").unwrap(),
            message: Message {
                body: Body::Text(Bytes::copy_from_slice(text.as_bytes())),
                media_ids: Vec::new(),
                reply_to: None,
            },
        }))
    }

    fn frame(&self, frame: &ClientFrame) -> Vec<u8> {
        let mut payload = Vec::new();
        client::encode_client(self.encoding, frame, &mut payload);
        client_frame(self.encoding.opcode().bits(), &payload)
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    fn next(&mut self) -> ServerFrame {
        loop {
            if let Some((_, payload)) = take_server_frame(&mut self.received) {
                return client::decode_server(self.encoding, &payload).unwrap();
            }
            self.read_more();
        }
    }

    fn read_more(&mut self) {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes).unwrap();
        assert!(count > 0, "the stream ended");
        self.received.extend_from_slice(&bytes[..count]);
    }
}

/// What a core allocates for one message to so many others, in thousandths.
fn allocations_a_message(
    core: &Core,
    transport: Transport,
    encoding: Encoding,
    window: usize,
    others: usize,
) -> u64 {
    const ROUNDS: u64 = 100;
    let mut alice = core.join(transport, encoding, "alice");
    let mut others: Vec<Client> =
        (0..others).map(|index| core.join(transport, encoding, &format!("other-{index}"))).collect();
    let frames = alice.send(&"x".repeat(128)).repeat(window);
    let mut say = || {
        alice.say(&frames);
        for _ in 0..window {
            assert!(matches!(alice.next(), ServerFrame::Ack(_)));
            for other in &mut others {
                assert!(matches!(other.next(), ServerFrame::Message(_)));
            }
        }
    };
    (0..50).for_each(|_| say());
    let before = core.allocations(&mut say);
    (0..ROUNDS).for_each(|_| say());
    let allocated = core.allocations(&mut say) - before;
    allocated * 1_000 / (ROUNDS * window as u64)
}

#[test]
fn a_message_allocates_its_name_and_nothing_else() {
    let core = Core::start();
    // The channel that answers allocates with its first answer.
    core.allocations(|| drop(TcpStream::connect(core.ws).unwrap()));
    for transport in [Transport::Plain, Transport::Tls] {
        for encoding in Encoding::ALL {
            // To many it is one frame more: its bytes and the count of who holds it.
            for (window, others, most) in [(1, 1, 1), (32, 1, 1), (1, 16, 3), (8, 16, 3)] {
                let thousandths = allocations_a_message(&core, transport, encoding, window, others);
                let what =
                    format!("{transport:?} {encoding:?}, {window} at once to {others}: {thousandths} / 1000");
                println!("{what}");
                // Each second the core gives half of its free chunks back, if it has nothing else to do.
                assert!(thousandths <= most * 1_000 + 50 + 5 * others as u64, "{what}");
            }
        }
    }
}
