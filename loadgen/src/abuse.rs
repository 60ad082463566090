//! Clients that behave badly, on plain blocking sockets: what a server must bear without others noticing.
//!
//! Each kind runs a bounded number of sockets for a bounded time and reports how the server ended them.
//! The tests of the real binary look at the report; `loadgen abuse` runs one beside a load, so that the
//! load's latency with and without it can be compared.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_protocol::websocket::{Event, FrameReader, Opcode, Role, append_masked_frame};

/// Longest message that these clients take from the server.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The mask of their frames: no browser and no proxy is between.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x0f, 0xf0];

/// Pings of one flood.
pub const FLOOD_PINGS: u32 = 10_000;

/// Sockets that stop in the middle of a handshake.
pub const STALLED_HANDSHAKES: usize = 200;

/// A way to behave badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Logs in and never reads again, while messages come.
    SlowReader,
    /// Logs in and is gone without a FIN: no byte in either direction any more.
    HalfOpen,
    /// Sends [`FLOOD_PINGS`] pings as fast as it can and reads nothing meanwhile.
    PingFlood,
    /// Sends its upgrade, its `hello` and a hundred pings one byte a segment.
    ByteAtATime,
    /// Sends half a frame and resets the connection, again and again.
    ResetMidFrame,
    /// Announces messages of 2^40 and of 2^63 bytes.
    HugeLength,
    /// Opens [`STALLED_HANDSHAKES`] sockets and stops in the middle of TLS, or of the request's head.
    StalledHandshakes,
}

impl Abuse {
    /// All of them.
    pub const ALL: [Abuse; 7] = [
        Abuse::SlowReader,
        Abuse::HalfOpen,
        Abuse::PingFlood,
        Abuse::ByteAtATime,
        Abuse::ResetMidFrame,
        Abuse::HugeLength,
        Abuse::StalledHandshakes,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Abuse::SlowReader => "slow-reader",
            Abuse::HalfOpen => "half-open",
            Abuse::PingFlood => "ping-flood",
            Abuse::ByteAtATime => "byte-at-a-time",
            Abuse::ResetMidFrame => "reset-mid-frame",
            Abuse::HugeLength => "huge-length",
            Abuse::StalledHandshakes => "stalled-handshakes",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Abuse> {
        Abuse::ALL.into_iter().find(|abuse| abuse.name() == name)
    }

    /// Behaves like this until the server has ended every socket, or for `patience`.
    ///
    /// # Errors
    /// The server did not take a connection, or a login, that it should have taken.
    pub fn run(self, target: &Target, patience: Duration) -> io::Result<Report> {
        let deadline = Instant::now() + patience;
        match self {
            Abuse::SlowReader => slow_reader(target, deadline),
            Abuse::HalfOpen => half_open(target, deadline),
            Abuse::PingFlood => ping_flood(target, deadline),
            Abuse::ByteAtATime => byte_at_a_time(target, deadline),
            Abuse::ResetMidFrame => reset_mid_frame(target, deadline),
            Abuse::HugeLength => huge_length(target, deadline),
            Abuse::StalledHandshakes => stalled_handshakes(target, deadline),
        }
    }
}

/// Whom it is done to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The plain listener.
    pub ws: SocketAddr,
    /// The TLS listener.
    pub wss: SocketAddr,
    /// A token of a user, for those who log in.
    pub token: String,
}

/// How the server ended the sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sockets opened.
    pub opened: usize,
    /// Ended by the server, with this close code or HTTP status; 0 for an end without a word.
    pub ended: BTreeMap<u16, usize>,
    /// Still open when patience was over.
    pub open: usize,
    /// Pongs that came back.
    pub pongs: u32,
}

impl Report {
    fn end(&mut self, code: Option<u16>) {
        match code {
            Some(code) => *self.ended.entry(code).or_default() += 1,
            None => self.open += 1,
        }
    }
}

/// A client on a plain socket.
struct Client {
    socket: TcpStream,
    reader: FrameReader,
    pongs: u32,
}

impl Client {
    /// Upgrades on the plain listener.
    fn connect(target: &Target) -> io::Result<Client> {
        let mut client = Client::open(target)?;
        client.socket.write_all(upgrade_request(target).as_bytes())?;
        client.finish_upgrade()?;
        Ok(client)
    }

    fn open(target: &Target) -> io::Result<Client> {
        let socket = TcpStream::connect(target.ws)?;
        socket.set_nodelay(true)?;
        let reader = FrameReader::new(Role::Client, MESSAGE_BYTES_MAX);
        Ok(Client { socket, reader, pongs: 0 })
    }

    fn finish_upgrade(&mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(Duration::from_secs(10)))?;
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

    /// Upgrades and says hello; the welcome is read.
    fn log_in(target: &Target, device: &str) -> io::Result<Client> {
        let mut client = Client::connect(target)?;
        client.send(Opcode::Text, hello(target, device).as_bytes())?;
        client.wait_for_text("\"welcome\"")?;
        Ok(client)
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        append_masked_frame(&mut frame, opcode, payload, MASK);
        self.socket.write_all(&frame)
    }

    fn wait_for_text(&mut self, wanted: &str) -> io::Result<()> {
        let mut found = false;
        let ended = self.read_while(Instant::now() + Duration::from_secs(10), |event| {
            found |= matches!(event, Event::Text(text) if text.contains(wanted));
            !found
        })?;
        if found { Ok(()) } else { Err(io::Error::other(format!("no {wanted} came: {ended:?}"))) }
    }

