//! Both encodings of the client protocol: every frame comes back, both say the same, and no bytes panic.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ringway_protocol::client::{
    Ack, ChangeItem, ClientFrame, Destination, Encoding, ErrorCode, ErrorFrame, Gap, Heads, Hello, Limits,
    LogItem, MessageItem, Messages, Nonce, Placement, Pong, Reconnect, Send, ServerFrame, Sync, Welcome,
    decode, decode_server, encode, encode_client,
};
use ringway_protocol::entry::{Body, Change, Content, ConversationKind, Entry, Message, Role};
use ringway_protocol::ids::{ConversationId, Epoch, MessageId, Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, DeviceId, UserId};

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn name() -> impl Strategy<Value = String> {
    "[a-zß\"\\\\\n\u{1F600}]{1,15}"
}

fn message() -> impl Strategy<Value = Message> {
    let body = prop_oneof![
        text().prop_map(|text| Body::Text(text.into())),
        (name(), vec(any::<u8>(), 0..40))
            .prop_map(|(alg, data)| Body::Ciphertext { alg, data: Bytes::from(data) }),
    ];
    (body, vec(name(), 0..3), option::of(any::<u64>())).prop_map(|(body, media_ids, reply_to)| Message {
        body,
        media_ids,
        reply_to: reply_to.map(MessageId),
    })
}

fn sendable() -> impl Strategy<Value = Message> {
    message().prop_filter("empty", |message| !message.body.is_empty() || !message.media_ids.is_empty())
}

fn user() -> impl Strategy<Value = UserId> {
    name().prop_map(|sub| UserId::new("", &sub).unwrap())
}

fn client_message_id() -> impl Strategy<Value = ClientMessageId> {
    name().prop_map(|id| ClientMessageId::new(&id).unwrap())
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Owner), Just(Role::Admin), Just(Role::Member)]
}

fn change() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![Just(ConversationKind::Direct), Just(ConversationKind::Group)];
    prop_oneof![
        (kind, text(), vec((user(), role()), 0..4)).prop_map(|(kind, name, members)| Change::Created {
            kind,
            name,
            members
        }),
        (user(), role()).prop_map(|(user, role)| Change::MemberAdded { user, role }),
        user().prop_map(|user| Change::MemberRemoved { user }),
        text().prop_map(|name| Change::Renamed { name }),
        Just(Change::Deleted),
    ]
}

fn placement() -> impl Strategy<Value = Placement> {
    (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), user()).prop_map(
        |(conversation, seq, message, server_ts, from)| Placement {
            conversation: ConversationId(conversation),
            seq: Seq(seq),
            message: MessageId(message),
            server_ts: Timestamp(server_ts),
            from,
        },
    )
}

fn message_item() -> impl Strategy<Value = MessageItem> {
    (placement(), message(), option::of(client_message_id())).prop_map(
        |(placement, message, client_message_id)| MessageItem { placement, message, client_message_id },
    )
}

fn change_item() -> impl Strategy<Value = ChangeItem> {
    (placement(), change()).prop_map(|(placement, change)| ChangeItem { placement, change })
}

fn seqs() -> impl Strategy<Value = Vec<(ConversationId, Seq)>> {
    proptest::collection::btree_map(any::<u64>(), any::<u64>(), 0..5)
        .prop_map(|map| map.into_iter().map(|(id, seq)| (ConversationId(id), Seq(seq))).collect())
}

