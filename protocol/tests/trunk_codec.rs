//! The trunk's bytes: every message comes back, a cut one waits or is refused, no bytes panic.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ringway_protocol::entry::{Body, ConversationKind, Message, Role};
use ringway_protocol::ids::{ConnectionId, ConversationId, MessageId, Position, RequestId, Seq, Timestamp};
use ringway_protocol::trunk::codec::{
    FRAME_BYTES_MAX, TrunkError, decode_to_endpoint, decode_to_router, encode_to_endpoint, encode_to_router,
};
use ringway_protocol::trunk::{
    BodyReference, FanOutBody, Notice, Operation, Outcome, Refusal, Target, ToEndpoint, ToRouter,
};
use ringway_protocol::user::{ClientMessageId, DeviceId, UserId};

fn connection() -> impl Strategy<Value = ConnectionId> {
    any::<u64>().prop_map(ConnectionId)
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    any::<u64>().prop_map(ConversationId)
}

fn user() -> impl Strategy<Value = UserId> {
    ("[a-zü]{0,8}", "[a-zü]{1,8}").prop_map(|(tenant, sub)| UserId::new(&tenant, &sub).unwrap())
}

fn device() -> impl Strategy<Value = DeviceId> {
    "[a-z]{1,8}".prop_map(|id| DeviceId::new(&id).unwrap())
}

fn client_message_id() -> impl Strategy<Value = ClientMessageId> {
    "[a-z]{1,8}".prop_map(|id| ClientMessageId::new(&id).unwrap())
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..30).prop_map(Bytes::from)
}

fn message() -> impl Strategy<Value = Message> {
    let body = prop_oneof![
        "\\PC{0,20}".prop_map(|text| Body::Text(text.into())),
        ("[a-z]{1,8}", bytes()).prop_map(|(alg, data)| Body::Ciphertext { alg, data }),
    ];
    (body, vec("[a-z]{0,8}", 0..3), option::of(any::<u64>().prop_map(MessageId)))
        .prop_map(|(body, media_ids, reply_to)| Message { body, media_ids, reply_to })
}

fn operation() -> impl Strategy<Value = Operation> {
    let target = prop_oneof![conversation().prop_map(Target::Conversation), user().prop_map(Target::User)];
    let kind = prop_oneof![Just(ConversationKind::Direct), Just(ConversationKind::Group)];
    let role = prop_oneof![Just(Role::Owner), Just(Role::Admin), Just(Role::Member)];
    prop_oneof![
        (target, client_message_id(), message()).prop_map(|(target, client_message_id, message)| {
            Operation::Send { target, client_message_id, message }
        }),
        (kind, "\\PC{0,8}", vec(user(), 0..4), option::of(client_message_id())).prop_map(
            |(kind, name, members, idempotency_key)| Operation::Create {
                kind,
                name,
                members,
                idempotency_key
            }
        ),
        (conversation(), user(), role).prop_map(|(conversation, user, role)| Operation::AddMember {
            conversation,
            user,
            role
        }),
        (conversation(), user())
            .prop_map(|(conversation, user)| Operation::RemoveMember { conversation, user }),
        (conversation(), "\\PC{0,8}")
            .prop_map(|(conversation, name)| Operation::Rename { conversation, name }),
        conversation().prop_map(|conversation| Operation::Delete { conversation }),
        (conversation(), any::<u64>(), any::<u32>()).prop_map(|(conversation, after, limit)| {
            Operation::SyncPage { conversation, after: Seq(after), limit }
        }),
        conversation().prop_map(|conversation| Operation::SyncEnd { conversation }),
        option::of(any::<u64>().prop_map(Position)).prop_map(|since| Operation::Heads { since }),
    ]
}

fn to_router() -> impl Strategy<Value = ToRouter> {
    prop_oneof![
        (connection(), user(), device()).prop_map(|(connection, user, device)| ToRouter::Attach {
            connection,
            user,
            device
        }),
        (connection(), user(), device()).prop_map(|(connection, user, device)| ToRouter::Detach {
            connection,
            user,
            device
        }),
        (connection(), any::<u64>(), user(), operation()).prop_map(
            |(connection, request, user, operation)| ToRouter::Request {
                connection,
                request: RequestId(request),
                user,
                operation
            }
        ),
    ]
}

fn outcome() -> impl Strategy<Value = Result<Outcome, Refusal>> {
    let good = prop_oneof![
        (conversation(), any::<[u64; 3]>(), any::<bool>()).prop_map(|(conversation, n, duplicate)| {
            Outcome::Sent {
                conversation,
                message: MessageId(n[0]),
                seq: Seq(n[1]),
                server_ts: Timestamp(n[2]),
                duplicate,
            }
        }),
        (conversation(), any::<bool>(), any::<u64>()).prop_map(|(conversation, created, seq)| {
            Outcome::Created { conversation, created, seq: Seq(seq) }
        }),
        option::of(any::<u64>().prop_map(Seq)).prop_map(|seq| Outcome::Changed { seq }),
        (conversation(), vec(bytes(), 0..4), any::<bool>())
            .prop_map(|(conversation, entries, more)| Outcome::Page { conversation, entries, more }),
        (vec((conversation(), any::<u64>().prop_map(Seq)), 0..4), any::<bool>())
            .prop_map(|(heads, recovered)| Outcome::Heads { heads, recovered }),
        Just(Outcome::Done),
    ];
    let refusals = prop_oneof![
        Just(Refusal::NotFound),
        Just(Refusal::Forbidden),
        Just(Refusal::DuplicateConflict),
        Just(Refusal::ConversationFull),
        Just(Refusal::Invalid("a direct conversation has one other member")),
        Just(Refusal::Unavailable),
    ];
    prop_oneof![good.prop_map(Ok), refusals.prop_map(Err)]
}

