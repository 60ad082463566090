//! The server's frames from JSON, as a client reads them: the load generator and tests.
//!
//! A client passes over a frame of a type that it does not know: [`DecodeCause::UnknownType`].

use serde::de::IgnoredAny;

use super::client_frame::Nonce;
use super::decode_error::{DecodeCause, DecodeError, invalid};
use super::error_code::ErrorCode;
use super::json_reader::{Base64, DecimalId, SeqMap, read, word};
use super::server_frame::{
    Ack, ChangeItem, ErrorFrame, Gap, Heads, Limits, LogItem, MessageItem, Messages, Placement, Pong,
    Reconnect, ServerFrame, Welcome,
};
use crate::entry::{Body, Change, ConversationKind, Message, Role};
use crate::ids::{ConversationId, MessageId, Seq, Timestamp};
use crate::user::{ClientMessageId, UserId};

/// Reads a server's frame.
///
/// # Errors
/// [`DecodeError`].
pub(super) fn decode_server(json: &[u8]) -> Result<ServerFrame, DecodeError> {
    let kind: Kind = read("frame", json)?;
    Ok(match kind.kind.as_str() {
        "welcome" => {
            let welcome: WelcomeJson = read("welcome", json)?;
            ServerFrame::Welcome(Box::new(Welcome {
                user_id: welcome.user_id,
                device_id: welcome.device_id,
                session_id: welcome.session_id,
                resume: welcome.resume,
                server_ts: Timestamp(welcome.server_ts),
                heartbeat_ms: welcome.heartbeat_ms,
                limits: Limits {
                    max_frame_bytes: welcome.limits.max_frame_bytes,
                    max_inflight: welcome.limits.max_inflight,
                    max_queue_bytes: welcome.limits.max_queue_bytes,
                    send_per_s: welcome.limits.send_per_s,
                    send_burst: welcome.limits.send_burst,
                    dedup_window_s: welcome.limits.dedup_window_s,
                },
            }))
        }
        "heads" => {
            let heads: HeadsJson = read("heads", json)?;
            let HeadsJson { conversations, recovered, resume, more } = heads;
            ServerFrame::Heads(Heads { conversations: conversations.0, recovered, resume, more })
        }
        "ack" => {
            let ack: AckJson = read("ack", json)?;
            ServerFrame::Ack(Ack {
                client_message_id: client_message_id(&ack.client_msg_id)?,
                conversation: ConversationId(ack.conversation_id.0),
                message: MessageId(ack.message_id.0),
                seq: Seq(ack.seq),
                server_ts: Timestamp(ack.server_ts),
                duplicate: ack.duplicate,
            })
        }
        "message" | "conversation" => match read::<ItemJson>(&kind.kind, json)?.into_item()? {
            LogItem::Message(item) => ServerFrame::Message(item),
            LogItem::Change(item) => ServerFrame::Conversation(item),
        },
        "messages" => {
            let page: MessagesJson = read("messages", json)?;
            ServerFrame::Messages(Messages {
                conversation: ConversationId(page.conversation_id.0),
                items: page.messages.into_iter().map(ItemJson::into_item).collect::<Result<_, _>>()?,
                more: page.more,
            })
        }
        "gap" => {
            let gap: GapJson = read("gap", json)?;
            ServerFrame::Gap(Gap {
                conversation: gap.conversation_id.map(|id| ConversationId(id.0)),
                after_seq: gap.after_seq.map(Seq),
                after_ms: gap.after_ms,
            })
        }
        "reconnect" => {
            let ReconnectJson { reason, url, after_ms, within_ms } = read("reconnect", json)?;
            ServerFrame::Reconnect(Reconnect { reason, url, after_ms, within_ms })
        }
        "sync_done" => ServerFrame::SyncDone,
        "pong" => {
            let PongJson { nonce, server_ts, resume } = read("pong", json)?;
            ServerFrame::Pong(Pong { nonce, server_ts: Timestamp(server_ts), resume })
        }
        "error" => {
            let error: ErrorJson = read("error", json)?;
            ServerFrame::Error(ErrorFrame {
                code: ErrorCode::of_str(&error.code).ok_or_else(|| invalid("unknown error code"))?,
                message: error.message,
                client_message_id: error.client_msg_id,
                retry_after_ms: error.retry_after_ms,
                temporary: error.temporary,
            })
        }
        unknown => return Err(DecodeCause::UnknownType(unknown.to_owned()).into()),
    })
}

#[derive(serde::Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(serde::Deserialize)]
struct WelcomeJson {
    user_id: String,
    device_id: String,
    session_id: String,
    resume: String,
    server_ts: u64,
    heartbeat_ms: u64,
    limits: LimitsJson,
}

#[derive(serde::Deserialize)]
struct LimitsJson {
    max_frame_bytes: u64,
    max_inflight: u32,
    max_queue_bytes: u64,
    send_per_s: u32,
    send_burst: u32,
    dedup_window_s: u64,
}

