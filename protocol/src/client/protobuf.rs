//! Frames as protobuf: `proto/ringway.proto`, the same fields as the JSON.
//!
//! What arrives goes through the checks of `client_frame.rs`, so that both encodings refuse the same things
//! with the same words.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;

use super::body_memory::BodyMemory;
use super::client_frame::{ClientFrame, Destination, Hello, Nonce, Send, SendFields, Sync};
use super::decode_error::{DecodeCause, DecodeError, invalid};
use super::error_code::ErrorCode;
use super::server_frame::{
    Ack, ChangeItem, ErrorFrame, Gap, Heads, Limits, LogItem, MessageItem, Messages, Placement, Pong,
    Reconnect, ServerFrame, Welcome,
};
use crate::entry::{Body, Change, ConversationKind, Message, Role};
use crate::ids::{ConversationId, MessageId, Seq, Timestamp};
use crate::live_message::{LiveBody, LiveMessage};
use crate::protobuf_fields::{FieldReader, append_message};
use crate::user::{ClientMessageId, UserId};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/ringway.v1.rs"));
}

use proto::client_frame::Frame as FromClient;
use proto::server_frame::Frame as FromServer;

/// Reads a client's frame.
///
/// # Errors
/// [`DecodeError`], fit to be sent back.
pub(super) fn decode(payload: &[u8], bodies: &mut BodyMemory) -> Result<ClientFrame, DecodeError> {
    if let Some(fields) = plain_send(payload) {
        return fields.check(bodies).map(ClientFrame::Send).map_err(|cause| {
            // Which send failed is worth a second look at the bytes.
            let id = plain_send(payload).and_then(|fields| fields.client_msg_id);
            DecodeError::new(cause, id.as_deref().filter(|id| !id.is_empty()))
        });
    }
    let frame = match proto::ClientFrame::decode(payload) {
        Ok(frame) => frame.frame.ok_or_else(|| no_frame(payload))?,
        Err(error) => {
            let id =
                SendProbe::decode(payload).ok().and_then(|probe| probe.send).map(|send| send.client_msg_id);
            let id = id.as_deref().and_then(|id| std::str::from_utf8(id).ok()).filter(|id| !id.is_empty());
            return Err(DecodeError::new(DecodeCause::BadFrame(error.to_string()), id));
        }
    };
    let client_message_id = match &frame {
        FromClient::Send(send) if !send.client_msg_id.is_empty() => Some(send.client_msg_id.clone()),
        _ => None,
    };
    client_from_proto(frame, bodies).map_err(|cause| DecodeError::new(cause, client_message_id.as_deref()))
}

/// The fields of a send without media as most encoders write it: in the order of their numbers. `None` for
/// whatever else, which prost reads.
fn plain_send(payload: &[u8]) -> Option<SendFields<'_>> {
    let mut frame = FieldReader::new(payload);
    let mut send = FieldReader::new(frame.optional_bytes(3)??);
    let fields = SendFields {
        conversation_id: send.optional_fixed(1)?,
        to: send.optional_text(2)?.map(str::to_owned),
        client_msg_id: Some(send.optional_text(3)?.unwrap_or_default().into()),
        text: send.optional_text(4)?.map(Cow::Borrowed),
        ciphertext: send.optional_bytes(5)?.map(Bytes::copy_from_slice),
        alg: send.optional_text(6)?.map(str::to_owned),
        media_ids: Vec::new(),
        reply_to: send.optional_fixed(8)?,
    };
    (send.is_at_end() && frame.is_at_end()).then_some(fields)
}

/// Appends a client's frame.
pub(super) fn encode_client(frame: &ClientFrame, out: &mut Vec<u8>) {
    let frame = proto::ClientFrame { frame: Some(client_to_proto(frame)) };
    append(&frame, out);
}

/// Appends a server's frame.
pub(super) fn encode(frame: &ServerFrame, out: &mut Vec<u8>) {
    // What each message is answered with is written without what prost would allocate for it.
    if let ServerFrame::Ack(ack) = frame {
        return encode_ack(ack, out);
    }
    let frame = proto::ServerFrame { frame: Some(server_to_proto(frame)) };
    append(&frame, out);
}

