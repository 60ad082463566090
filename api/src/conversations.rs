//! Conversations: make one, list mine, look at one, rename, close, and their members.
//!
//! Changes go to the router, which decides; views are read from the store after the change is durable, so
//! that an answer shows what it did.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State as From_;
use http::{HeaderMap, StatusCode};
use ringway_protocol::entry::{Change, Content, ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Seq};
use ringway_protocol::limits::{CONVERSATION_NAME_BYTES_MAX, GROUP_MEMBERS_MAX};
use ringway_protocol::trunk::{Operation, Outcome};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{Answer, From, Query, Summary};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::body::JsonBody;
use crate::caller::Caller;
use crate::cursor::Direction;
use crate::messages::limit;
use crate::parameters::{Path, UrlQuery};
use crate::problem::{Code, Problem};
use crate::problem_answers::{Always, Conflict, NotAllowed, NotThere, OfTheBody};
use crate::state::Shared;
use crate::{entry_json, names};

/// A conversation to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct CreateRequest {
    /// `direct` or `group`; `group` without it.
    r#type: Option<String>,
    /// A group's name, at most 256 bytes.
    name: Option<String>,
    /// Members besides the caller; exactly one for `direct`.
    member_ids: Vec<String>,
}

/// A conversation as the caller sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConversationView {
    /// Its id, a decimal string.
    conversation_id: String,
    /// `direct` or `group`.
    r#type: &'static str,
    /// A group's name.
    name: String,
    /// Its members; in a list, the first 16.
    members: Vec<MemberView>,
    /// How many there are.
    member_count: u32,
    /// The caller's role.
    role: &'static str,
    /// The last seq that the caller may see.
    last_seq: u64,
    /// That entry, as on the socket.
    #[schema(value_type = Option<Object>)]
    last_message: Option<Box<RawValue>>,
}

/// A member of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberView {
    /// Who.
    user_id: String,
    /// `owner`, `admin` or `member`.
    role: &'static str,
}

/// Which page of the list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(crate) struct ListQuery {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Conversations at most, 1 to 200; 50 without it.
    limit: Option<String>,
}

/// A page of the caller's conversations, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConversationPage {
    /// The conversations.
    conversations: Vec<ConversationView>,
    /// For the next page; null at the end.
    next_cursor: Option<String>,
}

/// Another name for a group.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RenameRequest {
    /// The new name, at most 256 bytes.
    name: String,
}

/// How a member is added.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct MemberRequest {
    /// `member`, also without it.
    role: Option<String>,
}

/// A change that is durable.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeAnswer {
    /// The conversation, a decimal string.
    conversation_id: String,
    /// The place that the change took in the order; null if there was nothing to change.
    seq: Option<u64>,
}

/// Make a conversation.
///
/// The caller becomes its owner. A direct conversation is the same for the same pair, made once (200 if it
/// was there). `Idempotency-Key` (1 to 64 bytes) makes a retry for a group safe: with the same name and
/// members the group is answered as it is now (200), with others the answer is `duplicate_conflict`.
#[utoipa::path(post, path = "/conversations", tag = "conversations", request_body = CreateRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 64 bytes")), responses(
    (status = 201, body = ConversationView),
    (status = 200, body = ConversationView, description = "It was there"),
    Always, OfTheBody, NotThere, Conflict,
))]
pub(crate) async fn create(
    From_(state): From_<Shared>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateRequest>,
) -> Result<(StatusCode, Json<ConversationView>), Problem> {
    let kind = match request.r#type.as_deref() {
        None => ConversationKind::Group,
        Some(name) => ConversationKind::of_str(name)
            .ok_or_else(|| Problem::invalid("type is \"direct\" or \"group\""))?,
    };
    let key = idempotency_key(&headers)?;
    let name = request.name.unwrap_or_default();
    let (status, view) = make(&state, &caller.user, kind, name, &request.member_ids, key).await?;
    Ok((status, Json(view)))
}

