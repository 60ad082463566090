//! What happens before frames flow: whose request becomes a socket, what is refused and how, and what is
//! handed to the HTTP server (protocol.md section 1; contract.md S-A1, S-A3, S-O1, S-O2).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::pair::{Gateway, Seen, Setup, Socket, client_frame, upgrade_request};
use ringway_gateway::connection::{Disposition, Phase, Transport};
use ringway_gateway::context::ConnectionSettings;
use ringway_gateway::http_stream::{HttpServer, HttpStream};
use ringway_protocol::client::{ClientFrame, Encoding, Hello};

/// Sends a request and reads the answer, body included.
fn ask(gateway: &mut Gateway, request: &[u8]) -> (Socket, String) {
    let mut socket = gateway.accept(Transport::Plain);
    socket.send_bytes(gateway, request);
    socket.drain(gateway);
    let answer = String::from_utf8(socket.received.clone()).unwrap();
    (socket, answer)
}

fn status(gateway: &mut Gateway, request: &[u8]) -> u16 {
    let (socket, answer) = ask(gateway, request);
    let status = answer.strip_prefix("HTTP/1.1 ").expect("an answer")[..3].parse().unwrap();
    let expected = if status == 101 { Disposition::Open } else { Disposition::ShutdownAfterFlush };
    assert_eq!(socket.connection.disposition(), expected, "{answer}");
    status
}

#[test]
fn a_bare_client_gets_json_and_no_subprotocol() {
    let mut gateway = Setup::default().start();
    let (socket, answer) = ask(&mut gateway, &upgrade_request("/ws", ""));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(!answer.contains("Sec-WebSocket-Protocol"), "{answer}");
    assert!(!answer.contains("Sec-WebSocket-Extensions"), "{answer}");
    assert_eq!(socket.connection.phase(), Phase::Unwelcome);
}

#[test]
fn the_first_subprotocol_that_is_ours_is_chosen_and_only_unknown_ones_are_refused() {
    let mut gateway = Setup::default().start();
    let offer = |names| upgrade_request("/ws", &format!("Sec-WebSocket-Protocol: {names}\r\n"));
    let (_, answer) = ask(&mut gateway, &offer("soap, ringway.v1.proto, ringway.v1.json"));
    assert!(answer.contains("Sec-WebSocket-Protocol: ringway.v1.proto\r\n"), "{answer}");
    let (_, answer) = ask(&mut gateway, &offer("soap, mqtt"));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("ringway.v1.json, ringway.v1.proto"), "{answer}");
}

#[test]
fn a_token_in_the_url_is_refused() {
    let mut gateway = Setup::default().start();
    let token = gateway.token("alice", 3600);
    assert_eq!(status(&mut gateway, &upgrade_request(&format!("/ws?token={token}"), "")), 400);
    assert_eq!(status(&mut gateway, &upgrade_request("/ws?v=1", "")), 101);
}

