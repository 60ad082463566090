//! What a URL says besides its fixed parts: names in the path, and the query.
//!
//! They are read as axum reads them; what cannot be read is a problem document, as every error of the API is.

use axum::extract::{self, FromRequestParts};
use http::Uri;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::state::Shared;

/// The names in the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

/// The query.
#[derive(Debug)]
pub(crate) struct UrlQuery<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Problem> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(names)) => Ok(Self(names)),
            Err(error) => Err(Problem::invalid(format!("the path cannot be read: {}", error.body_text()))),
        }
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for UrlQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Problem> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(Problem::invalid(format!("the query cannot be read: {}", error.body_text()))),
        }
    }
}

/// Whether the query carries what looks like a token, under whatever name: a JWS in its compact form (RFC 7515
/// section 7.1), whose header is a JSON object and so begins with `eyJ`.
pub(crate) fn has_token(uri: &Uri) -> bool {
    let Ok(extract::Query(pairs)) = extract::Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return false;
    };
    let is_of_a_token = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    pairs
        .iter()
        .flat_map(|(name, value)| [name, value])
        .flat_map(|text| text.split(|letter| !is_of_a_token(letter)))
        .any(looks_like_a_token)
}

fn looks_like_a_token(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(4, '.').collect();
    text.starts_with("eyJ") && parts.len() == 3 && parts.iter().all(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_seen_under_any_name_and_nothing_else_is() {
        let seen = |query: &str| has_token(&format!("/conversations?{query}").parse().unwrap());
        for token in [
            "t=eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln-_",
            "limit=5&cursor=eyJh.eyJz.c2ln",
            "t=%65yJh%2EeyJz.c2ln",
            "t=Bearer+eyJh.eyJz.c2ln",
            "t=a%3BeyJh.eyJz.c2ln",
            "eyJh.eyJz.c2ln",
        ] {
            assert!(seen(token), "{token}");
        }
        for other in ["", "limit=5", "t=eyJh.eyJz", "t=eyJh..x", "t=abc.def.ghi", "t=eyJh.b.c.d", "t=%ff"] {
            assert!(!seen(other), "{other}");
        }
    }
}
