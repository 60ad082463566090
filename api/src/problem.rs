//! Errors as `application/problem+json` (RFC 9457), with the same `code` as on the socket.
//!
//! What may not be known and what does not exist are one answer, byte for byte.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use ringway_protocol::client::DecodeCause;
use ringway_protocol::trunk::Refusal;
use ringway_store_writer::store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// What the body of an error is (RFC 9457).
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    retry_after_seconds: Option<u64>,
}

/// The codes of the protocol that HTTP answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    /// The body is not JSON.
    BadFrame,
    /// No valid token.
    Unauthorized,
    /// No such thing, or the caller may not know of it.
    NotFound,
    /// The caller's role does not allow it.
    Forbidden,
    /// The path exists and not with this method.
    MethodNotAllowed,
    /// The body is longer than `limits.max_frame_bytes`.
    TooLarge,
    /// The body did not come in time.
    Timeout,
    /// More requests than `limits.send_per_s` allows.
    RateLimited,
    /// The conversation has as many members, or waiting sends, as it may.
    ConversationFull,
    /// Not certain to be stored: repeat with the same `client_msg_id`.
    Unavailable,
    /// The same `client_msg_id` or `Idempotency-Key` with another body.
    DuplicateConflict,
    /// The request is JSON and makes no sense.
    Invalid,
}

/// The body of an error answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Always `about:blank`: `code` tells the kinds apart.
    r#type: &'static str,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What happened and what to do.
    detail: &'a str,
    /// The protocol's code.
    code: Code,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Code::BadFrame | Code::Invalid => StatusCode::BAD_REQUEST,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Timeout => StatusCode::REQUEST_TIMEOUT,
            Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Code::ConversationFull | Code::DuplicateConflict => StatusCode::CONFLICT,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Problem {
    /// An error with what to do about it.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_seconds: None }
    }

    /// The request makes no sense.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::Invalid, detail)
    }

    /// No such thing, or the caller may not know of it.
    pub(crate) fn not_found() -> Self {
        Self::from(Refusal::NotFound)
    }

    /// Not certain to be stored; try again soon.
    pub(crate) fn unavailable() -> Self {
        Self::from(Refusal::Unavailable)
    }

    /// Too many requests; the bucket has room again after that many seconds.
    pub(crate) fn rate_limited(seconds: u64) -> Self {
        let detail = "too many requests: wait as Retry-After says";
        Self { code: Code::RateLimited, detail: detail.into(), retry_after_seconds: Some(seconds.max(1)) }
    }

    /// The protocol's code.
    #[cfg(test)]
    pub(crate) fn code(&self) -> Code {
        self.code
    }
}

impl From<DecodeCause> for Problem {
    fn from(cause: DecodeCause) -> Self {
        match cause {
            DecodeCause::TooLarge(detail) => Problem::new(Code::TooLarge, detail),
            cause => Problem::invalid(cause.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound => Code::NotFound,
            Refusal::Forbidden => Code::Forbidden,
            Refusal::DuplicateConflict => Code::DuplicateConflict,
            Refusal::ConversationFull => Code::ConversationFull,
            Refusal::Invalid(_) => Code::Invalid,
            Refusal::Unavailable => Code::Unavailable,
        };
        let retry_after_seconds = (refusal == Refusal::Unavailable).then_some(1);
        Self { code, detail: refusal.to_string(), retry_after_seconds }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // What is wrong with the disk is the operator's, not the client's.
        tracing::warn!(%error, "the store did not answer an HTTP request");
        Self::unavailable()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = ProblemBody {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers are JSON");
        let mut response = (status, body).into_response();
        let mut set = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        set(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(seconds) = self.retry_after_seconds {
            set(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            set(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
