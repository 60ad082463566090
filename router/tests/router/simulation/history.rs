//! What clients saw, and whether the final log bears it out (contract section 1.3).

use std::collections::BTreeMap;

use ringway_protocol::ids::{ConversationId, MessageId, Seq};
use ringway_protocol::trunk::Refusal;
use ringway_protocol::user::{ClientMessageId, UserId};

use crate::model_store::ModelStore;

/// An acknowledged send.
#[derive(Clone, Debug)]
pub(crate) struct Ack {
    pub(crate) conversation: ConversationId,
    pub(crate) sender: UserId,
    pub(crate) id: ClientMessageId,
    pub(crate) message: MessageId,
    pub(crate) seq: Seq,
    pub(crate) body_hash: u64,
    /// When the send was first tried and when this try was answered, in events.
    pub(crate) invoked: u64,
    pub(crate) answered: u64,
}

/// A send that was refused for good.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) conversation: ConversationId,
    pub(crate) sender: UserId,
    pub(crate) id: ClientMessageId,
    pub(crate) body_hash: u64,
    pub(crate) refusal: Refusal,
}

/// Everything that is checked at the end.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) events: u64,
    pub(crate) acks: Vec<Ack>,
    pub(crate) refused: Vec<Refused>,
    /// Every entry that anybody was shown.
    shown: BTreeMap<(ConversationId, Seq), MessageId>,
    /// The last entry that consumers got of each conversation in this life of the process.
    committed: BTreeMap<ConversationId, Seq>,
}

impl History {
    /// Counts an event: the order in which things happen.
    pub(crate) fn tick(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// An entry is shown to a user, in whichever way: it is durable, it is theirs, and never another.
    pub(crate) fn show(
        &mut self,
        store: &ModelStore,
        user: &UserId,
        conversation: ConversationId,
        seq: Seq,
        entry: &[u8],
    ) {
        let log = store.logs.get(&conversation).expect("shown, so it is in the store");
        let append = log.get(seq).expect("I15: shown, so it is durable");
        assert_eq!(append.entry, entry, "I1, I4: what is shown is what is stored");
        assert!(log.may_see(user, seq), "I6, I7: {user:?} sees {conversation} {seq}");
        let known = self.shown.insert((conversation, seq), append.message);
        assert!(known.is_none_or(|known| known == append.message), "I4: a seq shown twice as two messages");
    }

    /// A send is acknowledged: it is durable.
    pub(crate) fn acknowledge(&mut self, store: &ModelStore, ack: Ack) {
        let log = store.logs.get(&ack.conversation).expect("I15: acknowledged, so it is in the store");
        let append = log.get(ack.seq).expect("I15, I8: acknowledged, so it can be read");
        assert_eq!(append.message, ack.message, "I1");
        assert_eq!(append.body_hash, ack.body_hash, "I1, I11: the acknowledged body");
        assert_eq!((&append.sender, append.client_message_id.as_ref()), (&ack.sender, Some(&ack.id)));
        self.acks.push(ack);
    }

    /// Consumers get an entry.
    pub(crate) fn commit(&mut self, store: &ModelStore, conversation: ConversationId, seq: Seq) {
        assert!(store.logs[&conversation].get(seq).is_some(), "I15: committed, so it is durable");
        let last = self.committed.insert(conversation, seq);
        let follows = last.is_none_or(|last| seq == last.next());
        assert!(follows, "consumers get every entry of {conversation} in order: {seq} after {last:?}");
    }

    /// The process died: consumers begin where the next one does.
    pub(crate) fn restart(&mut self) {
        self.committed.clear();
    }

    /// What holds over everything.
    pub(crate) fn check(&self, store: &ModelStore) {
        let mut ids: Vec<_> = store.message_ids().collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "I16: ids are unique");
        let mut by_key = BTreeMap::new();
        for ack in &self.acks {
            let append = store.logs[&ack.conversation].get(ack.seq).expect("I1: acknowledged and lost");
            assert_eq!((append.message, append.body_hash), (ack.message, ack.body_hash), "I1");
            let member = store.logs[&ack.conversation].may_see(&ack.sender, ack.seq);
            assert!(member, "I6: only members send: {ack:?}");
            let key = (ack.conversation, ack.sender.clone(), ack.id.clone());
            let first = by_key.entry(key).or_insert((ack.message, ack.seq));
            assert_eq!(*first, (ack.message, ack.seq), "I11: a retry has the first answer");
        }
        self.check_real_time();
        for refused in &self.refused {
            let Some(log) = store.logs.get(&refused.conversation) else { continue };
            let stored = log.find(&refused.sender, &refused.id);
            let same = stored.is_some_and(|stored| stored.body_hash == refused.body_hash);
            assert!(!same, "refused for good, and stored: {refused:?}");
            if refused.refusal == Refusal::DuplicateConflict {
                assert!(stored.is_some(), "a conflict with nothing: {refused:?}");
            }
        }
    }

    /// I5: what was acknowledged before another send began has the lower seq.
    fn check_real_time(&self) {
        let mut by_conversation: BTreeMap<_, Vec<&Ack>> = BTreeMap::new();
        for ack in &self.acks {
            by_conversation.entry(ack.conversation).or_default().push(ack);
        }
        for acks in by_conversation.values() {
            for later in acks {
                let wrong = acks.iter().find(|ack| ack.answered < later.invoked && ack.seq > later.seq);
                assert!(wrong.is_none(), "I5: {wrong:?} was acknowledged before {later:?} began");
            }
        }
    }
}