fn encode_ack(ack: &Ack, out: &mut Vec<u8>) {
    append_message(3, out, |fields| {
        fields.bytes(1, Some(ack.client_message_id.as_str().as_bytes()));
        fields.fixed(2, ack.conversation.0);
        fields.fixed(3, ack.message.0);
        fields.varint(4, ack.seq.0);
        fields.varint(5, ack.server_ts.0);
        fields.varint(6, u64::from(ack.duplicate));
    });
}

/// Appends a live message, field by field in the order of their numbers, as prost does.
pub(super) fn encode_live(live: &LiveMessage<'_>, for_sender: bool, out: &mut Vec<u8>) {
    let client_message_id = live.client_message_id.filter(|_| for_sender);
    let (text, ciphertext) = match live.body {
        LiveBody::Text(text) => (Some(text), None),
        LiveBody::Ciphertext { alg, data } => (None, Some((alg, data))),
    };
    append_message(4, out, |fields| {
        fields.fixed(1, live.conversation.0);
        fields.fixed(2, live.message.0);
        fields.varint(3, live.seq.0);
        fields.bytes(4, Some(live.from().as_bytes()));
        fields.varint(5, live.server_ts.0);
        fields.bytes(6, Some(b"message"));
        fields.bytes(7, text.map(str::as_bytes));
        fields.bytes(8, ciphertext.map(|(_, data)| data));
        fields.bytes(9, ciphertext.map(|(alg, _)| alg.as_bytes()));
        fields.optional_fixed(11, live.reply_to.map(|message| message.0));
        fields.bytes(12, client_message_id.map(str::as_bytes));
    });
}

/// Reads a server's frame.
///
/// # Errors
/// [`DecodeError`].
pub(super) fn decode_server(payload: &[u8]) -> Result<ServerFrame, DecodeError> {
    let frame = proto::ServerFrame::decode(payload)
        .map_err(|error| DecodeCause::BadFrame(error.to_string()))?
        .frame
        .ok_or_else(|| no_frame(payload))?;
    Ok(server_from_proto(frame)?)
}

