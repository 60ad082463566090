//! The opening handshake: RFC 6455 section 4, and what others got wrong.

use ringway_protocol::client::Encoding;
use ringway_protocol::websocket::upgrade::{
    HEAD_BYTES_MAX, HEADERS_MAX, HeadScanner, RequestHead, UpgradeRefusal, UpgradeRequest,
};

const GOOD: &str = "GET /ws HTTP/1.1\r\n\
    Host: chat.example:8443\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The good request with a header line in place of another, or without it.
fn with(name: &str, lines: &str) -> String {
    let mut request = String::new();
    for line in GOOD.trim_end().split("\r\n") {
        if line.starts_with(&format!("{name}:")) {
            request.push_str(lines);
        } else {
            request.push_str(line);
            request.push_str("\r\n");
        }
    }
    if !GOOD.contains(&format!("\n{name}:")) {
        request.push_str(lines);
    }
    request + "\r\n"
}

/// Scans, parses and checks, as the gateway does.
fn open(request: &[u8]) -> Result<String, UpgradeRefusal> {
    let end = HeadScanner::default().find_end(request)?.expect("a whole head");
    let head = RequestHead::parse(&request[..end])?;
    UpgradeRequest::check(&head).map(|upgrade| upgrade.accept)
}

fn status(request: impl AsRef<[u8]>) -> u16 {
    open(request.as_ref()).err().map_or(101, |refusal| refusal.status())
}

#[test]
fn section_4_2_2_the_answer_proves_that_the_key_was_read() {
    let head = RequestHead::parse(GOOD.as_bytes()).unwrap();
    let upgrade = UpgradeRequest::check(&head).unwrap();
    assert_eq!((head.path, upgrade.host), ("/ws", "chat.example:8443"));
    assert_eq!(
        String::from_utf8(upgrade.accept_response(Some("ringway.v1.json"))).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: ringway.v1.json\r\n\r\n"
    );
}

#[test]
fn section_4_2_1_each_requirement_is_required() {
    for (name, lines, expected) in [
        ("Host", "", 400),
        ("Host", "Host: a\r\nHost: a\r\n", 400),
        ("Host", "Host:\r\n", 400),
        ("Host", "Host: a b\r\n", 400),
        ("Host", "Host: a,b\r\n", 400),
        ("Upgrade", "", 426),
        ("Upgrade", "Upgrade: h2c\r\n", 426),
        ("Upgrade", "Upgrade: h2c, WebSocket\r\n", 101),
        ("Connection", "", 426),
        ("Connection", "Connection: keep-alive\r\n", 426),
        ("Connection", "Connection: keep-alive, uPGRADE\r\n", 101),
        ("Connection", "Connection: keep-alive\r\nConnection: Upgrade\r\n", 101),
        ("Sec-WebSocket-Version", "", 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n", 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13, 8\r\n", 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("Sec-WebSocket-Key", "", 400),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: \r\n", 400),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", 400),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFh\r\n", 400),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: ????????????????????????\r\n", 400),
        (
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            400,
        ),
        ("Content-Length", "Content-Length: 5\r\n", 400),
        ("Transfer-Encoding", "Transfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
    ] {
        assert_eq!(status(with(name, lines)), expected, "{lines:?} for {name}");
    }
    assert_eq!(status(GOOD.replace("GET", "POST")), 400);
    assert_eq!(status(GOOD.replace("GET", "get")), 400);
    assert_eq!(status(GOOD.replace("HTTP/1.1", "HTTP/1.0")), 400);
}

