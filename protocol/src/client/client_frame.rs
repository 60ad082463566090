//! What a client says, and the rules on it that both encodings share.
//!
//! `json_reader.rs` and `protobuf.rs` fill a [`SendFields`] as loosely as it was written; `check` is where
//! it becomes a [`Send`] or an error that says what to do.

use std::borrow::Cow;

use bytes::Bytes;

use super::body_memory::BodyMemory;
use super::decode_error::{DecodeCause, invalid};
use crate::entry::{Body, Message};
use crate::ids::{ConversationId, MessageId, Seq};
use crate::limits::{MEDIA_IDS_MAX, NAME_BYTES_MAX, SYNC_CONVERSATIONS_MAX};
use crate::user::{ClientMessageId, DeviceId};

/// Longest `client` of a `hello`: it is for logs only, and cut there.
const CLIENT_NAME_BYTES_MAX: usize = 128;

/// A frame from a client.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientFrame {
    /// Who it is. Always the first.
    Hello(Hello),
    /// A fresh token for the same user.
    Refresh {
        /// The token, unchecked.
        token: String,
    },
    /// A message.
    Send(Send),
    /// What it has seen.
    Sync(Sync),
    /// A sign of life, answered by a pong.
    Ping {
        /// Echoed.
        nonce: Option<Nonce>,
    },
}

/// The first frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The token, unchecked; may be left out after a Bearer upgrade.
    pub token: Option<String>,
    /// The device it says it is.
    pub device: Option<DeviceId>,
    /// Name and version of its software, for logs.
    pub client: Option<String>,
    /// Several JSON objects in one frame, one a line, are welcome.
    pub batch: bool,
    /// The newest resume cursor that it was given.
    pub resume: Option<String>,
}

/// A message to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub destination: Destination,
    /// The idempotency key.
    pub client_message_id: ClientMessageId,
    /// What.
    pub message: Message,
}

/// Where a send goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A conversation that the client knows.
    Conversation(ConversationId),
    /// The direct conversation with a user of the same tenant, by its `sub`.
    User(String),
}

/// What a client has seen of its conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// Each conversation once, with the last seq seen; at most [`SYNC_CONVERSATIONS_MAX`].
    pub last_seen: Vec<(ConversationId, Seq)>,
    /// Entries wanted at most of each conversation, if it said so.
    pub limit: Option<u32>,
}

/// What a ping carries and its pong echoes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// At most [`NAME_BYTES_MAX`] bytes.
    Text(String),
    /// A JSON number; as text in protobuf.
    Number(u64),
}

/// The fields of a send as they were written, in whichever encoding or API.
#[derive(Clone, Debug, Default)]
pub struct SendFields<'a> {
    /// The conversation, or else `to`.
    pub conversation_id: Option<u64>,
    /// A user's `sub`.
    pub to: Option<String>,
    /// The idempotency key.
    pub client_msg_id: Option<Cow<'a, str>>,
    /// Plain text, or else `ciphertext`.
    pub text: Option<Cow<'a, str>>,
    /// The raw bytes, with `alg`.
    pub ciphertext: Option<Bytes>,
    /// The client's name for the algorithm.
    pub alg: Option<String>,
    /// References to uploaded media.
    pub media_ids: Vec<String>,
    /// The message this one answers.
    pub reply_to: Option<u64>,
}

