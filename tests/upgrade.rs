//! The first request of a connection on the real binary: what is refused and with which answer, frames that
//! come right behind it, and `/echo`. The rules one by one are in `gateway/tests/connection/upgrade.rs`.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use ringway_loadgen::abuse::Target;
use ringway_loadgen::abuse::client::{Client as BareClient, MASK, hello, upgrade_request};
use ringway_protocol::websocket::{Event, Opcode, append_masked_frame};
use serde_json::Value;
use support::{Client, PATIENCE, Server, wait_for};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

/// Longest message on `/echo`.
const ECHO_BYTES_MAX: usize = 16 << 20;

/// A whole HTTP answer, with the end of the connection behind it.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends bytes and reads to the end of the connection.
#[track_caller]
fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("it answers and closes");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("an answer: {answer:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").expect("HTTP")[..3].parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn target(server: &Server, user: &str) -> Target {
    Target { ws: server.ws(), wss: server.wss(), token: server.token(user) }
}

#[test]
fn a_refused_upgrade_says_why() {
    let server = Server::start(&["--gateway.allowed_origins", "https://chat.example"]);
    let good = upgrade_request(&target(&server, "alice"));
    let host = format!("Host: {}\r\n", server.ws());
    for (from, to, status, code, header) in [
        (&*host, &*host.repeat(2), 400, "invalid", ""),
        (&host, "", 400, "invalid", ""),
        (
            "ringway.v1.json",
            "soap",
            400,
            "invalid",
            "sec-websocket-protocol: ringway.v1.json, ringway.v1.proto",
        ),
        ("Key: dGhl", "Key: x", 400, "invalid", ""),
        (
            &host,
            &format!("{host}Authorization: Bearer x\r\n"),
            401,
            "unauthorized",
            "www-authenticate: bearer",
        ),
        (&host, &format!("{host}Origin: https://chat.example.evil\r\n"), 403, "forbidden", ""),
        (&host, &format!("{host}Origin: null\r\n"), 403, "forbidden", ""),
        ("Version: 13", "Version: 14", 426, "invalid", "sec-websocket-version: 13"),
        ("Upgrade: websocket\r\n", "", 426, "invalid", "sec-websocket-version: 13"),
        ("/ws", "/ws?token=x", 400, "invalid", ""),
    ] {
        let request = good.replacen(from, to, 1);
        let answer = ask(server.ws(), request.as_bytes());
        assert_eq!(answer.status, status, "{request}\n{}", answer.body);
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
        assert!(answer.head.contains(header), "{} is not in {}", header, answer.head);
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()), "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
    }
    let allowed = Client::try_open(server.ws(), &[("origin", "https://chat.example")]);
    allowed.expect("a listed origin").hello(&server.token("alice"));
    server.connect("alice");
}

#[test]
fn an_unknown_path_is_404_whether_it_asks_for_an_upgrade_or_not() {
    let server = Server::start(&[]);
    let good = upgrade_request(&target(&server, "alice"));
    for path in ["/nowhere", "/ws/", "/WS", "/echo"] {
        let upgrade =
            good.replacen("/ws", path, 1).replacen("Connection: Upgrade", "Connection: close, Upgrade", 1);
        let plain = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.ws());
        for request in [upgrade, plain] {
            let answer = ask(server.ws(), request.as_bytes());
            assert_eq!(answer.status, 404, "{request}");
            let problem: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(problem["code"], "not_found", "{problem}");
        }
    }
}

#[test]
fn who_finds_no_place_is_told_to_come_later() {
    let server = Server::start(&["--limits.connections_per_address", "3"]);
    let mut guests: Vec<Client> =
        ["alice", "bob", "carol"].map(|user| server.connect(user)).into_iter().collect();
    let good = upgrade_request(&target(&server, "dave"));
    let answer = ask(server.ws(), good.as_bytes());
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    let tls = TcpStream::connect(server.wss()).and_then(|mut socket| socket.read(&mut [0; 64]));
    assert!(matches!(tls, Ok(0) | Err(_)), "on the TLS port just the end: {tls:?}");
    assert!(server.metric("ringway_gateway_refused_total") >= 2.0);

    drop(guests.pop());
    wait_for("carol's place", || {
        let mut client = Client::try_open(server.ws(), &[]).ok()?;
        client.hello(&server.token("dave"));
        Some(())
    });
}