fn to_endpoint() -> impl Strategy<Value = ToEndpoint> {
    prop_oneof![
        (connection(), any::<u64>(), outcome()).prop_map(|(connection, request, outcome)| {
            ToEndpoint::Reply { connection, request: RequestId(request), outcome }
        }),
        (any::<u64>(), conversation(), any::<u64>(), bytes(), vec(connection(), 0..5)).prop_map(
            |(reference, conversation, seq, entry, connections)| {
                let reference = BodyReference(reference);
                ToEndpoint::FanOut {
                    body: Arc::new(FanOutBody { reference, conversation, seq: Seq(seq), entry }),
                    notices: connections
                        .into_iter()
                        .map(|connection| Notice { connection, body: reference })
                        .collect(),
                }
            }
        ),
        (connection(), any::<u16>()).prop_map(|(connection, code)| ToEndpoint::Close { connection, code }),
        (any::<u16>(), any::<u64>())
            .prop_map(|(worker, position)| ToEndpoint::Watermark { worker, position: Position(position) }),
        Just(ToEndpoint::Lost),
    ]
}

proptest! {
    #[test]
    fn messages_to_the_router_come_back_one_after_the_other(messages in vec(to_router(), 1..4)) {
        let mut stream = Vec::new();
        for message in &messages {
            encode_to_router(message, &mut stream);
        }
        let mut left = &stream[..];
        for message in messages {
            let (decoded, len) = decode_to_router(left).unwrap().expect("a whole message");
            prop_assert_eq!(decoded, message);
            for cut in 0..len {
                prop_assert!(decode_to_router(&left[..cut]) == Ok(None));
            }
            left = &left[len..];
        }
        prop_assert!(left.is_empty());
    }

    #[test]
    fn messages_to_an_endpoint_come_back_one_after_the_other(messages in vec(to_endpoint(), 1..4)) {
        let mut stream = Vec::new();
        for message in &messages {
            encode_to_endpoint(message, &mut stream);
        }
        let mut left = &stream[..];
        for message in messages {
            let (decoded, len) = decode_to_endpoint(left).unwrap().expect("a whole message");
            prop_assert_eq!(decoded, message);
            for cut in 0..len {
                prop_assert!(decode_to_endpoint(&left[..cut]) == Ok(None));
            }
            left = &left[len..];
        }
        prop_assert!(left.is_empty());
    }

    #[test]
    fn a_shortened_length_is_an_error_and_a_changed_byte_no_panic(
        to_router in to_router(),
        to_endpoint in to_endpoint(),
        at: usize,
        flip: u8,
    ) {
        let mut stream = Vec::new();
        encode_to_router(&to_router, &mut stream);
        for cut in 4..stream.len() {
            let mut short = stream[..cut].to_vec();
            short[..4].copy_from_slice(&(cut as u32 - 4).to_le_bytes());
            prop_assert!(decode_to_router(&short).is_err());
        }
        let len = stream.len();
        stream[at % len] ^= flip;
        let _ = decode_to_router(&stream);
        stream.clear();
        encode_to_endpoint(&to_endpoint, &mut stream);
        let len = stream.len();
        stream[at % len] ^= flip;
        let _ = decode_to_endpoint(&stream);
    }
}

#[test]
fn a_recipient_costs_sixteen_bytes() {
    let reference = BodyReference(9);
    let fan_out = |recipients: u64| {
        let body = FanOutBody {
            reference,
            conversation: ConversationId(1),
            seq: Seq(1),
            entry: Bytes::from_static(b"entry"),
        };
        let notices =
            (0..recipients).map(|id| Notice { connection: ConnectionId(id), body: reference }).collect();
        let mut out = Vec::new();
        encode_to_endpoint(&ToEndpoint::FanOut { body: Arc::new(body), notices }, &mut out);
        out.len()
    };
    assert_eq!(fan_out(1000) - fan_out(0), 16_000);
}

#[test]
fn an_announced_length_or_count_is_not_believed() {
    let too_long = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    assert_eq!(decode_to_router(&too_long), Err(TrunkError::TooLong(FRAME_BYTES_MAX + 1)));
    // A list of 2^32 - 1 heads in a frame of a few bytes.
    let mut frame = Vec::new();
    let heads = Outcome::Heads { heads: vec![], recovered: true };
    let reply = ToEndpoint::Reply { connection: ConnectionId(1), request: RequestId(1), outcome: Ok(heads) };
    encode_to_endpoint(&reply, &mut frame);
    let count = frame.len() - 5;
    frame[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode_to_endpoint(&frame), Err(TrunkError::Truncated(_))));
}

#[test]
fn another_version_is_refused() {
    let mut frame = Vec::new();
    encode_to_endpoint(&ToEndpoint::Lost, &mut frame);
    frame[4] = 2;
    assert_eq!(decode_to_endpoint(&frame), Err(TrunkError::Version(2)));
}
