//! What a message of 128 bytes costs the code of a gateway core, piece by piece: unmask and frame, read
//! the send, encode the delivery. It leaves out the system: TCP is 99 % of a relayed message.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ringway_protocol::client::{self, BodyMemory, Encoding};
use ringway_protocol::entry::{Body, Content, Entry, Message};
use ringway_protocol::ids::{ConversationId, Epoch, MessageId, Seq, Timestamp};
use ringway_protocol::live_message::LiveMessage;
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_protocol::websocket::{FrameReader, Opcode, Role, append_masked_frame, shared_frame};

const SEND: &str = concat!(
    r#"{"type":"send","conversation_id":"7318349394477056","client_msg_id":"0b0f7e0c-6f0e-4c8e-9d3e-1a2b3c4d5e6f","#,
    r#""text":"A message of about one hundred and twenty-eight bytes, as people write them when they chat: short, and often."}"#
);

fn read(criterion: &mut Criterion) {
    let mut frame = Vec::new();
    append_masked_frame(&mut frame, Opcode::Text, SEND.as_bytes(), [1, 2, 3, 4]);
    let mut reader = FrameReader::new(Role::Server, 65_536);
    criterion.bench_function("unmask and frame one send", |bencher| {
        bencher.iter_batched_ref(
            || frame.clone(),
            |received| {
                let mut received = &mut received[..];
                black_box(reader.next(&mut received).is_ok())
            },
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("read one send (JSON)", |bencher| {
        let mut bodies = BodyMemory::default();
        bencher.iter(|| client::decode_into(Encoding::Json, black_box(SEND.as_bytes()), &mut bodies));
    });
}

fn deliver(criterion: &mut Criterion) {
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
    let encoded = entry.encode();
    criterion.bench_function("decode one entry", |bencher| {
        bencher.iter(|| Entry::decode(black_box(&encoded)));
    });
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let mut payload = Vec::new();
        criterion.bench_function(&format!("encode one delivery ({encoding:?})"), |bencher| {
            bencher.iter(|| {
                let live = LiveMessage::read(black_box(&encoded)).expect("a message");
                payload.clear();
                client::encode_live(encoding, &live, false, &mut payload);
                shared_frame(encoding.opcode(), &payload)
            });
        });
    }
}

criterion_group!(benches, read, deliver);
criterion_main!(benches);
