//! The client's half of the upgrade (RFC 6455 section 4.1): the request, and the check of the answer.

use ringway_protocol::client::Encoding;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// Longest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A server that did not upgrade.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpgradeError {
    /// It answered with another status.
    #[error("the upgrade was answered with {status}: {line}")]
    Status {
        /// The status, 0 if it could not be read.
        status: u16,
        /// The first line.
        line: String,
    },
    /// The answer is not one to this request.
    #[error("the upgrade was answered with a wrong {0}")]
    Mismatch(&'static str),
    /// It talks too long.
    #[error("the head of the answer is longer than {HEAD_BYTES_MAX} bytes")]
    TooLong,
}

/// An upgrade that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Upgrade {
    accept: String,
    encoding: Encoding,
    head: Vec<u8>,
}

impl Upgrade {
    /// Appends the request.
    pub(super) fn ask(
        authority: &str,
        path: &str,
        encoding: Encoding,
        bearer: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Self {
        let key = generate_key();
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {}\r\n",
            encoding.subprotocol()
        );
        if let Some(token) = bearer {
            request.push_str("Authorization: Bearer ");
            request.push_str(token);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        out.extend_from_slice(request.as_bytes());
        Self { accept: derive_accept_key(key.as_bytes()), encoding, head: Vec::new() }
    }

    /// Takes what arrived. `Some` gives how many of these bytes belong to the head: frames follow.
    ///
    /// # Errors
    /// [`UpgradeError`].
    pub(super) fn read(&mut self, received: &[u8]) -> Result<Option<usize>, UpgradeError> {
        const END: &[u8] = b"\r\n\r\n";
        let before = self.head.len();
        self.head.extend_from_slice(received);
        let from = before.saturating_sub(END.len() - 1);
        let Some(end) = self.head[from..].windows(END.len()).position(|window| window == END) else {
            return if self.head.len() > HEAD_BYTES_MAX { Err(UpgradeError::TooLong) } else { Ok(None) };
        };
        let end = from + end + END.len();
        self.check(&String::from_utf8_lossy(&self.head[..end]))?;
        Ok(Some(end - before))
    }

    fn check(&self, head: &str) -> Result<(), UpgradeError> {
        let line = head.lines().next().unwrap_or("");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if status != 101 {
            return Err(UpgradeError::Status { status, line: line.to_owned() });
        }
        let header = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        if header("sec-websocket-accept") != Some(&self.accept) {
            return Err(UpgradeError::Mismatch("Sec-WebSocket-Accept"));
        }
        if header("sec-websocket-protocol") != Some(self.encoding.subprotocol()) {
            return Err(UpgradeError::Mismatch("Sec-WebSocket-Protocol"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> (Upgrade, Vec<u8>) {
        let mut request = Vec::new();
        let upgrade = Upgrade::ask("h:1", "/ws", Encoding::Json, None, &mut request);
        let head = ringway_protocol::websocket::upgrade::RequestHead::parse(&request).unwrap();
        let request = ringway_protocol::websocket::upgrade::UpgradeRequest::check(&head).unwrap();
        let (_, subprotocol) = request.encoding().unwrap();
        (upgrade, request.accept_response(subprotocol))
    }

    #[test]
    fn the_servers_own_answer_is_right_at_every_split() {
        let (upgrade, mut answer) = asked();
        let head = answer.len();
        answer.extend_from_slice(b"\x81\x00");
        for split in 0..answer.len() {
            let mut upgrade = upgrade.clone();
            let (first, second) = answer.split_at(split);
            let end = match upgrade.read(first).unwrap() {
                Some(end) => end,
                None => split + upgrade.read(second).unwrap().unwrap(),
            };
            assert_eq!(end, head, "split {split}");
        }
    }

    #[test]
    fn another_answer_is_none() {
        let (upgrade, answer) = asked();
        let refused = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n";
        assert!(matches!(upgrade.clone().read(refused), Err(UpgradeError::Status { status: 503, .. })));
        let (other, _) = asked();
        assert_eq!(other.clone().read(&answer), Err(UpgradeError::Mismatch("Sec-WebSocket-Accept")));
        assert_eq!(upgrade.clone().read(&[b'x'; 9000]), Err(UpgradeError::TooLong));
    }
}
