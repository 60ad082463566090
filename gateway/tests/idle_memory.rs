//! What an idle connection costs in user memory: the growth of the resident set over thousands of them.
//! Alone in its process, so that nothing else grows meanwhile.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ringway_gateway::{Gateway, GatewaySettings, Started};
use ringway_protocol::ids::EndpointId;
use ringway_protocol::token::mint_development;
use ringway_protocol::user::UserId;

use support::{SECRET, TestWorkers, client_frame, keys, take_head, take_server_frame, upgrade};

const CONNECTIONS: usize = 4_000;
/// Enough to touch every receive buffer once: they are the core's, not a connection's.
const WARM_UP: usize = 800;

/// Bytes of user memory that one idle session may cost, without its seat in the router's directory.
const BYTES_MAX: usize = 512;

#[test]
fn an_idle_session_costs_less_than_half_a_kibibyte() {
    let gateway = Gateway::bind(GatewaySettings {
        wss: None,
        cores: NonZeroUsize::new(1),
        connections_per_address: 10_000,
        ..GatewaySettings::default()
    })
    .unwrap();
    let address = gateway.addresses().ws.unwrap();
    let workers = Arc::new(TestWorkers::default());
    workers.set_endpoints(gateway.endpoints());
    let started = Started { workers, endpoint_base: EndpointId(0), http: None, keys: keys(), tls: None };
    let running = gateway.start(started).unwrap();

    let mut clients = Vec::with_capacity(CONNECTIONS + WARM_UP);
    for index in 0..WARM_UP {
        clients.push(open_session(address, index));
    }
    let before = resident_bytes();
    for index in 0..CONNECTIONS {
        clients.push(open_session(address, WARM_UP + index));
    }
    let grown = resident_bytes().saturating_sub(before);
    let each = grown / CONNECTIONS;
    println!("{each} bytes of user memory an idle session");
    assert!(each <= BYTES_MAX, "an idle session costs {each} bytes");
    drop(clients);
    running.stop();
    running.join().unwrap();
}

fn open_session(address: std::net::SocketAddr, index: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&upgrade("/ws")).unwrap();
    let user = UserId::new("", &format!("user{index}")).unwrap();
    let token = mint_development(SECRET, &user, None, ringway_gateway::clock::wall_clock(), 3_600);
    stream
        .write_all(&client_frame(1, format!(r#"{{"type":"hello","token":"{token}"}}"#).as_bytes()))
        .unwrap();
    let mut received = Vec::new();
    let mut upgraded = false;
    loop {
        upgraded |= take_head(&mut received).is_some();
        if upgraded && let Some((opcode, _)) = take_server_frame(&mut received) {
            assert_eq!(opcode, 1, "a welcome");
            return stream;
        }
        let mut buffer = [0; 4_096];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the stream ended before the welcome");
        received.extend(&buffer[..count]);
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}
