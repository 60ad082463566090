//! Why an upgrade is refused, as a whole HTTP response: a status, what the standards want beside it, and a
//! problem document (RFC 9457) with the same `code` that HTTP calls and `error` frames use.
//!
//! Each closes the connection: what else the client has sent is never read as another request.

use crate::client::Encoding;

/// Why a request is not answered with 101.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefusal {
    /// The request breaks HTTP, or section 4.2.1 of RFC 6455.
    #[error("{0}")]
    BadRequest(&'static str),
    /// A header that the upgrade needs.
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    /// A header that may be there once.
    #[error("the header {0} is there more than once")]
    RepeatedHeader(&'static str),
    /// A header whose value is not of its form.
    #[error("the value of the header {0} is malformed")]
    BadHeader(&'static str),
    /// Only subprotocols that we do not speak.
    #[error("none of the offered subprotocols is spoken here: offer ringway.v1.json or ringway.v1.proto")]
    UnknownSubprotocol,
    /// A token in the URL.
    #[error("a token must not be in the URL: send it as Authorization: Bearer, or in hello")]
    TokenInUrl,
    /// No token, or one that does not hold.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The Origin is not on the allow-list.
    #[error("this origin may not connect: the operator lists those that may")]
    OriginNotAllowed,
    /// Nothing is served at this path.
    #[error("nothing is served at this path: the chat socket is /ws")]
    NotFound,
    /// No `Upgrade: websocket`, or no `Connection: Upgrade`.
    #[error("this path is a WebSocket: send Upgrade: websocket and Connection: Upgrade")]
    UpgradeRequired,
    /// Not version 13 of the protocol.
    #[error("only version 13 of the WebSocket protocol is spoken")]
    WrongVersion,
    /// The head is longer than [`super::upgrade::HEAD_BYTES_MAX`].
    #[error("the request's head is longer than 8 KiB")]
    HeadTooLong,
    /// More headers than [`super::upgrade::HEADERS_MAX`].
    #[error("the request has more than 64 headers")]
    TooManyHeaders,
    /// No room (of the server, or for this address), or draining.
    #[error("no connection is taken now: try again in {retry_after_seconds} s")]
    Unavailable {
        /// For `Retry-After`.
        retry_after_seconds: u32,
    },
}

impl UpgradeRefusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_)
            | Self::MissingHeader(_)
            | Self::RepeatedHeader(_)
            | Self::BadHeader(_)
            | Self::UnknownSubprotocol
            | Self::TokenInUrl => 400,
            Self::Unauthorized(_) => 401,
            Self::OriginNotAllowed => 403,
            Self::NotFound => 404,
            Self::UpgradeRequired | Self::WrongVersion => 426,
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            Self::Unavailable { .. } => 503,
        }
    }

    /// The whole response. Send it, then close.
    pub fn response(&self) -> Vec<u8> {
        let status = self.status();
        let (title, code) = match status {
            400 => ("Bad Request", "invalid"),
            401 => ("Unauthorized", "unauthorized"),
            403 => ("Forbidden", "forbidden"),
            404 => ("Not Found", "not_found"),
            426 => ("Upgrade Required", "invalid"),
            431 => ("Request Header Fields Too Large", "too_large"),
            _ => ("Service Unavailable", "unavailable"),
        };
        // The texts are ours and need no escaping: nothing of the request is repeated.
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"code\":\"{code}\",\
             \"detail\":\"{self}\"}}"
        );
        let beside = match self {
            Self::Unauthorized(_) => "WWW-Authenticate: Bearer\r\n".to_owned(),
            Self::UpgradeRequired | Self::WrongVersion => {
                // RFC 9110 section 15.5.22 asks for Upgrade, RFC 6455 section 4.4 for the version.
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned()
            }
            Self::UnknownSubprotocol => {
                let ours = Encoding::ALL.map(Encoding::subprotocol).join(", ");
                format!("Sec-WebSocket-Protocol: {ours}\r\n")
            }
            Self::Unavailable { retry_after_seconds } => {
                format!("Retry-After: {retry_after_seconds}\r\n")
            }
            _ => String::new(),
        };
        let connection = if status == 426 { "close, Upgrade" } else { "close" };
        format!(
            "HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\n\
             Content-Length: {}\r\nConnection: {connection}\r\nCache-Control: no-store\r\n{beside}\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::UpgradeRefusal;

    #[test]
    fn a_refusal_is_a_whole_response_with_a_problem_document() {
        for (refusal, status, header) in [
            (UpgradeRefusal::MissingHeader("Host"), 400, "Connection: close"),
            (UpgradeRefusal::UnknownSubprotocol, 400, "ringway.v1.json, ringway.v1.proto"),
            (UpgradeRefusal::Unauthorized("no"), 401, "WWW-Authenticate: Bearer"),
            (UpgradeRefusal::WrongVersion, 426, "Sec-WebSocket-Version: 13"),
            (UpgradeRefusal::Unavailable { retry_after_seconds: 7 }, 503, "Retry-After: 7"),
        ] {
            let response = String::from_utf8(refusal.response()).unwrap();
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains(header), "{head}");
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["status"], status);
            assert_eq!(problem["detail"], refusal.to_string());
        }
    }
}
