//! The codes of `error` frames and of HTTP problem documents: one list for both.

use crate::trunk::Refusal;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $temporary:literal;)*) => {
        /// What kind of error it is: a program decides by it, a person reads the message beside it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// As it is on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// The HTTP status of a problem document with this code.
            pub fn http_status(self) -> u16 {
                match self { $(ErrorCode::$name => $status,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            pub fn is_temporary(self) -> bool {
                match self { $(ErrorCode::$name => $temporary,)* }
            }
        }
    };
}

codes! {
    /// Not a frame: malformed, or of an unknown type.
    BadFrame = "bad_frame", 400, false;
    /// No token, or one that does not hold.
    Unauthorized = "unauthorized", 401, false;
    /// The token ends within a minute: send `refresh`.
    TokenExpiring = "token_expiring", 401, false;
    /// No such thing, or the user may not know of it.
    NotFound = "not_found", 404, false;
    /// The user may know of it and may not do this.
    Forbidden = "forbidden", 403, false;
    /// More than is taken.
    TooLarge = "too_large", 413, false;
    /// Too often: wait `retry_after_ms`.
    RateLimited = "rate_limited", 429, true;
    /// More sends without their ack than `max_inflight`.
    WindowFull = "window_full", 429, true;
    /// The conversation has as many members, or waiting sends, as it may.
    ConversationFull = "conversation_full", 409, true;
    /// The outcome is unknown: send the same `client_msg_id` again.
    Unavailable = "unavailable", 503, true;
    /// The same `client_msg_id` with another body.
    DuplicateConflict = "duplicate_conflict", 409, false;
    /// Understood, and makes no sense.
    Invalid = "invalid", 400, false;
}

impl ErrorCode {
    /// The code of this name.
    pub fn of_str(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl From<Refusal> for ErrorCode {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => ErrorCode::NotFound,
            Refusal::Forbidden => ErrorCode::Forbidden,
            Refusal::DuplicateConflict => ErrorCode::DuplicateConflict,
            Refusal::ConversationFull => ErrorCode::ConversationFull,
            Refusal::Invalid(_) => ErrorCode::Invalid,
            Refusal::Unavailable => ErrorCode::Unavailable,
        }
    }
}
