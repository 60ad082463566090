//! A log entry as a frame or a history page shows it, for the history: its hash, and whether its body
//! proves its origin.

use std::borrow::Cow;

use ringway_protocol::client::LogItem;
use ringway_protocol::entry::{Body, Change};
use ringway_protocol::ids::ConversationId;

use crate::history::Entry;
use crate::payload::{self, Payload};

/// When a message was sent, as its body tells. Both are 0 for what is no message of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendTimes {
    /// When the schedule wanted it.
    pub intended: u64,
    /// When its first attempt went out.
    pub began: u64,
}

/// What an item says, and when its send was.
///
/// `conversation` is the one that the frame or the request names: an item of another one is a forgery.
pub fn entry(item: &LogItem, conversation: ConversationId) -> (Entry<'_>, SendTimes) {
    let placement = item.placement();
    let (mut entry, times) = match item {
        LogItem::Message(message) => {
            let body: &[u8] = match &message.message.body {
                Body::Text(text) => text,
                Body::Ciphertext { data, .. } => data,
            };
            let told = message.client_message_id.as_ref().map(|id| id.as_str());
            let sender = placement.from.sub();
            let (client_message_id, times, forgery) = match Payload::read(body) {
                Ok(payload) => {
                    let proof = payload.matches(placement.conversation, sender, told);
                    let times = SendTimes {
                        intended: payload.intended,
                        began: payload.intended.saturating_add(payload.delay),
                    };
                    (payload.client_message_id, times, proof.err())
                }
                Err(forgery) => (told.unwrap_or(""), SendTimes::default(), Some(forgery)),
            };
            let entry = Entry {
                conversation: placement.conversation,
                seq: placement.seq,
                message: placement.message,
                hash: payload::hash(body),
                sender: Cow::Borrowed(sender),
                client_message_id: Cow::Borrowed(client_message_id),
                forgery: Cow::Borrowed(forgery.map_or("", payload::Forgery::as_str)),
                change: Cow::Borrowed(""),
                users: Vec::new(),
            };
            (entry, times)
        }
        LogItem::Change(change) => {
            let users: Vec<&str> = users(&change.change);
            let sender = placement.from.sub();
            let name = change.change.name();
            let entry =
                Entry::change(placement.conversation, placement.seq, placement.message, sender, name, users);
            (entry, SendTimes::default())
        }
    };
    if placement.conversation != conversation {
        entry.forgery = Cow::Borrowed(payload::Forgery::Conversation.as_str());
    }
    (entry, times)
}

/// The users that a change concerns, in a fixed order.
pub fn users(change: &Change) -> Vec<&str> {
    let mut users: Vec<&str> = match change {
        Change::Created { members, .. } => members.iter().map(|(user, _)| user.sub()).collect(),
        Change::MemberAdded { user, .. } | Change::MemberRemoved { user } => vec![user.sub()],
        Change::Renamed { .. } | Change::Deleted => Vec::new(),
    };
    users.sort_unstable();
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_protocol::client::{ChangeItem, MessageItem, Placement};
    use ringway_protocol::entry::{Message, Role};
    use ringway_protocol::ids::{MessageId, Seq, Timestamp};
    use ringway_protocol::user::UserId;

    fn message(body: Vec<u8>) -> LogItem {
        LogItem::Message(MessageItem {
            placement: placement("u1"),
            message: Message { body: Body::Text(body.into()), media_ids: Vec::new(), reply_to: None },
            client_message_id: None,
        })
    }

    fn placement(from: &str) -> Placement {
        Placement {
            conversation: ConversationId(7),
            seq: Seq(2),
            message: MessageId(9),
            server_ts: Timestamp(1),
            from: UserId::new("", from).unwrap(),
        }
    }

    #[test]
    fn a_body_tells_its_send_and_a_foreign_one_is_a_forgery() {
        let mut body = Vec::new();
        let payload = Payload {
            conversation: ConversationId(7),
            sender: "u1",
            client_message_id: "u1-3",
            counter: 3,
            intended: 5,
            delay: 2,
        };
        payload.write(100, &mut body);
        let item = message(body.clone());
        let (seen, times) = entry(&item, ConversationId(7));
        assert_eq!((&*seen.client_message_id, &*seen.forgery), ("u1-3", ""));
        assert_eq!(times, SendTimes { intended: 5, began: 7 });
        assert_eq!(&*entry(&item, ConversationId(8)).0.forgery, "conversation");
        body[0] ^= 1;
        assert_eq!(&*entry(&message(body), ConversationId(7)).0.forgery, "crc");
        assert_eq!(&*entry(&message(b"hello".to_vec()), ConversationId(7)).0.forgery, "form");
    }

    #[test]
    fn a_creation_names_its_members_in_order() {
        let member = |name| (UserId::new("", name).unwrap(), Role::Member);
        let change = Change::Created {
            kind: ringway_protocol::entry::ConversationKind::Group,
            name: "g".into(),
            members: vec![member("b"), member("a")],
        };
        let item = LogItem::Change(ChangeItem { placement: placement("a"), change });
        let (seen, _) = entry(&item, ConversationId(7));
        assert_eq!((&*seen.change, seen.users), ("created", vec!["a".into(), "b".into()]));
    }
}