/// Makes a conversation and shows it.
pub(crate) async fn make(
    state: &Shared,
    user: &UserId,
    kind: ConversationKind,
    name: String,
    member_ids: &[String],
    idempotency_key: Option<ClientMessageId>,
) -> Result<(StatusCode, ConversationView), Problem> {
    let operation = creation(user, kind, name, member_ids, idempotency_key)?;
    let asked = Founding::under_key(&operation, user);
    let Outcome::Created { conversation, created, .. } = state.trunk.ask(user, operation).await? else {
        return Err(Problem::unavailable());
    };
    if let Some(asked) = asked.filter(|_| !created)
        && Founding::of(state, user, conversation).await?.is_some_and(|founding| founding != asked)
    {
        let detail = "this Idempotency-Key made a group of another name or of other members: \
                      take a new key for a new group";
        return Err(Problem::new(Code::DuplicateConflict, detail));
    }
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, view_of(state, user, conversation).await?))
}

/// What a group began with: the same for every retry under one key, however the group changed since.
#[derive(Debug, PartialEq, Eq)]
struct Founding {
    name: String,
    members: BTreeSet<UserId>,
}

impl Founding {
    /// What is asked for under a key. A direct conversation is its pair's, and looks at no key.
    fn under_key(operation: &Operation, creator: &UserId) -> Option<Self> {
        let Operation::Create { kind: ConversationKind::Group, name, members, idempotency_key: Some(_) } =
            operation
        else {
            return None;
        };
        let members = members.iter().chain([creator]).cloned().collect();
        Some(Self { name: name.clone(), members })
    }

    /// What a group of `creator` began with: its first entry says so for ever. `None` where the creator left
    /// and came back so often that the first entry is none of those that they may read.
    async fn of(
        state: &Shared,
        creator: &UserId,
        conversation: ConversationId,
    ) -> Result<Option<Self>, Problem> {
        let query =
            Query::Entries { conversation, user: creator.clone(), from: From::After(Seq(0)), limit: 1 };
        let Answer::Entries { entries, .. } = state.read(query).await? else {
            return Err(Problem::unavailable());
        };
        let first = entries.first().ok_or_else(Problem::not_found)?;
        let Content::Change(Change::Created { name, members, .. }) = entry_json::decode(first)?.content
        else {
            return Ok(None);
        };
        Ok(Some(Self { name, members: members.into_iter().map(|(user, _)| user).collect() }))
    }
}

fn creation(
    user: &UserId,
    kind: ConversationKind,
    name: String,
    member_ids: &[String],
    idempotency_key: Option<ClientMessageId>,
) -> Result<Operation, Problem> {
    let mut members =
        member_ids.iter().map(|sub| names::user(user, sub)).collect::<Result<Vec<UserId>, _>>()?;
    members.sort();
    members.dedup();
    match kind {
        ConversationKind::Direct => {
            if members.len() != 1 {
                return Err(Problem::invalid("a direct conversation has one other member in member_ids"));
            }
            if !name.is_empty() {
                return Err(Problem::invalid("a direct conversation has no name"));
            }
        }
        ConversationKind::Group => {
            members.retain(|member| member != user);
            if members.len() + 1 > GROUP_MEMBERS_MAX {
                let detail = format!("a group has at most {GROUP_MEMBERS_MAX} members");
                return Err(Problem::new(Code::TooLarge, detail));
            }
            check_name(&name)?;
        }
    }
    Ok(Operation::Create { kind, name, members, idempotency_key })
}

