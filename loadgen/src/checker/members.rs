//! Who is a member at which place: a pure function of the log.
//!
//! The full read shows the log's changes, and is believed. Where there is none, the answers to joins and
//! leaves stand in. An answer that contradicts the log is a violation in itself.

use super::dataset::{Change, Dataset};
use super::interner::QuickMap;
use super::verdict::{Invariant, Verdict};

/// From this place to that one, both included: a removed member may see the entry that says so.
pub(super) type Stay = (u64, u64);

/// How a user stands to a place of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Member,
    /// Never joined before that place.
    Stranger,
    /// Removed at this place, and not joined again.
    Removed(u64),
}

/// The member sets of all conversations.
#[derive(Default)]
pub(super) struct Members {
    stays: QuickMap<(u32, u32), Vec<Stay>>,
    conversations: QuickMap<u32, Vec<u32>>,
}

impl Members {
    pub(super) fn of(data: &Dataset, verdict: &mut Verdict) -> Self {
        let mut members = Self::default();
        let mut told = vec![false; data.conversation_count() as usize];
        for change in &data.changes {
            told[change.conversation as usize] |= &*change.name == "created" && !change.users.is_empty();
            members.apply(change);
        }
        let mut answers = data.roster.clone();
        answers.sort_by_key(|answer| (answer.conversation, answer.seq));
        for answer in answers.iter().filter(|answer| answer.seq > 0) {
            if !told[answer.conversation as usize] {
                let name = if answer.joined { "member_added" } else { "member_removed" };
                members.apply(&Change {
                    conversation: answer.conversation,
                    seq: answer.seq,
                    name: name.into(),
                    users: vec![answer.user],
                });
                continue;
            }
            let stays = members.stays(answer.conversation, answer.user);
            let (invariant, agrees) = if answer.joined {
                (Invariant::I6, stays.iter().any(|stay| stay.0 == answer.seq))
            } else {
                (Invariant::I7, stays.iter().any(|stay| stay.1 == answer.seq))
            };
            verdict.checked(invariant, 1);
            if !agrees {
                verdict.violated(invariant, || {
                    format!(
                        "{} was told to have {} {} at seq {}, and the log does not say so",
                        data.user_name(answer.user),
                        if answer.joined { "joined" } else { "left" },
                        data.conversation_name(answer.conversation),
                        answer.seq
                    )
                });
            }
        }
        for (conversation, user) in members.stays.keys() {
            members.conversations.entry(*user).or_default().push(*conversation);
        }
        members.conversations.values_mut().for_each(|list| list.sort_unstable());
        members
    }

    fn apply(&mut self, change: &Change) {
        for user in &change.users {
            let stays = self.stays.entry((change.conversation, *user)).or_default();
            let open = stays.last_mut().filter(|stay| stay.1 == u64::MAX);
            match (&*change.name, open) {
                ("created" | "member_added", None) => stays.push((change.seq, u64::MAX)),
                ("member_removed", Some(stay)) => stay.1 = change.seq,
                _ => {}
            }
        }
    }

    /// The stays of a user in a conversation, ascending.
    pub(super) fn stays(&self, conversation: u32, user: u32) -> &[Stay] {
        self.stays.get(&(conversation, user)).map_or(&[], Vec::as_slice)
    }

    /// The conversations that a user was ever a member of.
    pub(super) fn conversations_of(&self, user: u32) -> &[u32] {
        self.conversations.get(&user).map_or(&[], Vec::as_slice)
    }

    /// How a user stands to a place.
    pub(super) fn standing(stays: &[Stay], seq: u64) -> Standing {
        match stays.iter().rev().find(|stay| stay.0 <= seq) {
            Some(stay) if seq <= stay.1 => Standing::Member,
            Some(stay) => Standing::Removed(stay.1),
            None => Standing::Stranger,
        }
    }

    /// The first place from `seq` on that the user may see.
    pub(super) fn visible_from(stays: &[Stay], seq: u64) -> Option<u64> {
        stays.iter().find(|stay| seq <= stay.1).map(|stay| seq.max(stay.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_follow_the_log() {
        let mut members = Members::default();
        for (seq, name, user) in
            [(1, "created", 7), (5, "member_removed", 7), (9, "member_added", 7), (10, "member_added", 7)]
        {
            members.apply(&Change { conversation: 0, seq, name: name.into(), users: vec![user] });
        }
        let stays = members.stays(0, 7);
        assert_eq!(stays, [(1, 5), (9, u64::MAX)]);
        assert_eq!(Members::standing(stays, 5), Standing::Member);
        assert_eq!(Members::standing(stays, 6), Standing::Removed(5));
        assert_eq!(Members::standing(stays, 9), Standing::Member);
        assert_eq!(Members::standing(members.stays(0, 8), 9), Standing::Stranger);
        assert_eq!(Members::visible_from(stays, 6), Some(9));
        assert_eq!(Members::visible_from(&[(1, 5)], 6), None);
    }
}