#[test]
fn frames_right_behind_the_request_are_the_first_of_the_socket() {
    let server = Server::start(&[]);
    let target = target(&server, "alice");
    let mut bytes = upgrade_request(&target).into_bytes();
    append_masked_frame(&mut bytes, Opcode::Text, hello(&target, "phone").as_bytes(), MASK);
    append_masked_frame(&mut bytes, Opcode::Text, br#"{"type":"ping","nonce":"early"}"#, MASK);
    append_masked_frame(&mut bytes, Opcode::Ping, b"early too", MASK);
    for one_by_one in [false, true] {
        let mut client = BareClient::open(server.ws()).unwrap();
        if one_by_one {
            client.write_one_by_one(&bytes).unwrap();
        } else {
            client.write(&bytes).unwrap();
        }
        client.finish_upgrade().unwrap();
        let mut seen = Vec::new();
        let end = client.read_while(Instant::now() + PATIENCE, |event| {
            seen.push(match event {
                Event::Text(text) => serde_json::from_str::<Value>(text).unwrap()["type"].to_string(),
                other => format!("{other:?}"),
            });
            seen.len() < 3
        });
        assert_eq!(end.unwrap(), None);
        assert_eq!(seen[..2], [r#""welcome""#, r#""pong""#]);
        assert!(seen[2].starts_with("Pong"), "{seen:?}");
    }
}

#[test]
fn bytes_behind_a_refused_request_are_no_frames_and_no_request() {
    let server = Server::start(&[]);
    let target = target(&server, "alice");
    let good = upgrade_request(&target);
    let mut bytes = good.replacen("Version: 13", "Version: 8", 1).into_bytes();
    bytes.extend_from_slice(good.as_bytes());
    append_masked_frame(&mut bytes, Opcode::Text, hello(&target, "phone").as_bytes(), MASK);
    let answer = ask(server.ws(), &bytes);
    assert_eq!(answer.status, 426);
    assert!(
        serde_json::from_str::<Value>(&answer.body).is_ok(),
        "one answer, and nothing more: {}",
        answer.body
    );
    assert_eq!(server.metric("ringway_gateway_sessions_total"), 0.0);
}

#[test]
fn echo_gives_back_what_it_gets_up_to_its_bound() {
    let server = Server::start(&["--diagnostics.echo", "true"]);
    let mut socket = open_echo(server.ws());
    let text = Message::text("ünïcode ".repeat(1_000));
    let long = Message::binary((0..ECHO_BYTES_MAX).map(|at| (at * 7) as u8).collect::<Vec<_>>());
    for message in [Message::text(""), text, Message::binary(vec![0, 255]), long] {
        socket.send(message.clone()).unwrap();
        let echoed = socket.read().unwrap();
        assert!(echoed == message, "{} bytes for {}", echoed.len(), message.len());
    }
    let _ = socket.send(Message::binary(vec![0; ECHO_BYTES_MAX + 1]));
    let code = loop {
        match socket.read() {
            Ok(Message::Close(Some(frame))) => break u16::from(frame.code),
            Ok(_) => {}
            Err(error) => panic!("the end without a Close frame: {error}"),
        }
    };
    assert_eq!(code, 1009);
}

fn open_echo(address: SocketAddr) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let config = WebSocketConfig::default()
        .max_message_size(Some(2 * ECHO_BYTES_MAX))
        .max_frame_size(Some(2 * ECHO_BYTES_MAX));
    let opened =
        tungstenite::client::client_with_config(format!("ws://{address}/echo"), stream, Some(config));
    opened.unwrap_or_else(|error| panic!("{error}")).0
}
