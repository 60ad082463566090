//! The frame reader against a second opinion, against itself at every splitting, and frozen and thawed at
//! every byte.

mod frames;

use std::io::{Cursor, Read, Write};

use frames::{BINARY, CLOSE, FIN, LAST, MORE, PING, PONG, Said, TEXT, feed, frame};
use proptest::collection::vec;
use proptest::prelude::*;
use ringway_protocol::websocket::{FrameReader, Role, ThawError};
use tungstenite::protocol::{Role as OracleRole, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

/// Small, so that generated messages pass it.
const MESSAGE_BYTES_MAX: usize = 300;

/// One frame, right or with one flaw.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        "[a-zß€\u{1F600}]{0,12}".prop_map(String::into_bytes),
        // A cut at any byte of a character, to be continued or not.
        ("[ß€\u{1F600}]{1,4}", 0usize..16).prop_map(|(text, cut)| {
            let mut bytes = text.into_bytes();
            bytes.truncate(cut);
            bytes
        }),
        vec(any::<u8>(), 0..4),
    ];
    let bytes = prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 120..400)];
    let control = vec(any::<u8>(), 0..10);
    let close_code = prop_oneof![
        Just(1000u16),
        Just(1001),
        Just(1003),
        Just(1004),
        Just(1005),
        Just(1006),
        Just(1007),
        Just(1011),
        Just(1015),
        Just(999),
        Just(2999),
        Just(3000),
        Just(4999),
        Just(5000),
    ];
    prop_oneof![
        8 => (prop_oneof![Just(TEXT), Just(TEXT & !FIN), Just(MORE), Just(LAST)], text)
            .prop_map(|(first, payload)| frame(first, &payload)),
        6 => (prop_oneof![Just(BINARY), Just(BINARY & !FIN), Just(MORE), Just(LAST)], bytes)
            .prop_map(|(first, payload)| frame(first, &payload)),
        4 => (prop_oneof![Just(PING), Just(PONG)], control).prop_map(|(first, payload)| frame(first, &payload)),
        1 => (close_code, prop_oneof!["[a-zß]{0,8}".prop_map(String::into_bytes), vec(any::<u8>(), 0..3)])
            .prop_map(|(code, reason)| frame(CLOSE, &[&code.to_be_bytes()[..], &reason].concat())),
        1 => vec(any::<u8>(), 0..2).prop_map(|payload| frame(CLOSE, &payload)),
        // A reserved bit, an opcode that is not defined, a fragmented control frame, one too long.
        1 => (0x10u8..0x80).prop_map(|first| frame(FIN | first, b"x")),
        1 => (0x3u8..0x8).prop_map(|opcode| frame(FIN | opcode, b"x")),
        1 => Just(frame(PING & !FIN, b"x")),
        1 => Just(frame(PONG, &[b'x'; 126])),
        1 => Just(vec![TEXT, 1, b'x']),
    ]
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    vec(any_frame(), 0..12).prop_map(|frames| frames.concat())
}

fn ours(stream: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    feed(&mut FrameReader::new(Role::Server, MESSAGE_BYTES_MAX), stream, &mut said);
    said
}

/// Reads from the stream and forgets what is written.
struct OneWay(Cursor<Vec<u8>>);

impl Read for OneWay {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for OneWay {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tungstenites(stream: &[u8]) -> Vec<Said> {
    let config = WebSocketConfig::default()
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_message_size(Some(MESSAGE_BYTES_MAX));
    let stream = OneWay(Cursor::new(stream.to_vec()));
    let mut socket = WebSocket::from_raw_socket(stream, OracleRole::Server, Some(config));
    let mut said = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => said.push(Said::Text(text.as_str().to_owned())),
            Ok(Message::Binary(payload)) => said.push(Said::Binary(payload.to_vec())),
            Ok(Message::Ping(payload)) => said.push(Said::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => said.push(Said::Pong(payload.to_vec())),
            // Its way of refusing a code.
            Ok(Message::Close(Some(close))) if close.reason.as_str() == "Protocol violation" => {
                said.push(Said::Failed(1002));
                return said;
            }
            Ok(Message::Close(close)) => {
                let code = close.as_ref().map(|close| u16::from(close.code));
                said.push(Said::Close(
                    code,
                    close.map_or_else(String::new, |close| close.reason.as_str().to_owned()),
                ));
                return said;
            }
            Ok(Message::Frame(_)) => unreachable!("not read in this mode"),
            // The stream's end.
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return said;
            }
            Err(error) => {
                said.push(Said::Failed(match error {
                    Error::Utf8(_) => 1007,
                    Error::Capacity(_) => 1009,
                    Error::Protocol(_) => 1002,
                    error => panic!("the oracle failed: {error}"),
                }));
                return said;
            }
        }
    }
}

