//! A client on a plain blocking socket that does just what it is told: no heartbeat, no answer to a Close,
//! and frames of any bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_protocol::websocket::{Event, FrameReader, Opcode, Role, append_masked_frame};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::Target;

/// Longest message that it takes from the server.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The mask of its frames: no browser and no proxy is between.
pub const MASK: [u8; 4] = [0x5a, 0xa5, 0x0f, 0xf0];

/// How long it waits for an answer that must come.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Bytes that wait in the client's kernel, where they should be few.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;

/// Longest segment on the usual networks.
const ETHERNET_SEGMENT_BYTES: u32 = 1460;

/// An open socket.
pub struct Client {
    socket: TcpStream,
    reader: FrameReader,
    pongs: u32,
    gaps: u32,
}

impl Client {
    /// Connects, and says nothing.
    ///
    /// # Errors
    /// The connection is refused.
    pub fn open(address: SocketAddr) -> io::Result<Client> {
        Client::on(TcpStream::connect(address)?)
    }

    /// The same with little room on the way for what is not read: what comes on top waits at the server.
    /// Set before the connection is made, so that it holds from the start.
    ///
    /// # Errors
    /// The connection is refused.
    pub fn open_with_small_buffers(address: SocketAddr) -> io::Result<Client> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
        // The kernel sizes the other end's send buffer by segments, and loopback's are of 64 KiB.
        socket.set_tcp_mss(ETHERNET_SEGMENT_BYTES)?;
        socket.connect(&address.into())?;
        Client::on(socket.into())
    }

    fn on(socket: TcpStream) -> io::Result<Client> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        let reader = FrameReader::new(Role::Client, MESSAGE_BYTES_MAX);
        Ok(Client { socket, reader, pongs: 0, gaps: 0 })
    }

    /// Connects, upgrades and says hello; the welcome is read.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn log_in(target: &Target, device: &str) -> io::Result<Client> {
        Client::open(target.ws)?.welcome(target, device)
    }

    /// Upgrades and says hello; the welcome is read.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn welcome(mut self, target: &Target, device: &str) -> io::Result<Client> {
        self.upgrade(target)?;
        self.send(Opcode::Text, hello(target, device).as_bytes())?;
        self.wait_for_text("\"welcome\"")?;
        Ok(self)
    }

    /// Upgrades.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn upgrade(&mut self, target: &Target) -> io::Result<()> {
        self.write(upgrade_request(target).as_bytes())?;
        self.finish_upgrade()
    }

    /// Reads the answer to an upgrade.
    ///
    /// # Errors
    /// It is not 101.
    pub fn finish_upgrade(&mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if head.starts_with(b"HTTP/1.1 101") {
            Ok(())
        } else {
            Err(io::Error::other(format!("refused: {}", String::from_utf8_lossy(&head))))
        }
    }

    /// Writes any bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Writes bytes one a segment.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write_one_by_one(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.iter().try_for_each(|byte| self.write(&[*byte]))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        append_masked_frame(&mut frame, opcode, payload, MASK);
        self.write(&frame)
    }

    /// Ends the connection with a RST.
    ///
    /// # Errors
    /// The kernel does not want to.
    pub fn reset(self) -> io::Result<()> {
        // Without time to linger, closing resets (tcp(7), socket(7) SO_LINGER).
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }

    /// Reads until a text frame holds `wanted`, and gives it.
    ///
    /// # Errors
    /// None came, or the connection ended.
    pub fn wait_for_text(&mut self, wanted: &str) -> io::Result<String> {
        let mut found = None;
        let ended = self.read_while(Instant::now() + ANSWER_WITHIN, |event| {
            if let Event::Text(text) = event
                && text.contains(wanted)
            {
                found = Some((*text).to_owned());
            }
            found.is_none()
        })?;
        found.ok_or_else(|| io::Error::other(format!("no {wanted} came: {ended:?}")))
    }

    /// Reads until the server ends the connection, and tells with which code (0 without a Close frame);
    /// `None` if it is still open at the deadline.
    ///
    /// # Errors
    /// The server sends what is no frame.
    pub fn read_to_end(&mut self, deadline: Instant) -> io::Result<Option<u16>> {
        self.read_while(deadline, |_| true)
    }

    /// The same, or until an event does not go on. What came behind that in one read is read too.
    ///
    /// # Errors
    /// The server sends what is no frame.
    pub fn read_while(
        &mut self,
        deadline: Instant,
        mut goes_on: impl FnMut(&Event<'_>) -> bool,
    ) -> io::Result<Option<u16>> {
        let mut buffer = vec![0; 64 * 1024];
        let mut code = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(code);
            }
            self.socket.set_read_timeout(Some(left))?;
            let count = match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(code.or(Some(0))),
                Ok(count) => count,
                Err(error) if is_timeout(&error) => return Ok(code),
                Err(_) => return Ok(code.or(Some(0))),
            };
            let mut received = &mut buffer[..count];
            let mut enough = false;
            while let Some(event) = self.reader.next(&mut received).map_err(io::Error::other)? {
                match &event {
                    Event::Pong(_) => self.pongs += 1,
                    Event::Text(text) if text.contains(r#""type":"gap""#) => self.gaps += 1,
                    Event::Close { code: given, .. } => code = Some(given.map_or(1005, |given| given.0)),
                    _ => {}
                }
                enough = enough || !goes_on(&event);
            }
            if enough {
                return Ok(code);
            }
        }
    }

    /// Reads a socket that never became a WebSocket to its end: the HTTP status if one came, 0 if not;
    /// `None` if it is still open at the deadline.
    ///
    /// # Errors
    /// The kernel refuses the timeout.
    pub fn read_status_to_end(&mut self, deadline: Instant) -> io::Result<Option<u16>> {
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.read(&mut buffer) {
                Ok(count) if count > 0 => answer.extend_from_slice(&buffer[..count]),
                Err(error) if is_timeout(&error) => return Ok(None),
                Ok(_) | Err(_) => break,
            }
        }
        let status =
            answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
        Ok(Some(status.and_then(|status| status.parse().ok()).unwrap_or(0)))
    }

    /// Pongs that came so far.
    pub fn pongs(&self) -> u32 {
        self.pongs
    }

    /// `gap` frames that came so far.
    pub fn gaps(&self) -> u32 {
        self.gaps
    }
}

/// The request that opens a socket.
pub fn upgrade_request(target: &Target) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: ringway.v1.json\r\n\r\n",
        target.ws
    )
}

/// The first frame of a session.
pub fn hello(target: &Target, device: &str) -> String {
    format!(r#"{{"type":"hello","token":"{}","device_id":"{device}"}}"#, target.token)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
