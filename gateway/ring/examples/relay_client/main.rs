//! The client of the relay and fan-out tables: keeps a fixed number of messages on their way through a server's
//! `/relay`, and says what processor time the server took for each.
//!
//! `relay`: pairs of sockets, a window of messages goes from one to the other, and when all of it has arrived,
//! a window comes back. `fan-out`: one publisher, the others in the room; a window of messages is on its way, and
//! the next goes out when all members have one. A window that starts at once is one send. Messages are text of
//! 128 bytes, masked. The client waits for up to 64 completions (fan-out: 256): woken by each delivery, it would make
//! the server pay for the wake-ups, and the more of them the faster it is itself.
//!
//! What it leaves out: latency (everything is saturated), and the machine, which both ends share.
//!
//! `relay_client PORT SERVER_PID relay|fan-out COUNT WINDOW MESSAGES plain|tls`

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

#[path = "../raw/mod.rs"]
mod raw;
mod tls;

use raw::{HEADROOM, RawRing};
use tls::Records;

const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const PAYLOAD_BYTES: usize = 128;
/// Header and payload of a server's frame.
const DELIVERED_BYTES: usize = 4 + PAYLOAD_BYTES;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Completions that the client of a fan-out waits for.
const BATCH: usize = 256;
/// Those that the client of a relay waits for: three eighths of 500 windows on their way. To wake this end is work of
/// the server's processor, and has nothing to do with a message: with 64, a server over TLS was in one of two states
/// (3.8 or 4.5 us a message, of which 0.3 were wake-ups), with 192 or more in one (3.7), and none waits for the other.
const RELAY_BATCH: usize = 192;

struct Connection {
    socket: TcpStream,
    records: Option<Records>,
    /// A window of frames for whom this one talks to.
    frames: Vec<u8>,
    /// What the kernel sends: those frames, or records made of them.
    outgoing: Vec<u8>,
    /// Bytes of frames received, over its life.
    received: u64,
}

struct Client {
    ring: RawRing,
    connections: Vec<Connection>,
    window: usize,
    starved: Vec<usize>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, pid, mode, count, window, messages, transport] = &arguments[..] else {
        panic!("relay_client PORT SERVER_PID relay|fan-out COUNT WINDOW MESSAGES plain|tls");
    };
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let (port, count, window, messages) = (number(port), number(count), number(window), number(messages));
    let is_fan_out = mode == "fan-out";
    let tls = (transport == "tls").then(tls::config);
    let sockets = if is_fan_out { count + 1 } else { 2 * count };
    let connections = (0..sockets)
        .map(|name| {
            let room = is_fan_out && name > 0;
            let to = if is_fan_out { "R-------".to_owned() } else { format!("U{:07}", name ^ 1) };
            connect(port as u16, name, room, &frame(&to).repeat(window), tls.as_ref())
        })
        .collect();
    let ring = RawRing::new(4_096, 8_192, 0).expect("a ring");
    let mut client = Client { ring, connections, window, starved: Vec::new() };
    for index in 0..sockets {
        client.receive(index);
    }
    let pid = pid.parse().expect("a number");
    let mut meter = Meter { pid, warm: messages / 5, messages, began: None };
    if is_fan_out { client.fan_out(count, &mut meter) } else { client.relay(&mut meter) }
}

impl Client {
    fn relay(&mut self, meter: &mut Meter) {
        for pair in 0..self.connections.len() / 2 {
            self.send(2 * pair, self.window);
        }
        let window_bytes = (self.window * DELIVERED_BYTES) as u64;
        let (mut done, mut completions) = (0, Vec::new());
        while !meter.is_over(done) {
            self.ring.enter(RELAY_BATCH, 1_000, &mut completions);
            for completion in std::mem::take(&mut completions) {
                let Some(index) = self.take(&completion) else { continue };
                if self.connections[index].received >= window_bytes {
                    self.connections[index].received -= window_bytes;
                    done += self.window;
                    self.send(index, self.window);
                }
            }
            self.feed_starved();
        }
    }

    fn fan_out(&mut self, members: usize, meter: &mut Meter) {
        // By publish, counted from 0 and wrapped: how many members have it.
        let mut have = vec![0usize; 2 * self.window];
        let (mut published, mut complete, mut delivered) = (0usize, 0usize, 0usize);
        let mut completions = Vec::new();
        while !meter.is_over(delivered) {
            let free = self.window - (published - complete);
            if free > 0 {
                self.send(0, free);
                published += free;
            }
            let due = published * members - delivered;
            self.ring.enter(due.min(BATCH), 1_000, &mut completions);
            for completion in std::mem::take(&mut completions) {
                let before = self.received_by(&completion);
                let Some(index) = self.take(&completion) else { continue };
                let after = self.connections[index].received / DELIVERED_BYTES as u64;
                for publish in before..after {
                    let slot = publish as usize % have.len();
                    have[slot] += 1;
                    delivered += 1;
                    if have[slot] == members {
                        have[slot] = 0;
                        complete += 1;
                    }
                }
            }
            self.feed_starved();
        }
    }

    fn received_by(&self, completion: &raw::RawCompletion) -> u64 {
        self.connections[(completion.user_data >> 8) as usize].received / DELIVERED_BYTES as u64
    }

