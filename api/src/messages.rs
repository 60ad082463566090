//! `POST /messages` and the history of a conversation.
//!
//! A send goes to the router like one from a socket and is answered when it is durable. History is read
//! from the store, which answers from what is durable: what was acked is in it.

use std::borrow::Cow;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as From_;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringway_protocol::client::{BodyMemory, Destination, SendFields};
use ringway_protocol::ids::{ConversationId, Seq};
use ringway_protocol::trunk::{Operation, Outcome, Target};
use ringway_protocol::user::UserId;
use ringway_store_writer::store::{Answer, From, Query};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::body::JsonBody;
use crate::caller::Caller;
use crate::cursor::Direction;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX};
use crate::parameters::{Path, UrlQuery};
use crate::problem::Problem;
use crate::problem_answers::{Always, Conflict, NotThere, OfTheBody};
use crate::state::Shared;
use crate::{cursor, entry_json, names, older_names};

/// A message to send. `chatId`, `content`, `type` and `clientMsgId` are the older names.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct SendRequest {
    /// The conversation, a decimal string.
    conversation_id: Option<String>,
    /// Instead of it, a user: the direct conversation with them, made at need.
    to: Option<String>,
    /// The idempotency key, 1 to 64 bytes; a UUID is advised.
    client_msg_id: Option<String>,
    /// What to say.
    text: Option<String>,
    /// Instead of it, base64 of what only the devices can read, with `alg`.
    ciphertext: Option<String>,
    /// The client's name for the algorithm.
    alg: Option<String>,
    /// References to uploaded media.
    media_ids: Vec<String>,
    /// The message this one answers, a decimal string.
    reply_to: Option<String>,
    /// Older name of `conversation_id`.
    #[serde(rename = "chatId")]
    chat_id: Option<String>,
    /// Older name of `text`.
    content: Option<String>,
    /// Older clients say `text`.
    r#type: Option<String>,
    /// Older name of `client_msg_id`.
    #[serde(rename = "clientMsgId")]
    older_client_msg_id: Option<String>,
}

/// A send that is durable.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SendAnswer {
    /// Its id, a decimal string.
    message_id: String,
    /// Its place in the conversation.
    seq: u64,
    /// Its conversation, a decimal string.
    conversation_id: String,
    /// When it was accepted, in milliseconds since 1970.
    server_ts: u64,
    /// It was stored before, by an earlier try.
    duplicate: bool,
}

/// Which part of a history.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(crate) struct HistoryQuery {
    /// Newest first, from before this `seq` or `next_cursor`.
    before: Option<String>,
    /// Oldest first, from after this `seq` or `next_cursor`.
    after: Option<String>,
    /// Entries at most, 1 to 200; 50 without it.
    limit: Option<String>,
}

/// A page of a history.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryPage {
    /// Entries as on the socket: messages, and changes by their `kind`.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<Box<RawValue>>,
    /// For the next page in the same direction; null at the end.
    next_cursor: Option<String>,
}

/// Send a message.
///
/// Answered when the message is durable. A repeat with the same `client_msg_id` gives the same answer with
/// `duplicate` true. A request with the older names is answered in both spellings.
#[utoipa::path(post, path = "/messages", tag = "messages", request_body = SendRequest, responses(
    (status = 200, body = SendAnswer),
    Always, OfTheBody, NotThere, Conflict,
))]
pub(crate) async fn send(
    From_(state): From_<Shared>,
    caller: Caller,
    JsonBody(request): JsonBody<SendRequest>,
) -> Result<Response, Problem> {
    let older =
        request.chat_id.is_some() || request.content.is_some() || request.older_client_msg_id.is_some();
    let operation = request.into_operation(&caller.user)?;
    let Outcome::Sent { conversation, message, seq, server_ts, duplicate } =
        state.trunk.ask(&caller.user, operation).await?
    else {
        return Err(Problem::unavailable());
    };
    let answer = SendAnswer {
        message_id: message.to_string(),
        seq: seq.0,
        conversation_id: conversation.to_string(),
        server_ts: server_ts.0,
        duplicate,
    };
    Ok(if older { Json(older_names::both(&answer)).into_response() } else { Json(answer).into_response() })
}

