//! Trunk messages as bytes, for two ends on two machines. The values are those of `mod.rs`.
//!
//! All numbers are little-endian. A byte string is its length (4 bytes) and its bytes; an optional thing is
//! 0, or 1 and the thing; a list is its count (4 bytes) and its elements.
//!
//! ```text
//!   frame       4 length of what follows · 1 FABRIC_VERSION · 1 kind · the kind's fields
//!
//!   kind 1      Attach     8 connection · user · device
//!   kind 2      Detach     8 connection · user · device
//!   kind 3      Request    8 connection · 8 request · user · 1 operation · its fields
//!   kind 16     Reply      8 connection · 8 request · 1 outcome, or 255 and 1 refusal · its fields
//!   kind 17     FanOut     8 reference · 8 conversation · 8 seq · entry ·
//!                          4 count · count times (8 connection · 8 reference)
//!   kind 18     Close      8 connection · 2 code
//!   kind 19     Watermark  2 worker · 8 position
//!   kind 20     Lost
//!
//!   operation   1 Send          1 target (0: 8 conversation; 1: user) · client message id · message
//!               2 Create        1 kind · name · list of user · optional key
//!               3 AddMember     8 conversation · user · 1 role
//!               4 RemoveMember  8 conversation · user
//!               5 Rename        8 conversation · name
//!               6 Delete        8 conversation
//!               7 SyncPage      8 conversation · 8 after · 4 limit
//!               8 SyncEnd       8 conversation
//!               9 Heads         optional 8 position
//!
//!   message     1 body (0: text; 1: alg · data) · list of media id · optional 8 reply_to
//!
//!   outcome     1 Sent      8 conversation · 8 message · 8 seq · 8 server_ts · 1 duplicate
//!               2 Created   8 conversation · 1 created · 8 seq
//!               3 Changed   optional 8 seq
//!               4 Page      8 conversation · list of entry · 1 more
//!               5 Heads     list of (8 conversation · 8 seq) · 1 recovered
//!               6 Done
//!
//!   refusal     1 NotFound · 2 Forbidden · 3 DuplicateConflict · 4 ConversationFull ·
//!               5 Invalid (text) · 6 Unavailable
//! ```
//! Nothing is allocated for a length or a count before its bytes are there.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{BodyReference, FanOutBody, Notice, Operation, Outcome, Refusal, Target, ToEndpoint, ToRouter};
use crate::byte_cursor::{ByteCursor, Truncated, put_bytes};
use crate::entry::{Body, ConversationKind, Message, Role};
use crate::ids::{ConnectionId, ConversationId, MessageId, Position, RequestId, Seq, Timestamp};
use crate::user::{ClientMessageId, DeviceId, UserId};

/// The version of these frames. Two ends that differ do not talk: a fleet is upgraded router first.
pub const FABRIC_VERSION: u8 = 1;

