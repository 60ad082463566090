//! The HTTP request that opens a connection (RFC 6455 section 4), read strictly, and the answers to it.
//!
//! Three steps, so that the gateway decides between them: [`HeadScanner`] finds the end of the head while
//! bytes arrive, reading each byte once; [`RequestHead::parse`] gives method, path and headers, enough to
//! hand any other request to the HTTP server; [`UpgradeRequest::check`] holds the request against section
//! 4.2.1. A refusal is an [`UpgradeRefusal`], which is a whole HTTP response that says why.
//!
//! Strict where leniency lets a proxy and us disagree on where a request ends: no bare CR or LF, no folded
//! line, no space before a colon, no body. What lies behind the head is the client's first frames, and
//! is read as such only after the 101 is queued.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use super::refusal::UpgradeRefusal;
use crate::client::Encoding;

/// Longest request head, in bytes, its empty line included. Tokens are the longest part, 1-2 KiB.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header lines in one head. Browsers behind two proxies send about thirty.
pub const HEADERS_MAX: usize = 64;

/// Section 1.3: the string that the key is joined with.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Finds where a request head ends, over any number of arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScanner {
    scanned: u16,
}

/// A request's head, borrowed from the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method, as written: methods are case-sensitive.
    pub method: &'a str,
    /// The path of the request target, percent-encoding kept.
    pub path: &'a str,
    /// What follows the `?`, if there is one.
    pub query: Option<&'a str>,
    /// HTTP/1.1; else HTTP/1.0.
    pub is_http_1_1: bool,
    /// Names as written and values without the space around them, in order. Values are visible ASCII,
    /// space, tab and bytes over 127.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// A request that may be answered with 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRequest<'a> {
    /// The one `Host`.
    pub host: &'a str,
    /// Sent by browsers: whose page asks. The gateway holds it against its allow-list.
    pub origin: Option<&'a str>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<&'a str>,
    /// Subprotocols offered, in the client's order of preference.
    pub subprotocols: Vec<&'a str>,
    /// What `Sec-WebSocket-Accept` must say.
    pub accept: String,
}

impl HeadScanner {
    /// Looks for the end in `received`, all bytes of the connection so far. Bytes that an earlier call
    /// saw are not read again. The answer is the head's length, its empty line included.
    ///
    /// # Errors
    /// A refusal as soon as a byte is one that no head has, or the head is longer than
    /// [`HEAD_BYTES_MAX`].
    pub fn find_end(&mut self, received: &[u8]) -> Result<Option<usize>, UpgradeRefusal> {
        let window = &received[..received.len().min(HEAD_BYTES_MAX)];
        let mut at = usize::from(self.scanned).min(window.len());
        while let Some(&byte) = window.get(at) {
            match byte {
                b'\n' if at == 0 || window[at - 1] != b'\r' => {
                    return Err(UpgradeRefusal::BadRequest("a line must end with CR LF, not with LF alone"));
                }
                b'\n' if window[..=at].ends_with(b"\r\n\r\n") => return Ok(Some(at + 1)),
                b'\n' | b'\t' => {}
                0x00..=0x1f | 0x7f if byte != b'\r' => {
                    return Err(UpgradeRefusal::BadRequest(
                        "a control character in the request's head (TLS sent to a plain port?)",
                    ));
                }
                _ if at > 0 && window[at - 1] == b'\r' => {
                    return Err(UpgradeRefusal::BadRequest("a CR must be followed by LF"));
                }
                _ => {}
            }
            at += 1;
        }
        self.scanned = at as u16;
        if received.len() >= HEAD_BYTES_MAX { Err(UpgradeRefusal::HeadTooLong) } else { Ok(None) }
    }
}

const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize, "the scanner's offset is a u16");

impl<'a> RequestHead<'a> {
    /// Reads a head that [`HeadScanner::find_end`] found, all of it and nothing behind it.
    ///
    /// # Errors
    /// A refusal that says which part breaks RFC 9112.
    pub fn parse(head: &'a [u8]) -> Result<Self, UpgradeRefusal> {
        let lines = head
            .strip_suffix(b"\r\n\r\n")
            .ok_or(UpgradeRefusal::BadRequest("a head must end with an empty line"))?;
        let mut lines = Lines { left: Some(lines) };
        let request_line = lines.next().unwrap_or_default();
        let (method, target, is_http_1_1) = parse_request_line(request_line)?;
        let (path, query) = parse_target(target)?;
        let mut headers = Vec::with_capacity(16);
        for line in lines {
            if headers.len() == HEADERS_MAX {
                return Err(UpgradeRefusal::TooManyHeaders);
            }
            headers.push(parse_header(line)?);
        }
        Ok(Self { method, path, query, is_http_1_1, headers })
    }