/// Read a conversation's history.
///
/// Newest first with `before` (or with neither), oldest first with `after`.
#[utoipa::path(get, path = "/conversations/{id}/messages", tag = "messages",
    params(("id" = String, Path, description = "The conversation"), HistoryQuery), responses(
    (status = 200, body = HistoryPage),
    Always, NotThere,
))]
pub(crate) async fn history(
    From_(state): From_<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    UrlQuery(query): UrlQuery<HistoryQuery>,
) -> Result<Json<HistoryPage>, Problem> {
    let conversation = names::conversation_in_path(&id)?;
    let limit = limit(query.limit.as_deref())?;
    let place = |text: &str, direction| place(&state, text, direction, &caller.user, conversation);
    let from = match (query.before.as_deref(), query.after.as_deref()) {
        (Some(_), Some(_)) => return Err(Problem::invalid("before and after exclude each other")),
        (_, Some(after)) => From::After(place(after, Direction::Newer)?),
        (Some(before), None) => From::Before(Some(place(before, Direction::Older)?)),
        (None, None) => From::Before(None),
    };
    page(&state, &caller.user, conversation, from, limit).await.map(Json)
}

/// Reads one page. Whoever is not a member and never was learns nothing, not even that it exists.
pub(crate) async fn page(
    state: &Shared,
    user: &UserId,
    conversation: ConversationId,
    from: From,
    limit: u32,
) -> Result<HistoryPage, Problem> {
    let query = Query::Entries { conversation, user: user.clone(), from, limit };
    let Answer::Entries { entries, more } = state.read(query).await? else {
        return Err(Problem::unavailable());
    };
    if entries.is_empty() {
        may_see(state, user, conversation).await?;
    }
    let items =
        entries.iter().map(|entry: &Bytes| entry_json::item(entry, user)).collect::<Result<Vec<_>, _>>()?;
    let direction = if matches!(from, From::After(_)) { Direction::Newer } else { Direction::Older };
    let next_cursor = items
        .last()
        .filter(|_| more)
        .map(|(seq, _)| state.cursors.write(direction, seq.0, user, conversation));
    Ok(HistoryPage { messages: items.into_iter().map(|(_, item)| item).collect(), next_cursor })
}

async fn may_see(state: &Shared, user: &UserId, conversation: ConversationId) -> Result<(), Problem> {
    match state.read(Query::Summary { conversation, user: user.clone() }).await? {
        Answer::Summary(Some(_)) => Ok(()),
        _ => Err(Problem::not_found()),
    }
}

/// A `seq`, or a cursor of that direction.
fn place(
    state: &Shared,
    text: &str,
    direction: Direction,
    user: &UserId,
    conversation: ConversationId,
) -> Result<Seq, Problem> {
    if text.starts_with(cursor::FIRST) {
        return state.cursors.read(text, direction, user, conversation).map(Seq);
    }
    names::decimal(text).map(Seq).ok_or_else(|| {
        Problem::invalid(format!("before and after are a next_cursor, or a seq: {}", names::CANONICAL))
    })
}

/// The number of entries or conversations in a page.
pub(crate) fn limit(text: Option<&str>) -> Result<u32, Problem> {
    let Some(text) = text else { return Ok(PAGE_DEFAULT) };
    names::decimal(text)
        .and_then(|limit| u32::try_from(limit).ok())
        .filter(|limit| (1..=PAGE_MAX).contains(limit))
        .ok_or_else(|| Problem::invalid(format!("limit is 1 to {PAGE_MAX}, {}", names::CANONICAL)))
}