/// Longest frame: a fan-out to every slot of an endpoint is a third of it.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a trunk frame. The link is closed and made anew: what was on it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrunkError {
    /// The other end speaks another version.
    #[error("the other end of the trunk speaks version {0} and this one {FABRIC_VERSION}: upgrade the older")]
    Version(u8),
    /// A frame longer than [`FRAME_BYTES_MAX`].
    #[error("a trunk frame of {0} bytes is announced and {FRAME_BYTES_MAX} are taken")]
    TooLong(usize),
    /// Its fields end behind its length.
    #[error("a trunk frame is cut: {0}")]
    Truncated(#[from] Truncated),
    /// Its length ends behind its fields.
    #[error("a trunk frame has {0} bytes too many")]
    Surplus(usize),
    /// A field that no end of this version writes.
    #[error("a trunk frame is damaged: its {0}")]
    Damaged(&'static str),
}

/// Reasons of [`Refusal::Invalid`] that come over a link as they are; others come as the first of them.
const REASONS: [&str; 8] = [
    "the request makes no sense for this conversation",
    "this conversation was deleted: it takes no change",
    "this conversation was deleted: it takes no message",
    "a direct conversation keeps its members and has no name",
    "a direct conversation has one other member",
    "a conversation's name has at most 256 bytes",
    "a group has one owner: add an admin or a member",
    "not a change of a conversation",
];

/// Appends a message to a router worker.
pub fn encode_to_router(message: &ToRouter, out: &mut Vec<u8>) {
    let start = begin_frame(out);
    match message {
        ToRouter::Attach { connection, user, device } => {
            out.put_u8(1);
            put_session(out, *connection, user, device);
        }
        ToRouter::Detach { connection, user, device } => {
            out.put_u8(2);
            put_session(out, *connection, user, device);
        }
        ToRouter::Request { connection, request, user, operation } => {
            out.put_u8(3);
            out.put_u64_le(connection.0);
            out.put_u64_le(request.0);
            put_bytes(out, user.as_bytes());
            put_operation(out, operation);
        }
    }
    end_frame(out, start);
}

/// Appends a message to an endpoint.
pub fn encode_to_endpoint(message: &ToEndpoint, out: &mut Vec<u8>) {
    let start = begin_frame(out);
    match message {
        ToEndpoint::Reply { connection, request, outcome } => {
            out.put_u8(16);
            out.put_u64_le(connection.0);
            out.put_u64_le(request.0);
            match outcome {
                Ok(outcome) => put_outcome(out, outcome),
                Err(refusal) => put_refusal(out, *refusal),
            }
        }
        ToEndpoint::FanOut { body, notices } => {
            out.put_u8(17);
            out.put_u64_le(body.reference.0);
            out.put_u64_le(body.conversation.0);
            out.put_u64_le(body.seq.0);
            put_bytes(out, &body.entry);
            put_count(out, notices.len());
            out.reserve(notices.len() * size_of::<Notice>());
            for notice in notices {
                out.put_u64_le(notice.connection.0);
                out.put_u64_le(notice.body.0);
            }
        }
        ToEndpoint::Close { connection, code } => {
            out.put_u8(18);
            out.put_u64_le(connection.0);
            out.put_u16_le(*code);
        }
        ToEndpoint::Watermark { worker, position } => {
            out.put_u8(19);
            out.put_u16_le(*worker);
            out.put_u64_le(position.0);
        }
        ToEndpoint::Lost => out.put_u8(20),
    }
    end_frame(out, start);
}

/// Takes a message to a router worker off the front of `received`: it and the bytes it took. `None` while
/// it is incomplete.
///
/// # Errors
/// [`TrunkError`]: close the link.
pub fn decode_to_router(received: &[u8]) -> Result<Option<(ToRouter, usize)>, TrunkError> {
    let Some((mut cursor, len)) = frame(received)? else { return Ok(None) };
    let cursor = &mut cursor;
    let message = match cursor.u8()? {
        1 => {
            ToRouter::Attach { connection: connection(cursor)?, user: user(cursor)?, device: device(cursor)? }
        }
        2 => {
            ToRouter::Detach { connection: connection(cursor)?, user: user(cursor)?, device: device(cursor)? }
        }
        3 => ToRouter::Request {
            connection: connection(cursor)?,
            request: RequestId(cursor.u64()?),
            user: user(cursor)?,
            operation: operation(cursor)?,
        },
        _ => return Err(TrunkError::Damaged("kind")),
    };
    finish(cursor)?;
    Ok(Some((message, len)))
}

/// Takes a message to an endpoint off the front of `received`, as [`decode_to_router`] does.
///
/// # Errors
/// [`TrunkError`]: close the link.
pub fn decode_to_endpoint(received: &[u8]) -> Result<Option<(ToEndpoint, usize)>, TrunkError> {
    let Some((mut cursor, len)) = frame(received)? else { return Ok(None) };
    let cursor = &mut cursor;
    let message = match cursor.u8()? {
        16 => ToEndpoint::Reply {
            connection: connection(cursor)?,
            request: RequestId(cursor.u64()?),
            outcome: outcome(cursor)?,
        },
        17 => fan_out(cursor)?,
        18 => ToEndpoint::Close { connection: connection(cursor)?, code: cursor.u16()? },
        19 => ToEndpoint::Watermark { worker: cursor.u16()?, position: Position(cursor.u64()?) },
        20 => ToEndpoint::Lost,
        _ => return Err(TrunkError::Damaged("kind")),
    };
    finish(cursor)?;
    Ok(Some((message, len)))
}

fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(FABRIC_VERSION);
    start
}

fn end_frame(out: &mut [u8], start: usize) {
    let len = out.len() - start - 4;
    assert!(len <= FRAME_BYTES_MAX, "a trunk frame of {len} bytes: the tables it is made from are bounded");
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
}

