//! Ids and names as they stand in paths and bodies.

use ringway_protocol::ids::{ConversationId, MessageId};
use ringway_protocol::user::{ClientMessageId, UserId};

use crate::problem::Problem;

/// What a number of ours is, in the words of a problem.
pub(crate) const CANONICAL: &str = "a decimal number without sign, spaces or leading zeros";

/// A conversation in a path.
///
/// # Errors
/// `invalid` if it is not the one spelling of an id: two URLs of one thing would be two to a cache or a log.
pub(crate) fn conversation_in_path(text: &str) -> Result<ConversationId, Problem> {
    decimal(text)
        .map(ConversationId)
        .ok_or_else(|| Problem::invalid(format!("the conversation in the path is {CANONICAL}, of 64 bits")))
}

/// A conversation in a body.
///
/// # Errors
/// `invalid` if it is not the one spelling of an id.
pub(crate) fn conversation_in_body(text: &str) -> Result<ConversationId, Problem> {
    decimal(text)
        .map(ConversationId)
        .ok_or_else(|| Problem::invalid(format!("conversation_id is, as a string, {CANONICAL}")))
}

/// A message in a body.
///
/// # Errors
/// `invalid` if it is not the one spelling of an id.
pub(crate) fn message_in_body(text: &str) -> Result<MessageId, Problem> {
    decimal(text)
        .map(MessageId)
        .ok_or_else(|| Problem::invalid(format!("reply_to is, as a string, {CANONICAL}")))
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

/// A number in its one spelling: a sign, a space or a leading zero would make a second name of one thing.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(conversation_in_path("42"), Ok(ConversationId(42)));
        assert_eq!(conversation_in_path("0"), Ok(ConversationId(0)));
        for bad in ["", "+42", "042", "00", "-0", " 42", "-1", "4a", "18446744073709551616"] {
            let problem = conversation_in_path(bad).unwrap_err();
            assert_eq!(problem.code(), Code::Invalid, "{bad:?}");
            assert!(conversation_in_body(bad).is_err(), "{bad:?}");
            assert!(message_in_body(bad).is_err(), "{bad:?}");
        }
    }
}
