//! JSON bodies: bounded in bytes and time, and their errors as problems.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::header;
use serde::de::DeserializeOwned;

use crate::limits::BODY_DEADLINE;
use crate::problem::{Code, Problem};
use crate::state::Shared;

/// The body of a request, read as JSON. Unknown fields are ignored.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, Problem> {
        let bytes = read(request, state.body_bytes_max).await?;
        parse(&bytes).map(Self)
    }
}

async fn read(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body has at most {bytes_max} bytes (limits.max_frame_bytes)");
        Problem::new(Code::TooLarge, detail)
    };
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large());
    }
    // What is collected grows with what arrives, up to the bound; nothing is reserved for what is announced.
    match tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(request.into_body(), bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // Past the bound, or the client broke off: then nobody reads the answer.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(Problem::new(Code::Timeout, "the body did not come in time")),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take an array as a struct's fields in the order in which they stand in our source.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid("the body is not as documented: it is a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadFrame };
        Problem::new(code, format!("the body is not as documented: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Name {
        name: String,
    }

    #[test]
    fn malformed_json_and_a_wrong_shape_have_their_own_codes() {
        assert_eq!(parse::<Name>(br#"{"name":"x","other":1}"#).unwrap().name, "x");
        assert_eq!(parse::<Name>(b"{\"name\"").unwrap_err().code(), Code::BadFrame);
        assert_eq!(parse::<Name>(b"").unwrap_err().code(), Code::BadFrame);
        assert_eq!(parse::<Name>(br#"{"name":1}"#).unwrap_err().code(), Code::Invalid);
        assert_eq!(parse::<Name>(b"{}").unwrap_err().code(), Code::Invalid);
        assert_eq!(parse::<Name>(br#" ["x"]"#).unwrap_err().code(), Code::Invalid);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_bounded_in_bytes_and_time() {
        let request = |body: axum::body::Body| Request::new(body);
        assert_eq!(read(request("12345".into()), 5).await.unwrap(), "12345");
        assert_eq!(read(request("123456".into()), 5).await.unwrap_err().code(), Code::TooLarge);
        let mut announced = request("".into());
        announced.headers_mut().insert(header::CONTENT_LENGTH, http::HeaderValue::from(6));
        assert_eq!(read(announced, 5).await.unwrap_err().code(), Code::TooLarge);
        let silent = axum::body::Body::new(Silence);
        assert_eq!(read(request(silent), 5).await.unwrap_err().code(), Code::Timeout);
    }

    /// A body that never comes.
    struct Silence;

    impl hyper::body::Body for Silence {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
}