/// The frame at the front: a cursor behind its version, and its whole length.
fn frame(received: &[u8]) -> Result<Option<(ByteCursor<'_>, usize)>, TrunkError> {
    let mut cursor = ByteCursor::new(received);
    let Ok(len) = cursor.u32() else { return Ok(None) };
    let len = len as usize;
    if len > FRAME_BYTES_MAX {
        return Err(TrunkError::TooLong(len));
    }
    let Ok(body) = cursor.take(len) else { return Ok(None) };
    let mut body = ByteCursor::new(body);
    match body.u8()? {
        FABRIC_VERSION => Ok(Some((body, 4 + len))),
        version => Err(TrunkError::Version(version)),
    }
}

fn finish(cursor: &ByteCursor<'_>) -> Result<(), TrunkError> {
    if cursor.is_at_end() { Ok(()) } else { Err(TrunkError::Surplus(cursor.rest().len())) }
}

fn put_session(out: &mut Vec<u8>, connection: ConnectionId, user: &UserId, device: &DeviceId) {
    out.put_u64_le(connection.0);
    put_bytes(out, user.as_bytes());
    put_bytes(out, device.as_str().as_bytes());
}

fn put_operation(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Send { target, client_message_id, message } => {
            out.put_u8(1);
            match target {
                Target::Conversation(conversation) => {
                    out.put_u8(0);
                    out.put_u64_le(conversation.0);
                }
                Target::User(user) => {
                    out.put_u8(1);
                    put_bytes(out, user.as_bytes());
                }
            }
            put_bytes(out, client_message_id.as_str().as_bytes());
            put_message(out, message);
        }
        Operation::Create { kind, name, members, idempotency_key } => {
            out.put_u8(2);
            out.put_u8(match kind {
                ConversationKind::Direct => 0,
                ConversationKind::Group => 1,
            });
            put_bytes(out, name.as_bytes());
            put_count(out, members.len());
            for user in members {
                put_bytes(out, user.as_bytes());
            }
            out.put_u8(u8::from(idempotency_key.is_some()));
            if let Some(key) = idempotency_key {
                put_bytes(out, key.as_str().as_bytes());
            }
        }
        Operation::AddMember { conversation, user, role } => {
            out.put_u8(3);
            out.put_u64_le(conversation.0);
            put_bytes(out, user.as_bytes());
            out.put_u8(match role {
                Role::Owner => 0,
                Role::Admin => 1,
                Role::Member => 2,
            });
        }
        Operation::RemoveMember { conversation, user } => {
            out.put_u8(4);
            out.put_u64_le(conversation.0);
            put_bytes(out, user.as_bytes());
        }
        Operation::Rename { conversation, name } => {
            out.put_u8(5);
            out.put_u64_le(conversation.0);
            put_bytes(out, name.as_bytes());
        }
        Operation::Delete { conversation } => {
            out.put_u8(6);
            out.put_u64_le(conversation.0);
        }
        Operation::SyncPage { conversation, after, limit } => {
            out.put_u8(7);
            out.put_u64_le(conversation.0);
            out.put_u64_le(after.0);
            out.put_u32_le(*limit);
        }
        Operation::SyncEnd { conversation } => {
            out.put_u8(8);
            out.put_u64_le(conversation.0);
        }
        Operation::Heads { since } => {
            out.put_u8(9);
            put_optional(out, since.map(|position| position.0));
        }
    }
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    match &message.body {
        Body::Text(text) => {
            out.put_u8(0);
            put_bytes(out, text);
        }
        Body::Ciphertext { alg, data } => {
            out.put_u8(1);
            put_bytes(out, alg.as_bytes());
            put_bytes(out, data);
        }
    }
    put_count(out, message.media_ids.len());
    for media in &message.media_ids {
        put_bytes(out, media.as_bytes());
    }
    put_optional(out, message.reply_to.map(|message| message.0));
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Sent { conversation, message, seq, server_ts, duplicate } => {
            out.put_u8(1);
            out.put_u64_le(conversation.0);
            out.put_u64_le(message.0);
            out.put_u64_le(seq.0);
            out.put_u64_le(server_ts.0);
            out.put_u8(u8::from(*duplicate));
        }
        Outcome::Created { conversation, created, seq } => {
            out.put_u8(2);
            out.put_u64_le(conversation.0);
            out.put_u8(u8::from(*created));
            out.put_u64_le(seq.0);
        }
        Outcome::Changed { seq } => {
            out.put_u8(3);
            put_optional(out, seq.map(|seq| seq.0));
        }
        Outcome::Page { conversation, entries, more } => {
            out.put_u8(4);
            out.put_u64_le(conversation.0);
            put_count(out, entries.len());
            for entry in entries {
                put_bytes(out, entry);
            }
            out.put_u8(u8::from(*more));
        }
        Outcome::Heads { heads, recovered } => {
            out.put_u8(5);
            put_count(out, heads.len());
            for (conversation, seq) in heads {
                out.put_u64_le(conversation.0);
                out.put_u64_le(seq.0);
            }
            out.put_u8(u8::from(*recovered));
        }
        Outcome::Done => out.put_u8(6),
    }
}

