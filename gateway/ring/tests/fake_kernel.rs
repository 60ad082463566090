//! The ring's rules over a kernel that misbehaves, seed after seed: an echo server, whose clients write,
//! stop reading, end, and vanish at any moment. What a client gets back is what it sent, and at the end
//! nothing is left.

use std::collections::BTreeMap;
use std::net::TcpListener;

use ringway_ring::fake::{FakeDriver, FakeNetwork, FakeSettings, Faults, PeerId};
use ringway_ring::{Completion, ListenerId, Ring, Token, Wait};

/// What the echo server keeps of a socket.
#[derive(Default)]
struct Echo {
    waiting: Vec<u8>,
    ended: bool,
    closing: bool,
}

struct Server {
    ring: Ring<FakeDriver>,
    listener: ListenerId,
    echoes: BTreeMap<Token, Echo>,
    accepted: u64,
    closed: u64,
    /// The table was full; accepting goes on when a slot is free.
    full: bool,
}

impl Server {
    fn new(driver: FakeDriver) -> Self {
        let mut ring = Ring::new(driver);
        let listener = ring.add_listener(TcpListener::bind(("127.0.0.1", 0)).unwrap());
        ring.start_accepting(listener);
        Self { ring, listener, echoes: BTreeMap::new(), accepted: 0, closed: 0, full: false }
    }

    fn pass(&mut self) {
        self.ring.submit_and_wait(Wait::No).unwrap();
        while let Some(completion) = self.ring.next_completion() {
            self.on(completion);
        }
        let tokens: Vec<Token> = self.echoes.keys().copied().collect();
        for token in tokens {
            self.transmit(token);
        }
    }

