//! The floor of a relay: what a raw ring costs that receives, unmasks, writes a new header and sends from the same
//! buffer, and does nothing else. `cargo xtask bench` runs the gateway's `/relay` beside it, on the same work.
//!
//! It speaks as much of `/relay?id=N&room=0` as its client needs: no check of anything, frames of one kind, and
//! no limit. The beginning of a frame that a buffer cut is carried to the room before the next buffer.
//!
//! `relay_floor PORT BUFFERS BUFFER_BYTES SLOTS`

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::types::{Fd, Fixed};

#[path = "../raw/mod.rs"]
mod raw;

use raw::{HEADROOM, RawRing};

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
/// Not in a provided buffer: the 101.
const NO_BUFFER: u16 = u16::MAX;

#[derive(Default)]
struct Connection {
    upgraded: bool,
    sending: bool,
    in_room: bool,
    /// The beginning of a frame.
    tail: Vec<u8>,
    /// What waits for the send in flight.
    queue: VecDeque<Part>,
}

/// Bytes of a buffer to be sent.
#[derive(Clone, Copy)]
struct Part {
    buffer: u16,
    bytes: *const u8,
    length: u32,
}

struct Floor {
    ring: RawRing,
    connections: Vec<Connection>,
    slot_of: Vec<u32>,
    room: Vec<u32>,
    /// Sends that still read a buffer.
    readers: Vec<u32>,
    starved: Vec<u32>,
}

fn main() {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let [port, buffers, buffer_bytes, slots] = numbers[..] else {
        panic!("relay_floor PORT BUFFERS BUFFER_BYTES SLOTS");
    };
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.set_reuse_address(true).expect("an option");
    listener.set_tcp_nodelay(true).expect("an option");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port as u16)).into()).expect("a free port");
    listener.listen(4_096).expect("a listener");
    let listener = TcpListener::from(listener);
    let mut floor = Floor {
        ring: RawRing::new(buffers as u16, buffer_bytes, slots).expect("a ring"),
        connections: (0..slots).map(|_| Connection::default()).collect(),
        slot_of: vec![u32::MAX; 10_000_000],
        room: Vec::new(),
        readers: vec![0; buffers as usize],
        starved: Vec::new(),
    };
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true).build();
    // SAFETY: it points to nothing.
    unsafe { floor.ring.push(&accept.user_data(ACCEPT)) };
    let mut completions = Vec::new();
    loop {
        floor.ring.enter(1, 1_000_000, &mut completions);
        for completion in completions.drain(..) {
            let slot = completion.user_data as u32 >> 8;
            match completion.user_data & 0xff {
                ACCEPT => {
                    assert!(completion.result >= 0, "accept: {}", completion.result);
                    let slot = completion.result as u32;
                    floor.connections[slot as usize] = Connection::default();
                    floor.receive(slot);
                }
                RECEIVE => {
                    match completion.buffer {
                        Some(buffer) if completion.result > 0 => {
                            floor.on_received(slot, buffer, completion.result as usize);
                        }
                        Some(buffer) => floor.ring.give_back(buffer),
                        None => {}
                    }
                    if !completion.more {
                        match -completion.result {
                            libc::ENOBUFS => floor.starved.push(slot),
                            _ if completion.result > 0 => floor.receive(slot),
                            _ => floor.close(slot),
                        }
                    }
                }
                SEND => floor.on_sent(slot, (completion.user_data >> 32) as u16),
                _ => {}
            }
        }
        for slot in std::mem::take(&mut floor.starved) {
            floor.receive(slot);
        }
    }
}

impl Floor {
    fn receive(&mut self, slot: u32) {
        let entry = opcode::RecvMulti::new(Fixed(slot), 0).build().user_data(RECEIVE | u64::from(slot) << 8);
        // SAFETY: it points to the provided buffers, which live as long as the process.
        unsafe { self.ring.push(&entry) };
    }

    fn close(&mut self, slot: u32) {
        if self.connections[slot as usize].in_room {
            self.room.retain(|member| *member != slot);
        }
        let entry = opcode::Close::new(Fixed(slot)).build().user_data(u64::from(u8::MAX));
        // SAFETY: it points to nothing.
        unsafe { self.ring.push(&entry) };
    }

    fn send(&mut self, slot: u32, part: Part) {
        if part.buffer != NO_BUFFER {
            self.readers[usize::from(part.buffer)] += 1;
        }
        let connection = &mut self.connections[slot as usize];
        if connection.sending {
            connection.queue.push_back(part);
        } else {
            connection.sending = true;
            self.submit(slot, part);
        }
    }