#[test]
fn section_4_4_another_version_is_told_ours() {
    let refusal =
        open(with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 14\r\n").as_bytes()).unwrap_err();
    let response = String::from_utf8(refusal.response()).unwrap();
    assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
}

#[test]
fn names_of_headers_have_no_case() {
    assert_eq!(status(GOOD.replace("Sec-WebSocket-Key", "sec-websocket-KEY").replace("Host", "hOST")), 101);
}

#[test]
fn a_head_that_a_proxy_might_read_differently_is_refused() {
    for request in [
        GOOD.replace("\r\nUpgrade", "\nUpgrade"),
        GOOD.replace("\r\nUpgrade", "\rUpgrade"),
        GOOD.replace("Host: ", "Host : "),
        GOOD.replace("Host: ", " Host: "),
        GOOD.replace("Upgrade: websocket", "Upgrade:\r\n websocket"),
        GOOD.replace("Upgrade: websocket", "Upgrade:\r\n\twebsocket"),
        GOOD.replace("Upgrade: websocket", "Upgrade: websocket\r\nno colon"),
        GOOD.replace("Upgrade: websocket", "Upgrade: websocket\r\n: no name"),
        GOOD.replace("chat.example", "chat\0example"),
        GOOD.replace("chat.example", "chat\u{7f}example"),
        GOOD.replace("Host", "Hö"),
        GOOD.replace("GET /ws", "GET  /ws"),
        GOOD.replace("GET /ws", "GET\t/ws"),
        GOOD.replace("GET /ws", "GET /w s"),
        GOOD.replace("GET /ws", "GET /ws#a"),
        GOOD.replace("HTTP/1.1", "HTTP/1.1 "),
        GOOD.replace("HTTP/1.1", "HTTP/2.0"),
        GOOD.replace("HTTP/1.1", "http/1.1"),
        format!("\r\n{GOOD}"),
    ] {
        // A line that is cut in two may leave the scanner without an end: refused or incomplete, never good.
        let end = HeadScanner::default().find_end(request.as_bytes());
        let good = matches!(end, Ok(Some(_))) && status(&request) == 101;
        assert!(!good, "{request:?}");
    }
}

#[test]
fn tls_on_a_plain_port_is_refused_at_its_first_bytes() {
    let refusal = HeadScanner::default().find_end(b"\x16\x03\x01\x02").unwrap_err();
    assert_eq!(refusal.status(), 400);
}

#[test]
fn bytes_behind_the_head_are_left_alone() {
    let request = [GOOD.as_bytes(), b"\x81\x85garbage\r\n\r\n"].concat();
    assert_eq!(HeadScanner::default().find_end(&request), Ok(Some(GOOD.len())));
    assert_eq!(status(&request), 101);
}

#[test]
fn the_end_is_found_at_any_splitting_and_each_byte_is_read_once() {
    let mut scanner = HeadScanner::default();
    for len in 0..GOOD.len() {
        assert_eq!(scanner.find_end(&GOOD.as_bytes()[..len]), Ok(None), "{len} bytes");
    }
    assert_eq!(scanner.find_end(GOOD.as_bytes()), Ok(Some(GOOD.len())));

    // A head of 8 KiB in single bytes, a thousand times: quadratic reading would take minutes here.
    let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEAD_BYTES_MAX - 100));
    let start = std::time::Instant::now();
    for _ in 0..1000 {
        let mut scanner = HeadScanner::default();
        for len in 0..long.len() {
            assert_eq!(scanner.find_end(&long.as_bytes()[..len]), Ok(None));
        }
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_head_has_at_most_8_kib() {
    let of_len = |len: usize| {
        let filler = len - GOOD.len() - "X: \r\n".len();
        with("X", &format!("X: {}\r\n", "x".repeat(filler)))
    };
    assert_eq!(status(of_len(HEAD_BYTES_MAX)), 101);
    assert_eq!(status(of_len(HEAD_BYTES_MAX + 1)), 431);
    assert_eq!(
        HeadScanner::default().find_end(&vec![b'x'; HEAD_BYTES_MAX]),
        Err(UpgradeRefusal::HeadTooLong)
    );
    assert_eq!(
        HeadScanner::default().find_end(&vec![b'x'; 100 * HEAD_BYTES_MAX]),
        Err(UpgradeRefusal::HeadTooLong)
    );
}

#[test]
fn a_head_has_at_most_64_headers() {
    let of_count = |count: usize| with("X", &"X: \r\n".repeat(count - 5));
    assert_eq!(status(of_count(HEADERS_MAX)), 101);
    assert_eq!(status(of_count(HEADERS_MAX + 1)), 431);
}

#[test]
fn a_subprotocol_is_the_first_offered_that_is_ours() {
    let encoding = |lines: &str| {
        let request = with("Sec-WebSocket-Protocol", lines);
        let head = RequestHead::parse(request.as_bytes()).unwrap();
        UpgradeRequest::check(&head).and_then(|upgrade| upgrade.encoding())
    };
    assert_eq!(encoding(""), Ok((Encoding::Json, None)));
    assert_eq!(
        encoding("Sec-WebSocket-Protocol: chat, ringway.v1.proto,ringway.v1.json\r\n"),
        Ok((Encoding::Protobuf, Some("ringway.v1.proto")))
    );
    assert_eq!(
        encoding("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: ringway.v1.json\r\n"),
        Ok((Encoding::Json, Some("ringway.v1.json")))
    );
    assert_eq!(encoding("Sec-WebSocket-Protocol: chat\r\n"), Err(UpgradeRefusal::UnknownSubprotocol));
    let names = UpgradeRefusal::UnknownSubprotocol.to_string();
    assert!(names.contains("ringway.v1.json") && names.contains("ringway.v1.proto"));
    assert_eq!(
        encoding("Sec-WebSocket-Protocol: a,,b\r\n"),
        Err(UpgradeRefusal::BadHeader("Sec-WebSocket-Protocol"))
    );
    // Thousands of names, and of separators: one pass.
    let many = format!("Sec-WebSocket-Protocol: {}ringway.v1.json\r\n", "a,".repeat(3500));
    assert_eq!(encoding(&many), Ok((Encoding::Json, Some("ringway.v1.json"))));
    let spaces = format!("Sec-WebSocket-Protocol: a{}b\r\n", " ".repeat(7000));
    assert!(encoding(&spaces).is_err());
}

#[test]
fn a_bearer_token_is_read_and_another_scheme_refused() {
    let bearer = |line: &str| {
        let request = with("Authorization", line);
        let head = RequestHead::parse(request.as_bytes()).unwrap();
        UpgradeRequest::check(&head).map(|upgrade| upgrade.bearer.map(str::to_owned))
    };
    assert_eq!(bearer(""), Ok(None));
    assert_eq!(bearer("Authorization: Bearer a.b-c_d=\r\n"), Ok(Some("a.b-c_d=".to_owned())));
    assert_eq!(bearer("authorization: bearer a\r\n"), Ok(Some("a".to_owned())));
    for bad in ["Authorization: Basic YTpi\r\n", "Authorization: Bearer\r\n", "Authorization: Bearer a b\r\n"]
    {
        assert_eq!(bearer(bad).map_err(|refusal| refusal.status()), Err(401), "{bad:?}");
    }
    let twice = "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n";
    assert_eq!(bearer(twice), Err(UpgradeRefusal::RepeatedHeader("authorization")));
}

#[test]
fn an_origin_is_given_as_it_was_sent_and_at_most_once() {
    let request = with("Origin", "Origin: https://app.example.com.evil\r\n");
    let head = RequestHead::parse(request.as_bytes()).unwrap();
    assert_eq!(UpgradeRequest::check(&head).unwrap().origin, Some("https://app.example.com.evil"));
    assert_eq!(status(with("Origin", "Origin: https://a\r\nOrigin: https://b\r\n")), 400);
}

#[test]
fn any_other_request_is_parsed_for_the_http_server() {
    let request = b"POST /api/v1/messages?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    let end = HeadScanner::default().find_end(request).unwrap().unwrap();
    let head = RequestHead::parse(&request[..end]).unwrap();
    assert_eq!((head.method, head.path, head.query), ("POST", "/api/v1/messages", Some("x=1")));
    assert_eq!(head.values("content-length").collect::<Vec<_>>(), [b"2"]);
}
