//! Who calls: the user of a Bearer token (RFC 6750). A token in the body is not looked at, and one in the URL
//! is refused before (`routes.rs`).

use std::time::Instant;

use axum::extract::FromRequestParts;
use http::{HeaderMap, Method, header, request::Parts};
use ringway_protocol::user::UserId;

use crate::problem::{Code, Problem};
use crate::rate::Kind;
use crate::state::{Shared, now};

/// The user who calls, within their rate.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) user: UserId,
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or_else(|| {
            Problem::new(Code::Unauthorized, "a token is needed: send Authorization: Bearer TOKEN")
        })?;
        let claims = state
            .keys
            .load()
            .verify(token, now())
            .map_err(|error| Problem::new(Code::Unauthorized, error.to_string()))?;
        state.rates.take(&claims.user, kind(&parts.method), Instant::now())?;
        Ok(Self { user: claims.user })
    }
}

/// A HEAD is answered like a GET, without the body: it looks, too.
fn kind(method: &Method) -> Kind {
    match *method {
        Method::GET | Method::HEAD => Kind::Read,
        _ => Kind::Write,
    }
}

/// The token of the only `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bearer_header_is_a_token_and_nothing_else_is() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, http::HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer  abc"]).as_deref(), Some("abc"));
        for bad in [&["Basic abc"][..], &["abc"], &["Bearer a", "Bearer b"], &[]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
