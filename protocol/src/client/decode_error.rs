//! Why a payload is not a frame, in words that tell a client's author what to change.

use super::error_code::ErrorCode;
use super::server_frame::ErrorFrame;
use crate::limits::NAME_BYTES_MAX;

/// A payload that could not be taken as a frame. The socket stays open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct DecodeError {
    /// What is wrong.
    pub cause: DecodeCause,
    /// The `client_msg_id` of the send that it was, if it could be read, cut at [`NAME_BYTES_MAX`] bytes.
    pub client_message_id: Option<String>,
}

/// What is wrong with a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeCause {
    /// Not JSON, or not protobuf. Ten in a row close with 4000.
    #[error("not a frame: {0}")]
    BadFrame(String),
    /// A frame of a type that this version does not know: also `bad_frame`.
    #[error("unknown type {0:?}: this server knows hello, refresh, send, sync and ping")]
    UnknownType(String),
    /// A frame with a field that is missing, twice there, or not what it may be.
    #[error("{0}")]
    Invalid(String),
    /// A list with more than it may hold.
    #[error("{0}")]
    TooLarge(String),
}

impl DecodeError {
    /// The code of the `error` frame that answers it.
    pub fn code(&self) -> ErrorCode {
        match self.cause {
            DecodeCause::BadFrame(_) | DecodeCause::UnknownType(_) => ErrorCode::BadFrame,
            DecodeCause::Invalid(_) => ErrorCode::Invalid,
            DecodeCause::TooLarge(_) => ErrorCode::TooLarge,
        }
    }

    /// The answer.
    pub fn to_frame(&self) -> ErrorFrame {
        ErrorFrame {
            client_message_id: self.client_message_id.clone(),
            ..ErrorFrame::new(self.code(), self.to_string())
        }
    }

    pub(super) fn new(cause: DecodeCause, client_message_id: Option<&str>) -> Self {
        Self { cause, client_message_id: client_message_id.map(cut_client_message_id) }
    }
}

impl From<DecodeCause> for DecodeError {
    fn from(cause: DecodeCause) -> Self {
        Self { cause, client_message_id: None }
    }
}

pub(super) fn invalid(text: impl Into<String>) -> DecodeCause {
    DecodeCause::Invalid(text.into())
}

/// An id that an error echoes: its first 64 bytes, to the last whole character.
pub fn cut_client_message_id(id: &str) -> String {
    id[..id.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}