    fn submit(&mut self, slot: u32, part: Part) {
        let entry = opcode::Send::new(Fixed(slot), part.bytes, part.length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(SEND | u64::from(slot) << 8 | u64::from(part.buffer) << 32);
        // SAFETY: it points into a provided buffer that is given back only when `readers` is 0, or to a static.
        unsafe { self.ring.push(&entry) };
    }

    fn on_sent(&mut self, slot: u32, buffer: u16) {
        self.release(buffer);
        match self.connections[slot as usize].queue.pop_front() {
            Some(part) => self.submit(slot, part),
            None => self.connections[slot as usize].sending = false,
        }
    }

    fn release(&mut self, buffer: u16) {
        if buffer != NO_BUFFER {
            let readers = &mut self.readers[usize::from(buffer)];
            *readers -= 1;
            if *readers == 0 {
                self.ring.give_back(buffer);
            }
        }
    }

    fn on_received(&mut self, slot: u32, buffer: u16, length: usize) {
        let connection = &mut self.connections[slot as usize];
        let carried = connection.tail.len();
        // SAFETY: the buffer is ours until it is given back, and what was carried fits in its headroom.
        let bytes = unsafe {
            let start = self.ring.buffer(buffer).add(HEADROOM - carried);
            std::ptr::copy_nonoverlapping(connection.tail.as_ptr(), start, carried);
            std::slice::from_raw_parts_mut(start, carried + length)
        };
        connection.tail.clear();
        if !connection.upgraded {
            return self.upgrade(slot, buffer, bytes);
        }
        // While it is worked on: the sends of its first frames must not give it back.
        self.readers[usize::from(buffer)] += 1;
        let (mut read, mut written, mut run_start) = (0, 0, 0);
        let mut run_to = None;
        while let Some((header, payload)) = frame(&bytes[read..]) {
            let address = address(&bytes[read + header - 4..]);
            if run_to != Some(address) {
                self.relay(run_to, buffer, &bytes[run_start..written]);
                (run_to, run_start) = (Some(address), written);
            }
            written += reframe(bytes, read, header, payload, written);
            read += header + payload;
        }
        self.relay(run_to, buffer, &bytes[run_start..written]);
        self.connections[slot as usize].tail.extend_from_slice(&bytes[read..]);
        self.release(buffer);
    }

    fn relay(&mut self, to: Option<Address>, buffer: u16, frames: &[u8]) {
        let part = Part { buffer, bytes: frames.as_ptr(), length: frames.len() as u32 };
        match to {
            Some(Address::One(id)) => self.send(self.slot_of[id as usize], part),
            Some(Address::Room) => {
                for member in 0..self.room.len() {
                    self.send(self.room[member], part);
                }
            }
            None => {}
        }
    }

    fn upgrade(&mut self, slot: u32, buffer: u16, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if !text.contains("\r\n\r\n") {
            self.connections[slot as usize].tail.extend_from_slice(bytes);
        } else {
            let (_, id) = text.split_once("id=").expect("an id");
            let end = id.find(|byte: char| !byte.is_ascii_digit()).expect("more than an id");
            self.slot_of[id[..end].parse::<usize>().expect("a number")] = slot;
            let connection = &mut self.connections[slot as usize];
            connection.upgraded = true;
            if text.contains("room=1") {
                connection.in_room = true;
                self.room.push(slot);
            }
            let part = Part { buffer: NO_BUFFER, bytes: SWITCHING.as_ptr(), length: SWITCHING.len() as u32 };
            self.send(slot, part);
        }
        self.ring.give_back(buffer);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Address {
    One(u32),
    Room,
}

/// The lengths of the masked frame at the front, if it is whole.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, payload) = match *bytes.get(1)? & 0x7f {
        126 => (8, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        short => (6, usize::from(short)),
    };
    (bytes.len() >= header + payload).then_some((header, payload))
}

/// Where a frame goes; `masked` begins with its mask.
fn address(masked: &[u8]) -> Address {
    if masked[4] ^ masked[0] == b'R' {
        return Address::Room;
    }
    Address::One((1..8).fold(0, |id, at| id * 10 + u32::from((masked[4 + at] ^ masked[at % 4]) - b'0')))
}

/// Writes the server's frame at `to`, which is not behind `from`. Returns its length.
fn reframe(bytes: &mut [u8], from: usize, header: usize, payload: usize, to: usize) -> usize {
    let mask = &bytes[from + header - 4..from + header];
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let short = header - 4;
    bytes[to] = bytes[from];
    bytes[to + 1] = bytes[from + 1] & 0x7f;
    if short == 4 {
        bytes.copy_within(from + 2..from + 4, to + 2);
    }
    let (source, target) = (from + header, to + short);
    let mut at = 0;
    while at + 8 <= payload {
        let word = u64::from_ne_bytes(bytes[source + at..source + at + 8].try_into().expect("eight bytes"));
        bytes[target + at..target + at + 8].copy_from_slice(&(word ^ wide).to_ne_bytes());
        at += 8;
    }
    while at < payload {
        bytes[target + at] = bytes[source + at] ^ wide.to_ne_bytes()[at % 8];
        at += 1;
    }
    short + payload
}
