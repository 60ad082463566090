//! Changes of a group: who may make them, and what they do. Each takes a place in the log.
//!
//! The owner does everything; owner and admins add and remove members; anybody may leave. Nobody gives a
//! role above their own, and an admin does not remove the owner. A group has one owner, so `Owner` is not
//! given: when the owner leaves, ownership passes on (`members.rs`). A direct conversation keeps its
//! members for ever. Who is no member is told the same as of a conversation that does not exist.

use std::sync::Arc;

use ringway_protocol::entry::{Change, ConversationKind, Role};
use ringway_protocol::limits::{CONVERSATION_NAME_BYTES_MAX, GROUP_MEMBERS_MAX};
use ringway_protocol::trunk::{Operation, Outcome, Refusal};
use ringway_protocol::user::UserId;
use ringway_store_writer::store::IndexChange;

use super::conversation::Conversation;
use super::event::Action;
use super::requests::Ticket;
use super::shared::Shared;

/// What a change does to the store's indexes.
pub(crate) fn index_of(change: &Change) -> IndexChange {
    match change.clone() {
        Change::Created { kind, name, members } => IndexChange::Created { kind, name, members },
        Change::MemberAdded { user, role } => IndexChange::MemberAdded { user, role },
        Change::MemberRemoved { user } => IndexChange::MemberRemoved { user },
        Change::Renamed { name } => IndexChange::Renamed { name },
        Change::Deleted => IndexChange::Deleted,
    }
}

impl Conversation {
    /// Does an operation of a caller that is a change.
    pub(crate) fn change(
        &mut self,
        shared: &mut Shared,
        ticket: Ticket,
        caller: UserId,
        operation: Operation,
        actions: &mut Vec<Action>,
    ) {
        let outcome = match self.decide(&caller, operation) {
            Err(refusal) => Err(refusal),
            Ok(None) => Ok(Outcome::Changed { seq: None }),
            Ok(Some(_)) if !shared.may_append(1) => {
                return shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
            }
            Ok(Some(change)) => {
                let removed = self.apply(&change);
                let row = self.append_change(shared, caller, change, removed);
                Ok(Outcome::Changed { seq: Some(row.seq) })
            }
        };
        self.answer(shared, ticket, outcome, actions);
    }

    /// What an operation comes to: a change, nothing to change, or a refusal.
    fn decide(&self, caller: &UserId, operation: Operation) -> Result<Option<Change>, Refusal> {
        let role = self.role(caller).ok_or(Refusal::NotFound)?;
        if self.deleted {
            return match operation {
                Operation::Delete { .. } => Ok(None),
                _ => Err(Refusal::Invalid("this conversation was deleted: it takes no change")),
            };
        }
        if self.kind == ConversationKind::Direct {
            return Err(Refusal::Invalid("a direct conversation keeps its members and has no name"));
        }
        match operation {
            Operation::AddMember { user, role: given, .. } => self.decide_to_add(caller, role, user, given),
            Operation::RemoveMember { user, .. } => self.decide_to_remove(caller, role, user),
            Operation::Rename { name, .. } => {
                permit(role == Role::Owner)?;
                if name.len() > CONVERSATION_NAME_BYTES_MAX {
                    return Err(Refusal::Invalid("a conversation's name has at most 256 bytes"));
                }
                Ok((name != self.name).then_some(Change::Renamed { name }))
            }
            Operation::Delete { .. } => {
                permit(role == Role::Owner)?;
                Ok(Some(Change::Deleted))
            }
            Operation::Send { .. }
            | Operation::Create { .. }
            | Operation::SyncPage { .. }
            | Operation::SyncEnd { .. }
            | Operation::Heads { .. } => Err(Refusal::Invalid("not a change of a conversation")),
        }
    }

    fn decide_to_add(
        &self,
        caller: &UserId,
        role: Role,
        user: UserId,
        given: Role,
    ) -> Result<Option<Change>, Refusal> {
        permit(role != Role::Member)?;
        if user.tenant() != caller.tenant() {
            return Err(Refusal::NotFound);
        }
        if given == Role::Owner && self.role(&user) != Some(Role::Owner) {
            return Err(Refusal::Invalid("a group has one owner: add an admin or a member"));
        }
        if self.members.contains(&user) {
            return Ok(None);
        }
        if self.members.len() >= GROUP_MEMBERS_MAX {
            return Err(Refusal::ConversationFull);
        }
        Ok(Some(Change::MemberAdded { user, role: given }))
    }

    fn decide_to_remove(&self, caller: &UserId, role: Role, user: UserId) -> Result<Option<Change>, Refusal> {
        if user != *caller {
            permit(role != Role::Member)?;
            permit(role == Role::Owner || self.role(&user) != Some(Role::Owner))?;
        }
        Ok(self.members.contains(&user).then_some(Change::MemberRemoved { user }))
    }

    /// Makes the effect of a change on this state; returns who was removed.
    fn apply(&mut self, change: &Change) -> Option<UserId> {
        match change {
            Change::Created { .. } => None,
            Change::MemberAdded { user, role } => {
                Arc::make_mut(&mut self.members).insert(user.clone(), *role);
                None
            }
            Change::MemberRemoved { user } => {
                Arc::make_mut(&mut self.members).remove(user);
                Some(user.clone())
            }
            Change::Renamed { name } => {
                self.name.clone_from(name);
                None
            }
            Change::Deleted => {
                self.deleted = true;
                None
            }
        }
    }
}

fn permit(allowed: bool) -> Result<(), Refusal> {
    if allowed { Ok(()) } else { Err(Refusal::Forbidden) }
}
