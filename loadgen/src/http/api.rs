//! The calls of the protocol's HTTP part that a load needs.

use ringway_protocol::client::{Encoding, LogItem, ServerFrame, decode_server};
use ringway_protocol::ids::{ConversationId, Seq};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connection::{Answer, Connection, HttpError};
use crate::target::Target;

/// Entries of a page of history, at most (protocol section 2).
pub const PAGE_ENTRIES_MAX: u32 = 200;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer: whether it was done is unknown.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server says that it may be tried again: whether it was done is unknown.
    #[error("{call} was answered with {status}: {body}")]
    Temporary {
        /// Which call.
        call: String,
        /// The status.
        status: u16,
        /// The problem document.
        body: String,
    },
    /// The server refused it.
    #[error("{call} was answered with {status}: {body}")]
    Refused {
        /// Which call.
        call: String,
        /// The status.
        status: u16,
        /// The problem document.
        body: String,
    },
    /// The answer is not what the protocol says.
    #[error("the answer to {call} is not of the protocol: {reason}")]
    Unreadable {
        /// Which call.
        call: String,
        /// What is wrong.
        reason: String,
    },
}

/// A change of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The entry that says so; `None` if there was nothing to change.
    pub seq: Option<Seq>,
}

/// The places that a page of history answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub low: Seq,
    /// The last; `Seq(u64::MAX)` if the page reached the newest.
    pub high: Seq,
}

/// A page of history.
#[derive(Debug)]
pub struct HistoryPage {
    /// Its entries, as they came.
    pub items: Vec<LogItem>,
    /// The places that it answers for.
    pub range: Range,
    /// Another page follows in the same direction.
    pub more: bool,
}

/// Who asks, over one connection.
pub struct Api {
    connection: Connection,
}

#[derive(Deserialize)]
struct Created {
    conversation_id: String,
}

#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    seq: Option<u64>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    messages: &'a RawValue,
    #[serde(default)]
    next_cursor: Option<String>,
}

impl Api {
    /// Calls to a server.
    pub fn new(target: Target) -> Self {
        Self { connection: Connection::new(target) }
    }

    /// Makes a conversation of the caller and these members. The key makes a repeat harmless.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn create(
        &mut self,
        token: &str,
        group: bool,
        members: &[&str],
        key: &str,
    ) -> Result<ConversationId, ApiError> {
        let kind = if group { "group" } else { "direct" };
        let body = serde_json::json!({ "type": kind, "member_ids": members }).to_string();
        let extra = format!("Idempotency-Key: {key}\r\n");
        let call = "POST /conversations";
        let answer = self.connection.ask("POST", "/api/v1/conversations", token, &extra, &body)?;
        let created: Created = read(call, &checked(call, answer)?)?;
        created.conversation_id.parse().map_err(|_| ApiError::Unreadable {
            call: call.into(),
            reason: format!("conversation_id {:?}", created.conversation_id),
        })
    }

    /// Adds a member to a group.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn add_member(
        &mut self,
        token: &str,
        conversation: ConversationId,
        user: &str,
    ) -> Result<Changed, ApiError> {
        let path = format!("/api/v1/conversations/{conversation}/members/{user}");
        let answer = self.connection.ask("PUT", &path, token, "", r#"{"role":"member"}"#)?;
        changed("PUT members", answer)
    }

    /// Removes a member from a group.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn remove_member(
        &mut self,
        token: &str,
        conversation: ConversationId,
        user: &str,
    ) -> Result<Changed, ApiError> {
        let path = format!("/api/v1/conversations/{conversation}/members/{user}");
        let answer = self.connection.ask("DELETE", &path, token, "", "")?;
        changed("DELETE members", answer)
    }

    /// The newest page of a history, newest first.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn newest(
        &mut self,
        token: &str,
        conversation: ConversationId,
        limit: u32,
    ) -> Result<HistoryPage, ApiError> {
        let (items, more) = self.page(token, conversation, &format!("limit={limit}"))?;
        let last = items.last().map_or(Seq(1), |item| item.placement().seq);
        let low = if more { last } else { Seq(1) };
        Ok(HistoryPage { items, range: Range { low, high: Seq(u64::MAX) }, more })
    }

    /// The page that follows a place, oldest first.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn after(
        &mut self,
        token: &str,
        conversation: ConversationId,
        after: Seq,
        limit: u32,
    ) -> Result<HistoryPage, ApiError> {
        let (items, more) = self.page(token, conversation, &format!("after={after}&limit={limit}"))?;
        let last = items.last().map_or(after, |item| item.placement().seq);
        let high = if more { last } else { Seq(u64::MAX) };
        Ok(HistoryPage { items, range: Range { low: after.next(), high }, more })
    }

    fn page(
        &mut self,
        token: &str,
        conversation: ConversationId,
        query: &str,
    ) -> Result<(Vec<LogItem>, bool), ApiError> {
        let call = "GET messages";
        let path = format!("/api/v1/conversations/{conversation}/messages?{query}");
        let answer = self.connection.ask("GET", &path, token, "", "")?;
        let body = checked(call, answer)?;
        let page: Page<'_> = read(call, &body)?;
        // The rows are those of a `messages` frame, and one reader serves both.
        let frame = format!(
            r#"{{"type":"messages","conversation_id":"{conversation}","messages":{},"more":false}}"#,
            page.messages
        );
        match decode_server(Encoding::Json, frame.as_bytes()) {
            Ok(ServerFrame::Messages(messages)) => Ok((messages.items, page.next_cursor.is_some())),
            Ok(_) => Err(ApiError::Unreadable { call: call.into(), reason: "not a page".into() }),
            Err(error) => Err(ApiError::Unreadable { call: call.into(), reason: error.to_string() }),
        }
    }
}

fn changed(call: &str, answer: Answer) -> Result<Changed, ApiError> {
    let change: Change = read(call, &checked(call, answer)?)?;
    Ok(Changed { seq: change.seq.map(Seq) })
}

fn checked(call: &str, answer: Answer) -> Result<Vec<u8>, ApiError> {
    let (call, status) = (call.to_owned(), answer.status);
    let body = || String::from_utf8_lossy(&answer.body).into_owned();
    match status {
        200..=299 => Ok(answer.body),
        429 | 500..=599 => Err(ApiError::Temporary { call, status, body: body() }),
        _ => Err(ApiError::Refused { call, status, body: body() }),
    }
}

fn read<'a, T: Deserialize<'a>>(call: &str, body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::Unreadable { call: call.into(), reason: error.to_string() })
}