impl SendFields<'_> {
    /// Holds them against the rules that every send must keep. A text that is borrowed is put into `bodies`.
    ///
    /// # Errors
    /// [`DecodeCause`], whose text says what to do.
    pub fn check(self, bodies: &mut BodyMemory) -> Result<Send, DecodeCause> {
        let client_message_id = match self.client_msg_id.as_deref() {
            None | Some("") => {
                return Err(invalid("send needs a client_msg_id of 1 to 64 bytes, a UUID for example"));
            }
            Some(id) => {
                ClientMessageId::new(id).map_err(|_| invalid("client_msg_id has at most 64 bytes"))?
            }
        };
        let destination = match (self.conversation_id, self.to) {
            (Some(conversation), None) => Destination::Conversation(ConversationId(conversation)),
            (None, Some(user)) => Destination::User(name(user, "to")?),
            (Some(_), Some(_)) => return Err(invalid("send takes conversation_id or to, not both")),
            (None, None) => return Err(invalid("send needs a conversation_id, or a user in to")),
        };
        if self.media_ids.len() > MEDIA_IDS_MAX {
            return Err(DecodeCause::TooLarge(format!("media_ids has at most {MEDIA_IDS_MAX} elements")));
        }
        let media_ids = self
            .media_ids
            .into_iter()
            .map(|media| name(media, "each of media_ids"))
            .collect::<Result<_, _>>()?;
        let message = Message {
            body: body(self.text, self.ciphertext, self.alg, bodies)?,
            media_ids,
            reply_to: self.reply_to.map(MessageId),
        };
        if message.body.is_empty() && message.media_ids.is_empty() {
            return Err(invalid("send needs text, or ciphertext with alg, or media_ids"));
        }
        Ok(Send { destination, client_message_id, message })
    }
}

impl Sync {
    /// Each conversation may be named once, and only so many.
    pub(super) fn check(mut self) -> Result<Self, DecodeCause> {
        if self.last_seen.len() > SYNC_CONVERSATIONS_MAX {
            return Err(too_many_conversations());
        }
        self.last_seen.sort_unstable();
        if self.last_seen.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(invalid("last_seen names a conversation twice"));
        }
        if self.limit == Some(0) {
            return Err(invalid("limit is at least 1"));
        }
        Ok(self)
    }
}

impl Hello {
    pub(super) fn check(
        token: Option<String>,
        device_id: Option<String>,
        client: Option<String>,
        batch: bool,
        resume: Option<String>,
    ) -> Result<Self, DecodeCause> {
        let device = device_id
            .map(|id| DeviceId::new(&id).map_err(|_| invalid("device_id has 1 to 64 bytes")))
            .transpose()?;
        let client = client.map(|mut client| {
            client.truncate(client.floor_char_boundary(CLIENT_NAME_BYTES_MAX));
            client
        });
        Ok(Self { token, device, client, batch, resume })
    }
}

impl Nonce {
    pub(super) fn check(self) -> Result<Self, DecodeCause> {
        match self {
            Nonce::Text(text) if text.len() > NAME_BYTES_MAX => Err(invalid("nonce has at most 64 bytes")),
            nonce => Ok(nonce),
        }
    }
}

pub(super) fn too_many_conversations() -> DecodeCause {
    DecodeCause::TooLarge(format!(
        "last_seen has at most {SYNC_CONVERSATIONS_MAX} conversations: sync the rest after sync_done"
    ))
}

fn body(
    text: Option<Cow<'_, str>>,
    ciphertext: Option<Bytes>,
    alg: Option<String>,
    bodies: &mut BodyMemory,
) -> Result<Body, DecodeCause> {
    match (text, ciphertext, alg) {
        (Some(_), Some(_), _) => Err(invalid("send takes text or ciphertext, not both")),
        (_, None, Some(_)) => Err(invalid("alg goes with ciphertext")),
        (_, Some(_), None) => Err(invalid("ciphertext needs its alg")),
        (None, Some(data), Some(alg)) => Ok(Body::Ciphertext { alg: name(alg, "alg")?, data }),
        // Without either it is a message of media alone.
        (text, None, None) => Ok(Body::Text(match text.unwrap_or_default() {
            Cow::Borrowed(text) => bodies.copy(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        })),
    }
}

fn name(text: String, what: &str) -> Result<String, DecodeCause> {
    match text.len() {
        1..=NAME_BYTES_MAX => Ok(text),
        _ => Err(invalid(format!("{what} has 1 to {NAME_BYTES_MAX} bytes"))),
    }
}
