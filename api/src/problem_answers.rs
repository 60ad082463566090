//! Which problems a call may answer with, as the OpenAPI document lists them.
//!
//! A handler names the groups that apply to it beside its own answers; statuses, words and content type of
//! a problem stand here once. What each status is made from is in `problem.rs`.

use std::collections::BTreeMap;

use http::StatusCode;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema as _};

use crate::problem::{CONTENT_TYPE, ProblemBody};

/// What every call may answer: it makes no sense, nobody known calls, too often, or not now.
pub(crate) struct Always;

/// What a call with a body may answer: it comes too slowly, or is too long.
pub(crate) struct OfTheBody;

/// What a call about one conversation may answer: it is not there, or not for the caller to know of.
pub(crate) struct NotThere;

/// What a change may answer that not every role may make.
pub(crate) struct NotAllowed;

/// What a call that appends may answer: a key is used with another body, or the conversation is full.
pub(crate) struct Conflict;

type Answers = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for Always {
    fn responses() -> Answers {
        problems(&[
            (StatusCode::BAD_REQUEST, "The request is not as documented, or carries a token in its URL"),
            (StatusCode::UNAUTHORIZED, "No token, or one that does not hold"),
            (StatusCode::TOO_MANY_REQUESTS, "More requests than the user may make: wait as Retry-After says"),
            (StatusCode::SERVICE_UNAVAILABLE, "Not certain to be done: repeat the same request"),
        ])
    }
}

impl IntoResponses for OfTheBody {
    fn responses() -> Answers {
        problems(&[
            (StatusCode::REQUEST_TIMEOUT, "The body did not come in time"),
            (StatusCode::PAYLOAD_TOO_LARGE, "The body, or something in it, is larger than it may be"),
        ])
    }
}

impl IntoResponses for NotThere {
    fn responses() -> Answers {
        problems(&[(StatusCode::NOT_FOUND, "There is no such thing, or the caller may not know of it")])
    }
}

impl IntoResponses for NotAllowed {
    fn responses() -> Answers {
        problems(&[(StatusCode::FORBIDDEN, "The caller's role does not allow it")])
    }
}

impl IntoResponses for Conflict {
    fn responses() -> Answers {
        problems(&[(
            StatusCode::CONFLICT,
            "The same key with another body, or the conversation has as many members or waiting calls as it may",
        )])
    }
}

fn problems(statuses: &[(StatusCode, &str)]) -> Answers {
    let answer = |description: &str| {
        let schema = Ref::from_schema_name(ProblemBody::name());
        ResponseBuilder::new()
            .description(description)
            .content(CONTENT_TYPE, Content::new(Some(schema)))
            .build()
            .into()
    };
    statuses.iter().map(|(status, description)| (status.as_str().to_owned(), answer(description))).collect()
}
