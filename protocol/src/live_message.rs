//! A message as its entry's bytes have it, read and told to clients without an allocation.
//!
//! Nearly all that a gateway delivers is this: a text or a ciphertext, and no media. [`LiveMessage::read`]
//! takes just the form that `Entry::encode` writes; whatever else an entry may be, the caller decodes whole
//! (`entry_codec.rs`). `client/` writes it as JSON or protobuf, byte for byte as the owned frame.

use crate::ids::{ConversationId, MessageId, Seq, Timestamp};
use crate::limits::NAME_BYTES_MAX;
use crate::protobuf_fields::FieldReader;

/// A message without media, borrowed from its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveMessage<'a> {
    /// The conversation whose log it is in.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// Its id.
    pub message: MessageId,
    /// When it was accepted.
    pub server_ts: Timestamp,
    /// The sender, as `UserId::as_bytes` has it.
    pub sender: &'a str,
    /// The sender's idempotency key.
    pub client_message_id: Option<&'a str>,
    /// What it says.
    pub body: LiveBody<'a>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
}

/// The body of a message, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveBody<'a> {
    /// Plain text.
    Text(&'a str),
    /// End-to-end encrypted.
    Ciphertext {
        /// The client's name for the algorithm.
        alg: &'a str,
        /// The raw bytes.
        data: &'a [u8],
    },
}

impl<'a> LiveMessage<'a> {
    /// Reads an entry. `None` if it is none of these, or damaged: `Entry::decode_shared` tells which.
    pub fn read(entry: &'a [u8]) -> Option<Self> {
        let mut fields = FieldReader::new(entry);
        let conversation = ConversationId(fields.fixed(1)?);
        let seq = Seq(fields.varint(2)?);
        let message = MessageId(fields.fixed(3)?);
        let server_ts = Timestamp(fields.varint(4)?);
        let _epoch = fields.varint(5)?;
        let sender = text(fields.bytes(6)?)?;
        let client_message_id = match fields.bytes(7)? {
            [] => None,
            id => Some(text(id).filter(|id| id.len() <= NAME_BYTES_MAX)?),
        };
        let mut content = FieldReader::new(fields.optional_bytes(8)??);
        if !fields.is_at_end() {
            return None;
        }
        let body = match content.optional_bytes(1)? {
            Some(said) => LiveBody::Text(text(said)?),
            None => {
                let mut ciphertext = FieldReader::new(content.optional_bytes(2)??);
                let (alg, data) = (text(ciphertext.bytes(1)?)?, ciphertext.bytes(2)?);
                if !ciphertext.is_at_end() {
                    return None;
                }
                LiveBody::Ciphertext { alg, data }
            }
        };
        let reply_to = Some(MessageId(content.fixed(4)?)).filter(|message| message.0 != 0);
        let read = Self { conversation, seq, message, server_ts, sender, client_message_id, body, reply_to };
        (content.is_at_end() && read.has_a_sender()).then_some(read)
    }

    /// The sender's id within its tenant: what clients see as `from`.
    pub fn from(&self) -> &'a str {
        let tenant_len = usize::from(self.sender.as_bytes().first().copied().unwrap_or(0));
        self.sender.get(1 + tenant_len..).unwrap_or_default()
    }

    fn has_a_sender(&self) -> bool {
        let tenant_len = self.sender.as_bytes().first().map_or(usize::MAX, |len| usize::from(*len));
        tenant_len <= NAME_BYTES_MAX && (1..=NAME_BYTES_MAX).contains(&self.from().len())
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{self, Encoding, ServerFrame};
    use crate::entry::{Body, Change, Content, Entry, Message};
    use crate::ids::Epoch;
    use crate::user::{ClientMessageId, UserId};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn body() -> impl Strategy<Value = Body> {
        prop_oneof![
            any::<String>().prop_map(|text| Body::Text(text.into())),
            ("[a-z]{1,64}", any::<Vec<u8>>())
                .prop_map(|(alg, data)| Body::Ciphertext { alg, data: data.into() }),
        ]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let id = proptest::option::of("[ -~ü]{1,32}");
        ((any::<[u64; 5]>(), any::<u32>()), "[a-z]{0,64}", "[ -~]{1,64}", id, body(), any::<u64>()).prop_map(
            |((numbers, small), tenant, sub, id, body, reply_to)| Entry {
                conversation: ConversationId(numbers[0]),
                seq: Seq(numbers[1]),
                message: MessageId(numbers[2]),
                server_ts: Timestamp(u64::from(small)),
                epoch: Epoch(numbers[3]),
                sender: UserId::new(&tenant, &sub).unwrap(),
                client_message_id: id.map(|id| ClientMessageId::new(&id).unwrap()),
                content: Content::Message(Message {
                    body,
                    media_ids: Vec::new(),
                    reply_to: (reply_to % 3 != 0).then_some(MessageId(numbers[4].max(1))),
                }),
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_told_as_the_owned_frame_is(entry in entry(), for_sender: bool) {
            let bytes = entry.encode();
            let live = LiveMessage::read(&bytes).expect("a message without media");
            prop_assert_eq!(live.sender.as_bytes(), entry.sender.as_bytes());
            let owned = ServerFrame::from_entry(Entry::decode(&bytes).unwrap(), for_sender);
            for encoding in Encoding::ALL {
                let (mut expected, mut told) = (Vec::new(), Vec::new());
                client::encode(encoding, &owned, &mut expected);
                client::encode_live(encoding, &live, for_sender, &mut told);
                prop_assert_eq!(&told, &expected, "{:?}", encoding);
            }
        }

        #[test]
        fn what_it_takes_is_what_the_whole_reader_takes(
            entry in entry(),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut bytes = entry.encode().to_vec();
            let place = flip.index(bytes.len());
            bytes[place] ^= 1 << bit;
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                if let Some(live) = LiveMessage::read(bytes) {
                    let whole = Entry::decode(bytes).expect("the whole reader takes it too");
                    prop_assert_eq!(whole.seq, live.seq);
                    prop_assert_eq!(whole.sender.as_bytes(), live.sender.as_bytes());
                    let Content::Message(message) = whole.content else { panic!("a message") };
                    prop_assert_eq!(message.reply_to, live.reply_to);
                    match (&message.body, live.body) {
                        (Body::Text(whole), LiveBody::Text(text)) => {
                            prop_assert_eq!(&whole[..], text.as_bytes());
                        }
                        (Body::Ciphertext { alg, data }, LiveBody::Ciphertext { alg: a, data: d }) => {
                            prop_assert_eq!((alg.as_str(), &data[..]), (a, d));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_change_and_a_message_with_media_are_for_the_whole_reader() {
        let with = |content| Entry {
            conversation: ConversationId(1),
            seq: Seq(1),
            message: MessageId(1),
            server_ts: Timestamp(1),
            epoch: Epoch(1),
            sender: UserId::new("", "alice").unwrap(),
            client_message_id: None,
            content,
        };
        let body = Body::Text(Bytes::from_static(b"look"));
        let media = Message { body, media_ids: vec!["m".to_owned()], reply_to: None };
        for content in [Content::Change(Change::Deleted), Content::Message(media)] {
            assert_eq!(LiveMessage::read(&with(content).encode()), None);
        }
        assert_eq!(LiveMessage::read(b""), None);
    }
}
