//! Ids and names as they stand in paths and bodies.

use ringway_protocol::ids::{ConversationId, MessageId};
use ringway_protocol::user::{ClientMessageId, UserId};

use crate::problem::Problem;

/// A conversation in a path: what is no id names nothing.
///
/// # Errors
/// `not_found`, as for an id that does not exist.
pub(crate) fn conversation_in_path(text: &str) -> Result<ConversationId, Problem> {
    decimal(text).map(ConversationId).ok_or_else(Problem::not_found)
}

/// A conversation in a body.
///
/// # Errors
/// `invalid` if it is no decimal string.
pub(crate) fn conversation_in_body(text: &str) -> Result<ConversationId, Problem> {
    decimal(text)
        .map(ConversationId)
        .ok_or_else(|| Problem::invalid("conversation_id is a decimal number as a string"))
}

/// A message in a body.
///
/// # Errors
/// `invalid` if it is no decimal string.
pub(crate) fn message_in_body(text: &str) -> Result<MessageId, Problem> {
    decimal(text).map(MessageId).ok_or_else(|| Problem::invalid("reply_to is a decimal number as a string"))
}

/// Another user of the caller's tenant.
///
/// # Errors
/// `invalid` if it cannot be a user's id.
pub(crate) fn user(caller: &UserId, sub: &str) -> Result<UserId, Problem> {
    caller.neighbour(sub).map_err(|error| Problem::invalid(format!("a user id: {error}")))
}

/// An idempotency key.
///
/// # Errors
/// `invalid` if it is empty or too long.
pub(crate) fn key(what: &str, text: &str) -> Result<ClientMessageId, Problem> {
    ClientMessageId::new(text).map_err(|error| Problem::invalid(format!("{what}: {error}")))
}

/// Digits only: a sign or a space would make a second name of one thing.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(conversation_in_path("42"), Ok(ConversationId(42)));
        for bad in ["", "+42", " 42", "-1", "4a", "18446744073709551616"] {
            assert_eq!(conversation_in_path(bad), Err(Problem::not_found()), "{bad:?}");
            assert!(conversation_in_body(bad).is_err(), "{bad:?}");
        }
    }
}
