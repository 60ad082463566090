//! The words of the wire for roles, kinds of conversation and changes.

use crate::entry::{Change, ConversationKind, Role};

impl Role {
    /// As it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Admin => "admin",
            Role::Member => "member",
        }
    }

    /// The role of this name.
    pub fn of_str(text: &str) -> Option<Self> {
        [Role::Owner, Role::Admin, Role::Member].into_iter().find(|role| role.as_str() == text)
    }
}

impl ConversationKind {
    /// As it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ConversationKind::Direct => "direct",
            ConversationKind::Group => "group",
        }
    }

    /// The kind of this name.
    pub fn of_str(text: &str) -> Option<Self> {
        [ConversationKind::Direct, ConversationKind::Group].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Change {
    /// As it is on the wire: `change` of a live frame, `kind` in history.
    pub fn name(&self) -> &'static str {
        match self {
            Change::Created { .. } => "created",
            Change::MemberAdded { .. } => "member_added",
            Change::MemberRemoved { .. } => "member_removed",
            Change::Renamed { .. } => "renamed",
            Change::Deleted => "deleted",
        }
    }
}
