//! Which path is answered by which handler, and what stands around all of them.

use std::time::Instant;

use axum::extract::{Request, State as From_};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::page::FILES;
use crate::parameters::has_token;
use crate::problem::{Code, Problem, ProblemBody};
use crate::state::Shared;
use crate::{chats, conversations, development, messages};

/// Where the API stands.
const PREFIX: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ringway",
        description = "The HTTP API of Ringway: sends, history and conversations for those who have no socket.",
        license(name = "Apache-2.0 OR MIT")
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// The API with its document, which is made from the handlers.
fn documented() -> (Router<Shared>, utoipa::openapi::OpenApi) {
    let api = OpenApiRouter::new()
        .routes(routes!(messages::send))
        .routes(routes!(messages::history))
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(conversations::get, conversations::rename, conversations::delete))
        .routes(routes!(conversations::add_member, conversations::remove_member))
        .routes(routes!(chats::create))
        .routes(routes!(chats::history));
    let (router, mut document) =
        OpenApiRouter::with_openapi(Document::openapi()).nest(PREFIX, api).split_for_parts();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("bearer", [""; 0])]);
    (router, document)
}

/// Everything that is served beside the sockets.
pub(crate) fn router(state: Shared) -> Router {
    let (mut router, document) = documented();
    router = router.route(&format!("{PREFIX}/openapi.json"), get(move || async move { Json(document) }));
    if state.development_secret.is_some() {
        router = router.route("/dev/token", post(development::token));
    }
    for file in FILES {
        router = router.route(file.path, get(move |headers: HeaderMap| async move { file.answer(&headers) }));
    }
    // `/echo` is a path of first requests alone, and only while it is on: here it is as unknown as any.
    router
        .route("/ws", get(not_the_first_request))
        .fallback(|| async { Problem::new(Code::NotFound, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "this path takes another method: see Allow")
        })
        .layer(middleware::from_fn_with_state(state.clone(), around))
        .with_state(state)
}

/// A socket is opened by the first request of its connection: the core that owns it reads that one.
async fn not_the_first_request() -> Response {
    Problem::invalid("open the WebSocket with the first request of a connection").into_response()
}

/// Whether a request names one host, as HTTP/1.1 asks (RFC 9112 section 3.2).
fn names_one_host(request: &Request) -> bool {
    match request.headers().get_all(header::HOST).iter().count() {
        0 => request.version() < Version::HTTP_11,
        hosts => hosts == 1,
    }
}

/// Whether an answer is given before the request's body was read to its end.
fn leaves_a_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT)
}

/// Counts and times the request, and adds the headers that every answer has.
async fn around(From_(state): From_<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let mut response = if !names_one_host(&request) {
        Problem::invalid("a request has one Host header").into_response()
    } else if has_token(request.uri()) {
        // What it says is not repeated: URLs end in logs, this is no log of tokens.
        let detail = "there is a token in the URL, which ends in logs: take a fresh one, and send \
                      Authorization: Bearer TOKEN";
        Problem::invalid(detail).into_response()
    } else {
        next.run(request).await
    };
    let status = response.status();
    state.metrics.answered(status, begun.elapsed());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // What one user may see is for no cache on the way; the files of the page say otherwise themselves.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // A body that was not read ends the connection: who is not told so puts its next request on one that is closing.
    if state.is_draining() || leaves_a_body(status) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::state;
    use axum::body::Body;
    use http::Method;
    use tower::ServiceExt as _;

    /// The calls of the protocol that are served, method and path.
    const CALLS: &[(&str, &str)] = &[
        ("post", "/messages"),
        ("get", "/conversations/{id}/messages"),
        ("post", "/conversations"),
        ("get", "/conversations"),
        ("get", "/conversations/{id}"),
        ("patch", "/conversations/{id}"),
        ("delete", "/conversations/{id}"),
        ("put", "/conversations/{id}/members/{user}"),
        ("delete", "/conversations/{id}/members/{user}"),
        ("post", "/chats"),
        ("get", "/chats/{chatId}/messages"),
    ];

    #[tokio::test]
    async fn the_document_names_exactly_the_calls_that_are_served() {
        let (_, document) = documented();
        let document = serde_json::to_value(&document).unwrap();
        let mut named: Vec<(String, String)> = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                named.push((method.clone(), path.clone()));
            }
        }
        named.sort();
        let mut expected: Vec<(String, String)> =
            CALLS.iter().map(|(method, path)| (method.to_string(), format!("{PREFIX}{path}"))).collect();
        expected.sort();
        assert_eq!(named, expected);
        for (method, path) in named {
            let path = path.replace("{id}", "1").replace("{chatId}", "1").replace("{user}", "bob");
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = Request::builder().method(method.clone()).uri(&path).header(header::HOST, "x");
            let request = request.body(Body::empty()).unwrap();
            let response = router(state()).oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_a_problem_too() {
        let ask = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).header(header::HOST, "x");
            router(state()).oneshot(request.body(Body::empty()).unwrap())
        };
        let missing = ask("GET", "/nowhere").await.unwrap();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        assert_eq!(missing.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(missing.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let wrong = ask("PUT", "/api/v1/messages").await.unwrap();
        assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(wrong.headers().contains_key(header::ALLOW));
        assert_eq!(ask("GET", "/ws").await.unwrap().status(), StatusCode::BAD_REQUEST);
        assert_eq!(ask("GET", "/api/v1/openapi.json").await.unwrap().status(), StatusCode::OK);
        assert_eq!(ask("POST", "/dev/token").await.unwrap().status(), StatusCode::NOT_FOUND);
    }
}