    /// Reads until the server ends the connection, and tells with which code (0 without a Close frame);
    /// `None` if it is still open at the deadline.
    fn read_to_end(&mut self, deadline: Instant) -> io::Result<Option<u16>> {
        self.read_while(deadline, |_| true)
    }

    fn read_while(
        &mut self,
        deadline: Instant,
        mut goes_on: impl FnMut(Event<'_>) -> bool,
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
            while let Some(event) = self.reader.next(&mut received).map_err(io::Error::other)? {
                match event {
                    Event::Pong(_) => self.pongs += 1,
                    Event::Close { code: given, .. } => code = Some(given.map_or(1005, |given| given.0)),
                    _ => {}
                }
                if !goes_on(event) {
                    return Ok(code);
                }
            }
        }
    }
}

fn slow_reader(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut client = Client::log_in(target, "slow-reader")?;
    // Beats, so that silence is not what ends it, and never reads; a failed write is the server's end.
    while Instant::now() < deadline {
        if client.send(Opcode::Text, br#"{"type":"ping"}"#).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut report = Report { opened: 1, ..Report::default() };
    report.end(client.read_to_end(Instant::now() + Duration::from_secs(2))?);
    Ok(report)
}

fn half_open(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut client = Client::log_in(target, "half-open")?;
    let mut report = Report { opened: 1, ..Report::default() };
    report.end(client.read_to_end(deadline)?);
    Ok(report)
}

fn ping_flood(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut client = Client::log_in(target, "ping-flood")?;
    let mut frames = Vec::new();
    for number in 0..FLOOD_PINGS {
        append_masked_frame(&mut frames, Opcode::Ping, &number.to_be_bytes(), MASK);
    }
    client.socket.set_write_timeout(Some(deadline.saturating_duration_since(Instant::now())))?;
    // A write that fails is the server's end of it, and what was said before is still to be read.
    let _ = client.socket.write_all(&frames);
    let mut report = Report { opened: 1, ..Report::default() };
    let quiet = (Instant::now() + Duration::from_secs(3)).min(deadline);
    report.end(client.read_to_end(quiet)?);
    report.pongs = client.pongs;
    Ok(report)
}

fn byte_at_a_time(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut client = Client::open(target)?;
    for byte in upgrade_request(target).bytes() {
        client.socket.write_all(&[byte])?;
    }
    client.finish_upgrade()?;
    let mut frames = Vec::new();
    append_masked_frame(&mut frames, Opcode::Text, hello(target, "byte-at-a-time").as_bytes(), MASK);
    for number in 0..100u32 {
        append_masked_frame(&mut frames, Opcode::Ping, &number.to_be_bytes(), MASK);
    }
    for byte in frames {
        client.socket.write_all(&[byte])?;
    }
    let mut pongs = 0;
    let ended = client.read_while(deadline, |event| {
        pongs += u32::from(matches!(event, Event::Pong(_)));
        pongs < 100
    })?;
    let mut report = Report { opened: 1, pongs, ..Report::default() };
    report.end(ended);
    Ok(report)
}

fn reset_mid_frame(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut report = Report::default();
    while report.opened < 500 && Instant::now() < deadline {
        let mut client = Client::log_in(target, "reset-mid-frame")?;
        report.opened += 1;
        let mut frame = Vec::new();
        append_masked_frame(&mut frame, Opcode::Text, &[b' '; 4096], MASK);
        client.socket.write_all(&frame[..2048])?;
        rustix::net::sockopt::set_socket_linger(&client.socket, Some(Duration::ZERO))?;
    }
    Ok(report)
}

fn huge_length(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut report = Report::default();
    for length in [1u64 << 40, 1 << 63, u64::MAX] {
        let mut client = Client::log_in(target, "huge-length")?;
        report.opened += 1;
        let mut header = vec![0x82, 0xff];
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&MASK);
        client.socket.write_all(&header)?;
        report.end(client.read_to_end(deadline)?);
    }
    Ok(report)
}

fn stalled_handshakes(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut report = Report::default();
    let mut sockets = Vec::new();
    let request = upgrade_request(target);
    for number in 0..STALLED_HANDSHAKES {
        let (address, beginning): (_, &[u8]) = match number % 4 {
            0 => (target.ws, b""),
            1 => (target.ws, &request.as_bytes()[..request.len() / 2]),
            2 => (target.wss, b""),
            // The head of a TLS record that announces a ClientHello of 512 bytes, and 4 of them.
            _ => (target.wss, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc]),
        };
        let mut socket = TcpStream::connect(address)?;
        socket.write_all(beginning)?;
        sockets.push(socket);
    }
    report.opened = sockets.len();
    for mut socket in sockets {
        report.end(read_status_to_end(&mut socket, deadline)?);
    }
    Ok(report)
}

/// Reads a raw socket to its end: the HTTP status if one came, 0 if not; `None` at the deadline.
fn read_status_to_end(socket: &mut TcpStream, deadline: Instant) -> io::Result<Option<u16>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(count) if count > 0 => answer.extend_from_slice(&buffer[..count]),
            Err(error) if is_timeout(&error) => return Ok(None),
            Ok(_) | Err(_) => break,
        }
    }
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
    Ok(Some(status.and_then(|status| status.parse().ok()).unwrap_or(0)))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn upgrade_request(target: &Target) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: ringway.v1.json\r\n\r\n",
        target.ws
    )
}

fn hello(target: &Target, device: &str) -> String {
    format!(r#"{{"type":"hello","token":"{}","device_id":"{device}"}}"#, target.token)
}
