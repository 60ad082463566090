//! Two in-memory ends of a connection, a virtual clock, and a router that does what the test says.
//!
//! [`Gateway`] is one core without a ring: its context, the clock and the script. A [`Socket`] is one
//! connection with its client: bytes go in by `send_*`, what the server says comes out by `read`.
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;
use ringway_gateway::clock::Tick;
use ringway_gateway::connection::{Connection, Delivery, Disposition, Transport, TrunkEvent};
use ringway_gateway::context::{ConnectionSettings, Context, ContextParts};
use ringway_gateway::http_stream::{HttpDoor, HttpServer};
use ringway_gateway::metrics::CoreMetrics;
use ringway_protocol::client::{self, ClientFrame, Encoding, Hello, ServerFrame, Welcome};
use ringway_protocol::entry::{Body, Content, Entry, Message};
use ringway_protocol::ids::{
    ConnectionId, ConversationId, EndpointId, Epoch, MessageId, RequestId, Seq, Timestamp,
};
use ringway_protocol::token::{KeySet, mint_development};
use ringway_protocol::trunk::{BodyReference, FanOutBody, Operation, Outcome, Refusal, ToRouter};
use ringway_protocol::user::{ClientMessageId, DeviceId, UserId};
use ringway_protocol::websocket::{CloseCode, Event, FrameReader, Opcode, Role, append_masked_frame};
use ringway_trunk::Workers;

pub const SECRET: &[u8] = b"a development secret of 32 bytes";
pub const EPOCH_MS: u64 = 1_800_000_000_000;
pub const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// The router's workers: they keep what they are told until the test looks.
pub struct Script {
    count: usize,
    told: Mutex<VecDeque<(usize, ToRouter)>>,
    pub full: AtomicBool,
    pub woken: Mutex<Vec<usize>>,
}

impl Workers for Script {
    fn count(&self) -> usize {
        self.count
    }

    fn push(&self, worker: usize, message: ToRouter) -> Result<(), Box<ToRouter>> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Box::new(message));
        }
        self.told.lock().unwrap().push_back((worker, message));
        Ok(())
    }

    fn wake(&self, worker: usize) -> bool {
        self.woken.lock().unwrap().push(worker);
        true
    }
}

impl Script {
    /// What the workers were told since the last look.
    pub fn take(&self) -> Vec<(usize, ToRouter)> {
        self.told.lock().unwrap().drain(..).collect()
    }

    /// The requests among it.
    pub fn requests(&self) -> Vec<(RequestId, Operation)> {
        let request = |(_, message)| match message {
            ToRouter::Request { request, operation, .. } => Some((request, operation)),
            _ => None,
        };
        self.take().into_iter().filter_map(request).collect()
    }

    /// The one request among it.
    pub fn request(&self) -> (RequestId, Operation) {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }
}

/// One core without a ring.
pub struct Gateway {
    pub context: Context,
    pub script: Arc<Script>,
    pub now: Tick,
    next_slot: u32,
}

/// What a gateway is made of, to be changed before it is.
pub struct Setup {
    pub settings: ConnectionSettings,
    pub workers: usize,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub http: Option<Arc<dyn HttpServer>>,
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { settings: ConnectionSettings::default(), workers: 3, tls: None, http: None, seed: 1 }
    }
}

impl Setup {
    pub fn start(self) -> Gateway {
        let script = Arc::new(Script {
            count: self.workers,
            told: Mutex::default(),
            full: AtomicBool::new(false),
            woken: Mutex::default(),
        });
        let keys = KeySet::development(SECRET, 86_400).unwrap();
        let context = Context::new(ContextParts {
            settings: Arc::new(self.settings),
            keys: Arc::new(ArcSwap::from_pointee(keys)),
            tls: self.tls.map(|config| Arc::new(ArcSwap::new(config))),
            workers: Arc::clone(&script) as Arc<dyn Workers>,
            metrics: Arc::new(CoreMetrics::default()),
            http: HttpDoor::new(self.http, Arc::new(|| ())),
            relay: None,
            epoch_ms: EPOCH_MS,
            seed: self.seed,
        });
        Gateway { context, script, now: Tick(1_000), next_slot: 0 }
    }
}

/// What a client sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Frame(ServerFrame),
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(CloseCode, String),
}

/// One connection and its client.
pub struct Socket {
    pub connection: Connection,
    pub encoding: Encoding,
    /// What the server sent and the client has not read as a frame.
    pub received: Vec<u8>,
    reader: FrameReader,
    /// Frames of `/echo` are no protocol frames.
    pub raw: bool,
}

pub fn user(sub: &str) -> UserId {
    UserId::new("", sub).unwrap()
}

pub fn client_message_id(text: &str) -> ClientMessageId {
    ClientMessageId::new(text).unwrap()
}

