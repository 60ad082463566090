//! What each fuzz target does with its bytes. The targets themselves are one line each, so that a crash is
//! repeated from a test as easily as from the fuzzer.
//!
//! Most of them hold a property beside "no panic": two ways to the same result must give the same.

mod tls;

pub use tls::{tls_peer, tls_records};

use ringway_protocol::client::{
    Encoding, ServerFrame, decode, decode_server, encode, encode_client, encode_live,
};
use ringway_protocol::entry::Entry;
use ringway_protocol::live_message::LiveMessage;
use ringway_protocol::trunk::codec::{
    decode_to_endpoint, decode_to_router, encode_to_endpoint, encode_to_router,
};
use ringway_protocol::websocket::upgrade::{HeadScanner, RequestHead, UpgradeRequest};
use ringway_protocol::websocket::{FrameReader, Role};

/// Longest message that the readers here take: short, so that the fuzzer reaches the limit.
const MESSAGE_BYTES_MAX: usize = 1000;

/// The upgrade request: the same answer at any splitting, and no panic.
pub fn upgrade_request(data: &[u8]) {
    let Some((&step, request)) = data.split_first() else { return };
    let whole = HeadScanner::default().find_end(request);
    let mut scanner = HeadScanner::default();
    let mut len = 0;
    let in_steps = loop {
        len = (len + usize::from(step) + 1).min(request.len());
        let found = scanner.find_end(&request[..len]);
        if found != Ok(None) || len == request.len() {
            break found;
        }
    };
    assert_eq!(in_steps, whole);
    let Ok(Some(end)) = whole else { return };
    let Ok(head) = RequestHead::parse(&request[..end]) else { return };
    let _ = head.has_token_in_query();
    match UpgradeRequest::check(&head) {
        Ok(upgrade) => {
            let _ = upgrade.encoding();
            assert!(upgrade.accept_response(None).ends_with(b"\r\n\r\n"));
        }
        Err(refusal) => assert!(refusal.response().starts_with(b"HTTP/1.1 4")),
    }
}

/// The frame reader: the same events at any two splittings, as server and as client.
pub fn frame_reader(data: &[u8]) {
    let [one, other, stream @ ..] = data else { return };
    for role in [Role::Server, Role::Client] {
        let whole = events(role, stream, usize::MAX);
        assert_eq!(events(role, stream, usize::from(*one) + 1), whole);
        assert_eq!(events(role, stream, usize::from(*other) % 7 + 1), whole);
    }
}

/// A frozen frame reader: what thaws reads on without a panic, and freezes to the same bytes.
pub fn frozen_reader(data: &[u8]) {
    let mut left = data;
    let Ok(mut reader) = FrameReader::thaw(&mut left) else { return };
    let mut frozen = Vec::new();
    reader.freeze(&mut frozen);
    let again = FrameReader::thaw(&mut &frozen[..]).expect("what was frozen thaws");
    let mut frozen_again = Vec::new();
    again.freeze(&mut frozen_again);
    assert_eq!(frozen, frozen_again);
    read(&mut reader, left, &mut Vec::new());
}

/// A client's JSON: no panic, and a frame that was read comes back.
pub fn client_json(data: &[u8]) {
    client(Encoding::Json, data);
}

/// A client's protobuf: no panic, and a frame that was read comes back.
pub fn client_protobuf(data: &[u8]) {
    client(Encoding::Protobuf, data);
}

/// A log entry: no panic, an entry that was read comes back, and a message that is told from its bytes is told as
/// the entry is.
pub fn entry(data: &[u8]) {
    if let Some(live) = LiveMessage::read(data) {
        let entry = Entry::decode(data).expect("the whole reader takes it too");
        for (encoding, for_sender) in Encoding::ALL.into_iter().flat_map(|one| [(one, false), (one, true)]) {
            let (mut told, mut expected) = (Vec::new(), Vec::new());
            encode_live(encoding, &live, for_sender, &mut told);
            encode(encoding, &ServerFrame::from_entry(entry.clone(), for_sender), &mut expected);
            assert_eq!(told, expected);
        }
    }
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(&entry));
        let _ = entry.body_hash();
    }
}

/// A trunk frame: no panic, and a message that was read comes back.
pub fn trunk(data: &[u8]) {
    if let Ok(Some((message, _))) = decode_to_router(data) {
        let mut bytes = Vec::new();
        encode_to_router(&message, &mut bytes);
        assert_eq!(decode_to_router(&bytes), Ok(Some((message, bytes.len()))));
    }
    if let Ok(Some((message, _))) = decode_to_endpoint(data) {
        let mut bytes = Vec::new();
        encode_to_endpoint(&message, &mut bytes);
        assert_eq!(decode_to_endpoint(&bytes), Ok(Some((message, bytes.len()))));
    }
}

fn client(encoding: Encoding, data: &[u8]) {
    match decode(encoding, data) {
        Ok(frame) => {
            let mut bytes = Vec::new();
            encode_client(encoding, &frame, &mut bytes);
            assert_eq!(decode(encoding, &bytes), Ok(frame));
        }
        Err(error) => {
            assert!(error.to_string().len() < 1024, "an error is short, whatever was sent");
            assert!(error.client_message_id.is_none_or(|id| id.len() <= 64));
        }
    }
    if let Ok(frame) = decode_server(encoding, data) {
        let mut bytes = Vec::new();
        encode(encoding, &frame, &mut bytes);
        assert_eq!(decode_server(encoding, &bytes), Ok(frame));
    }
}

/// What a stream says when it arrives in pieces of this length.
fn events(role: Role, stream: &[u8], piece: usize) -> Vec<String> {
    let mut reader = FrameReader::new(role, MESSAGE_BYTES_MAX);
    let mut said = Vec::new();
    for arrival in stream.chunks(piece.min(stream.len().max(1))) {
        read(&mut reader, arrival, &mut said);
        assert!(reader.heap_bytes() < 16 * 1024, "memory follows what has arrived");
    }
    said
}

fn read(reader: &mut FrameReader, arrival: &[u8], said: &mut Vec<String>) {
    let mut bytes = arrival.to_vec();
    let mut left = &mut bytes[..];
    loop {
        match reader.next(&mut left) {
            Ok(Some(event)) => said.push(format!("{event:?}")),
            Ok(None) => break,
            Err(error) => said.push(error.to_string()),
        }
    }
    assert!(left.is_empty(), "the reader takes all that arrived");
}
