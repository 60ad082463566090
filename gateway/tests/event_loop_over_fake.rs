//! The event loop over a kernel that misbehaves: whole connections on `/echo`, seed after seed, in one
//! thread and on a clock of their own.

mod support;

use std::net::TcpListener;
use std::sync::Arc;

use ringway_gateway::connection::Transport;
use ringway_gateway::context::ConnectionSettings;
use ringway_gateway::{Admission, Command, CoreMessage, EventLoop, EventLoopParts};
use ringway_protocol::ids::EndpointId;
use ringway_ring::Ring;
use ringway_ring::fake::{FakeDriver, FakeNetwork, FakeSettings, Faults, PeerId};
use ringway_trunk::{Outbox, inbox};

use support::{TestWorkers, client_frame, context, take_head, take_server_frame, upgrade};

struct Fixture {
    network: FakeNetwork,
    event_loop: EventLoop<FakeDriver>,
    outbox: Outbox<CoreMessage>,
}

impl Fixture {
    fn new(settings: FakeSettings, connections_max: u32) -> Self {
        let (network, driver) = FakeNetwork::new(settings);
        let (inbox, outbox) = inbox(64).unwrap();
        let echo = ConnectionSettings { echo: true, ..ConnectionSettings::default() };
        let event_loop = EventLoop::new(EventLoopParts {
            endpoint: EndpointId(3),
            ring: Ring::new(driver),
            listeners: vec![(TcpListener::bind(("127.0.0.1", 0)).unwrap(), Transport::Plain)],
            inbox,
            context: context(echo, Arc::new(TestWorkers::default()), None, settings.seed),
            admission: Arc::new(Admission::new(connections_max, connections_max)),
            follow_wall_clock: false,
        })
        .unwrap();
        Self { network, event_loop, outbox }
    }

    fn pass(&mut self) {
        self.event_loop.pass().unwrap();
    }

    fn passes_until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.pass();
        }
        panic!("it never came to this: {what}");
    }
}

