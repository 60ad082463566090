//! `POST /dev/token`: logs the chat page in without a password, while the development key is in use.
//!
//! That key serves loopback only, and so does this. A page of another site that reaches 127.0.0.1 under a
//! name of its own (DNS rebinding) is told apart by the `Host` it asks for.

use axum::Json;
use axum::extract::State as From_;
use http::{HeaderMap, header};
use ringway_protocol::token::mint_development;
use ringway_protocol::user::UserId;
use serde::{Deserialize, Serialize};

use crate::body::JsonBody;
use crate::limits::DEVELOPMENT_TOKEN_SECONDS;
use crate::problem::{Code, Problem};
use crate::state::{Shared, now};

/// Who logs in.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenRequest {
    user: String,
}

/// The token.
#[derive(Serialize)]
pub(crate) struct TokenAnswer {
    token: String,
}

/// Makes a token for any user.
pub(crate) async fn token(
    From_(state): From_<Shared>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<TokenRequest>,
) -> Result<Json<TokenAnswer>, Problem> {
    let secret = state.development_secret.as_ref().ok_or_else(Problem::not_found)?;
    let is_json = |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A form of another site cannot have this type without asking first (Fetch, "CORS-safelisted").
    if !text(header::CONTENT_TYPE).is_some_and(is_json) {
        return Err(Problem::invalid("the body is application/json"));
    }
    if !text(header::HOST).is_some_and(is_loopback_host) {
        return Err(Problem::new(Code::Forbidden, "development logins are for localhost only"));
    }
    let user = UserId::new("", &request.user).map_err(|error| Problem::invalid(format!("user: {error}")))?;
    let life = DEVELOPMENT_TOKEN_SECONDS;
    Ok(Json(TokenAnswer { token: mint_development(secret, &user, None, now(), life) }))
}

fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for (host, loopback) in [
            ("localhost", true),
            ("localhost:8443", true),
            ("127.0.0.1:8443", true),
            ("127.1.2.3", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("localhost.evil.example:8443", false),
            ("127.0.0.1.evil.example", false),
            ("192.0.2.1:8443", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_host(host), loopback, "{host}");
        }
    }
}