fn put_refusal(out: &mut Vec<u8>, refusal: Refusal) {
    out.put_u8(255);
    match refusal {
        Refusal::NotFound => out.put_u8(1),
        Refusal::Forbidden => out.put_u8(2),
        Refusal::DuplicateConflict => out.put_u8(3),
        Refusal::ConversationFull => out.put_u8(4),
        Refusal::Invalid(reason) => {
            out.put_u8(5);
            put_bytes(out, reason.as_bytes());
        }
        Refusal::Unavailable => out.put_u8(6),
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("no list of ours has 2^32 elements"));
}

fn put_optional(out: &mut Vec<u8>, number: Option<u64>) {
    out.put_u8(u8::from(number.is_some()));
    if let Some(number) = number {
        out.put_u64_le(number);
    }
}

fn operation(cursor: &mut ByteCursor<'_>) -> Result<Operation, TrunkError> {
    Ok(match cursor.u8()? {
        1 => Operation::Send {
            target: match cursor.u8()? {
                0 => Target::Conversation(conversation(cursor)?),
                1 => Target::User(user(cursor)?),
                _ => return Err(TrunkError::Damaged("target")),
            },
            client_message_id: client_message_id(cursor)?,
            message: message(cursor)?,
        },
        2 => Operation::Create {
            kind: match cursor.u8()? {
                0 => ConversationKind::Direct,
                1 => ConversationKind::Group,
                _ => return Err(TrunkError::Damaged("kind of conversation")),
            },
            name: text(cursor, "name")?,
            members: list(cursor, user)?,
            idempotency_key: if flag(cursor)? { Some(client_message_id(cursor)?) } else { None },
        },
        3 => Operation::AddMember {
            conversation: conversation(cursor)?,
            user: user(cursor)?,
            role: match cursor.u8()? {
                0 => Role::Owner,
                1 => Role::Admin,
                2 => Role::Member,
                _ => return Err(TrunkError::Damaged("role")),
            },
        },
        4 => Operation::RemoveMember { conversation: conversation(cursor)?, user: user(cursor)? },
        5 => Operation::Rename { conversation: conversation(cursor)?, name: text(cursor, "name")? },
        6 => Operation::Delete { conversation: conversation(cursor)? },
        7 => Operation::SyncPage {
            conversation: conversation(cursor)?,
            after: Seq(cursor.u64()?),
            limit: cursor.u32()?,
        },
        8 => Operation::SyncEnd { conversation: conversation(cursor)? },
        9 => Operation::Heads { since: optional(cursor)?.map(Position) },
        _ => return Err(TrunkError::Damaged("operation")),
    })
}

fn message(cursor: &mut ByteCursor<'_>) -> Result<Message, TrunkError> {
    let body = match cursor.u8()? {
        0 => {
            let text = cursor.bytes()?;
            simdutf8::basic::from_utf8(text).map_err(|_| TrunkError::Damaged("text"))?;
            Body::Text(Bytes::copy_from_slice(text))
        }
        1 => Body::Ciphertext { alg: text(cursor, "alg")?, data: Bytes::copy_from_slice(cursor.bytes()?) },
        _ => return Err(TrunkError::Damaged("body")),
    };
    Ok(Message {
        body,
        media_ids: list(cursor, |cursor| text(cursor, "media id"))?,
        reply_to: optional(cursor)?.map(MessageId),
    })
}