#[test]
fn a_bad_bearer_is_401_and_a_good_one_is_who_says_hello() {
    let mut gateway = Setup::default().start();
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    for bad in ["x", "a.b.c", none] {
        let header = format!("Authorization: Bearer {bad}\r\n");
        assert_eq!(status(&mut gateway, &upgrade_request("/ws", &header)), 401, "{bad}");
    }
    let header = format!("Authorization: Bearer {}\r\n", gateway.token("alice", 3600));
    let mut socket = gateway.upgrade("/ws", &header);
    socket.send_text(&mut gateway, r#"{"type":"hello"}"#);
    gateway.answer_probes(&mut socket);
    assert_eq!(socket.welcome(&mut gateway).user_id, "alice");
}

#[test]
fn only_listed_origins_open_a_socket() {
    let origins = Some(vec!["https://app.example.com".to_owned()]);
    let settings = ConnectionSettings { origins, echo: true, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    for (origin, expected) in [
        ("Origin: https://app.example.com\r\n", 101),
        ("", 101),
        ("Origin: null\r\n", 403),
        ("Origin: https://app.example.com.evil\r\n", 403),
        ("Origin: https://app.example.com:443\r\n", 403),
        ("Origin: http://app.example.com\r\n", 403),
        ("Origin: https://APP.example.com\r\n", 403),
        ("Origin: https://app.example.com\r\nOrigin: https://app.example.com\r\n", 400),
    ] {
        for path in ["/ws", "/echo"] {
            assert_eq!(status(&mut gateway, &upgrade_request(path, origin)), expected, "{origin}");
        }
    }
}

#[test]
fn a_request_that_is_no_upgrade_is_told_what_is_wrong() {
    let mut gateway = Setup::default().start();
    let good = String::from_utf8(upgrade_request("/ws", "")).unwrap();
    for (from, to, expected) in [
        ("Version: 13", "Version: 8", 426),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 8", 400),
        ("Upgrade: websocket\r\n", "", 426),
        ("Host: chat.example\r\n", "", 400),
        ("Host: chat.example", "Host: chat.example\r\nHost: chat.example", 400),
        ("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: short", 400),
        ("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: x", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("HTTP/1.1\r\n", "HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Host: chat.example\r\n", "Host: chat.example\n", 400),
        ("GET", "POST", 400),
    ] {
        let request = good.replacen(from, to, 1);
        assert_eq!(status(&mut gateway, request.as_bytes()), expected, "{request}");
    }
    let (_, answer) = ask(&mut gateway, good.replace("Version: 13", "Version: 12").as_bytes());
    assert!(answer.contains("Sec-WebSocket-Version: 13\r\n"), "{answer}");
}

#[test]
fn bytes_behind_a_refused_request_are_never_read() {
    let mut gateway = Setup::default().start();
    let hello = Hello { token: Some(gateway.token("mallory", 60)), ..Hello::default() };
    let mut request = upgrade_request("/ws?token=x", "");
    request.extend(client_frame(Encoding::Json, &ClientFrame::Hello(hello)));
    let (mut socket, answer) = ask(&mut gateway, &request);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    socket.send_bytes(&mut gateway, &upgrade_request("/ws", ""));
    assert!(!socket.connection.has_output(), "one answer, then the end");
    assert!(gateway.script.take().is_empty());
}

#[test]
fn frames_pipelined_behind_the_upgrade_come_after_the_101() {
    let mut gateway = Setup::default().start();
    let hello = Hello { token: Some(gateway.token("alice", 3600)), ..Hello::default() };
    let mut request = upgrade_request("/ws", "");
    request.extend(client_frame(Encoding::Json, &ClientFrame::Hello(hello)));
    request.extend(client_frame(Encoding::Json, &ClientFrame::Ping { nonce: None }));
    let mut socket = gateway.accept(Transport::Plain);
    socket.send_bytes(&mut gateway, &request);
    assert!(socket.read_head(&mut gateway).starts_with("HTTP/1.1 101 "));
    assert!(!socket.connection.wants_read(), "what follows hello waits for welcome");
    gateway.answer_probes(&mut socket);
    let seen = socket.read(&mut gateway);
    assert!(matches!(&seen[..], [Seen::Frame(_), Seen::Frame(_)]), "welcome and pong: {seen:?}");
    assert!(socket.connection.wants_read());
}

#[test]
fn without_an_http_server_other_paths_are_404_and_echo_is_a_setting() {
    let mut gateway = Setup::default().start();
    for path in ["/", "/api/v1/conversations", "/ws/", "/WS", "/echo"] {
        assert_eq!(status(&mut gateway, &upgrade_request(path, "")), 404, "{path}");
    }
    let settings = ConnectionSettings { echo: true, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    assert_eq!(status(&mut gateway, &upgrade_request("/echo", "")), 101);
}

#[test]
fn an_endless_head_and_a_silent_one_end() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.accept(Transport::Plain);
    socket.send_bytes(&mut gateway, b"GET /ws HTTP/1.1\r\n");
    for _ in 0..300 {
        socket.send_bytes(&mut gateway, b"X-Filler: 0123456789012345678901234567\r\n");
    }
    assert!(socket.read_head(&mut gateway).starts_with("HTTP/1.1 431 "));

    let mut socket = gateway.accept(Transport::Plain);
    for byte in b"GET /ws" {
        gateway.pass(1_000, &mut socket);
        socket.send_bytes(&mut gateway, &[*byte]);
    }
    assert!(socket.is_open());
    gateway.pass(1_000, &mut socket);
    assert_eq!(socket.connection.disposition(), Disposition::Abort, "8 s for the whole head");
}

/// Keeps what it is given.
#[derive(Default)]
struct Keeper(Mutex<Vec<(HttpStream, SocketAddr, bool)>>);

impl HttpServer for Keeper {
    fn serve(&self, stream: HttpStream, peer: SocketAddr, secure: bool) {
        self.0.lock().unwrap().push((stream, peer, secure));
    }
}

#[test]
fn any_other_first_request_is_the_http_servers_with_all_its_bytes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let keeper = Arc::new(Keeper::default());
    let http = Some(Arc::clone(&keeper) as Arc<dyn HttpServer>);
    let mut gateway = Setup { http, ..Setup::default() }.start();
    let mut socket = gateway.accept(Transport::Plain);
    let request = b"POST /api/v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo";
    socket.send_bytes(&mut gateway, request);
    socket.send_bytes(&mut gateway, b"dy");
    assert_eq!(socket.connection.phase(), Phase::Http);
    let (mut stream, peer, secure) = keeper.0.lock().unwrap().pop().expect("handed over");
    assert_eq!((peer.port(), secure), (40_000, false));

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut got = vec![0; request.len() + 2];
        stream.read_exact(&mut got).await.unwrap();
        assert!(got.ends_with(b"body"));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    assert_eq!(gateway.context.http_door().next_ready(), Some(socket.connection.id()));
    assert_eq!(socket.connection.poll_timeout(), None, "between requests it is the server's");
    socket.connection.handle_http(&mut gateway.context, gateway.now);
    socket.drain(&mut gateway);
    assert!(socket.received.ends_with(b"\r\n\r\nok"));
    assert_eq!(socket.connection.disposition(), Disposition::ShutdownAfterFlush);
}

#[test]
fn a_client_that_does_not_read_its_http_answer_is_cut() {
    use tokio::io::AsyncWriteExt;

    let keeper = Arc::new(Keeper::default());
    let http = Some(Arc::clone(&keeper) as Arc<dyn HttpServer>);
    let mut gateway = Setup { http, ..Setup::default() }.start();
    let mut socket = gateway.accept(Transport::Plain);
    socket.send_bytes(&mut gateway, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut stream, ..) = keeper.0.lock().unwrap().pop().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(stream.write_all(&[7; 60_000])).unwrap();
    socket.connection.handle_http(&mut gateway.context, gateway.now);
    for _ in 0..3 {
        gateway.pass(50_000, &mut socket);
        socket.drain_some(&mut gateway, 10_000);
    }
    assert!(socket.is_open());
    gateway.pass(60_000, &mut socket);
    assert_eq!(socket.connection.disposition(), Disposition::Abort);
}

#[test]
fn a_malformed_request_does_not_reach_the_http_server() {
    let keeper = Arc::new(Keeper::default());
    let http = Some(Arc::clone(&keeper) as Arc<dyn HttpServer>);
    let mut gateway = Setup { http, ..Setup::default() }.start();
    assert_eq!(status(&mut gateway, b"GET /api HTTP/1.1\nHost: a\n\n"), 400);
    assert_eq!(status(&mut gateway, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400);
    assert!(keeper.0.lock().unwrap().is_empty());
}