    /// All values of a header, in order.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The value of a header that may be there once.
    ///
    /// # Errors
    /// A refusal if it is there twice, or is not visible ASCII.
    pub fn value(&self, name: &'static str) -> Result<Option<&'a str>, UpgradeRefusal> {
        let mut values = self.values(name);
        let value = values.next();
        if values.next().is_some() {
            return Err(UpgradeRefusal::RepeatedHeader(name));
        }
        value.map(|value| ascii(value).ok_or(UpgradeRefusal::BadHeader(name))).transpose()
    }

    /// Whether a comma-separated header has this token, in any letter case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|part| trim_spaces(part).eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the query carries what looks like a token. URLs end in logs: it is refused.
    pub fn has_token_in_query(&self) -> bool {
        const NAMES: [&str; 5] = ["token", "access_token", "jwt", "bearer", "authorization"];
        self.query.is_some_and(|query| {
            query.split(['&', ';']).any(|pair| {
                let name = percent_decoded(pair.split_once('=').map_or(pair, |(name, _)| name));
                NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
            })
        })
    }
}

impl<'a> UpgradeRequest<'a> {
    /// Holds a request against RFC 6455 section 4.2.1.
    ///
    /// # Errors
    /// A refusal that says which requirement is not met.
    pub fn check(head: &RequestHead<'a>) -> Result<Self, UpgradeRefusal> {
        if head.method != "GET" {
            return Err(UpgradeRefusal::BadRequest("a WebSocket is opened by GET"));
        }
        if !head.is_http_1_1 {
            return Err(UpgradeRefusal::BadRequest("a WebSocket is opened over HTTP/1.1"));
        }
        if head.values("content-length").next().is_some() || head.values("transfer-encoding").next().is_some()
        {
            return Err(UpgradeRefusal::BadRequest("a WebSocket upgrade has no body"));
        }
        let host = head.value("host")?.ok_or(UpgradeRefusal::MissingHeader("Host"))?;
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return Err(UpgradeRefusal::BadHeader("Host"));
        }
        if !head.has_token("upgrade", "websocket") || !head.has_token("connection", "upgrade") {
            return Err(UpgradeRefusal::UpgradeRequired);
        }
        if head.value("sec-websocket-version")? != Some("13") {
            return Err(UpgradeRefusal::WrongVersion);
        }
        let key =
            head.value("sec-websocket-key")?.ok_or(UpgradeRefusal::MissingHeader("Sec-WebSocket-Key"))?;
        // 16 bytes are 24 characters of base64; the length is looked at before anything is decoded.
        let mut nonce = [0; 18];
        if key.len() != 24 || STANDARD.decode_slice(key, &mut nonce) != Ok(16) {
            return Err(UpgradeRefusal::BadHeader("Sec-WebSocket-Key"));
        }
        Ok(Self {
            host,
            origin: head.value("origin")?,
            bearer: bearer(head)?,
            subprotocols: subprotocols(head)?,
            accept: accept_for_key(key),
        })
    }

    /// Which encoding the connection has, and the subprotocol to name in the 101: the first offered that
    /// is ours; JSON, and no name, if none is offered.
    ///
    /// # Errors
    /// A refusal that lists ours, if only others are offered.
    pub fn encoding(&self) -> Result<(Encoding, Option<&'static str>), UpgradeRefusal> {
        if self.subprotocols.is_empty() {
            return Ok((Encoding::default(), None));
        }
        let encoding = self.subprotocols.iter().find_map(|name| Encoding::of_subprotocol(name));
        let encoding = encoding.ok_or(UpgradeRefusal::UnknownSubprotocol)?;
        Ok((encoding, Some(encoding.subprotocol())))
    }

    /// The 101 that opens the connection. Frames may follow it at once.
    pub fn accept_response(&self, subprotocol: Option<&str>) -> Vec<u8> {
        let mut response = String::with_capacity(192);
        response.push_str(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: ",
        );
        response.push_str(&self.accept);
        if let Some(subprotocol) = subprotocol {
            response.push_str("\r\nSec-WebSocket-Protocol: ");
            response.push_str(subprotocol);
        }
        response.push_str("\r\n\r\n");
        response.into_bytes()
    }
}

/// What `Sec-WebSocket-Accept` says to a `Sec-WebSocket-Key` (section 4.2.2, step 5.4): SHA-1, in base64,
/// of the key and a fixed string. SHA-1 proves here that the server speaks WebSocket, and nothing else.
pub fn accept_for_key(key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(ACCEPT_GUID);
    STANDARD.encode(context.finish())
}

/// Lines parted by CR LF.
struct Lines<'a> {
    left: Option<&'a [u8]>,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let left = self.left?;
        match left.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => {
                self.left = Some(&left[end + 2..]);
                Some(&left[..end])
            }
            None => self.left.take(),
        }
    }
}

