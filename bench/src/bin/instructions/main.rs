//! The pieces of a message's way, each as often as it is told: what `cargo xtask instructions` runs under callgrind
//! and counts. A run of 2N does what a run of N does and N iterations more, so the difference of the two is what
//! iterations take, whatever the start took.
//!
//! All that a case does is the same in every run: no clock, no thread, no randomness. It leaves out the system, which
//! is most of a message's price, and caches: this finds work that was added, not time that was lost.
//!
//! `instructions` names the cases, one a line; `instructions CASE COUNT` runs one.
#![forbid(unsafe_code)]

mod router_step;

use std::hint::black_box;

use bytes::Bytes;
use ringway_protocol::client::{self, Ack, BodyMemory, Encoding, ServerFrame};
use ringway_protocol::entry::{Body, Content, Entry, Message};
use ringway_protocol::ids::{ConversationId, Epoch, MessageId, Seq, Timestamp};
use ringway_protocol::live_message::LiveMessage;
use ringway_protocol::tls::{Direction, RecordLayer, Role as TlsRole, Suite};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_protocol::websocket::{self, FrameReader, Opcode, append_masked_frame};

/// A name, and what does it so many times.
type Case = (&'static str, fn(u64));

const CASES: [Case; 10] = [
    ("read and unmask a frame of 128 bytes", read_frame),
    ("write a frame of 128 bytes", write_frame),
    ("read a send (JSON)", read_send),
    ("write a delivery (JSON)", write_delivery),
    ("write an ack (JSON)", write_ack),
    ("seal 133 bytes", |count| seal(count, 133)),
    ("seal 4 KiB", |count| seal(count, 4096)),
    ("seal and open 133 bytes", |count| seal_and_open(count, 133)),
    ("seal and open 4 KiB", |count| seal_and_open(count, 4096)),
    ("route a send to three members", router_step::route),
];

const SEND: &str = concat!(
    r#"{"type":"send","conversation_id":"7318349394477056","client_msg_id":"0b0f7e0c-6f0e-4c8e-9d3e-1a2b3c4d5e6f","#,
    r#""text":"A message of about one hundred and twenty-eight bytes, as people write them when they chat: short, and often."}"#
);

const SECRET: [u8; 32] = [7; 32];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => CASES.iter().for_each(|(name, _)| println!("{name}")),
        [case, count] => {
            let (_, run) = CASES.iter().find(|(name, _)| name == case).expect("the name of a case");
            run(count.parse().expect("a number"));
        }
        _ => panic!("instructions [CASE COUNT]"),
    }
}

/// Each iteration copies the frame first: it is unmasked in place.
fn read_frame(count: u64) {
    let mut frame = Vec::new();
    append_masked_frame(&mut frame, Opcode::Text, &[b'x'; 128], [1, 2, 3, 4]);
    let mut reader = FrameReader::new(websocket::Role::Server, 65_536);
    let mut received = frame.clone();
    for _ in 0..count {
        received.copy_from_slice(&frame);
        let mut rest = &mut received[..];
        assert!(matches!(reader.next(black_box(&mut rest)), Ok(Some(websocket::Event::Text(_)))));
        assert!(matches!(reader.next(&mut rest), Ok(None)));
    }
}

fn write_frame(count: u64) {
    let mut out = Vec::with_capacity(256);
    for _ in 0..count {
        out.clear();
        websocket::append_frame(&mut out, Opcode::Text, black_box(&[b'x'; 128]));
        black_box(&out);
    }
}

fn read_send(count: u64) {
    let mut bodies = BodyMemory::default();
    for _ in 0..count {
        let frame = client::decode_into(Encoding::Json, black_box(SEND.as_bytes()), &mut bodies);
        black_box(frame.is_ok());
    }
}

fn write_delivery(count: u64) {
    let entry = Entry {
        conversation: ConversationId(7_318_349_394_477_056),
        seq: Seq(42),
        message: MessageId(7_318_349_394_477_057),
        server_ts: Timestamp(1_790_000_000_000),
        epoch: Epoch(1),
        sender: UserId::new("", "alice").expect("a short name"),
        client_message_id: Some(ClientMessageId::new("0b0f7e0c").expect("a short name")),
        content: Content::Message(Message {
            body: Body::Text(Bytes::from_static(&[b'x'; 128])),
            media_ids: Vec::new(),
            reply_to: None,
        }),
    };
    let (encoded, mut payload) = (entry.encode(), Vec::with_capacity(1024));
    for _ in 0..count {
        let live = LiveMessage::read(black_box(&encoded)).expect("a message");
        payload.clear();
        client::encode_live(Encoding::Json, &live, false, &mut payload);
        black_box(&payload);
    }
}

fn write_ack(count: u64) {
    let ack = ServerFrame::Ack(Ack {
        client_message_id: ClientMessageId::new("0b0f7e0c").expect("a short name"),
        conversation: ConversationId(7_318_349_394_477_056),
        message: MessageId(7_318_349_394_477_057),
        seq: Seq(42),
        server_ts: Timestamp(1_790_000_000_000),
        duplicate: false,
    });
    let mut payload = Vec::with_capacity(1024);
    for _ in 0..count {
        payload.clear();
        client::encode(Encoding::Json, black_box(&ack), &mut payload);
        black_box(&payload);
    }
}

fn layer(role: TlsRole) -> RecordLayer {
    let end = Direction { secret: &SECRET, sequence: 0 };
    RecordLayer::new(role, Suite::Aes128GcmSha256, end, end).expect("a secret of the suite's length")
}

fn seal(count: u64, bytes: usize) {
    let (mut sender, plaintext) = (layer(TlsRole::Server), vec![b'x'; bytes]);
    let mut chunk = Vec::with_capacity(20 * 1024);
    for _ in 0..count {
        chunk.clear();
        sender.seal(black_box(&plaintext), &mut chunk).expect("a key that is not used up");
    }
}

fn seal_and_open(count: u64, bytes: usize) {
    let (mut sender, mut receiver) = (layer(TlsRole::Client), layer(TlsRole::Server));
    let (plaintext, mut chunk) = (vec![b'x'; bytes], Vec::with_capacity(20 * 1024));
    for _ in 0..count {
        chunk.clear();
        sender.seal(black_box(&plaintext), &mut chunk).expect("a key that is not used up");
        assert_eq!(receiver.open(&mut chunk).in_place.len(), bytes);
    }
}
