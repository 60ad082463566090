//! The members of a conversation: a pure function of its log up to a seq.
//!
//! A copy is made only when the set changes while an entry in flight still needs the old one, so that
//! each entry is shown to the members *as of that entry*.
//!
//! A group has one owner, its creator. When the owner leaves, the member who has been in longest is the
//! owner from then on; of several who joined together, the first by id. No log entry says so, because none is needed: the log says who joined when.

use std::collections::BTreeMap;

use ringway_protocol::entry::Role;
use ringway_protocol::user::UserId;

/// Who is in, and as what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    by_user: BTreeMap<UserId, Membership>,
    joins: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Membership {
    role: Role,
    /// Rises with every join.
    joined: u64,
}

impl Members {
    /// The first members of a conversation, who joined together.
    pub(crate) fn found(list: &[(UserId, Role)]) -> Self {
        let by_user = list.iter().map(|(user, role)| (user.clone(), Membership { role: *role, joined: 0 }));
        Self { by_user: by_user.collect(), joins: 0 }
    }

    /// As the store has them: in the order of joining, those who joined together by id.
    pub(crate) fn load(list: &[(UserId, Role)]) -> Self {
        let mut members = Self::default();
        for (user, role) in list {
            members.insert(user.clone(), *role);
        }
        members.ensure_owner();
        members
    }

    /// Adds a member who is not in yet.
    pub(crate) fn insert(&mut self, user: UserId, role: Role) {
        self.joins += 1;
        self.by_user.insert(user, Membership { role, joined: self.joins });
    }

    /// Takes a member out; ownership passes on if it was the owner.
    pub(crate) fn remove(&mut self, user: &UserId) {
        self.by_user.remove(user);
        self.ensure_owner();
    }

    /// What a user is here, if a member.
    pub(crate) fn role(&self, user: &UserId) -> Option<Role> {
        self.by_user.get(user).map(|membership| membership.role)
    }

    /// Whether a user is in.
    pub(crate) fn contains(&self, user: &UserId) -> bool {
        self.by_user.contains_key(user)
    }

    /// All of them, by id.
    pub(crate) fn users(&self) -> impl Iterator<Item = &UserId> {
        self.by_user.keys()
    }

    /// How many are in.
    pub(crate) fn len(&self) -> usize {
        self.by_user.len()
    }

    fn ensure_owner(&mut self) {
        if self.by_user.values().any(|membership| membership.role == Role::Owner) {
            return;
        }
        if let Some(longest) = self.by_user.values_mut().min_by_key(|membership| membership.joined) {
            longest.role = Role::Owner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new("", name).unwrap()
    }

    #[test]
    fn ownership_passes_to_the_member_who_was_in_longest() {
        let mut members = Members::found(&[
            (user("zoe"), Role::Owner),
            (user("mia"), Role::Member),
            (user("adam"), Role::Admin),
        ]);
        members.insert(user("aaron"), Role::Member);
        members.remove(&user("zoe"));
        assert_eq!(members.role(&user("adam")), Some(Role::Owner), "the first by id of those who came first");
        assert_eq!(members.role(&user("mia")), Some(Role::Member));
        members.insert(user("zoe"), Role::Member);
        members.remove(&user("adam"));
        assert_eq!(members.role(&user("mia")), Some(Role::Owner));
        members.remove(&user("mia"));
        assert_eq!(members.role(&user("aaron")), Some(Role::Owner));
        let reloaded = Members::load(&[(user("aaron"), Role::Member), (user("zoe"), Role::Member)]);
        assert_eq!(reloaded.role(&user("aaron")), Some(Role::Owner));
        assert_eq!(reloaded.role(&user("zoe")), Some(Role::Member));
    }
}
