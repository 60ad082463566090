//! Raw frames for tests, also such as no writer of ours makes, and a reader driven over any splitting.

#![allow(dead_code, reason = "each test file uses its part")]

use ringway_protocol::websocket::{CloseCode, Event, FrameReader, Role, apply_mask};

/// The key of the examples in RFC 6455 section 5.7.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Text, last fragment.
pub(crate) const TEXT: u8 = 0x81;
/// Binary, last fragment.
pub(crate) const BINARY: u8 = 0x82;
/// Close.
pub(crate) const CLOSE: u8 = 0x88;
/// Ping.
pub(crate) const PING: u8 = 0x89;
/// Pong.
pub(crate) const PONG: u8 = 0x8a;
/// The bit to take off a first byte for a fragment that is not the last.
pub(crate) const FIN: u8 = 0x80;
/// Continuation, not the last.
pub(crate) const MORE: u8 = 0x00;
/// Continuation, the last.
pub(crate) const LAST: u8 = 0x80;

/// A masked frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(KEY);
    let start = frame.len();
    frame.extend(payload);
    let _ = apply_mask(KEY, &mut frame[start..]);
    frame
}

/// What a stream came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(u16),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Said::Text(text.to_owned()),
            Event::Binary(payload) => Said::Binary(payload.to_vec()),
            Event::Ping(payload) => Said::Ping(payload.to_vec()),
            Event::Pong(payload) => Said::Pong(payload.to_vec()),
            Event::Close { code, reason } => Said::Close(code.map(|code| code.0), reason.to_owned()),
        }
    }
}

/// Feeds one arrival, and adds what came of it.
pub(crate) fn feed(reader: &mut FrameReader, arrival: &[u8], said: &mut Vec<Said>) {
    let mut bytes = arrival.to_vec();
    let mut left = &mut bytes[..];
    loop {
        match reader.next(&mut left) {
            Ok(Some(event)) => said.push(event.into()),
            Ok(None) => break,
            Err(error) => {
                let CloseCode(code) = error.close_code();
                said.push(Said::Failed(code));
            }
        }
    }
    assert!(left.is_empty(), "the reader takes all that arrived");
}

/// What a server makes of a stream that arrives in one piece.
pub(crate) fn said(stream: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    feed(&mut FrameReader::new(Role::Server, 64 * 1024), stream, &mut said);
    said
}
