//! What was left out on one slow socket, and until when that keeps its resume cursor back.
//!
//! An entry that does not fit is only noted, per conversation; before the next entry of that
//! conversation, or when the queue has drained, a `gap` frame says so. Past [`GAPS_MAX`] conversations one
//! `gap` without an id stands for all. Until the client has caught up, the cursor that it is given stays
//! where it was before the first omission: a cursor may name too much, never too little.

use ringway_protocol::client::Gap;
use ringway_protocol::ids::{ConversationId, Position, Seq};

use crate::connection::limits::GAPS_MAX;

/// Boxed by its session, only while there is something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gaps {
    /// Left out and not told: each with the last seq before the gap.
    pub(super) noted: Vec<(ConversationId, Seq)>,
    /// Told, and not synced since.
    pub(super) told: Vec<ConversationId>,
    /// One gap for all.
    pub(super) everything: Everything,
    /// The cursor's position from before the first omission.
    pub(super) held: Position,
}

/// How far a gap without an id has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Everything {
    /// There is none.
    No,
    /// To be told.
    Noted,
    /// Told; the client has not said `hello` again.
    Told,
}

impl Gaps {
    /// Nothing yet.
    pub(super) fn new(held: Position) -> Self {
        Self { noted: Vec::new(), told: Vec::new(), everything: Everything::No, held }
    }

    /// An entry is left out, the one after `after`.
    pub(super) fn note(&mut self, conversation: ConversationId, after: Seq) {
        if self.everything == Everything::Noted || self.noted.iter().any(|(noted, _)| *noted == conversation)
        {
            return;
        }
        if self.noted.len() + self.told.len() >= GAPS_MAX {
            self.note_everything();
        } else {
            self.noted.push((conversation, after));
        }
    }

    /// The client is being told that it does not have all of a conversation.
    pub(super) fn incomplete(&mut self, conversation: ConversationId) {
        if self.everything == Everything::Noted || self.told.contains(&conversation) {
            return;
        }
        if self.noted.len() + self.told.len() >= GAPS_MAX {
            self.note_everything();
        } else {
            self.told.push(conversation);
        }
    }

    /// Anything may be missing.
    pub(super) fn note_everything(&mut self) {
        self.noted = Vec::new();
        self.told = Vec::new();
        self.everything = Everything::Noted;
    }

    /// The frame that must go before the next entry of this conversation.
    pub(super) fn tell_before(&mut self, conversation: ConversationId, after_ms: u64) -> Option<Gap> {
        if self.everything == Everything::Noted {
            return self.tell(after_ms);
        }
        let place = self.noted.iter().position(|(noted, _)| *noted == conversation)?;
        let (_, after) = self.noted.swap_remove(place);
        self.remember_told(conversation);
        Some(gap_of(conversation, after))
    }

    /// A frame that is due, until there is none. `after_ms` is for one without an id.
    pub(super) fn tell(&mut self, after_ms: u64) -> Option<Gap> {
        if self.everything == Everything::Noted {
            self.everything = Everything::Told;
            return Some(Gap { after_ms: Some(after_ms), ..Gap::default() });
        }
        let (conversation, after) = self.noted.pop()?;
        self.remember_told(conversation);
        Some(gap_of(conversation, after))
    }

    /// The client has caught up with a conversation.
    pub(super) fn synced(&mut self, conversation: ConversationId) {
        self.told.retain(|told| *told != conversation);
    }

    /// The client asks for everything anew: what was told needs no memory any more.
    pub(super) fn resumed(&mut self) {
        self.told = Vec::new();
        if self.everything == Everything::Told {
            self.everything = Everything::No;
        }
    }

    /// Whether something is still to be told.
    pub(super) fn is_untold(&self) -> bool {
        !self.noted.is_empty() || self.everything == Everything::Noted
    }

    /// Whether the client has caught up with all.
    pub(super) fn is_over(&self) -> bool {
        self.noted.is_empty() && self.told.is_empty() && self.everything == Everything::No
    }

    fn remember_told(&mut self, conversation: ConversationId) {
        if !self.told.contains(&conversation) {
            self.told.push(conversation);
        }
    }
}

fn gap_of(conversation: ConversationId, after: Seq) -> Gap {
    Gap { conversation: Some(conversation), after_seq: Some(after), after_ms: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_omission_of_a_conversation_is_the_one_that_is_told() {
        let mut gaps = Gaps::new(Position(7));
        gaps.note(ConversationId(1), Seq(4));
        gaps.note(ConversationId(1), Seq(5));
        assert_eq!(gaps.tell_before(ConversationId(2), 0), None);
        assert_eq!(gaps.tell_before(ConversationId(1), 0), Some(gap_of(ConversationId(1), Seq(4))));
        assert!(!gaps.is_untold() && !gaps.is_over());
        gaps.synced(ConversationId(1));
        assert!(gaps.is_over());
    }

    #[test]
    fn too_many_become_one() {
        let mut gaps = Gaps::new(Position(7));
        for id in 0..=GAPS_MAX as u64 {
            gaps.note(ConversationId(id), Seq(0));
        }
        assert_eq!(gaps.tell(250), Some(Gap { after_ms: Some(250), ..Gap::default() }));
        assert_eq!(gaps.tell(250), None);
        gaps.synced(ConversationId(1));
        assert!(!gaps.is_over());
        gaps.resumed();
        assert!(gaps.is_over());
    }
}