    fn on(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { token, listener } => {
                self.accepted += 1;
                self.echoes.insert(token, Echo::default());
                self.ring.ask_peer(token, listener);
            }
            Completion::AcceptEnded { .. } => self.full = true,
            Completion::Event => {}
            Completion::Peer { token, address } => match address {
                Ok(_) => self.ring.start_receiving(token),
                Err(_) => self.close(token),
            },
            Completion::Received { token, buffer } => {
                let bytes = self.ring.buffer_mut(&buffer).to_vec();
                self.ring.give_back(buffer);
                let echo = self.echoes.get_mut(&token).unwrap();
                echo.waiting.extend(bytes);
                // A slow reader is not read, as in the gateway.
                if echo.waiting.len() > 2_000 {
                    self.ring.stop_receiving(token);
                }
            }
            Completion::ReceiveEnded { token, result } => {
                self.echoes.get_mut(&token).unwrap().ended = true;
                if result.is_err() {
                    self.close(token);
                }
            }
            Completion::Sent { token, result, .. } => {
                if result.is_err() {
                    self.close(token);
                }
            }
            Completion::Closed { token } => {
                self.closed += 1;
                assert!(self.echoes.remove(&token).unwrap().closing);
                if std::mem::take(&mut self.full) {
                    self.ring.start_accepting(self.listener);
                }
            }
        }
    }

    fn transmit(&mut self, token: Token) {
        let echo = self.echoes.get_mut(&token).unwrap();
        if echo.closing || self.ring.is_sending(token) {
            return;
        }
        if echo.waiting.is_empty() {
            if echo.ended {
                self.close(token);
            }
            return;
        }
        let count = echo.waiting.len().min(700);
        let chunk: Vec<u8> = echo.waiting.drain(..count).collect();
        self.ring.send(token, chunk);
        if !echo.ended && echo.waiting.len() <= 2_000 {
            self.ring.start_receiving(token);
        }
    }

    fn close(&mut self, token: Token) {
        let echo = self.echoes.get_mut(&token).unwrap();
        if !echo.closing {
            echo.closing = true;
            self.ring.close(token);
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Client {
    peer: PeerId,
    sent: Vec<u8>,
    received: Vec<u8>,
    vanished: bool,
    ended: bool,
}

fn run(seed: u64, faults: Faults, buffers: u16) -> (u64, u64) {
    let settings = FakeSettings { slots: 24, buffers, buffer_bytes: 256, faults, seed };
    let (network, driver) = FakeNetwork::new(settings);
    let mut server = Server::new(driver);
    let mut random = Random(seed);
    let mut clients: Vec<Client> = Vec::new();
    for step in 0..600u64 {
        if clients.len() < 60 && random.below(6) == 0 {
            let peer = network.connect(0);
            clients.push(Client {
                peer,
                sent: Vec::new(),
                received: Vec::new(),
                vanished: false,
                ended: false,
            });
        }
        if !clients.is_empty() {
            let index = random.below(clients.len() as u64) as usize;
            let client = &mut clients[index];
            match random.below(20) {
                0 => {
                    network.reset(client.peer);
                    client.vanished = true;
                }
                1 => {
                    network.end(client.peer);
                    client.ended = true;
                }
                2 => network.set_window(client.peer, 0),
                3 | 4 => network.set_window(client.peer, usize::MAX),
                _ if client.ended => {}
                _ => {
                    let bytes: Vec<u8> = (0..random.below(900)).map(|byte| (byte ^ step) as u8).collect();
                    network.write(client.peer, &bytes);
                    client.sent.extend(bytes);
                }
            }
        }
        server.pass();
        for client in &mut clients {
            client.received.extend(network.read(client.peer));
            let echoed = &client.received;
            assert!(client.sent.starts_with(echoed), "seed {seed}: a client gets its own bytes, in order");
        }
        server.ring.check_invariants();
    }
    // Everybody reads, says its end, and is answered.
    for client in &clients {
        network.set_window(client.peer, usize::MAX);
        network.end(client.peer);
    }
    for _ in 0..3_000 {
        server.pass();
    }
    for client in &mut clients {
        client.received.extend(network.read(client.peer));
        let refused = network.server_closed(client.peer) && client.received.is_empty();
        let complete = client.received == client.sent;
        assert!(complete || client.vanished || refused, "seed {seed}: nothing of a client is lost");
        assert!(network.server_closed(client.peer), "seed {seed}: every socket is closed");
    }
    assert_eq!(network.open_sockets(), 0, "seed {seed}: no slot is left");
    assert_eq!(server.ring.open_slots(), 0);
    assert_eq!(server.accepted, server.closed);
    server.ring.check_invariants();
    (server.accepted, server.ring.counters().buffers_exhausted)
}

#[test]
fn nothing_is_lost_or_left_whatever_the_kernel_does() {
    for seed in 0..150 {
        run(seed, Faults::ALL, 16);
    }
}

#[test]
fn three_buffers_starve_nobody() {
    let mut exhausted = 0;
    for seed in 0..80 {
        exhausted += run(seed, Faults::ALL, 3).1;
        exhausted += run(seed, Faults::NONE, 3).1;
    }
    assert!(exhausted > 100, "the buffers did run out: {exhausted}");
}

#[test]
fn one_seed_is_one_history() {
    assert_eq!(run(7, Faults::ALL, 8), run(7, Faults::ALL, 8));
}

#[test]
fn a_hundred_thousand_connections_leave_no_slot() {
    let settings = FakeSettings { slots: 64, buffers: 16, buffer_bytes: 64, faults: Faults::ALL, seed: 1 };
    let (network, driver) = FakeNetwork::new(settings);
    let mut server = Server::new(driver);
    let mut connected = 0u64;
    let mut passes = 0;
    while server.closed < 100_000 {
        passes += 1;
        assert!(passes < 1_000_000, "it stands still: {} of 100,000 are closed", server.closed);
        for _ in 0..8 {
            if connected < 100_000 && connected - server.accepted < 8 && server.echoes.len() < 40 {
                let peer = network.connect(0);
                connected += 1;
                network.write(peer, b"hi");
                if connected.is_multiple_of(3) { network.reset(peer) } else { network.end(peer) }
            }
        }
        server.pass();
    }
    assert_eq!(server.ring.open_slots(), 0);
    assert_eq!(network.open_sockets(), 0);
    server.ring.check_invariants();
}