/// A message entry as the router has it.
pub fn entry(conversation: u64, seq: u64, sender: &str, text: &str) -> Entry {
    Entry {
        conversation: ConversationId(conversation),
        seq: Seq(seq),
        message: MessageId(conversation * 1_000_000 + seq),
        server_ts: Timestamp(EPOCH_MS + seq),
        epoch: Epoch(1),
        sender: user(sender),
        client_message_id: Some(client_message_id(&format!("c{seq}"))),
        content: Content::Message(Message {
            body: Body::Text(Bytes::copy_from_slice(text.as_bytes())),
            media_ids: Vec::new(),
            reply_to: None,
        }),
    }
}

pub fn body_of(entry: &Entry) -> FanOutBody {
    FanOutBody {
        reference: BodyReference(entry.message.0),
        conversation: entry.conversation,
        seq: entry.seq,
        entry: entry.encode(),
    }
}

pub fn text_frame(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_masked_frame(&mut bytes, Opcode::Text, text.as_bytes(), MASK);
    bytes
}

pub fn client_frame(encoding: Encoding, frame: &ClientFrame) -> Vec<u8> {
    let (mut payload, mut bytes) = (Vec::new(), Vec::new());
    client::encode_client(encoding, frame, &mut payload);
    append_masked_frame(&mut bytes, encoding.opcode(), &payload, MASK);
    bytes
}

pub fn send_frame(conversation: u64, id: &str, text: &str) -> ClientFrame {
    ClientFrame::Send(client::Send {
        destination: client::Destination::Conversation(ConversationId(conversation)),
        client_message_id: client_message_id(id),
        message: Message {
            body: Body::Text(Bytes::copy_from_slice(text.as_bytes())),
            media_ids: Vec::new(),
            reply_to: None,
        },
    })
}

/// The upgrade request of an ordinary client.
pub fn upgrade_request(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

impl Gateway {
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(EPOCH_MS + self.now.0)
    }

    pub fn token(&self, sub: &str, life_seconds: u64) -> String {
        mint_development(SECRET, &user(sub), None, self.timestamp(), life_seconds)
    }

    pub fn token_for_device(&self, sub: &str, device: &str) -> String {
        let device = DeviceId::new(device).unwrap();
        mint_development(SECRET, &user(sub), Some(&device), self.timestamp(), 3600)
    }

    /// A connection that was just accepted.
    pub fn accept(&mut self, transport: Transport) -> Socket {
        let id = ConnectionId::new(EndpointId(0), self.next_slot, 1);
        self.next_slot += 1;
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let connection = Connection::accept(&mut self.context, id, transport, peer, self.now);
        Socket {
            connection,
            encoding: Encoding::Json,
            received: Vec::new(),
            reader: FrameReader::new(Role::Client, 64 << 20),
            raw: false,
        }
    }

    /// A connection whose upgrade was answered with 101, and with whatever else was in it.
    pub fn upgrade(&mut self, path: &str, headers: &str) -> Socket {
        let mut socket = self.accept(Transport::Plain);
        socket.send_bytes(self, &upgrade_request(path, headers));
        let response = socket.read_head(self);
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        socket.raw = path == "/echo";
        if headers.contains("ringway.v1.proto") {
            socket.encoding = Encoding::Protobuf;
        }
        socket
    }

    /// A welcome session of this user on this device.
    pub fn login(&mut self, sub: &str, device: &str) -> Socket {
        let mut socket = self.upgrade("/ws", "");
        let hello = Hello {
            token: Some(self.token(sub, 3600)),
            device: Some(DeviceId::new(device).unwrap()),
            ..Hello::default()
        };
        socket.send(self, &ClientFrame::Hello(hello));
        self.answer_probes(&mut socket);
        socket.welcome(self);
        socket
    }

    /// Each worker says that it has come to the `Attach`.
    pub fn answer_probes(&mut self, socket: &mut Socket) {
        for (request, operation) in self.script.requests() {
            assert!(matches!(operation, Operation::SyncEnd { .. }), "{operation:?}");
            socket.reply(self, request, Ok(Outcome::Done));
        }
    }

    /// An entry comes from the router for these.
    pub fn fan_out(&mut self, entry: &Entry, sockets: &mut [&mut Socket]) {
        let body = body_of(entry);
        let mut delivery = Delivery::new(&body, sockets.len());
        for socket in sockets {
            socket.connection.deliver(&mut self.context, self.now, &mut delivery);
        }
    }

    /// Lets time pass for a connection, stopping wherever it wants to be called.
    pub fn pass(&mut self, milliseconds: u64, socket: &mut Socket) {
        let until = self.now + milliseconds;
        while let Some(deadline) = socket.connection.poll_timeout() {
            if deadline > until {
                break;
            }
            self.now = self.now.max(deadline);
            socket.connection.handle_timeout(&mut self.context, self.now);
            if socket.connection.disposition() == Disposition::Abort {
                break;
            }
            let again = socket.connection.poll_timeout();
            assert!(again.is_none_or(|again| again > deadline), "a timer that does not move on");
        }
        self.now = self.now.max(until);
    }
}

