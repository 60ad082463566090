//! `/relay` over real sockets and two cores: who is addressed gets the message as it was, on whichever core.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ringway_gateway::context::ConnectionSettings;
use ringway_gateway::{Gateway, GatewaySettings, RunningGateway, Started};
use ringway_protocol::ids::EndpointId;

use support::{TestWorkers, client_frame, keys, take_head, take_server_frame, upgrade};

const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    gateway: Option<RunningGateway>,
    ws: SocketAddr,
}

impl Fixture {
    fn new(relay: bool) -> Self {
        let settings = GatewaySettings {
            wss: None,
            cores: NonZeroUsize::new(2),
            connection: ConnectionSettings { relay, ..ConnectionSettings::default() },
            ..GatewaySettings::default()
        };
        let gateway = Gateway::bind(settings).unwrap();
        let ws = gateway.addresses().ws.unwrap();
        let started = Started {
            workers: Arc::new(TestWorkers::default()),
            endpoint_base: EndpointId(0),
            http: None,
            keys: keys(),
            tls: None,
        };
        Self { gateway: Some(gateway.start(started).unwrap()), ws }
    }

    fn open(&self, target: &str) -> (Client, String) {
        let mut stream = TcpStream::connect(self.ws).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&upgrade(target)).unwrap();
        let mut client = Client { stream, received: Vec::new() };
        loop {
            if let Some(head) = take_head(&mut client.received) {
                return (client, head);
            }
            client.read_some();
        }
    }

    fn join(&self, id: usize, room: u8) -> Client {
        let (client, head) = self.open(&format!("/relay?id={id}&room={room}"));
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
            gateway.join().unwrap();
        }
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn say(&mut self, opcode: u8, message: &[u8]) {
        self.stream.write_all(&client_frame(opcode, message)).unwrap();
    }

    fn read_some(&mut self) {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the stream ended");
        self.received.extend(&buffer[..count]);
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(frame) = take_server_frame(&mut self.received) {
                return frame;
            }
            self.read_some();
        }
    }
}

#[test]
fn a_message_reaches_whom_it_names_on_every_core_and_a_room_hears_all_that_is_said_to_it() {
    let fixture = Fixture::new(true);
    // As many as make it sure that both cores have some.
    let mut clients: Vec<Client> = (0..24).map(|id| fixture.join(id, u8::from(id % 2 == 1))).collect();
    let metrics = fixture.gateway.as_ref().unwrap().metrics();
    assert!(metrics.iter().all(|core| core.connections.get() > 0), "both cores have connections");

    let (first, others) = clients.split_first_mut().unwrap();
    for (index, client) in others.iter_mut().enumerate() {
        let texts = [format!("U{:07}one", index + 1), format!("U{:07}two", index + 1)];
        let mut both = client_frame(1, texts[0].as_bytes());
        both.extend(client_frame(2, texts[1].as_bytes()));
        first.stream.write_all(&both).unwrap();
        assert_eq!(client.frame(), (1, texts[0].clone().into_bytes()));
        assert_eq!(client.frame(), (2, texts[1].clone().into_bytes()));
    }

    // The longest message that may be.
    let long = [b"R".as_slice(), &[b'x'; 64 * 1024 - 1]].concat();
    first.say(1, &long);
    first.say(2, b"U0000000to myself");
    for client in others.iter_mut().step_by(2) {
        assert_eq!(client.frame(), (1, long.clone()));
    }
    assert_eq!(first.frame(), (2, b"U0000000to myself".to_vec()), "and nothing that was said to the room");

    // Who left is not found, and what was said to him is no error.
    others[0].say(8, &1_000u16.to_be_bytes());
    assert_eq!(others[0].frame().0, 8);
    first.say(1, b"U0000001are you there");
    first.say(1, b"U0000002you are");
    assert_eq!(others[1].frame(), (1, b"U0000002you are".to_vec()));
}

#[test]
fn what_names_nobody_ends_the_connection() {
    let fixture = Fixture::new(true);
    for message in [b"hello".as_slice(), b"U12345", b""] {
        let mut client = fixture.join(1, 0);
        client.say(1, message);
        let (opcode, payload) = client.frame();
        assert_eq!((opcode, &payload[..2]), (8, &4_000u16.to_be_bytes()[..]), "{message:?}");
    }
    let mut client = fixture.join(1, 0);
    client.say(2, &[b'R'; 64 * 1024 + 1]);
    assert_eq!(client.frame().1[..2], 1_009u16.to_be_bytes(), "too long");
    for target in ["/relay", "/relay?id=12345678", "/relay?id=x&room=1", "/relay?room=1"] {
        assert!(fixture.open(target).1.starts_with("HTTP/1.1 400 "), "{target}");
    }
}

#[test]
fn who_does_not_read_is_closed_and_the_others_miss_nothing() {
    let fixture = Fixture::new(true);
    let (mut speaker, _deaf, mut listener) = (fixture.join(0, 0), fixture.join(1, 1), fixture.join(2, 1));
    let message = [b"R".as_slice(), &[b'x'; 32 * 1024]].concat();
    let slow = |fixture: &Fixture| {
        fixture.gateway.as_ref().unwrap().metrics().iter().map(|core| core.slow_readers.get()).sum::<u64>()
    };
    let mut said = 0;
    while slow(&fixture) == 0 {
        assert!(said < 4_096, "a queue without a bound");
        speaker.say(2, &message);
        assert_eq!(listener.frame(), (2, message.clone()));
        said += 1;
    }
    speaker.say(2, &message);
    assert_eq!(listener.frame(), (2, message));
}

#[test]
fn it_is_a_setting() {
    let fixture = Fixture::new(false);
    assert!(fixture.open("/relay?id=1&room=0").1.starts_with("HTTP/1.1 404 "));
}
