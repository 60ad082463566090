//! The body of a test message, which proves its own origin.
//!
//! ```text
//! conversation|sender|client message id|counter|intended send time|delay|padding|crc
//! ```
//! Whoever receives it can tell, from these bytes alone, which send they belong to (invariant I13), and how
//! long ago that send was meant to happen (the delivery latency of an open-loop schedule) and did happen: the
//! delay is from the one to the other. The CRC-32 is of all the bytes before it. A name that holds `|` cannot
//! be told from two fields, so users are named without.

use std::fmt;
use std::io::Write;

use ringway_protocol::ids::ConversationId;

/// Between the fields.
const SEPARATOR: u8 = b'|';

/// `|` and eight digits of CRC at the end.
const CHECKSUM_BYTES: usize = 9;

/// What a body says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The conversation it was sent to.
    pub conversation: ConversationId,
    /// The user who sent it.
    pub sender: &'a str,
    /// The sender's client message id.
    pub client_message_id: &'a str,
    /// Counts the sender's messages.
    pub counter: u64,
    /// When the schedule wanted it sent, in nanoseconds of [`crate::clock`].
    pub intended: u64,
    /// How long after that its first attempt went out, in nanoseconds.
    pub delay: u64,
}

/// How a body failed to prove its origin. The text of it is the `proof` of a history line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// It has not the form of a body of ours.
    Form,
    /// The checksum is not that of the bytes.
    Checksum,
    /// It names another conversation than the one it came in.
    Conversation,
    /// It names another sender than the frame it came in.
    Sender,
    /// It names another client message id than the frame it came in.
    ClientMessageId,
}

impl Forgery {
    /// One word for the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Forgery::Form => "form",
            Forgery::Checksum => "crc",
            Forgery::Conversation => "conversation",
            Forgery::Sender => "sender",
            Forgery::ClientMessageId => "client_msg_id",
        }
    }
}

impl fmt::Display for Forgery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> Payload<'a> {
    /// Appends the body to `out`, padded to `bytes` in all; it is longer where its fields need more.
    pub fn write(&self, bytes: usize, out: &mut Vec<u8>) {
        let start = out.len();
        write!(
            out,
            "{}|{}|{}|{}|{}|{}|",
            self.conversation, self.sender, self.client_message_id, self.counter, self.intended, self.delay
        )
        .expect("a vector takes every byte");
        let used = out.len() - start + CHECKSUM_BYTES;
        out.resize(out.len() + bytes.saturating_sub(used), b'.');
        let checksum = crc32fast::hash(&out[start..]);
        write!(out, "|{checksum:08x}").expect("a vector takes every byte");
    }

    /// Reads a body and checks its checksum.
    ///
    /// # Errors
    /// [`Forgery::Form`] or [`Forgery::Checksum`].
    pub fn read(body: &'a [u8]) -> Result<Self, Forgery> {
        let split = body.len().checked_sub(CHECKSUM_BYTES).ok_or(Forgery::Form)?;
        let (claims, checksum) = body.split_at(split);
        let checksum = std::str::from_utf8(checksum).map_err(|_| Forgery::Checksum)?;
        let checksum = checksum.strip_prefix('|').ok_or(Forgery::Checksum)?;
        let checksum = u32::from_str_radix(checksum, 16).map_err(|_| Forgery::Checksum)?;
        if checksum != crc32fast::hash(claims) {
            return Err(Forgery::Checksum);
        }
        let mut fields =
            claims.splitn(7, |byte| *byte == SEPARATOR).map(|field| std::str::from_utf8(field).ok());
        let mut field = || fields.next().flatten().ok_or(Forgery::Form);
        let number = |text: &str| text.parse::<u64>().map_err(|_| Forgery::Form);
        Ok(Self {
            conversation: ConversationId(number(field()?)?),
            sender: field()?,
            client_message_id: field()?,
            counter: number(field()?)?,
            intended: number(field()?)?,
            delay: number(field()?)?,
        })
    }

    /// Whether the body belongs to the frame it came in. A frame does not always tell the client message
    /// id.
    ///
    /// # Errors
    /// Which of the three differs.
    pub fn matches(
        &self,
        conversation: ConversationId,
        sender: &str,
        client_message_id: Option<&str>,
    ) -> Result<(), Forgery> {
        if self.conversation != conversation {
            return Err(Forgery::Conversation);
        }
        if self.sender != sender {
            return Err(Forgery::Sender);
        }
        if client_message_id.is_some_and(|id| id != self.client_message_id) {
            return Err(Forgery::ClientMessageId);
        }
        Ok(())
    }
}

/// The 64-bit hash by which a history names a body: FNV-1a over words of eight bytes, then a finaliser, so
/// that a body of 128 bytes costs 16 steps.
pub fn hash(body: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ body.len() as u64;
    let mut words = body.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        hash = (hash ^ word).wrapping_mul(PRIME).rotate_left(29);
    }
    for byte in words.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    ringway_protocol::ids::mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Vec<u8> {
        let mut body = Vec::new();
        example().write(128, &mut body);
        body
    }

    fn example() -> Payload<'static> {
        Payload {
            conversation: ConversationId(7),
            sender: "u1",
            client_message_id: "u1-9",
            counter: 9,
            intended: 123_456,
            delay: 78,
        }
    }

    #[test]
    fn a_body_gives_back_what_it_was_made_of() {
        let body = body();
        assert_eq!(body.len(), 128);
        assert_eq!(Payload::read(&body), Ok(example()));
    }

    #[test]
    fn a_body_shorter_than_its_fields_keeps_them() {
        let mut body = Vec::new();
        example().write(1, &mut body);
        assert_eq!(Payload::read(&body), Ok(example()));
    }

    #[test]
    fn one_wrong_bit_anywhere_is_found() {
        let good = body();
        for index in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[index / 8] ^= 1 << (index % 8);
            // Upper-case hexadecimal digits have the same value: the one change that is none.
            let same_value = bad.to_ascii_lowercase() == good && index / 8 > good.len() - CHECKSUM_BYTES;
            assert!(same_value || Payload::read(&bad).is_err(), "bit {index}");
            assert_ne!(hash(&bad), hash(&good));
        }
    }

    #[test]
    fn a_body_in_the_wrong_frame_is_found() {
        let payload = example();
        assert_eq!(payload.matches(ConversationId(7), "u1", Some("u1-9")), Ok(()));
        assert_eq!(payload.matches(ConversationId(8), "u1", None), Err(Forgery::Conversation));
        assert_eq!(payload.matches(ConversationId(7), "u2", None), Err(Forgery::Sender));
        assert_eq!(payload.matches(ConversationId(7), "u1", Some("x")), Err(Forgery::ClientMessageId));
    }

    #[test]
    fn no_bytes_of_a_stranger_panic() {
        for body in [&b""[..], b"|", b"||||||", b"1|a|b|2|3|\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert!(Payload::read(body).is_err());
        }
    }
}
