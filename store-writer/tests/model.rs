//! All queries against a plain model in memory: random conversations, messages, joins, removals, renames,
//! deletions and claims, in groups of random shape, with reopenings in between.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Position, Seq, Timestamp};
use ringway_protocol::limits::PAGE_BYTES_MAX;
use ringway_protocol::user::UserId;
use ringway_store_writer::store::{
    Answer, Append, ClaimKey, Conversation, From, IndexChange, Query, SendRow, Store, Summary,
};

const USERS: [&str; 4] = ["a", "ab", "b", "ba"];
const CONVERSATIONS: u64 = 4;

/// What a random step does; indexes are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Create {
        conversation: u64,
        members: Vec<usize>,
    },
    Message {
        conversation: u64,
        sender: usize,
        key: Option<u8>,
        bytes: usize,
    },
    Add {
        conversation: u64,
        user: usize,
        admin: bool,
    },
    Remove {
        conversation: u64,
        user: usize,
    },
    Rename {
        conversation: u64,
        name: u8,
    },
    Delete {
        conversation: u64,
    },
    Claim {
        key: u8,
        proposed: u64,
    },
    /// Ends the flush that is being collected.
    Flush,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let conversation = || 1..=CONVERSATIONS;
    let user = || 0..USERS.len();
    prop_oneof![
        3 => (conversation(), prop::collection::vec(user(), 1..4))
            .prop_map(|(conversation, members)| Step::Create { conversation, members }),
        12 => (conversation(), user(), prop::option::of(0..40_u8), prop_oneof![9 => Just(30_usize), 1 => Just(30_000)])
            .prop_map(|(conversation, sender, key, bytes)| Step::Message { conversation, sender, key, bytes }),
        4 => (conversation(), user(), any::<bool>())
            .prop_map(|(conversation, user, admin)| Step::Add { conversation, user, admin }),
        4 => (conversation(), user()).prop_map(|(conversation, user)| Step::Remove { conversation, user }),
        1 => (conversation(), any::<u8>()).prop_map(|(conversation, name)| Step::Rename { conversation, name }),
        1 => conversation().prop_map(|conversation| Step::Delete { conversation }),
        2 => (0..6_u8, any::<u64>()).prop_map(|(key, proposed)| Step::Claim { key, proposed }),
        5 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Member {
    role: Option<Role>,
    stays: Vec<(u64, Option<u64>)>,
    changed: u64,
}

impl Member {
    fn is_present(&self) -> bool {
        self.stays.last().is_some_and(|(_, left)| left.is_none())
    }

    fn sees(&self, seq: u64) -> bool {
        self.stays.iter().any(|(joined, left)| *joined <= seq && left.is_none_or(|left| seq <= left))
    }
}

#[derive(Default)]
struct ModelConversation {
    name: String,
    deleted: bool,
    log: Vec<Append>,
    changed: u64,
    members: BTreeMap<UserId, Member>,
}

#[derive(Default)]
struct Model {
    position: u64,
    conversations: BTreeMap<ConversationId, ModelConversation>,
    claims: BTreeMap<u8, ConversationId>,
}

impl Model {
    fn apply(&mut self, appends: &[Append]) {
        self.position += 1;
        let position = self.position;
        for append in appends {
            let conversation = self.conversations.entry(append.conversation).or_default();
            conversation.changed = position;
            let seq = append.seq.0;
            let mut join = |user: &UserId, role: Role| {
                let member = conversation.members.entry(user.clone()).or_default();
                member.role = Some(role);
                if !member.is_present() {
                    member.stays.push((seq, None));
                    member.changed = position;
                }
            };
            match &append.index {
                None => {}
                Some(IndexChange::Created { name, members, .. }) => {
                    members.iter().for_each(|(user, role)| join(user, *role));
                    conversation.name.clone_from(name);
                }
                Some(IndexChange::MemberAdded { user, role }) => join(user, *role),
                Some(IndexChange::MemberRemoved { user }) => {
                    let member = conversation.members.get_mut(user);
                    if let Some(member) = member.filter(|member| member.is_present()) {
                        member.stays.last_mut().unwrap().1 = Some(seq);
                        member.changed = position;
                    }
                }
                Some(IndexChange::Renamed { name }) => conversation.name.clone_from(name),
                Some(IndexChange::Deleted) => conversation.deleted = true,
            }
            conversation.log.push(append.clone());
        }
    }

    fn load(&self, id: ConversationId) -> Option<Conversation> {
        let conversation = self.conversations.get(&id)?;
        let last = conversation.log.last()?;
        let keyed = conversation.log.iter().filter_map(|append| {
            Some((append.sender.clone(), append.client_message_id.clone()?, send_row(append)))
        });
        Some(Conversation {
            kind: ConversationKind::Group,
            name: conversation.name.clone(),
            members: conversation.by_joining(),
            deleted: conversation.deleted,
            last_seq: last.seq,
            last_message: last.message,
            last_ts: last.server_ts,
            recent: keyed.collect(),
            recent_since: Timestamp(0),
        })
    }

    fn entries(&self, id: ConversationId, user: &UserId, from: From, limit: u32) -> Answer {
        let visible: Vec<&Append> = match self.conversations.get(&id) {
            None => Vec::new(),
            Some(conversation) => {
                let member = conversation.members.get(user);
                let sees = |append: &&Append| member.is_some_and(|member| member.sees(append.seq.0));
                conversation.log.iter().filter(sees).collect()
            }
        };
        let wanted: Vec<&Append> = match from {
            From::After(after) => visible.into_iter().filter(|append| append.seq > after).collect(),
            From::Before(before) => {
                let below = |append: &&Append| before.is_none_or(|before| append.seq < before);
                visible.into_iter().rev().filter(below).collect()
            }
        };
        let (mut entries, mut bytes) = (Vec::<Bytes>::new(), 0);
        for append in &wanted {
            bytes += append.entry.len();
            if !entries.is_empty() && (entries.len() >= limit as usize || bytes > PAGE_BYTES_MAX) {
                break;
            }
            entries.push(append.entry.clone());
        }
        let more = entries.len() < wanted.len();
        Answer::Entries { entries, more }
    }

    fn heads(&self, user: &UserId, since: Option<Position>) -> Answer {
        let known = since.filter(|since| since.0 > 0 && since.0 <= self.position);
        let mut heads = Vec::new();
        for (id, conversation) in &self.conversations {
            let Some(member) = conversation.members.get(user) else { continue };
            let (last, changed) = match member.stays.last().unwrap().1 {
                Some(left) => (Seq(left), member.changed),
                None => (conversation.log.last().unwrap().seq, conversation.changed),
            };
            if known.is_none_or(|known| changed > known.0) {
                heads.push((*id, last));
            }
        }
        Answer::Heads { heads, recovered: known.is_some() }
    }

    fn summary(&self, id: ConversationId, user: &UserId) -> Option<Summary> {
        let conversation = self.conversations.get(&id).filter(|conversation| !conversation.deleted)?;
        let member = conversation.members.get(user).filter(|member| member.is_present())?;
        let last = conversation.log.last()?;
        let members = conversation.present();
        Some(Summary {
            conversation: id,
            kind: ConversationKind::Group,
            name: conversation.name.clone(),
            member_count: members.len() as u32,
            members,
            role: member.role?,
            last_seq: last.seq,
            last_entry: Some(last.entry.clone()),
        })
    }

    fn list(&self, user: &UserId, before: Option<ConversationId>, limit: u32) -> Answer {
        let ids = self.conversations.keys().rev().filter(|id| before.is_none_or(|before| **id < before));
        let all: Vec<Summary> = ids.filter_map(|id| self.summary(*id, user)).collect();
        let more = all.len() > limit as usize;
        Answer::Conversations { conversations: all.into_iter().take(limit as usize).collect(), more }
    }
}

impl ModelConversation {
    /// The present members in the order of joining, then of their ids.
    fn by_joining(&self) -> Vec<(UserId, Role)> {
        let mut present = self.present();
        present.sort_by_key(|(user, _)| self.members[user].stays.last().map(|(joined, _)| *joined));
        present
    }

    fn present(&self) -> Vec<(UserId, Role)> {
        let present = self.members.iter().filter(|(_, member)| member.is_present());
        present.map(|(user, member)| (user.clone(), member.role.unwrap())).collect()
    }
}

fn send_row(append: &Append) -> SendRow {
    SendRow {
        seq: append.seq,
        message: append.message,
        server_ts: append.server_ts,
        body_hash: append.body_hash,
    }
}

/// Turns a step into an entry, if it makes sense where the flush under way leaves the conversation.
fn append(model: &Model, flush: &[Append], log: &mut Log, step: &Step) -> Option<Append> {
    let exists = |id: &u64| {
        let id = ConversationId(*id);
        model.conversations.contains_key(&id) || flush.iter().any(|append| append.conversation == id)
    };
    let named = |index: &usize| user(USERS[*index]);
    Some(match step {
        Step::Create { conversation, members } if !exists(conversation) => {
            let members: Vec<UserId> = members.iter().map(named).collect();
            log.create(ConversationId(*conversation), &members.iter().collect::<Vec<_>>())
        }
        Step::Message { conversation, sender, key, bytes } if exists(conversation) => {
            let id = ConversationId(*conversation);
            // A key is used once in a conversation: the router sees to that.
            let key = key.map(|key| format!("k{key}"));
            let of_model = model.conversations.get(&id).map_or(&[][..], |conversation| &conversation.log);
            let in_flush = flush.iter().filter(|append| append.conversation == id);
            let used = of_model.iter().chain(in_flush).any(|append| {
                append.sender == named(sender)
                    && append.client_message_id.as_ref().map(|key| key.as_str()) == key.as_deref()
            });
            log.entry(id, &named(sender), key.filter(|_| !used).as_deref(), None, *bytes)
        }
        Step::Add { conversation, user, admin } if exists(conversation) => {
            let role = if *admin { Role::Admin } else { Role::Member };
            let change = IndexChange::MemberAdded { user: named(user), role };
            log.change(ConversationId(*conversation), &named(user), change)
        }
        Step::Remove { conversation, user } if exists(conversation) => {
            let change = IndexChange::MemberRemoved { user: named(user) };
            log.change(ConversationId(*conversation), &named(user), change)
        }
        Step::Rename { conversation, name } if exists(conversation) => {
            let change = IndexChange::Renamed { name: format!("name {name}") };
            log.change(ConversationId(*conversation), &named(&0), change)
        }
        Step::Delete { conversation } if exists(conversation) => {
            log.change(ConversationId(*conversation), &named(&0), IndexChange::Deleted)
        }
        _ => return None,
    })
}

fn check(store: &dyn Store, model: &Model) {
    assert_eq!(store.status().position, Position(model.position));
    for id in (1..=CONVERSATIONS + 1).map(ConversationId) {
        let loaded = Answer::Conversation(model.load(id).map(Box::new));
        assert_eq!(read(store, Query::Conversation(id)), loaded);
        for name in USERS {
            let user = user(name);
            let summary = Answer::Summary(model.summary(id, &user).map(Box::new));
            assert_eq!(read(store, Query::Summary { conversation: id, user: user.clone() }), summary);
            let last = model.conversations.get(&id).map_or(0, |conversation| conversation.log.len() as u64);
            let seqs = [0, 1, last / 2, last, last + 1, u64::MAX];
            let after = seqs.iter().map(|seq| From::After(Seq(*seq)));
            let before = seqs.iter().map(|seq| From::Before(Some(Seq(*seq))));
            for from in after.chain(before).chain([From::Before(None)]) {
                for limit in [1, 3, 200] {
                    let query = Query::Entries { conversation: id, user: user.clone(), from, limit };
                    assert_eq!(
                        read(store, query.clone()),
                        model.entries(id, &user, from, limit),
                        "{query:?}"
                    );
                }
            }
            for index in 0..40 {
                let key = key(&format!("k{index}"));
                let used = model.conversations.get(&id).and_then(|conversation| {
                    let of_key = |append: &&Append| {
                        append.sender == user && append.client_message_id.as_ref() == Some(&key)
                    };
                    conversation.log.iter().find(of_key).map(send_row)
                });
                let query = Query::Send { conversation: id, sender: user.clone(), client_message_id: key };
                assert_eq!(read(store, query), Answer::Send(used));
            }
        }
    }
    for user in USERS.map(user) {
        for since in [None, Some(0), Some(model.position / 2), Some(model.position), Some(model.position + 1)]
        {
            let since = since.map(Position);
            let query = Query::Heads { user: user.clone(), since };
            assert_eq!(read(store, query.clone()), model.heads(&user, since), "{query:?}");
        }
        for before in [None, Some(0), Some(2), Some(CONVERSATIONS + 1)] {
            let before = before.map(ConversationId);
            for limit in [1, 10] {
                let query = Query::Conversations { user: user.clone(), before, limit };
                assert_eq!(read(store, query.clone()), model.list(&user, before, limit), "{query:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_a_plain_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let folder = quick_folder();
        let mut store = open(folder.path());
        let (mut model, mut log) = (Model::default(), Log::default());
        let (mut collected, mut pending, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps.iter().chain([&Step::Flush, &Step::Reopen]) {
            match step {
                Step::Flush if !collected.is_empty() => {
                    model.apply(&collected);
                    positions.push(Position(model.position));
                    // Not waited for: several flushes may become one group.
                    pending.push(start_flush(&store, ringway_store_writer::store::Flush {
                        epoch: store.status().epoch,
                        appends: std::mem::take(&mut collected),
                    }));
                }
                Step::Flush => {}
                Step::Claim { key, proposed } => {
                    let proposed = ConversationId(*proposed);
                    let holder = *model.claims.entry(*key).or_insert(proposed);
                    let claim = ClaimKey::Creation(user("a"), common::key(&format!("claim{key}")));
                    prop_assert_eq!(start_claim(&store, claim, proposed).wait(), Ok(holder));
                }
                Step::Reopen => {
                    let got: Vec<_> = pending.drain(..).map(|flush| flush.wait().unwrap()).collect();
                    prop_assert_eq!(got, std::mem::take(&mut positions));
                    check(&store, &model);
                    drop(store);
                    store = open(folder.path());
                    check(&store, &model);
                }
                step => collected.extend(append(&model, &collected, &mut log, step)),
            }
        }
    }
}