#[derive(serde::Deserialize)]
struct HeadsJson {
    conversations: SeqMap,
    recovered: bool,
    resume: String,
    more: bool,
}

#[derive(serde::Deserialize)]
struct AckJson {
    client_msg_id: String,
    conversation_id: DecimalId,
    message_id: DecimalId,
    seq: u64,
    server_ts: u64,
    duplicate: bool,
}

#[derive(serde::Deserialize)]
struct MessagesJson {
    conversation_id: DecimalId,
    messages: Vec<ItemJson>,
    more: bool,
}

#[derive(serde::Deserialize)]
struct GapJson {
    conversation_id: Option<DecimalId>,
    after_seq: Option<u64>,
    after_ms: Option<u64>,
}

#[derive(serde::Deserialize)]
struct ReconnectJson {
    reason: String,
    url: Option<String>,
    after_ms: u64,
    within_ms: u64,
}

#[derive(serde::Deserialize)]
struct PongJson {
    nonce: Option<Nonce>,
    server_ts: u64,
    resume: String,
}

#[derive(serde::Deserialize)]
struct ErrorJson {
    code: String,
    message: String,
    client_msg_id: Option<String>,
    retry_after_ms: Option<u64>,
    temporary: bool,
}

/// A message or a change, live or in a page.
#[derive(serde::Deserialize)]
struct ItemJson {
    #[serde(rename = "type")]
    _type: Option<IgnoredAny>,
    conversation_id: DecimalId,
    message_id: DecimalId,
    seq: u64,
    from: String,
    server_ts: u64,
    #[serde(alias = "change")]
    kind: String,
    text: Option<String>,
    ciphertext: Option<Base64>,
    alg: Option<String>,
    #[serde(default)]
    media_ids: Vec<String>,
    reply_to: Option<DecimalId>,
    client_msg_id: Option<String>,
    #[serde(default, deserialize_with = "conversation_type")]
    conversation_type: Option<ConversationKind>,
    name: Option<String>,
    #[serde(default)]
    members: Vec<MemberJson>,
    user_id: Option<String>,
    #[serde(default, deserialize_with = "role")]
    role: Option<Role>,
}

#[derive(serde::Deserialize)]
struct MemberJson {
    user_id: String,
    #[serde(deserialize_with = "role")]
    role: Option<Role>,
}

impl ItemJson {
    fn into_item(self) -> Result<LogItem, DecodeCause> {
        let placement = Placement {
            conversation: ConversationId(self.conversation_id.0),
            seq: Seq(self.seq),
            message: MessageId(self.message_id.0),
            server_ts: Timestamp(self.server_ts),
            from: user(&self.from)?,
        };
        let named = |user_id: Option<String>| user(&user_id.ok_or_else(|| invalid("user_id is missing"))?);
        let change = match self.kind.as_str() {
            "message" => {
                let body = match (self.text, self.ciphertext, self.alg) {
                    (Some(text), None, None) => Body::Text(text.into()),
                    (None, Some(data), Some(alg)) => Body::Ciphertext { alg, data: data.0 },
                    _ => return Err(invalid("a message has text, or ciphertext with alg")),
                };
                let message = Message {
                    body,
                    media_ids: self.media_ids,
                    reply_to: self.reply_to.map(|id| MessageId(id.0)),
                };
                let client_message_id = self.client_msg_id.as_deref().map(client_message_id).transpose()?;
                return Ok(LogItem::Message(MessageItem { placement, message, client_message_id }));
            }
            "created" => Change::Created {
                kind: self.conversation_type.ok_or_else(|| invalid("conversation_type is missing"))?,
                name: self.name.unwrap_or_default(),
                members: self
                    .members
                    .iter()
                    .map(|member| Ok((user(&member.user_id)?, member.role.unwrap_or(Role::Member))))
                    .collect::<Result<_, DecodeCause>>()?,
            },
            "member_added" => {
                let role = self.role.ok_or_else(|| invalid("role is missing"))?;
                Change::MemberAdded { user: named(self.user_id)?, role }
            }
            "member_removed" => Change::MemberRemoved { user: named(self.user_id)? },
            "renamed" => Change::Renamed { name: self.name.unwrap_or_default() },
            "deleted" => Change::Deleted,
            unknown => return Err(DecodeCause::UnknownType(unknown.to_owned())),
        };
        Ok(LogItem::Change(ChangeItem { placement, change }))
    }
}

fn conversation_type<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<ConversationKind>, D::Error> {
    word(d, ConversationKind::of_str)
}

fn role<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Role>, D::Error> {
    word(d, Role::of_str)
}

fn user(sub: &str) -> Result<UserId, DecodeCause> {
    UserId::new("", sub).map_err(|error| invalid(format!("a user id: {error}")))
}

fn client_message_id(id: &str) -> Result<ClientMessageId, DecodeCause> {
    ClientMessageId::new(id).map_err(|error| invalid(format!("client_msg_id: {error}")))
}