impl Socket {
    /// Leaves this core, as bytes.
    pub fn freeze(&mut self, gateway: &mut Gateway) -> Vec<u8> {
        self.connection.freeze(&mut gateway.context, gateway.now).unwrap().to_vec()
    }

    /// Bytes from the client.
    pub fn send_bytes(&mut self, gateway: &mut Gateway, bytes: &[u8]) {
        self.connection.handle_received(&mut gateway.context, gateway.now, &mut bytes.to_vec());
    }

    /// A frame from the client.
    pub fn send(&mut self, gateway: &mut Gateway, frame: &ClientFrame) {
        self.send_bytes(gateway, &client_frame(self.encoding, frame));
    }

    /// A text from the client, as it is.
    pub fn send_text(&mut self, gateway: &mut Gateway, text: &str) {
        self.send_bytes(gateway, &text_frame(text));
    }

    pub fn trunk(&mut self, gateway: &mut Gateway, event: TrunkEvent) {
        self.connection.handle_trunk(&mut gateway.context, gateway.now, event);
    }

    pub fn reply(&mut self, gateway: &mut Gateway, request: RequestId, outcome: Result<Outcome, Refusal>) {
        self.trunk(gateway, TrunkEvent::Reply { request, outcome });
    }

    /// The client takes all that waits for it.
    pub fn drain(&mut self, gateway: &mut Gateway) {
        while self.connection.has_output() {
            self.drain_some(gateway, 16 * 1024);
        }
    }

    /// The client takes at most so many bytes.
    pub fn drain_some(&mut self, gateway: &mut Gateway, capacity: usize) {
        let before = self.received.len();
        self.connection.poll_transmit(&mut gateway.context, gateway.now, &mut self.received, capacity);
        assert!(self.received.len() - before <= capacity, "more than was asked for");
    }

    /// The head of an HTTP response.
    pub fn read_head(&mut self, gateway: &mut Gateway) -> String {
        self.drain(gateway);
        let end = self.received.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        let head: Vec<u8> = self.received.drain(..end).collect();
        String::from_utf8(head).unwrap()
    }

    /// All that the server says.
    pub fn read(&mut self, gateway: &mut Gateway) -> Vec<Seen> {
        self.drain(gateway);
        self.read_received()
    }

    /// All that lies in `received`.
    pub fn read_received(&mut self) -> Vec<Seen> {
        let mut received = std::mem::take(&mut self.received);
        let mut rest = &mut received[..];
        let mut seen = Vec::new();
        while let Some(event) = self.reader.next(&mut rest).expect("a server's frames are right") {
            seen.push(match event {
                Event::Text(text) if self.raw => Seen::Text(text.to_owned()),
                Event::Binary(bytes) if self.raw => Seen::Binary(bytes.to_vec()),
                Event::Text(text) => {
                    assert_eq!(self.encoding, Encoding::Json);
                    Seen::Frame(client::decode_server(Encoding::Json, text.as_bytes()).expect(text))
                }
                Event::Binary(bytes) => {
                    assert_eq!(self.encoding, Encoding::Protobuf);
                    Seen::Frame(client::decode_server(Encoding::Protobuf, bytes).unwrap())
                }
                Event::Ping(payload) => Seen::Ping(payload.to_vec()),
                Event::Pong(payload) => Seen::Pong(payload.to_vec()),
                Event::Close { code, reason } => Seen::Close(code.expect("a code"), reason.to_owned()),
            });
        }
        seen
    }

    /// All that the server says, every part of it a protocol frame.
    pub fn frames(&mut self, gateway: &mut Gateway) -> Vec<ServerFrame> {
        let frame = |seen| match seen {
            Seen::Frame(frame) => frame,
            other => panic!("not a frame of the protocol: {other:?}"),
        };
        self.read(gateway).into_iter().map(frame).collect()
    }

    /// The one frame that the server says.
    pub fn frame(&mut self, gateway: &mut Gateway) -> ServerFrame {
        let mut frames = self.frames(gateway);
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    /// The one frame that the server says, a `welcome`.
    pub fn welcome(&mut self, gateway: &mut Gateway) -> Welcome {
        match self.frame(gateway) {
            ServerFrame::Welcome(welcome) => *welcome,
            other => panic!("not welcome: {other:?}"),
        }
    }

    /// The one frame that the server says, an `error`: its code and `client_msg_id`.
    pub fn error(&mut self, gateway: &mut Gateway) -> (&'static str, Option<String>) {
        match self.frame(gateway) {
            ServerFrame::Error(error) => (error.code.as_str(), error.client_message_id),
            other => panic!("no error: {other:?}"),
        }
    }

    /// The code of the Close frame, the last thing that the server says.
    pub fn close_code(&mut self, gateway: &mut Gateway) -> u16 {
        let seen = self.read(gateway);
        match seen.last() {
            Some(Seen::Close(code, _)) => code.0,
            other => panic!("not closed: {other:?}"),
        }
    }

    pub fn is_open(&self) -> bool {
        self.connection.disposition() == Disposition::Open
    }
}