/// `GET /ws?x HTTP/1.1`: three parts, one space between.
fn parse_request_line(line: &[u8]) -> Result<(&str, &str, bool), UpgradeRefusal> {
    let bad =
        UpgradeRefusal::BadRequest("the first line must be: method, path, HTTP/1.1, parted by one space");
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad);
    };
    let is_http_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(bad),
    };
    match (token(method), ascii(target)) {
        (Some(method), Some(target)) if !target.is_empty() => Ok((method, target, is_http_1_1)),
        _ => Err(bad),
    }
}

/// Path and query of a request target: `/path?query`, or the same behind `http://host` (RFC 9112 section
/// 3.2.2: a server must accept the absolute form).
fn parse_target(target: &str) -> Result<(&str, Option<&str>), UpgradeRefusal> {
    if target.contains('#') {
        return Err(UpgradeRefusal::BadRequest("a request's path has no fragment (#)"));
    }
    let local = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            match rest.find(['/', '?']) {
                Some(end) if rest.as_bytes()[end] == b'/' => &rest[end..],
                _ => "/",
            }
        }
        _ => target,
    };
    Ok(match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    })
}

/// `name: value`.
fn parse_header(line: &[u8]) -> Result<(&str, &[u8]), UpgradeRefusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(UpgradeRefusal::BadRequest("a header must not be folded over two lines"));
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or(UpgradeRefusal::BadRequest("a header line without a colon"))?;
    let name = token(&line[..colon])
        .ok_or(UpgradeRefusal::BadRequest("a header's name has a character that names do not have"))?;
    let value = trim_spaces(&line[colon + 1..]);
    if !value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)) {
        return Err(UpgradeRefusal::BadRequest("a control character in a header's value"));
    }
    Ok((name, value))
}

/// Takes off the optional whitespace of RFC 9110 section 5.6.3: spaces and tabs, no other control character.
fn trim_spaces(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// RFC 9110 section 5.6.2.
fn token(bytes: &[u8]) -> Option<&str> {
    let is_token = !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    if is_token { std::str::from_utf8(bytes).ok() } else { None }
}

/// Visible ASCII and space.
fn ascii(bytes: &[u8]) -> Option<&str> {
    let is_visible = bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e));
    if is_visible { std::str::from_utf8(bytes).ok() } else { None }
}

/// What a host and its port are made of.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// The token of `Authorization: Bearer`, if the header is there.
fn bearer<'a>(head: &RequestHead<'a>) -> Result<Option<&'a str>, UpgradeRefusal> {
    let Some(value) = head.value("authorization")? else { return Ok(None) };
    let refusal = UpgradeRefusal::Unauthorized("Authorization must be: Bearer, one space, a token");
    let Some((scheme, token)) = value.split_once(' ') else { return Err(refusal) };
    let token = token.trim_start_matches(' ');
    let is_token = !token.is_empty()
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
    if scheme.eq_ignore_ascii_case("bearer") && is_token { Ok(Some(token)) } else { Err(refusal) }
}

/// The offered subprotocols: one pass over the header.
fn subprotocols<'a>(head: &RequestHead<'a>) -> Result<Vec<&'a str>, UpgradeRefusal> {
    let mut offered = Vec::new();
    for value in head.values("sec-websocket-protocol") {
        for part in value.split(|byte| *byte == b',') {
            let name = token(trim_spaces(part));
            offered.push(name.ok_or(UpgradeRefusal::BadHeader("Sec-WebSocket-Protocol"))?);
        }
    }
    Ok(offered)
}

/// Undoes percent-encoding; what is no encoding stays.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let [byte, rest @ ..] = left {
        let hex = match left {
            [b'%', high, low, ..] => char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match hex {
            Some((high, low)) => {
                decoded.push((high << 4 | low) as u8);
                left = &left[3..];
            }
            None => {
                decoded.push(*byte);
                left = rest;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(accept_for_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_token_in_the_query_is_seen_in_any_disguise() {
        let seen = |target: &str| {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            RequestHead::parse(head.as_bytes()).unwrap().has_token_in_query()
        };
        assert!(seen("/ws?token=x"));
        assert!(seen("/ws?a=1&%74oKen=x"));
        assert!(seen("/ws?access_token"));
        assert!(!seen("/ws?tokens=x&a=token"));
        assert!(!seen("/ws"));
    }

    #[test]
    fn the_absolute_form_is_the_same_request() {
        let head = RequestHead::parse(b"GET http://chat.example:8080/ws?a HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!((head.path, head.query), ("/ws", Some("a")));
        let head = RequestHead::parse(b"GET http://chat.example?a HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!((head.path, head.query), ("/", None));
    }
}