    /// Who received something, and counts it.
    fn take(&mut self, completion: &raw::RawCompletion) -> Option<usize> {
        let index = (completion.user_data >> 8) as usize;
        if completion.user_data & 0xff == SEND {
            panic!("send: {}", completion.result);
        }
        if !completion.more {
            if completion.result == -libc::ENOBUFS { self.starved.push(index) } else { self.receive(index) }
        }
        let buffer = completion.buffer?;
        assert!(completion.result > 0, "the server closed: {}", completion.result);
        // SAFETY: the buffer is ours until it is given back, below.
        let bytes = unsafe {
            let start = self.ring.buffer(buffer).add(HEADROOM);
            std::slice::from_raw_parts_mut(start, completion.result as usize)
        };
        let connection = &mut self.connections[index];
        connection.received += match &mut connection.records {
            None => {
                let is_at_frame = connection.received.is_multiple_of(DELIVERED_BYTES as u64);
                assert!(!is_at_frame || bytes.starts_with(&[0x81, 126]), "{bytes:?}");
                bytes.len() as u64
            }
            Some(records) => records.plaintext_in(bytes) as u64,
        };
        self.ring.give_back(buffer);
        Some(index)
    }

    fn feed_starved(&mut self) {
        for index in std::mem::take(&mut self.starved) {
            self.receive(index);
        }
    }

    fn receive(&mut self, index: usize) {
        let socket = Fd(self.connections[index].socket.as_raw_fd());
        let entry = opcode::RecvMulti::new(socket, 0).build().user_data(RECEIVE | (index as u64) << 8);
        // SAFETY: it points to the provided buffers, which live as long as the process.
        unsafe { self.ring.push(&entry) };
    }

    /// Sends so many messages at once.
    fn send(&mut self, index: usize, messages: usize) {
        let connection = &mut self.connections[index];
        let length = connection.frames.len() / self.window * messages;
        let outgoing = match &mut connection.records {
            None => &connection.frames[..length],
            Some(records) => {
                records.seal(&connection.frames[..length], &mut connection.outgoing);
                &connection.outgoing[..]
            }
        };
        let entry =
            opcode::Send::new(Fd(connection.socket.as_raw_fd()), outgoing.as_ptr(), outgoing.len() as u32)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(SEND | (index as u64) << 8);
        // SAFETY: the frames are never changed; records are made anew only when the messages of the send before
        // have arrived, so that it is over.
        unsafe { self.ring.push(&entry) };
    }
}

/// Opens `/relay` under a name, without the ring: nothing of it is measured.
fn connect(
    port: u16,
    name: usize,
    room: bool,
    frames: &[u8],
    tls: Option<&std::sync::Arc<rustls::ClientConfig>>,
) -> Connection {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_nodelay(true).expect("an option");
    let request = format!(
        "GET /relay?id={name}&room={} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        u8::from(room)
    );
    let read_head = |stream: &mut dyn std::io::Read| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    };
    let records = match tls {
        None => {
            socket.write_all(request.as_bytes()).expect("the server reads");
            read_head(&mut socket);
            None
        }
        Some(config) => Some(tls::upgrade(config, &mut socket, request.as_bytes(), read_head)),
    };
    Connection { socket, records, frames: frames.to_vec(), outgoing: Vec::new(), received: 0 }
}

/// A client's frame with a payload that begins with this address.
fn frame(address: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend((PAYLOAD_BYTES as u16).to_be_bytes());
    frame.extend(MASK);
    let payload = address.bytes().chain(std::iter::repeat(b'x')).take(PAYLOAD_BYTES);
    frame.extend(payload.enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// Says when to begin and to end, and what the server took in between.
struct Meter {
    pid: u32,
    warm: usize,
    messages: usize,
    began: Option<(usize, Instant, [u64; 2])>,
}

impl Meter {
    fn is_over(&mut self, done: usize) -> bool {
        match self.began {
            None => {
                if done >= self.warm {
                    self.began = Some((done, Instant::now(), processor_milliseconds(self.pid)));
                }
                false
            }
            Some((from, _, _)) if done < from + self.messages => false,
            Some((from, began, [user, system])) => {
                let seconds = began.elapsed().as_secs_f64();
                let [user_now, system_now] = processor_milliseconds(self.pid);
                let messages = (done - from) as f64;
                let (user, system) = ((user_now - user) as f64, (system_now - system) as f64);
                println!(
                    "{{\"us_a_message\":{:.4},\"user_us_a_message\":{:.4},\"messages_a_second\":{:.0},\
                     \"utilisation\":{:.3}}}",
                    (user + system) * 1_000.0 / messages,
                    user * 1_000.0 / messages,
                    messages / seconds,
                    (user + system) / 1_000.0 / seconds,
                );
                true
            }
        }
    }
}

/// User and system time of a process.
fn processor_milliseconds(pid: u32) -> [u64; 2] {
    let mut text = String::new();
    let path = format!("/proc/{pid}/stat");
    std::fs::File::open(&path).and_then(|mut file| file.read_to_string(&mut text)).expect("the server runs");
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let field = |index: usize| fields.split_whitespace().nth(index).expect("a field").parse().unwrap_or(0u64);
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    [field(11) * 10, field(12) * 10]
}