/// List my conversations.
///
/// Newest first by the time they were made.
#[utoipa::path(get, path = "/conversations", tag = "conversations", params(ListQuery), responses(
    (status = 200, body = ConversationPage),
    Always,
))]
pub(crate) async fn list(
    From_(state): From_<Shared>,
    caller: Caller,
    UrlQuery(query): UrlQuery<ListQuery>,
) -> Result<Json<ConversationPage>, Problem> {
    let limit = limit(query.limit.as_deref())?;
    // The list is of no conversation: its cursors are bound to the id that none has.
    let none = ConversationId(0);
    let before = query
        .cursor
        .as_deref()
        .filter(|cursor| !cursor.is_empty())
        .map(|cursor| state.cursors.read(cursor, Direction::Conversations, &caller.user, none))
        .transpose()?
        .map(ConversationId);
    let query = Query::Conversations { user: caller.user.clone(), before, limit };
    let Answer::Conversations { conversations, more } = state.read(query).await? else {
        return Err(Problem::unavailable());
    };
    let next_cursor = conversations
        .last()
        .filter(|_| more)
        .map(|last| state.cursors.write(Direction::Conversations, last.conversation.0, &caller.user, none));
    let conversations = conversations
        .into_iter()
        .map(|summary| view(summary, &caller.user))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Json(ConversationPage { conversations, next_cursor }))
}

/// Look at a conversation.
#[utoipa::path(get, path = "/conversations/{id}", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = ConversationView),
    Always, NotThere,
))]
pub(crate) async fn get(
    From_(state): From_<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ConversationView>, Problem> {
    view_of(&state, &caller.user, names::conversation_in_path(&id)?).await.map(Json)
}

/// Give a group another name.
#[utoipa::path(patch, path = "/conversations/{id}", tag = "conversations", request_body = RenameRequest,
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = ChangeAnswer),
    Always, OfTheBody, NotAllowed, NotThere, Conflict,
))]
pub(crate) async fn rename(
    From_(state): From_<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<RenameRequest>,
) -> Result<Json<ChangeAnswer>, Problem> {
    let conversation = names::conversation_in_path(&id)?;
    check_name(&request.name)?;
    change(&state, &caller.user, conversation, Operation::Rename { conversation, name: request.name }).await
}

/// Close a group for ever.
///
/// Its history stays readable to its members.
#[utoipa::path(delete, path = "/conversations/{id}", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = ChangeAnswer),
    Always, NotAllowed, NotThere, Conflict,
))]
pub(crate) async fn delete(
    From_(state): From_<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ChangeAnswer>, Problem> {
    let conversation = names::conversation_in_path(&id)?;
    change(&state, &caller.user, conversation, Operation::Delete { conversation }).await
}

/// Add a member to a group.
///
/// The new member's stream starts with the entry of their own joining.
#[utoipa::path(put, path = "/conversations/{id}/members/{user}", tag = "conversations",
    request_body = MemberRequest, params(
        ("id" = String, Path, description = "The conversation"),
        ("user" = String, Path, description = "The user"),
    ), responses(
    (status = 200, body = ChangeAnswer),
    Always, OfTheBody, NotAllowed, NotThere, Conflict,
))]
pub(crate) async fn add_member(
    From_(state): From_<Shared>,
    caller: Caller,
    Path((id, user)): Path<(String, String)>,
    JsonBody(request): JsonBody<MemberRequest>,
) -> Result<Json<ChangeAnswer>, Problem> {
    let conversation = names::conversation_in_path(&id)?;
    let user = names::user(&caller.user, &user)?;
    if request.role.is_some_and(|role| role != Role::Member.as_str()) {
        return Err(Problem::invalid("a member is added with the role \"member\""));
    }
    let operation = Operation::AddMember { conversation, user, role: Role::Member };
    change(&state, &caller.user, conversation, operation).await
}

/// Remove a member from a group, or leave it.
#[utoipa::path(delete, path = "/conversations/{id}/members/{user}", tag = "conversations", params(
        ("id" = String, Path, description = "The conversation"),
        ("user" = String, Path, description = "The user"),
    ), responses(
    (status = 200, body = ChangeAnswer),
    Always, NotAllowed, NotThere, Conflict,
))]
pub(crate) async fn remove_member(
    From_(state): From_<Shared>,
    caller: Caller,
    Path((id, user)): Path<(String, String)>,
) -> Result<Json<ChangeAnswer>, Problem> {
    let conversation = names::conversation_in_path(&id)?;
    let user = names::user(&caller.user, &user)?;
    change(&state, &caller.user, conversation, Operation::RemoveMember { conversation, user }).await
}

