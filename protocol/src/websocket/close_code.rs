//! Close codes: those of RFC 6455 section 7.4, and ours, whose hundred tells a client what to do.
//!
//! 40xx: don't come back unchanged. 41xx: back off, then come back. 42xx: come back at once. A client
//! that doesn't know one code still does right by its hundred.

use std::fmt;

/// Why a connection is closed, as the Close frame says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down, or the page was left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A kind of data that is not accepted: binary on the JSON subprotocol.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// Text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A message that breaks a policy, with no better code.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A message longer than is taken.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// The client wanted an extension that the server did not give.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// The server failed.
    pub const INTERNAL_ERROR: Self = Self(1011);

    /// Ten malformed frames in a row, or a frame at a moment when there may be none.
    pub const BAD_REQUEST: Self = Self(4000);
    /// No token, or one that does not hold; or a frame before `hello`.
    pub const UNAUTHORIZED: Self = Self(4001);
    /// The token does not allow it: `hello` named another device.
    pub const FORBIDDEN: Self = Self(4003);
    /// A version of the protocol that is not served.
    pub const VERSION: Self = Self(4004);
    /// The same device connected anew; this socket is the old one.
    pub const REPLACED: Self = Self(4009);
    /// The user has as many connections as are allowed.
    pub const TOO_MANY_CONNECTIONS: Self = Self(4029);

    /// The server failed, in our protocol.
    pub const INTERNAL: Self = Self(4100);
    /// The server has more to do than it can.
    pub const OVERLOADED: Self = Self(4101);
    /// What waits for this reader passed `max_queue_bytes`. Nothing is lost: `sync` brings it.
    pub const SLOW_READER: Self = Self(4102);
    /// No frame for 45 seconds.
    pub const HEARTBEAT_MISSED: Self = Self(4103);
    /// Over the rate again and again.
    pub const RATE_LIMITED: Self = Self(4104);
    /// The token expired and was not refreshed.
    pub const TOKEN_EXPIRED: Self = Self(4105);
    /// No `hello` for 8 seconds.
    pub const NO_HELLO: Self = Self(4108);

    /// The server drains: come back now, to another or to the next.
    pub const DRAIN: Self = Self(4200);
    /// Moved away to balance the load.
    pub const REBALANCE: Self = Self(4201);
    /// The server lost the state of this connection.
    pub const STATE_LOST: Self = Self(4202);

    /// Whether a peer may put it in a Close frame.
    ///
    /// RFC 6455 section 7.4.1: 1004, 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close
    /// control frame by an endpoint". Section 7.4.2: 0-999 are not used, 1000-2999 are reserved for the
    /// protocol (1012-1014 were registered with IANA later), 3000-3999 are for libraries and 4000-4999
    /// for private use.
    pub fn may_be_received(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::CloseCode;

    #[test]
    fn reserved_codes_are_not_taken_from_the_wire() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!CloseCode(code).may_be_received(), "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert!(CloseCode(code).may_be_received(), "{code}");
        }
    }
}