fn outcome(cursor: &mut ByteCursor<'_>) -> Result<Result<Outcome, Refusal>, TrunkError> {
    Ok(Ok(match cursor.u8()? {
        1 => Outcome::Sent {
            conversation: conversation(cursor)?,
            message: MessageId(cursor.u64()?),
            seq: Seq(cursor.u64()?),
            server_ts: Timestamp(cursor.u64()?),
            duplicate: flag(cursor)?,
        },
        2 => Outcome::Created {
            conversation: conversation(cursor)?,
            created: flag(cursor)?,
            seq: Seq(cursor.u64()?),
        },
        3 => Outcome::Changed { seq: optional(cursor)?.map(Seq) },
        4 => Outcome::Page {
            conversation: conversation(cursor)?,
            entries: list(cursor, |cursor| Ok(Bytes::copy_from_slice(cursor.bytes()?)))?,
            more: flag(cursor)?,
        },
        5 => Outcome::Heads {
            heads: list(cursor, |cursor| Ok((conversation(cursor)?, Seq(cursor.u64()?))))?,
            recovered: flag(cursor)?,
        },
        6 => Outcome::Done,
        255 => return Ok(Err(refusal(cursor)?)),
        _ => return Err(TrunkError::Damaged("outcome")),
    }))
}

fn refusal(cursor: &mut ByteCursor<'_>) -> Result<Refusal, TrunkError> {
    Ok(match cursor.u8()? {
        1 => Refusal::NotFound,
        2 => Refusal::Forbidden,
        3 => Refusal::DuplicateConflict,
        4 => Refusal::ConversationFull,
        5 => {
            let text = cursor.bytes()?;
            let known = REASONS.into_iter().find(|reason| reason.as_bytes() == text);
            Refusal::Invalid(known.unwrap_or(REASONS[0]))
        }
        6 => Refusal::Unavailable,
        _ => return Err(TrunkError::Damaged("refusal")),
    })
}

fn fan_out(cursor: &mut ByteCursor<'_>) -> Result<ToEndpoint, TrunkError> {
    let reference = BodyReference(cursor.u64()?);
    let body = FanOutBody {
        reference,
        conversation: conversation(cursor)?,
        seq: Seq(cursor.u64()?),
        entry: Bytes::copy_from_slice(cursor.bytes()?),
    };
    let notices = list(cursor, |cursor| {
        let notice = Notice { connection: connection(cursor)?, body: BodyReference(cursor.u64()?) };
        if notice.body == reference { Ok(notice) } else { Err(TrunkError::Damaged("body reference")) }
    })?;
    Ok(ToEndpoint::FanOut { body: Arc::new(body), notices })
}

/// A list that grows with what is there: its count reserves nothing.
fn list<T>(
    cursor: &mut ByteCursor<'_>,
    element: impl Fn(&mut ByteCursor<'_>) -> Result<T, TrunkError>,
) -> Result<Vec<T>, TrunkError> {
    let count = cursor.u32()?;
    let mut elements = Vec::new();
    for _ in 0..count {
        elements.push(element(cursor)?);
    }
    Ok(elements)
}

fn connection(cursor: &mut ByteCursor<'_>) -> Result<ConnectionId, TrunkError> {
    Ok(ConnectionId(cursor.u64()?))
}

fn conversation(cursor: &mut ByteCursor<'_>) -> Result<ConversationId, TrunkError> {
    Ok(ConversationId(cursor.u64()?))
}

fn user(cursor: &mut ByteCursor<'_>) -> Result<UserId, TrunkError> {
    UserId::from_bytes(cursor.bytes()?).ok_or(TrunkError::Damaged("user"))
}

fn device(cursor: &mut ByteCursor<'_>) -> Result<DeviceId, TrunkError> {
    DeviceId::new(&text(cursor, "device")?).map_err(|_| TrunkError::Damaged("device"))
}

fn client_message_id(cursor: &mut ByteCursor<'_>) -> Result<ClientMessageId, TrunkError> {
    ClientMessageId::new(&text(cursor, "client message id")?)
        .map_err(|_| TrunkError::Damaged("client message id"))
}

fn text(cursor: &mut ByteCursor<'_>, what: &'static str) -> Result<String, TrunkError> {
    String::from_utf8(cursor.bytes()?.to_vec()).map_err(|_| TrunkError::Damaged(what))
}

fn flag(cursor: &mut ByteCursor<'_>) -> Result<bool, TrunkError> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(TrunkError::Damaged("flag")),
    }
}

fn optional(cursor: &mut ByteCursor<'_>) -> Result<Option<u64>, TrunkError> {
    if flag(cursor)? { Ok(Some(cursor.u64()?)) } else { Ok(None) }
}
