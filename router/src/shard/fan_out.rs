//! An entry that became durable, to the connections of the members as of that entry.
//!
//! The body goes once to each endpoint, with 16 bytes for each recipient. Left out are the connection that
//! sent it and is told by its ack, and connections in the middle of a sync (`holds.rs`).

use std::sync::Arc;

use bytes::Bytes;
use ringway_protocol::ids::{ConnectionId, ConversationId, EndpointId, Seq};
use ringway_protocol::trunk::{BodyReference, FanOutBody, Notice};
use ringway_protocol::user::UserId;

use super::directory::Directory;
use super::event::Action;
use super::holds::Holds;
use super::members::Members;

/// Who is there, and who may be told.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) directory: Directory,
    pub(crate) holds: Holds,
    next_body: u64,
}

/// Whom an entry is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience<'a> {
    /// The members as of the entry.
    pub(crate) members: &'a Members,
    /// Who was removed by it, and sees it as the last.
    pub(crate) removed: Option<&'a UserId>,
    /// Connections that have their ack of it instead.
    pub(crate) acked: &'a [ConnectionId],
}

impl FanOut {
    pub(crate) fn new(directory: Directory) -> Self {
        Self { directory, holds: Holds::default(), next_body: 0 }
    }

    /// Tells everybody who is connected.
    pub(crate) fn deliver(
        &mut self,
        conversation: ConversationId,
        seq: Seq,
        entry: &Bytes,
        audience: Audience<'_>,
        actions: &mut Vec<Action>,
    ) {
        let body = BodyReference(self.next_body);
        let held = self.holds.any(conversation);
        let mut endpoints: Vec<(EndpointId, Vec<Notice>)> = Vec::new();
        for user in audience.members.users().chain(audience.removed) {
            for connection in self.directory.connections(user) {
                if audience.acked.contains(&connection)
                    || held && !self.holds.lets_through(connection, conversation, seq)
                {
                    continue;
                }
                let notice = Notice { connection, body };
                // A machine has a few endpoints: looking through them beats a map.
                match endpoints.iter_mut().find(|(endpoint, _)| *endpoint == connection.endpoint()) {
                    Some((_, notices)) => notices.push(notice),
                    None => endpoints.push((connection.endpoint(), vec![notice])),
                }
            }
        }
        if endpoints.is_empty() {
            return;
        }
        self.next_body += 1;
        let body = Arc::new(FanOutBody { reference: body, conversation, seq, entry: entry.clone() });
        for (endpoint, notices) in endpoints {
            actions.push(Action::FanOut { endpoint, body: Arc::clone(&body), notices });
        }
    }
}