impl SendRequest {
    fn into_operation(self, caller: &UserId) -> Result<Operation, Problem> {
        let one = |present: Option<String>, older: Option<String>, name: &str| match (present, older) {
            (Some(_), Some(_)) => Err(Problem::invalid(format!("{name} stands there in both spellings"))),
            (present, older) => Ok(present.or(older)),
        };
        let conversation = one(self.conversation_id, self.chat_id, "conversation_id")?;
        let text = one(self.text, self.content, "text")?;
        let key = one(self.client_msg_id, self.older_client_msg_id, "client_msg_id")?;
        if self.r#type.is_some_and(|kind| kind != "text") {
            return Err(Problem::invalid("type is text: other content goes by ciphertext or media_ids"));
        }
        let ciphertext = self
            .ciphertext
            .map(|ciphertext| STANDARD.decode(ciphertext))
            .transpose()
            .map_err(|_| Problem::invalid("ciphertext is base64 (RFC 4648 section 4, with padding)"))?;
        let fields = SendFields {
            conversation_id: conversation
                .map(|id| names::conversation_in_body(&id))
                .transpose()?
                .map(|id| id.0),
            to: self.to,
            client_msg_id: key.map(Cow::Owned),
            text: text.map(Cow::Owned),
            ciphertext: ciphertext.map(Bytes::from),
            alg: self.alg,
            media_ids: self.media_ids,
            reply_to: self.reply_to.as_deref().map(names::message_in_body).transpose()?.map(|id| id.0),
        };
        let send = fields.check(&mut BodyMemory::default())?;
        let target = match send.destination {
            Destination::Conversation(conversation) => Target::Conversation(conversation),
            Destination::User(sub) => Target::User(names::user(caller, &sub)?),
        };
        let (client_message_id, message) = (send.client_message_id, send.message);
        Ok(Operation::Send { target, client_message_id, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operation(value: serde_json::Value) -> Result<Operation, Problem> {
        let caller = UserId::new("acme", "alice").unwrap();
        serde_json::from_value::<SendRequest>(value).unwrap().into_operation(&caller)
    }

    #[test]
    fn both_spellings_make_the_same_send() {
        let present = json!({"conversation_id": "7", "client_msg_id": "c", "text": "hi", "sender_id": "eve"});
        let older = json!({"chatId": "7", "clientMsgId": "c", "content": "hi", "type": "text"});
        assert_eq!(operation(present).unwrap(), operation(older).unwrap());
    }

    #[test]
    fn a_send_to_a_user_stays_in_the_tenant() {
        let sent = operation(json!({"to": "bob", "client_msg_id": "c", "text": "hi"})).unwrap();
        let Operation::Send { target: Target::User(user), .. } = sent else { panic!("{sent:?}") };
        assert_eq!((user.tenant(), user.sub()), ("acme", "bob"));
    }

    #[test]
    fn what_makes_no_sense_is_invalid() {
        for bad in [
            json!({"client_msg_id": "c", "text": "hi"}),
            json!({"conversation_id": "7", "to": "bob", "client_msg_id": "c", "text": "hi"}),
            json!({"conversation_id": "7", "chatId": "7", "client_msg_id": "c", "text": "hi"}),
            json!({"conversation_id": "x", "client_msg_id": "c", "text": "hi"}),
            json!({"conversation_id": "7", "text": "hi"}),
            json!({"conversation_id": "7", "client_msg_id": "", "text": "hi"}),
            json!({"conversation_id": "7", "client_msg_id": "c"}),
            json!({"conversation_id": "7", "client_msg_id": "c", "text": ""}),
            json!({"conversation_id": "7", "client_msg_id": "c", "text": "hi", "ciphertext": "aGk=", "alg": "a"}),
            json!({"conversation_id": "7", "client_msg_id": "c", "ciphertext": "aGk="}),
            json!({"conversation_id": "7", "client_msg_id": "c", "ciphertext": "!", "alg": "a"}),
            json!({"conversation_id": "7", "client_msg_id": "c", "text": "hi", "type": "image"}),
            json!({"conversation_id": "7", "client_msg_id": "c", "text": "hi", "reply_to": "x"}),
            json!({"conversation_id": "7", "client_msg_id": "c", "text": "hi", "media_ids": [""]}),
            json!({"conversation_id": "7", "client_msg_id": "c", "text": "hi", "media_ids": vec!["m"; 33]}),
            json!({"to": "", "client_msg_id": "c", "text": "hi"}),
        ] {
            assert!(operation(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_has_1_to_200_entries() {
        assert_eq!(limit(None), Ok(50));
        assert_eq!(limit(Some("200")), Ok(200));
        for bad in ["0", "201", "-1", "+1", "01", "4294967297", "x", ""] {
            assert!(limit(Some(bad)).is_err(), "{bad}");
        }
    }
}
