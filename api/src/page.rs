//! The chat page and the SDK: files compiled in, so that the server is one file.
//!
//! They may be kept and have to be checked each time (`no-cache` with an entity tag), so that a new server
//! brings its page along. The page may load from its own origin only and stand in no frame.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ringway_protocol::ids::placement_hash;

/// What the page may load: its own files, and its own server by HTTP and WebSocket.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy)]
pub(crate) struct PageFile {
    /// Where it is served.
    pub(crate) path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// All of them.
pub(crate) const FILES: &[PageFile] = &[
    PageFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../../web/page/index.html"),
    },
    PageFile {
        path: "/style.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../web/page/style.css"),
    },
    PageFile {
        path: "/chat.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../web/page/dist/chat.js"),
    },
    PageFile {
        path: "/ringway.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../web/sdk/dist/ringway.js"),
    },
];

impl PageFile {
    /// The file, or 304 if the client has it.
    pub(crate) fn answer(self, headers: &HeaderMap) -> Response {
        let tag = format!("\"{:016x}\"", placement_hash(self.bytes));
        let known = headers
            .get(header::IF_NONE_MATCH)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|tags| tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
        let mut response = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.bytes.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_client_has_is_not_sent_again() {
        let first = FILES[0].answer(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(FILES[0].answer(&headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(FILES[1].answer(&headers).status(), StatusCode::OK);
    }

    #[test]
    fn the_page_needs_nothing_that_its_policy_forbids() {
        let page = std::str::from_utf8(FILES[0].bytes).unwrap();
        assert!(!page.contains("<style") && !page.contains(" style="), "inline styles are not allowed");
        assert!(!page.contains("<script>"), "inline scripts are not allowed");
        assert!(!page.contains("onclick="), "inline handlers are not allowed");
    }
}
