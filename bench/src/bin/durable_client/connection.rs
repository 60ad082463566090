//! One device: a wss connection that is logged in, by the record layer and the frames of `ringway_protocol`.
//!
//! Opening it may wait, and nothing of that is measured. Afterwards the socket does not wait: what the kernel does not
//! take at once stays in `outgoing`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use ringway_bench::tls_client;
use ringway_protocol::client::{ClientFrame, Encoding, Hello, ServerFrame, decode_server, encode_client};
use ringway_protocol::tls::{ClientHandshake, Established, RecordLayer, with_client_secrets};
use ringway_protocol::websocket::{Event, FrameReader, Role, append_masked_frame};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// A server's longest message here: a `welcome`.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The masking key need not be secret outside a browser.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    records: RecordLayer,
    frames: FrameReader,
    encoding: Encoding,
    /// Frames that are not sealed yet.
    plain: Vec<u8>,
    /// Sealed, and not yet taken by the kernel.
    outgoing: Vec<u8>,
    payload: Vec<u8>,
}

impl Connection {
    /// Connects, shakes hands, upgrades and says hello.
    pub(crate) fn open(port: u16, config: &Arc<ClientConfig>, encoding: Encoding, token: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        socket.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut handshake = ClientHandshake::connect(Arc::clone(config), name).expect("a hello");
        let (mut buffer, mut behind) = (vec![0; 16 * 1024], Vec::new());
        loop {
            socket.write_all(&handshake.take_outgoing()).expect("the server reads");
            if handshake.is_done() {
                break;
            }
            let length = socket.read(&mut buffer).expect("an answer");
            assert!(length > 0, "the server closed in the handshake");
            let used = handshake.handle_received(&buffer[..length]).expect("a handshake");
            behind.extend_from_slice(&buffer[used..length]);
        }
        let Ok(Established::Compact(records)) = handshake.finish() else { panic!("no TLS 1.3") };
        let mut connection = Self {
            socket,
            records,
            frames: FrameReader::new(Role::Client, MESSAGE_BYTES_MAX),
            encoding,
            plain: Vec::new(),
            outgoing: Vec::new(),
            payload: Vec::new(),
        };
        connection.log_in(token, behind);
        connection.socket.set_nonblocking(true).expect("an option");
        connection
    }

    fn log_in(&mut self, token: &str, behind: Vec<u8>) {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {}\r\n\r\n",
            self.encoding.subprotocol()
        );
        self.plain.extend_from_slice(request.as_bytes());
        self.flush();
        let (mut head, mut arrived) = (Vec::new(), behind);
        while !head.ends_with(b"\r\n\r\n") {
            let opened = self.records.open(&mut arrived);
            opened.outcome.expect("records");
            head.extend_from_slice(&opened.gathered);
            head.extend_from_slice(&arrived[opened.in_place]);
            arrived.resize(16 * 1024, 0);
            if !head.ends_with(b"\r\n\r\n") {
                let length = self.socket.read(&mut arrived).expect("an answer");
                arrived.truncate(length);
            }
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        self.queue(&ClientFrame::Hello(Hello { token: Some(token.to_owned()), ..Hello::default() }));
        self.flush();
        let mut is_welcome = false;
        while !is_welcome {
            let length = self.socket.read(&mut arrived).expect("an answer");
            self.handle_received(&mut arrived[..length], |frame| match frame {
                ServerFrame::Welcome(_) => is_welcome = true,
                other => panic!("{other:?} before the welcome"),
            });
            arrived.resize(16 * 1024, 0);
        }
    }

    /// Reads once, as far as `buffer` goes, and hands on the frames.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], handle: impl FnMut(ServerFrame)) {
        match self.socket.read(buffer) {
            Ok(0) => panic!("the server closed"),
            Ok(length) => self.handle_received(&mut buffer[..length], handle),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("receive: {error}"),
        }
    }

    fn handle_received(&mut self, received: &mut [u8], mut handle: impl FnMut(ServerFrame)) {
        let mut opened = self.records.open(received);
        for mut plain in [&mut opened.gathered[..], &mut received[opened.in_place.clone()]] {
            while let Some(event) = self.frames.next(&mut plain).expect("frames") {
                let payload = match event {
                    Event::Text(text) => text.as_bytes(),
                    Event::Binary(bytes) => bytes,
                    other => panic!("{other:?}"),
                };
                handle(decode_server(self.encoding, payload).expect("a frame that we know"));
            }
        }
        opened.outcome.expect("records");
    }

    /// Appends a frame to what leaves with the next `flush`.
    pub(crate) fn queue(&mut self, frame: &ClientFrame) {
        self.payload.clear();
        encode_client(self.encoding, frame, &mut self.payload);
        append_masked_frame(&mut self.plain, self.encoding.opcode(), &self.payload, MASK);
    }

    /// Seals what is queued, in one record where it fits, and sends it. False if some of it waits.
    pub(crate) fn flush(&mut self) -> bool {
        if !self.plain.is_empty() {
            self.records.seal(&self.plain, &mut self.outgoing).expect("a key");
            self.plain.clear();
        }
        if self.outgoing.is_empty() {
            return true;
        }
        match self.socket.write(&self.outgoing) {
            Ok(length) => drop(self.outgoing.drain(..length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("send: {error}"),
        }
        self.outgoing.is_empty()
    }
}

/// A configuration whose handshakes end in our record layer.
pub(crate) fn config() -> Arc<ClientConfig> {
    with_client_secrets(tls_client::config())
}