/// The two may name different faults where there are two. We fail on text that is no UTF-8 as soon as its
/// bytes are there, the oracle only when its message ends; and the oracle looks at a frame's length before
/// it looks at what the frame may be there, and at a close reason before the code.
fn agree(ours: &[Said], oracle: &[Said]) -> bool {
    match (ours.split_last(), oracle.split_last()) {
        _ if ours == oracle => true,
        (Some((Said::Failed(1007), before)), _) => oracle.starts_with(before),
        (Some((Said::Failed(1002), before)), Some((Said::Failed(1007 | 1009), before_too))) => {
            before == before_too
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_oracle_agrees(stream in any_stream()) {
        let (ours, oracle) = (ours(&stream), tungstenites(&stream));
        prop_assert!(agree(&ours, &oracle), "ours: {:?}\noracle: {:?}", ours, oracle);
    }

    #[test]
    fn any_splitting_says_the_same(stream in any_stream(), cuts in vec(1usize..40, 0..40)) {
        let whole = ours(&stream);
        let mut reader = FrameReader::new(Role::Server, MESSAGE_BYTES_MAX);
        let mut said = Vec::new();
        let mut left = &stream[..];
        for cut in cuts {
            let (arrival, rest) = left.split_at(cut.min(left.len()));
            feed(&mut reader, arrival, &mut said);
            left = rest;
        }
        feed(&mut reader, left, &mut said);
        prop_assert_eq!(&said, &whole);

        let mut reader = FrameReader::new(Role::Server, MESSAGE_BYTES_MAX);
        let mut said = Vec::new();
        for byte in stream.chunks(1) {
            feed(&mut reader, byte, &mut said);
        }
        prop_assert_eq!(said, whole, "one byte at a time");
    }

    #[test]
    fn any_bytes_at_any_splitting_say_the_same(stream in vec(any::<u8>(), 0..200), cut: usize) {
        let cut = cut % (stream.len() + 1);
        let mut reader = FrameReader::new(Role::Server, MESSAGE_BYTES_MAX);
        let mut said = Vec::new();
        feed(&mut reader, &stream[..cut], &mut said);
        feed(&mut reader, &stream[cut..], &mut said);
        prop_assert_eq!(said, ours(&stream));
    }

    #[test]
    fn damaged_frozen_bytes_make_no_reader_that_panics(
        stream in any_stream(), cut: usize, at: usize, flip: u8, more in any_stream(),
    ) {
        let mut reader = FrameReader::new(Role::Server, MESSAGE_BYTES_MAX);
        feed(&mut reader, &stream[..cut % (stream.len() + 1)], &mut Vec::new());
        let mut frozen = Vec::new();
        reader.freeze(&mut frozen);
        let len = frozen.len();
        frozen[at % len] ^= flip;
        if let Ok(mut reader) = FrameReader::thaw(&mut &frozen[..]) {
            feed(&mut reader, &more, &mut Vec::new());
            reader.freeze(&mut Vec::new());
        }
        for end in 0..len {
            let _ = FrameReader::thaw(&mut &frozen[..end]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_reader_frozen_and_thawed_at_every_byte_says_the_same(stream in any_stream()) {
        let whole = ours(&stream);
        for cut in 0..=stream.len() {
            let mut said = Vec::new();
            let mut reader = FrameReader::new(Role::Server, MESSAGE_BYTES_MAX);
            feed(&mut reader, &stream[..cut], &mut said);
            let mut frozen = Vec::new();
            reader.freeze(&mut frozen);
            frozen.extend(b"what lies behind");
            let mut left = &frozen[..];
            let mut reader = FrameReader::thaw(&mut left).unwrap();
            prop_assert_eq!(left, b"what lies behind");
            feed(&mut reader, &stream[cut..], &mut said);
            prop_assert_eq!(&said, &whole, "cut at {}", cut);
        }
    }
}

#[test]
fn a_reader_is_frozen_also_while_its_last_event_is_lent() {
    let stream =
        [frame(TEXT & !FIN, b"a"), frame(PING, b"ping"), frame(LAST, b"b"), frame(TEXT, b"c")].concat();
    // The ping's last byte arrives alone, so that the reader lends it; so with the message's.
    for cut in [frame(TEXT & !FIN, b"a").len() + 9, stream.len() - 7 - 1] {
        let mut reader = FrameReader::new(Role::Server, 100);
        let (mut front, mut back) = (stream[..cut].to_vec(), stream[cut..].to_vec());
        feed(&mut reader, &front, &mut Vec::new());
        let mut arrival = &mut back[..1];
        let lent = reader.next(&mut arrival).unwrap().map(Said::from);
        assert!(lent.is_some());
        let mut frozen = Vec::new();
        reader.freeze(&mut frozen);
        let mut thawed = FrameReader::thaw(&mut &frozen[..]).unwrap();
        let mut said = Vec::new();
        feed(&mut thawed, &back[1..], &mut said);
        assert_eq!(said.last(), Some(&Said::Text("c".to_owned())));
        front.clear();
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let mut frozen = Vec::new();
    FrameReader::new(Role::Client, 1).freeze(&mut frozen);
    frozen[0] = 9;
    assert_eq!(FrameReader::thaw(&mut &frozen[..]).unwrap_err(), ThawError::Version(9));
}