/// Enough of a send to name it when the rest is malformed.
#[derive(Clone, PartialEq, prost::Message)]
struct SendProbe {
    #[prost(message, optional, tag = "3")]
    send: Option<ClientMessageIdProbe>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClientMessageIdProbe {
    #[prost(bytes = "vec", tag = "3")]
    client_msg_id: Vec<u8>,
}

fn append(frame: &impl prost::Message, out: &mut Vec<u8>) {
    out.reserve(frame.encoded_len());
    frame.encode_raw(out);
}

/// No field that this version knows: empty, or of a later version.
fn no_frame(mut payload: &[u8]) -> DecodeCause {
    match prost::encoding::decode_key(&mut payload) {
        Ok((field, _)) => DecodeCause::UnknownType(format!("field {field}")),
        Err(_) => DecodeCause::BadFrame("a frame holds one of hello, refresh, send, sync, ping".to_owned()),
    }
}

fn client_from_proto(frame: FromClient, bodies: &mut BodyMemory) -> Result<ClientFrame, DecodeCause> {
    Ok(match frame {
        FromClient::Hello(hello) => ClientFrame::Hello(Hello::check(
            hello.token,
            hello.device_id,
            hello.client,
            hello.batch,
            hello.resume,
        )?),
        FromClient::Refresh(refresh) if refresh.token.is_empty() => {
            return Err(invalid("refresh needs a token"));
        }
        FromClient::Refresh(refresh) => ClientFrame::Refresh { token: refresh.token },
        FromClient::Send(send) => {
            let fields = SendFields {
                conversation_id: send.conversation_id,
                to: send.to,
                client_msg_id: Some(send.client_msg_id.into()),
                text: send.text.map(Cow::Owned),
                ciphertext: send.ciphertext,
                alg: send.alg,
                media_ids: send.media_ids,
                reply_to: send.reply_to,
            };
            ClientFrame::Send(fields.check(bodies)?)
        }
        FromClient::Sync(sync) => {
            let last_seen = seqs_from_proto(sync.last_seen);
            ClientFrame::Sync(Sync { last_seen, limit: sync.limit }.check()?)
        }
        FromClient::Ping(ping) => {
            ClientFrame::Ping { nonce: ping.nonce.map(|nonce| Nonce::Text(nonce).check()).transpose()? }
        }
    })
}

fn client_to_proto(frame: &ClientFrame) -> FromClient {
    match frame {
        ClientFrame::Hello(hello) => FromClient::Hello(proto::Hello {
            token: hello.token.clone(),
            device_id: hello.device.as_ref().map(|device| device.as_str().to_owned()),
            client: hello.client.clone(),
            batch: hello.batch,
            resume: hello.resume.clone(),
        }),
        ClientFrame::Refresh { token } => FromClient::Refresh(proto::Refresh { token: token.clone() }),
        ClientFrame::Send(send) => FromClient::Send(send_to_proto(send)),
        ClientFrame::Sync(sync) => FromClient::Sync(proto::Sync {
            last_seen: sync.last_seen.iter().map(|(conversation, seq)| (conversation.0, seq.0)).collect(),
            limit: sync.limit,
        }),
        ClientFrame::Ping { nonce } => {
            FromClient::Ping(proto::Ping { nonce: nonce_to_proto(nonce.as_ref()) })
        }
    }
}

fn send_to_proto(send: &Send) -> proto::Send {
    let (conversation_id, to) = match &send.destination {
        Destination::Conversation(conversation) => (Some(conversation.0), None),
        Destination::User(user) => (None, Some(user.clone())),
    };
    let BodyFields { text, ciphertext, alg } = body_to_proto(&send.message.body);
    proto::Send {
        conversation_id,
        to,
        client_msg_id: send.client_message_id.as_str().to_owned(),
        text,
        ciphertext,
        alg,
        media_ids: send.message.media_ids.clone(),
        reply_to: send.message.reply_to.map(|message| message.0),
    }
}

fn server_to_proto(frame: &ServerFrame) -> FromServer {
    match frame {
        ServerFrame::Welcome(welcome) => FromServer::Welcome(welcome_to_proto(welcome)),
        ServerFrame::Heads(heads) => FromServer::Heads(proto::Heads {
            conversations: heads
                .conversations
                .iter()
                .map(|(conversation, seq)| (conversation.0, seq.0))
                .collect(),
            recovered: heads.recovered,
            resume: heads.resume.clone(),
            more: heads.more,
        }),
        ServerFrame::Ack(ack) => FromServer::Ack(proto::Ack {
            client_msg_id: ack.client_message_id.as_str().to_owned(),
            conversation_id: ack.conversation.0,
            message_id: ack.message.0,
            seq: ack.seq.0,
            server_ts: ack.server_ts.0,
            duplicate: ack.duplicate,
        }),
        ServerFrame::Message(item) => FromServer::Message(message_to_proto(item)),
        ServerFrame::Messages(page) => FromServer::Messages(proto::Messages {
            conversation_id: page.conversation.0,
            messages: page.items.iter().map(item_to_proto).collect(),
            more: page.more,
        }),
        ServerFrame::Conversation(item) => FromServer::Conversation(change_to_proto(item)),
        ServerFrame::Gap(gap) => FromServer::Gap(proto::Gap {
            conversation_id: gap.conversation.map(|conversation| conversation.0),
            after_seq: gap.after_seq.map(|seq| seq.0),
            after_ms: gap.after_ms,
        }),
        ServerFrame::Reconnect(reconnect) => FromServer::Reconnect(proto::Reconnect {
            reason: reconnect.reason.clone(),
            url: reconnect.url.clone(),
            after_ms: reconnect.after_ms,
            within_ms: reconnect.within_ms,
        }),
        ServerFrame::SyncDone => FromServer::SyncDone(proto::SyncDone {}),
        ServerFrame::Pong(pong) => FromServer::Pong(proto::Pong {
            nonce: nonce_to_proto(pong.nonce.as_ref()),
            server_ts: pong.server_ts.0,
            resume: pong.resume.clone(),
        }),
        ServerFrame::Error(error) => FromServer::Error(proto::Error {
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            client_msg_id: error.client_message_id.clone(),
            retry_after_ms: error.retry_after_ms,
            temporary: error.temporary,
        }),
    }
}

fn server_from_proto(frame: FromServer) -> Result<ServerFrame, DecodeCause> {
    Ok(match frame {
        FromServer::Welcome(welcome) => ServerFrame::Welcome(Box::new(welcome_from_proto(welcome)?)),
        FromServer::Heads(heads) => ServerFrame::Heads(Heads {
            conversations: seqs_from_proto(heads.conversations),
            recovered: heads.recovered,
            resume: heads.resume,
            more: heads.more,
        }),
        FromServer::Ack(ack) => ServerFrame::Ack(Ack {
            client_message_id: client_message_id(&ack.client_msg_id)?,
            conversation: ConversationId(ack.conversation_id),
            message: MessageId(ack.message_id),
            seq: Seq(ack.seq),
            server_ts: Timestamp(ack.server_ts),
            duplicate: ack.duplicate,
        }),
        FromServer::Message(message) => ServerFrame::Message(message_from_proto(message)?),
        FromServer::Messages(page) => ServerFrame::Messages(Messages {
            conversation: ConversationId(page.conversation_id),
            items: page.messages.into_iter().map(item_from_proto).collect::<Result<_, _>>()?,
            more: page.more,
        }),
        FromServer::Conversation(change) => ServerFrame::Conversation(change_from_proto(change)?),
        FromServer::Gap(gap) => ServerFrame::Gap(Gap {
            conversation: gap.conversation_id.map(ConversationId),
            after_seq: gap.after_seq.map(Seq),
            after_ms: gap.after_ms,
        }),
        FromServer::Reconnect(reconnect) => ServerFrame::Reconnect(Reconnect {
            reason: reconnect.reason,
            url: reconnect.url,
            after_ms: reconnect.after_ms,
            within_ms: reconnect.within_ms,
        }),
        FromServer::SyncDone(_) => ServerFrame::SyncDone,
        FromServer::Pong(pong) => ServerFrame::Pong(Pong {
            nonce: pong.nonce.map(Nonce::Text),
            server_ts: Timestamp(pong.server_ts),
            resume: pong.resume,
        }),
        FromServer::Error(error) => ServerFrame::Error(ErrorFrame {
            code: ErrorCode::of_str(&error.code).ok_or_else(|| invalid("unknown error code"))?,
            message: error.message,
            client_message_id: error.client_msg_id,
            retry_after_ms: error.retry_after_ms,
            temporary: error.temporary,
        }),
    })
}

fn welcome_to_proto(welcome: &Welcome) -> proto::Welcome {
    proto::Welcome {
        user_id: welcome.user_id.clone(),
        device_id: welcome.device_id.clone(),
        session_id: welcome.session_id.clone(),
        resume: welcome.resume.clone(),
        server_ts: welcome.server_ts.0,
        heartbeat_ms: welcome.heartbeat_ms,
        limits: Some(proto::Limits {
            max_frame_bytes: welcome.limits.max_frame_bytes,
            max_inflight: welcome.limits.max_inflight,
            max_queue_bytes: welcome.limits.max_queue_bytes,
            send_per_s: welcome.limits.send_per_s,
            send_burst: welcome.limits.send_burst,
            dedup_window_s: welcome.limits.dedup_window_s,
        }),
    }
}

fn welcome_from_proto(welcome: proto::Welcome) -> Result<Welcome, DecodeCause> {
    let limits = welcome.limits.ok_or_else(|| invalid("welcome has no limits"))?;
    Ok(Welcome {
        user_id: welcome.user_id,
        device_id: welcome.device_id,
        session_id: welcome.session_id,
        resume: welcome.resume,
        server_ts: Timestamp(welcome.server_ts),
        heartbeat_ms: welcome.heartbeat_ms,
        limits: Limits {
            max_frame_bytes: limits.max_frame_bytes,
            max_inflight: limits.max_inflight,
            max_queue_bytes: limits.max_queue_bytes,
            send_per_s: limits.send_per_s,
            send_burst: limits.send_burst,
            dedup_window_s: limits.dedup_window_s,
        },
    })
}

fn item_to_proto(item: &LogItem) -> proto::LogItem {
    let item = match item {
        LogItem::Message(item) => proto::log_item::Item::Message(message_to_proto(item)),
        LogItem::Change(item) => proto::log_item::Item::Change(change_to_proto(item)),
    };
    proto::LogItem { item: Some(item) }
}

fn item_from_proto(item: proto::LogItem) -> Result<LogItem, DecodeCause> {
    Ok(match item.item.ok_or_else(|| invalid("an element of messages is of an unknown kind"))? {
        proto::log_item::Item::Message(message) => LogItem::Message(message_from_proto(message)?),
        proto::log_item::Item::Change(change) => LogItem::Change(change_from_proto(change)?),
    })
}

fn message_to_proto(item: &MessageItem) -> proto::Message {
    let placement = &item.placement;
    let BodyFields { text, ciphertext, alg } = body_to_proto(&item.message.body);
    proto::Message {
        conversation_id: placement.conversation.0,
        message_id: placement.message.0,
        seq: placement.seq.0,
        from: placement.from.sub().to_owned(),
        server_ts: placement.server_ts.0,
        kind: "message".to_owned(),
        text,
        ciphertext,
        alg,
        media_ids: item.message.media_ids.clone(),
        reply_to: item.message.reply_to.map(|message| message.0),
        client_msg_id: item.client_message_id.as_ref().map(|id| id.as_str().to_owned()),
    }
}

fn message_from_proto(message: proto::Message) -> Result<MessageItem, DecodeCause> {
    let body = match (message.text, message.ciphertext, message.alg) {
        (Some(text), None, None) => Body::Text(text.into()),
        (None, Some(data), Some(alg)) => Body::Ciphertext { alg, data },
        _ => return Err(invalid("a message has text, or ciphertext with alg")),
    };
    Ok(MessageItem {
        placement: Placement {
            conversation: ConversationId(message.conversation_id),
            seq: Seq(message.seq),
            message: MessageId(message.message_id),
            server_ts: Timestamp(message.server_ts),
            from: user(&message.from)?,
        },
        message: Message { body, media_ids: message.media_ids, reply_to: message.reply_to.map(MessageId) },
        client_message_id: message.client_msg_id.as_deref().map(client_message_id).transpose()?,
    })
}

fn change_to_proto(item: &ChangeItem) -> proto::Conversation {
    let placement = &item.placement;
    let mut proto = proto::Conversation {
        conversation_id: placement.conversation.0,
        message_id: placement.message.0,
        seq: placement.seq.0,
        from: placement.from.sub().to_owned(),
        server_ts: placement.server_ts.0,
        change: item.change.name().to_owned(),
        ..proto::Conversation::default()
    };
    match &item.change {
        Change::Created { kind, name, members } => {
            proto.conversation_type = kind.as_str().to_owned();
            proto.name = name.clone();
            proto.members = members
                .iter()
                .map(|(user, role)| proto::Member {
                    user_id: user.sub().to_owned(),
                    role: role.as_str().to_owned(),
                })
                .collect();
        }
        Change::MemberAdded { user, role } => {
            proto.user_id = user.sub().to_owned();
            proto.role = role.as_str().to_owned();
        }
        Change::MemberRemoved { user } => proto.user_id = user.sub().to_owned(),
        Change::Renamed { name } => proto.name = name.clone(),
        Change::Deleted => {}
    }
    proto
}

fn change_from_proto(proto: proto::Conversation) -> Result<ChangeItem, DecodeCause> {
    let change = match proto.change.as_str() {
        "created" => Change::Created {
            kind: ConversationKind::of_str(&proto.conversation_type)
                .ok_or_else(|| invalid("unknown conversation_type"))?,
            name: proto.name,
            members: proto
                .members
                .iter()
                .map(|member| Ok((user(&member.user_id)?, role(&member.role)?)))
                .collect::<Result<_, DecodeCause>>()?,
        },
        "member_added" => Change::MemberAdded { user: user(&proto.user_id)?, role: role(&proto.role)? },
        "member_removed" => Change::MemberRemoved { user: user(&proto.user_id)? },
        "renamed" => Change::Renamed { name: proto.name },
        "deleted" => Change::Deleted,
        unknown => return Err(DecodeCause::UnknownType(unknown.to_owned())),
    };
    let placement = Placement {
        conversation: ConversationId(proto.conversation_id),
        seq: Seq(proto.seq),
        message: MessageId(proto.message_id),
        server_ts: Timestamp(proto.server_ts),
        from: user(&proto.from)?,
    };
    Ok(ChangeItem { placement, change })
}

struct BodyFields {
    text: Option<String>,
    ciphertext: Option<Bytes>,
    alg: Option<String>,
}

fn body_to_proto(body: &Body) -> BodyFields {
    match body {
        Body::Text(text) => {
            // As in JSON: a text was checked where it came in.
            let text = Some(String::from_utf8_lossy(text).into_owned());
            BodyFields { text, ciphertext: None, alg: None }
        }
        Body::Ciphertext { alg, data } => {
            BodyFields { text: None, ciphertext: Some(data.clone()), alg: Some(alg.clone()) }
        }
    }
}

fn nonce_to_proto(nonce: Option<&Nonce>) -> Option<String> {
    nonce.map(|nonce| match nonce {
        Nonce::Text(text) => text.clone(),
        Nonce::Number(number) => number.to_string(),
    })
}

fn seqs_from_proto(seqs: impl IntoIterator<Item = (u64, u64)>) -> Vec<(ConversationId, Seq)> {
    let mut seqs: Vec<_> =
        seqs.into_iter().map(|(conversation, seq)| (ConversationId(conversation), Seq(seq))).collect();
    // A map has no order; a page of heads reads best in one.
    seqs.sort_unstable();
    seqs
}

fn user(sub: &str) -> Result<UserId, DecodeCause> {
    UserId::new("", sub).map_err(|error| invalid(format!("a user id: {error}")))
}

fn role(name: &str) -> Result<Role, DecodeCause> {
    Role::of_str(name).ok_or_else(|| invalid("unknown role"))
}

fn client_message_id(id: &str) -> Result<ClientMessageId, DecodeCause> {
    ClientMessageId::new(id).map_err(|error| invalid(format!("client_msg_id: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A send's fields as any client may write them, also such as no send has.
    fn fields() -> impl Strategy<Value = proto::Send> {
        let text = || proptest::option::of("[ -~ü]{0,80}");
        let media = proptest::collection::vec("[a-z]{1,5}", 0..2);
        let bytes = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50));
        let ids = proptest::array::uniform2(proptest::option::of(any::<u64>()));
        (ids, text(), "[ -~ü]{0,70}", text(), bytes, text(), media).prop_map(
            |([conversation_id, reply_to], to, client_msg_id, text, ciphertext, alg, media_ids)| {
                proto::Send {
                    conversation_id,
                    to,
                    client_msg_id,
                    text,
                    ciphertext: ciphertext.map(Bytes::from),
                    alg,
                    media_ids,
                    reply_to,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_send_that_is_read_by_hand_says_what_prost_reads(
            send in fields(),
            place in any::<prop::sample::Index>(),
            flip in 0u8..9,
        ) {
            let has_media = !send.media_ids.is_empty();
            let mut bytes = Vec::new();
            append(&proto::ClientFrame { frame: Some(FromClient::Send(send)) }, &mut bytes);
            prop_assert_eq!(plain_send(&bytes).is_none(), has_media);
            let place = place.index(bytes.len());
            bytes[place] ^= if flip < 8 { 1 << flip } else { 0 };
            let Some(by_hand) = plain_send(&bytes) else { return Ok(()) };
            let frame = proto::ClientFrame::decode(&bytes[..]).expect("prost reads it too").frame;
            let mut bodies = BodyMemory::default();
            let by_prost = client_from_proto(frame.expect("a send"), &mut bodies);
            prop_assert_eq!(by_hand.check(&mut bodies).map(ClientFrame::Send), by_prost);
        }
    }
}