fn nonce() -> impl Strategy<Value = Option<Nonce>> {
    option::of(name().prop_map(Nonce::Text))
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let destination = prop_oneof![
        any::<u64>().prop_map(|id| Destination::Conversation(ConversationId(id))),
        name().prop_map(Destination::User),
    ];
    prop_oneof![
        (option::of(text()), option::of(name()), option::of(text()), any::<bool>(), option::of(text()))
            .prop_map(|(token, device, client, batch, resume)| ClientFrame::Hello(Hello {
                token,
                device: device.map(|device| DeviceId::new(&device).unwrap()),
                client,
                batch,
                resume,
            })),
        name().prop_map(|token| ClientFrame::Refresh { token }),
        (destination, client_message_id(), sendable()).prop_map(
            |(destination, client_message_id, message)| {
                ClientFrame::Send(Send { destination, client_message_id, message })
            }
        ),
        (seqs(), option::of(1u32..))
            .prop_map(|(last_seen, limit)| ClientFrame::Sync(Sync { last_seen, limit })),
        nonce().prop_map(|nonce| ClientFrame::Ping { nonce }),
    ]
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let item =
        prop_oneof![message_item().prop_map(LogItem::Message), change_item().prop_map(LogItem::Change),];
    prop_oneof![
        (text(), text(), text(), text(), any::<[u64; 5]>(), any::<[u32; 3]>()).prop_map(
            |(user_id, device_id, session_id, resume, long, short)| {
                ServerFrame::Welcome(Box::new(Welcome {
                    user_id,
                    device_id,
                    session_id,
                    resume,
                    server_ts: Timestamp(long[0]),
                    heartbeat_ms: long[1],
                    limits: Limits {
                        max_frame_bytes: long[2],
                        max_inflight: short[0],
                        max_queue_bytes: long[3],
                        send_per_s: short[1],
                        send_burst: short[2],
                        dedup_window_s: long[4],
                    },
                }))
            }
        ),
        (seqs(), any::<bool>(), text(), any::<bool>()).prop_map(
            |(conversations, recovered, resume, more)| {
                ServerFrame::Heads(Heads { conversations, recovered, resume, more })
            }
        ),
        (client_message_id(), any::<[u64; 4]>(), any::<bool>()).prop_map(
            |(client_message_id, n, duplicate)| {
                ServerFrame::Ack(Ack {
                    client_message_id,
                    conversation: ConversationId(n[0]),
                    message: MessageId(n[1]),
                    seq: Seq(n[2]),
                    server_ts: Timestamp(n[3]),
                    duplicate,
                })
            }
        ),
        message_item().prop_map(ServerFrame::Message),
        (any::<u64>(), vec(item, 0..4), any::<bool>()).prop_map(|(conversation, items, more)| {
            ServerFrame::Messages(Messages { conversation: ConversationId(conversation), items, more })
        }),
        change_item().prop_map(ServerFrame::Conversation),
        any::<[Option<u64>; 3]>().prop_map(|[conversation, after_seq, after_ms]| ServerFrame::Gap(Gap {
            conversation: conversation.map(ConversationId),
            after_seq: after_seq.map(Seq),
            after_ms,
        })),
        (text(), option::of(text()), any::<u64>(), any::<u64>()).prop_map(
            |(reason, url, after_ms, within_ms)| ServerFrame::Reconnect(Reconnect {
                reason,
                url,
                after_ms,
                within_ms
            })
        ),
        Just(ServerFrame::SyncDone),
        (nonce(), any::<u64>(), text()).prop_map(|(nonce, server_ts, resume)| {
            ServerFrame::Pong(Pong { nonce, server_ts: Timestamp(server_ts), resume })
        }),
        (0..ErrorCode::ALL.len(), text(), option::of(text()), option::of(any::<u64>()), any::<bool>())
            .prop_map(|(code, message, client_message_id, retry_after_ms, temporary)| {
                ServerFrame::Error(ErrorFrame {
                    code: ErrorCode::ALL[code],
                    message,
                    client_message_id,
                    retry_after_ms,
                    temporary,
                })
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_client_frame_comes_back_in_both_encodings(frame in client_frame()) {
        for encoding in Encoding::ALL {
            let mut bytes = Vec::new();
            encode_client(encoding, &frame, &mut bytes);
            prop_assert_eq!(decode(encoding, &bytes), Ok(frame.clone()), "{:?}", encoding);
        }
    }

    #[test]
    fn every_server_frame_comes_back_in_both_encodings(frame in server_frame()) {
        for encoding in Encoding::ALL {
            let mut bytes = Vec::new();
            encode(encoding, &frame, &mut bytes);
            prop_assert_eq!(decode_server(encoding, &bytes), Ok(frame.clone()), "{:?}", encoding);
            if encoding == Encoding::Json {
                prop_assert!(!bytes.contains(&b'\n'), "a batch is one object a line");
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..60), frame in client_frame(), at: usize, flip: u8) {
        for encoding in Encoding::ALL {
            let _ = decode(encoding, &bytes);
            let _ = decode_server(encoding, &bytes);
            let mut almost = Vec::new();
            encode_client(encoding, &frame, &mut almost);
            if let Some(len) = std::num::NonZeroUsize::new(almost.len()) {
                almost[at % len] ^= flip;
            }
            let _ = decode(encoding, &almost);
        }
    }
}

fn entry(content: Content) -> Entry {
    Entry {
        conversation: ConversationId(42),
        seq: Seq(7),
        message: MessageId(9_007_199_254_740_993),
        server_ts: Timestamp(1_790_000_000_000),
        epoch: Epoch(1),
        sender: UserId::new("acme", "alice").unwrap(),
        client_message_id: Some(ClientMessageId::new("c-1").unwrap()),
        content,
    }
}

fn json(frame: &ServerFrame) -> String {
    let mut out = Vec::new();
    encode(Encoding::Json, frame, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_message_reads_as_the_protocol_says() {
    let message = Message { body: Body::Text("hi \"bob\"".into()), media_ids: vec![], reply_to: None };
    let entry = entry(Content::Message(message));
    assert_eq!(
        json(&ServerFrame::from_entry(entry.clone(), false)),
        r#"{"type":"message","conversation_id":"42","message_id":"9007199254740993","seq":7,"from":"alice","server_ts":1790000000000,"kind":"message","text":"hi \"bob\""}"#
    );
    assert!(json(&ServerFrame::from_entry(entry, true)).ends_with(r#","client_msg_id":"c-1"}"#));
}

#[test]
fn a_change_reads_as_the_protocol_says() {
    let bob = UserId::new("acme", "bob").unwrap();
    let added = entry(Content::Change(Change::MemberAdded { user: bob.clone(), role: Role::Member }));
    let live = json(&ServerFrame::from_entry(added.clone(), true));
    assert_eq!(
        live,
        r#"{"type":"conversation","conversation_id":"42","message_id":"9007199254740993","seq":7,"from":"alice","server_ts":1790000000000,"change":"member_added","user_id":"bob","role":"member"}"#
    );
    let page = ServerFrame::Messages(Messages {
        conversation: ConversationId(42),
        items: vec![LogItem::from_entry(added, true)],
        more: false,
    });
    assert_eq!(
        json(&page),
        r#"{"type":"messages","conversation_id":"42","messages":[{"conversation_id":"42","message_id":"9007199254740993","seq":7,"from":"alice","server_ts":1790000000000,"kind":"member_added","user_id":"bob","role":"member"}],"more":false}"#
    );
    let created = entry(Content::Change(Change::Created {
        kind: ConversationKind::Group,
        name: "Team".to_owned(),
        members: vec![(bob, Role::Owner)],
    }));
    assert!(json(&ServerFrame::from_entry(created, false)).ends_with(
        r#""change":"created","conversation_type":"group","name":"Team","members":[{"user_id":"bob","role":"owner"}]}"#
    ));
}

#[test]
fn protobuf_tells_an_unknown_type_from_no_frame() {
    let error = decode(Encoding::Protobuf, &[7 << 3 | 2, 0]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadFrame);
    assert!(error.to_string().contains("field 7"), "{error}");
    assert_eq!(decode(Encoding::Protobuf, &[]).unwrap_err().code(), ErrorCode::BadFrame);
}

#[test]
fn a_malformed_protobuf_send_still_names_itself() {
    // Send { client_msg_id: "c-1", text: not UTF-8 }.
    let send = [&[3 << 3 | 2, 3][..], b"c-1", &[4 << 3 | 2, 1, 0xff]].concat();
    let frame = [&[3 << 3 | 2, send.len() as u8][..], &send].concat();
    let error = decode(Encoding::Protobuf, &frame).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadFrame);
    assert_eq!(error.client_message_id.as_deref(), Some("c-1"));
}

#[test]
fn a_sync_of_too_many_conversations_is_too_large() {
    let last_seen = (0..1001).map(|id| (ConversationId(id), Seq(1))).collect();
    let frame = ClientFrame::Sync(Sync { last_seen, limit: None });
    for encoding in Encoding::ALL {
        let mut bytes = Vec::new();
        encode_client(encoding, &frame, &mut bytes);
        assert_eq!(decode(encoding, &bytes).unwrap_err().code(), ErrorCode::TooLarge);
    }
}