async fn change(
    state: &Shared,
    caller: &UserId,
    conversation: ConversationId,
    operation: Operation,
) -> Result<Json<ChangeAnswer>, Problem> {
    let Outcome::Changed { seq } = state.trunk.ask(caller, operation).await? else {
        return Err(Problem::unavailable());
    };
    let seq = seq.map(|Seq(seq)| seq);
    Ok(Json(ChangeAnswer { conversation_id: conversation.to_string(), seq }))
}

async fn view_of(
    state: &Shared,
    user: &UserId,
    conversation: ConversationId,
) -> Result<ConversationView, Problem> {
    match state.read(Query::Summary { conversation, user: user.clone() }).await? {
        Answer::Summary(Some(summary)) => view(*summary, user),
        _ => Err(Problem::not_found()),
    }
}

fn view(summary: Summary, viewer: &UserId) -> Result<ConversationView, Problem> {
    let members = summary.members.iter();
    let last_message =
        summary.last_entry.as_ref().map(|entry| entry_json::item(entry, viewer)).transpose()?;
    Ok(ConversationView {
        conversation_id: summary.conversation.to_string(),
        r#type: summary.kind.as_str(),
        members: members
            .map(|(user, role)| MemberView { user_id: user.sub().to_owned(), role: role.as_str() })
            .collect(),
        name: summary.name,
        member_count: summary.member_count,
        role: summary.role.as_str(),
        last_seq: summary.last_seq.0,
        last_message: last_message.map(|(_, item)| item),
    })
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name.len() > CONVERSATION_NAME_BYTES_MAX {
        return Err(Problem::invalid(format!("a name has at most {CONVERSATION_NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// The caller's key for the making of a conversation.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<ClientMessageId>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::invalid("Idempotency-Key is printable ASCII"))?;
    names::key("Idempotency-Key", text).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(kind: ConversationKind, name: &str, members: &[&str]) -> Result<Vec<String>, Problem> {
        let alice = UserId::new("", "alice").unwrap();
        let members: Vec<String> = members.iter().map(ToString::to_string).collect();
        match creation(&alice, kind, name.to_owned(), &members, None)? {
            Operation::Create { members, .. } => {
                Ok(members.iter().map(|member| member.sub().to_owned()).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_group_has_each_member_once_and_the_caller_besides() {
        let members = create(ConversationKind::Group, "g", &["carol", "bob", "alice", "bob"]).unwrap();
        assert_eq!(members, ["bob", "carol"]);
        assert_eq!(create(ConversationKind::Group, "", &[]).unwrap(), [""; 0]);
        let many: Vec<String> = (0..1000).map(|number| format!("u{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(create(ConversationKind::Group, "", &many[..999]).is_ok());
        assert!(create(ConversationKind::Group, "", &many).is_err());
        assert!(create(ConversationKind::Group, &"n".repeat(257), &[]).is_err());
        assert!(create(ConversationKind::Group, "", &[""]).is_err());
    }

    #[test]
    fn a_direct_conversation_has_one_other_and_no_name() {
        assert_eq!(create(ConversationKind::Direct, "", &["bob"]).unwrap(), ["bob"]);
        assert_eq!(create(ConversationKind::Direct, "", &["alice"]).unwrap(), ["alice"], "with oneself");
        assert!(create(ConversationKind::Direct, "", &[]).is_err());
        assert!(create(ConversationKind::Direct, "", &["bob", "carol"]).is_err());
        assert!(create(ConversationKind::Direct, "x", &["bob"]).is_err());
    }
}
