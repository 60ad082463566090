//! A client of the socket that speaks JSON.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use super::PATIENCE;

/// An open WebSocket.
pub struct Client {
    socket: WebSocket<Stream>,
    /// Frames that came while another one was waited for, oldest first.
    waiting: VecDeque<Value>,
}

/// How a connection ended: the code of the Close frame, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The code, if a Close frame came.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: String,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

static NEXT_MESSAGE: AtomicU64 = AtomicU64::new(1);

impl Client {
    /// Opens `ws://…/ws` and upgrades, without `hello`.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address, &[]).expect("the upgrade is accepted")
    }

    /// The same with headers, as the server answers.
    ///
    /// # Errors
    /// Whatever the server refuses it with.
    pub fn try_open(address: SocketAddr, headers: &[(&'static str, &str)]) -> tungstenite::Result<Self> {
        Self::upgrade(Stream::Plain(connect(address)), &format!("ws://{address}/ws"), headers)
    }

    /// Opens `wss://…/ws` and upgrades, trusting `certificate` (PEM), without `hello`.
    #[track_caller]
    pub fn open_tls(address: SocketAddr, certificate: &[u8]) -> Self {
        let session = rustls::ClientConnection::new(
            tls_config(certificate),
            ServerName::try_from("localhost").unwrap(),
        );
        let stream = rustls::StreamOwned::new(session.unwrap(), connect(address));
        Self::upgrade(Stream::Tls(Box::new(stream)), &format!("wss://{address}/ws"), &[])
            .expect("the upgrade is accepted")
    }

    fn upgrade(stream: Stream, url: &str, headers: &[(&'static str, &str)]) -> tungstenite::Result<Self> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header value"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self { socket, waiting: VecDeque::new() }),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => {
                Err(tungstenite::Error::Io(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Says `hello` with a token and gives the `welcome`.
    #[track_caller]
    pub fn hello(&mut self, token: &str) -> Value {
        self.hello_with(json!({"type": "hello", "token": token}))
    }

    /// Says a `hello` of any shape and gives the `welcome`.
    #[track_caller]
    pub fn hello_with(&mut self, hello: Value) -> Value {
        self.send_frame(&hello);
        self.expect("welcome")
    }

    /// Sends a frame.
    #[track_caller]
    pub fn send_frame(&mut self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    /// Sends a text message as it is.
    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the socket is open");
    }

    /// Sends a text to a conversation; gives its `client_msg_id`. The `ack` is to be expected.
    #[track_caller]
    pub fn send(&mut self, conversation: &str, text: &str) -> String {
        self.send_to(json!({"conversation_id": conversation, "text": text}))
    }

    /// Sends a text to a user; gives its `client_msg_id`.
    #[track_caller]
    pub fn send_to_user(&mut self, user: &str, text: &str) -> String {
        self.send_to(json!({"to": user, "text": text}))
    }

    #[track_caller]
    fn send_to(&mut self, mut frame: Value) -> String {
        let id = format!("m{}", NEXT_MESSAGE.fetch_add(1, Ordering::Relaxed));
        frame["type"] = json!("send");
        frame["client_msg_id"] = json!(id);
        self.send_frame(&frame);
        id
    }

    /// Sends a text to a conversation and gives its `ack`.
    #[track_caller]
    pub fn say(&mut self, conversation: &str, text: &str) -> Value {
        let id = self.send(conversation, text);
        self.acked(&id)
    }

    /// Sends a text to a user and gives its `ack`.
    #[track_caller]
    pub fn say_to_user(&mut self, user: &str, text: &str) -> Value {
        let id = self.send_to_user(user, text);
        self.acked(&id)
    }

    /// Waits for the `ack` of a send.
    #[track_caller]
    pub fn acked(&mut self, client_message_id: &str) -> Value {
        self.take("ack", |frame| {
            assert!(
                frame["type"] != "error" || frame["client_msg_id"] != client_message_id,
                "refused: {frame}"
            );
            frame["type"] == "ack" && frame["client_msg_id"] == client_message_id
        })
    }

    /// The oldest frame of a type; frames of other types wait for who expects them.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> Value {
        self.take(kind, |frame| frame["type"] == kind)
    }

    /// The oldest frame that fits.
    #[track_caller]
    pub fn take(&mut self, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        if let Some(at) = self.waiting.iter().position(&mut fits) {
            return self.waiting.remove(at).expect("it is there");
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}; got {:?}", self.waiting);
            let frame = match self.socket.read() {
                Ok(Message::Text(text)) => serde_json::from_str::<Value>(&text).expect("frames are JSON"),
                Ok(Message::Close(close)) => panic!("closed while waiting for {what}: {close:?}"),
                Ok(_) => continue,
                Err(error) => panic!("waiting for {what}: {error}; got {:?}", self.waiting),
            };
            if fits(&frame) {
                return frame;
            }
            self.waiting.push_back(frame);
        }
    }

    /// Frames that came and that nobody expected yet. Exchanges a `ping` first, so that what was sent
    /// before the `pong` is here.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Value> {
        let nonce = format!("n{}", NEXT_MESSAGE.fetch_add(1, Ordering::Relaxed));
        self.send_frame(&json!({"type": "ping", "nonce": nonce}));
        self.take("pong", |frame| frame["type"] == "pong" && frame["nonce"] == nonce.as_str());
        self.waiting.drain(..).collect()
    }

    /// Reads until the connection ends.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Closed {
        let mut closed = Closed { code: None, reason: String::new() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for the end");
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => {
                    closed = Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() };
                }
                Ok(Message::Text(text)) => {
                    if let Ok(frame) = serde_json::from_str(&text) {
                        self.waiting.push_back(frame);
                    }
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("waited {PATIENCE:?} for the end")
                }
                Err(_) => return closed,
            }
        }
    }

    /// The tungstenite socket, for what is not JSON.
    pub fn raw(&mut self) -> &mut WebSocket<impl Read + Write + use<>> {
        &mut self.socket
    }
}

/// Trusts one certificate, and nothing else.
pub(super) fn tls_config(certificate: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(certificate) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server listens");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
