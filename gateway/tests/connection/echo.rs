//! The framing of RFC 6455 on a plain echo: every violation is closed with the code that the standard
//! names, and no allocation follows an announced length (contract.md S-L3).

use ringway_gateway::connection::{Disposition, Phase};
use ringway_gateway::context::ConnectionSettings;
use ringway_protocol::websocket::{Opcode, append_masked_frame};

use crate::pair::{Gateway, MASK, Seen, Setup, Socket};

fn start() -> (Gateway, Socket) {
    let settings = ConnectionSettings { echo: true, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    let socket = gateway.upgrade("/echo", "");
    (gateway, socket)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_masked_frame(&mut bytes, Opcode::Binary, payload, MASK);
    bytes[0] = first;
    bytes
}

#[test]
fn messages_come_back_as_they_were_whole_or_in_fragments() {
    let (mut gateway, mut socket) = start();
    assert_eq!(socket.connection.phase(), Phase::Echo);
    socket.send_bytes(&mut gateway, &frame(0x81, "grüß".as_bytes()));
    socket.send_bytes(&mut gateway, &frame(0x82, &[0, 255]));
    // A ping between the fragments, one of which is empty, and a character over two of them.
    socket.send_bytes(&mut gateway, &frame(0x01, b"a\xc3"));
    socket.send_bytes(&mut gateway, &frame(0x89, b"now"));
    socket.send_bytes(&mut gateway, &frame(0x00, b""));
    socket.send_bytes(&mut gateway, &frame(0x80, b"\xa9"));
    let expected = [
        Seen::Text("grüß".to_owned()),
        Seen::Binary(vec![0, 255]),
        Seen::Pong(b"now".to_vec()),
        Seen::Text("aé".to_owned()),
    ];
    assert_eq!(socket.read(&mut gateway), expected);
}

#[test]
fn each_violation_has_its_code() {
    let long_control = frame(0x89, &[b'p'; 126]);
    let unmasked = vec![0x81, 0x02, b'h', b'i'];
    let top_bit = vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let not_minimal = vec![0x82, 0xfe, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5];
    let too_long = vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0];
    let endless = vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    for (name, bytes, code) in [
        ("RSV1", frame(0xc1, b"x"), 1002),
        ("an unknown opcode", frame(0x83, b"x"), 1002),
        ("a fragmented ping", frame(0x09, b"x"), 1002),
        ("a long ping", long_control, 1002),
        ("unmasked", unmasked, 1002),
        ("the top bit", top_bit, 1002),
        ("a long form", not_minimal, 1002),
        ("nothing to continue", frame(0x80, b"x"), 1002),
        ("invalid UTF-8", frame(0x81, b"\xff"), 1007),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("over 16 MiB", too_long, 1009),
        ("over all memory", endless, 1009),
        ("a one-byte close", frame(0x88, b"x"), 1002),
        ("close 1005", frame(0x88, &1005u16.to_be_bytes()), 1002),
    ] {
        let (mut gateway, mut socket) = start();
        socket.send_bytes(&mut gateway, &bytes);
        assert_eq!(socket.close_code(&mut gateway), code, "{name}");
        socket.send_bytes(&mut gateway, &frame(0x81, b"more"));
        assert!(!socket.connection.has_output(), "{name}: nothing that follows counts");
        assert_eq!(socket.connection.disposition(), Disposition::ShutdownAfterFlush);
    }
}

#[test]
fn a_message_over_the_limit_is_1009_also_in_fragments() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    socket.send_bytes(&mut gateway, &frame(0x01, &[b'x'; 60_000]));
    assert!(socket.is_open());
    socket.send_bytes(&mut gateway, &frame(0x00, &[b'x'; 6_000])[..14]);
    assert_eq!(socket.close_code(&mut gateway), 1009, "before it is buffered");
}

#[test]
fn a_million_fragments_of_a_byte_are_one_message_or_an_end() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    let mut bytes = frame(0x01, b"x");
    for _ in 0..70_000 {
        bytes.extend(frame(0x00, b"x"));
    }
    socket.send_bytes(&mut gateway, &bytes);
    assert_eq!(socket.close_code(&mut gateway), 1009);
}

#[test]
fn a_close_is_answered_with_its_code_and_ends() {
    for (payload, code) in [(&b""[..], None), (b"\x03\xe8bye", Some(1000)), (b"\x0f\xa0", Some(4000))] {
        let (mut gateway, mut socket) = start();
        socket.send_bytes(&mut gateway, &frame(0x88, payload));
        socket.drain(&mut gateway);
        let expected: Vec<u8> = match code {
            None => vec![0x88, 0],
            Some(code) => [&[0x88, 2][..], &u16::to_be_bytes(code)].concat(),
        };
        assert_eq!(socket.received, expected);
        assert_eq!(socket.connection.disposition(), Disposition::CloseAfterFlush);
    }
}

#[test]
fn who_does_not_read_its_echo_is_not_read_either() {
    let (mut gateway, mut socket) = start();
    let megabyte = frame(0x82, &vec![7; 1 << 20]);
    let pings = frame(0x89, &[b'p'; 125]).repeat(10_000);
    socket.send_bytes(&mut gateway, &megabyte);
    assert!(!socket.connection.wants_read());
    // What was on its way is kept and not answered.
    socket.send_bytes(&mut gateway, &pings);
    socket.send_bytes(&mut gateway, &megabyte);
    gateway.pass(300_000, &mut socket);
    let seen = socket.read(&mut gateway);
    assert_eq!(seen.len(), 10_002);
    assert!(matches!(&seen[10_001], Seen::Binary(bytes) if bytes.len() == 1 << 20));
    assert!(socket.connection.wants_read());
}

#[test]
fn sixteen_megabytes_come_back_however_they_arrive() {
    let (mut gateway, mut socket) = start();
    let payload: Vec<u8> = (0..16 << 20).map(|index| (index % 251) as u8).collect();
    let bytes = frame(0x82, &payload);
    for chunk in bytes.chunks(100_003) {
        socket.send_bytes(&mut gateway, chunk);
    }
    assert_eq!(socket.read(&mut gateway), [Seen::Binary(payload)]);
}

#[test]
fn a_message_must_end_in_a_minute() {
    let (mut gateway, mut socket) = start();
    socket.send_bytes(&mut gateway, &frame(0x02, b"begun"));
    for _ in 0..5 {
        gateway.pass(11_000, &mut socket);
        socket.send_bytes(&mut gateway, &frame(0x00, b"on"));
    }
    assert!(socket.is_open());
    gateway.pass(6_000, &mut socket);
    assert_eq!(socket.close_code(&mut gateway), 4103);
}