fn small(seed: u64, faults: Faults) -> FakeSettings {
    FakeSettings { slots: 32, buffers: 8, buffer_bytes: 256, faults, seed }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A client that echoes: what it sent and what came back, frame by frame.
struct Client {
    peer: PeerId,
    received: Vec<u8>,
    upgraded: bool,
    sent: Vec<Vec<u8>>,
    echoed: usize,
    gone: bool,
}

impl Client {
    fn connect(network: &FakeNetwork) -> Self {
        let peer = network.connect(0);
        network.write(peer, &upgrade("/echo"));
        Self { peer, received: Vec::new(), upgraded: false, sent: Vec::new(), echoed: 0, gone: false }
    }

    fn read(&mut self, network: &FakeNetwork, seed: u64) {
        self.received.extend(network.read(self.peer));
        if !self.upgraded {
            let Some(head) = take_head(&mut self.received) else { return };
            assert!(head.starts_with("HTTP/1.1 101 "), "seed {seed}: {head}");
            self.upgraded = true;
        }
        while let Some((opcode, payload)) = take_server_frame(&mut self.received) {
            if opcode == 2 {
                let expected = &self.sent[self.echoed];
                assert!(payload == *expected, "seed {seed}: a frame comes back as it was sent, in order");
                self.echoed += 1;
            }
        }
    }
}

fn run(seed: u64, faults: Faults) {
    let mut fixture = Fixture::new(small(seed, faults), 24);
    let network = fixture.network.clone();
    let mut random = Random(seed);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..400 {
        let live = clients.iter().filter(|client| !client.gone).count();
        if live < 20 && clients.len() < 60 && random.below(4) == 0 {
            clients.push(Client::connect(&network));
        }
        if !clients.is_empty() {
            let index = random.below(clients.len() as u64) as usize;
            let client = &mut clients[index];
            match random.below(24) {
                _ if client.gone => {}
                0 => {
                    network.reset(client.peer);
                    client.gone = true;
                }
                1 => network.set_window(client.peer, 0),
                2..=4 => network.set_window(client.peer, usize::MAX),
                _ => {
                    let payload: Vec<u8> = (0..random.below(1_200)).map(|byte| byte as u8).collect();
                    network.write(client.peer, &client_frame(2, &payload));
                    client.sent.push(payload);
                }
            }
        }
        fixture.pass();
        fixture.event_loop.ring().check_invariants();
        for client in &mut clients {
            client.read(&network, seed);
        }
    }
    for client in &clients {
        network.set_window(client.peer, usize::MAX);
    }
    for _ in 0..400 {
        fixture.pass();
        for client in &mut clients {
            client.read(&network, seed);
        }
    }
    let mut live = 0;
    for client in clients.iter().filter(|client| !client.gone) {
        assert_eq!(client.echoed, client.sent.len(), "seed {seed}: every frame came back");
        live += 1;
    }
    assert_eq!(network.armed_receives(), live, "seed {seed}: each live socket is read");
    assert_eq!(fixture.event_loop.open_connections(), live, "seed {seed}");
    // A close handshake each, and nothing is left.
    for client in clients.iter().filter(|client| !client.gone) {
        network.write(client.peer, &client_frame(8, &1_000u16.to_be_bytes()));
    }
    for _ in 0..50 {
        fixture.pass();
    }
    for client in clients.iter().filter(|client| !client.gone) {
        assert!(network.server_ended(client.peer), "seed {seed}: the server ends first");
        network.end(client.peer);
    }
    fixture.passes_until("all slots are free", |fixture| fixture.network.open_sockets() == 0);
    fixture.event_loop.ring().check_invariants();
}

#[test]
fn every_frame_comes_back_whatever_the_kernel_does() {
    for seed in 0..60 {
        run(seed, Faults::ALL);
        run(seed, Faults::NONE);
    }
}

#[test]
fn a_hundred_thousand_connections_leave_no_slot() {
    let mut fixture = Fixture::new(small(5, Faults::ALL), 24);
    let network = fixture.network.clone();
    let mut connected = 0u32;
    let mut waiting = std::collections::VecDeque::new();
    while connected < 100_000 || !waiting.is_empty() {
        while connected < 100_000 && waiting.len() < 12 {
            let client = Client::connect(&network);
            match connected % 4 {
                0 => network.reset(client.peer),
                1 => network.end(client.peer),
                _ => network.write(client.peer, &client_frame(8, &[])),
            }
            waiting.push_back((client.peer, connected % 4));
            connected += 1;
        }
        fixture.pass();
        waiting.retain(|(peer, kind)| {
            if *kind >= 2 && network.server_ended(*peer) {
                network.end(*peer);
            }
            !network.server_closed(*peer)
        });
    }
    fixture.passes_until("all slots are free", |fixture| fixture.network.open_sockets() == 0);
    assert_eq!(fixture.event_loop.open_connections(), 0);
    fixture.event_loop.ring().check_invariants();
}

#[test]
fn a_full_table_stops_accepting_and_a_close_lets_it_go_on() {
    // 30 slots keep 3 free; the bound on connections is not what stops it here.
    let settings = FakeSettings { slots: 30, ..small(1, Faults::NONE) };
    let mut fixture = Fixture::new(settings, 1_000);
    let network = fixture.network.clone();
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..27 {
        clients.push(Client::connect(&network));
        fixture.pass();
    }
    fixture.passes_until("27 are in", |fixture| fixture.event_loop.open_connections() == 27);
    let late: Vec<Client> = (0..3).map(|_| Client::connect(&network)).collect();
    for _ in 0..20 {
        fixture.pass();
    }
    assert_eq!(fixture.event_loop.open_connections(), 27, "the headroom stays free");
    for client in &late {
        assert!(!network.server_closed(client.peer), "who waits in the backlog is not turned away");
    }
    network.reset(clients[4].peer);
    fixture.passes_until("who waited is in", |fixture| {
        late.iter().all(|client| fixture.network.unread(client.peer) == 0)
    });
    // All three at once, as a kernel does: that is what the headroom is for.
    assert_eq!(fixture.event_loop.open_connections(), 29);
    assert!(late.iter().all(|client| !network.server_closed(client.peer)));
}

#[test]
fn who_finds_no_place_reads_503_and_is_closed() {
    let mut fixture = Fixture::new(small(1, Faults::NONE), 2);
    let network = fixture.network.clone();
    let inside: Vec<Client> = (0..2).map(|_| Client::connect(&network)).collect();
    fixture.passes_until("two are in", |fixture| fixture.event_loop.open_connections() == 2);
    let outside = Client::connect(&network);
    fixture.passes_until("the third is told", |fixture| fixture.network.server_ended(outside.peer));
    let answer = String::from_utf8(network.read(outside.peer)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After"), "{answer}");
    network.end(outside.peer);
    fixture.passes_until("its slot is free", |fixture| fixture.network.open_sockets() == 2);
    // It counted for nobody: the place of one who leaves is free.
    network.reset(inside[0].peer);
    fixture.passes_until("one left", |fixture| fixture.network.open_sockets() == 1);
    Client::connect(&network);
    fixture.passes_until("another is in", |fixture| fixture.event_loop.open_connections() == 2);
}

#[test]
fn who_never_reads_the_refusal_is_cut() {
    let mut fixture = Fixture::new(small(1, Faults::NONE), 0);
    let network = fixture.network.clone();
    let outside = Client::connect(&network);
    network.set_window(outside.peer, 0);
    fixture.passes_until("it is cut", |fixture| fixture.network.server_closed(outside.peer));
}

#[test]
fn silence_in_the_request_is_cut_after_its_time() {
    let mut fixture = Fixture::new(small(1, Faults::NONE), 10);
    let network = fixture.network.clone();
    let silent = network.connect(0);
    network.write(silent, b"GET /ec");
    fixture.passes_until("it is in", |fixture| fixture.event_loop.open_connections() == 1);
    fixture.passes_until("it is cut", |fixture| fixture.network.server_closed(silent));
    fixture.passes_until("its slot is free", |fixture| fixture.network.open_sockets() == 0);
}

#[test]
fn a_stopped_core_closes_all_and_is_over() {
    for faults in [Faults::NONE, Faults::ALL] {
        let mut fixture = Fixture::new(small(9, faults), 24);
        let network = fixture.network.clone();
        let clients: Vec<Client> = (0..10).map(|_| Client::connect(&network)).collect();
        fixture.passes_until("all are in", |fixture| fixture.event_loop.open_connections() == 10);
        fixture.outbox.send(CoreMessage::Command(Command::Stop)).unwrap();
        fixture.passes_until("it is over", |fixture| fixture.event_loop.is_over());
        assert!(clients.iter().all(|client| network.server_closed(client.peer)));
        fixture.event_loop.ring().check_invariants();
    }
}

#[test]
fn a_drained_core_cuts_who_stays_at_the_deadline() {
    let mut fixture = Fixture::new(small(9, Faults::NONE), 24);
    let network = fixture.network.clone();
    let stays = Client::connect(&network);
    fixture.passes_until("it is upgraded", |fixture| fixture.network.read(stays.peer).len() > 100);
    let over = std::time::Duration::from_secs(5);
    fixture.outbox.send(CoreMessage::Command(Command::Drain { over })).unwrap();
    fixture.pass();
    let late = network.connect(0);
    fixture.passes_until("it is over", |fixture| fixture.event_loop.is_over());
    assert!(network.server_closed(stays.peer));
    assert_eq!(network.open_sockets(), 0);
    assert!(!network.server_ended(late) || network.read(late).is_empty(), "nobody is taken in any more");
}
