//! The older names of conversations: `/chats`. Requests take them, answers carry both spellings.

use axum::Json;
use axum::extract::State as From_;
use http::{HeaderMap, StatusCode};
use ringway_protocol::entry::ConversationKind;
use ringway_protocol::ids::Seq;
use ringway_store_writer::store::From;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::body::JsonBody;
use crate::caller::Caller;
use crate::conversations::{ConversationView, idempotency_key, make};
use crate::cursor::Direction;
use crate::messages::{HistoryPage, limit, page};
use crate::parameters::{Path, UrlQuery};
use crate::problem::Problem;
use crate::problem_answers::{Always, Conflict, NotThere, OfTheBody};
use crate::state::Shared;
use crate::{names, older_names};

/// A group to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ChatRequest {
    /// Its name, at most 256 bytes.
    name: Option<String>,
    /// Members besides the caller.
    member_ids: Vec<String>,
}

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(crate) struct ChatHistoryQuery {
    /// The `nextCursor` of the page before; absent or empty for the newest page.
    cursor: Option<String>,
    /// Entries at most, 1 to 200; 50 without it.
    limit: Option<String>,
}

/// Make a group (older names).
#[utoipa::path(post, path = "/chats", tag = "chats", request_body = ChatRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 64 bytes")), responses(
    (status = 201, body = ConversationView, description = "Every name in both spellings"),
    (status = 200, body = ConversationView, description = "It was there"),
    Always, OfTheBody, NotThere, Conflict,
))]
pub(crate) async fn create(
    From_(state): From_<Shared>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let key = idempotency_key(&headers)?;
    let name = request.name.unwrap_or_default();
    let group = ConversationKind::Group;
    let (status, view) = make(&state, &caller.user, group, name, &request.member_ids, key).await?;
    Ok((status, Json(older_names::both(&view))))
}

/// Read a conversation's history, newest first (older names).
#[utoipa::path(get, path = "/chats/{chatId}/messages", tag = "chats",
    params(("chatId" = String, Path, description = "The conversation"), ChatHistoryQuery), responses(
    (status = 200, body = HistoryPage, description = "Every name in both spellings"),
    Always, NotThere,
))]
pub(crate) async fn history(
    From_(state): From_<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    UrlQuery(query): UrlQuery<ChatHistoryQuery>,
) -> Result<Json<Value>, Problem> {
    let conversation = names::conversation_in_path(&id)?;
    let limit = limit(query.limit.as_deref())?;
    let before = query
        .cursor
        .as_deref()
        .filter(|cursor| !cursor.is_empty())
        .map(|cursor| state.cursors.read(cursor, Direction::Older, &caller.user, conversation))
        .transpose()?
        .map(Seq);
    let page = page(&state, &caller.user, conversation, From::Before(before), limit).await?;
    Ok(Json(older_names::both(&page)))
}
