//! Who talks to whom: pairs and groups of virtual users, made over HTTP before the load begins, changed a
//! little and read now and then while it runs, and read whole after it.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringway_protocol::client::LogItem;
use ringway_protocol::entry::Change;
use ringway_protocol::ids::{ConversationId, Seq};

use crate::clock::{self, SECOND};
use crate::history::{Event, Recorder, Via};
use crate::http::{Api, ApiError, HistoryPage, PAGE_ENTRIES_MAX};
use crate::logins::Login;
use crate::seen;
use crate::target::Target;
use crate::worker::{Expected, Orders, device_name};

/// Threads that make and read conversations.
const THREADS: usize = 4;

/// How long a call that the server asks to repeat is repeated.
const PATIENCE: u64 = 60 * SECOND;

/// Between two tries of a call.
const PAUSE: Duration = Duration::from_millis(200);

/// A conversation of the load. The first member owns it and never leaves.
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Whether members come and go.
    pub group: bool,
    /// Numbers of users.
    members: Mutex<BTreeSet<usize>>,
    owner: usize,
    /// The newest place that a read has seen.
    newest: AtomicU64,
}

/// All users and their conversations.
pub struct Crew {
    target: Target,
    logins: Vec<Login>,
    conversations: Vec<Conversation>,
}

/// What the HTTP side did while the load ran.
#[derive(Default, serde::Serialize)]
pub struct SideCounts {
    /// Reads of history that returned.
    pub reads: AtomicU64,
    /// Joins and leaves.
    pub changes: AtomicU64,
    /// Calls without an answer, or with one that asks to repeat.
    pub repeated: AtomicU64,
    /// Calls that were refused: a reader who had just been removed.
    pub refused: AtomicU64,
}

/// The groups and pairs of so many users, as numbers. Of all users, `fraction` are in groups.
pub fn arrange(users: usize, fraction: f64, group: usize) -> Vec<Vec<usize>> {
    let in_groups = ((users as f64 * fraction) as usize).min(users);
    let numbers: Vec<usize> = (0..users).collect();
    let (grouped, paired) = numbers.split_at(in_groups);
    let mut all: Vec<Vec<usize>> = grouped.chunks(group.max(2)).map(<[usize]>::to_vec).collect();
    all.extend(paired.chunks(2).map(<[usize]>::to_vec));
    // Who is left alone talks to the one before.
    for members in &mut all {
        if let [alone] = members[..] {
            let other = if alone > 0 { alone - 1 } else { users - 1 };
            members.push(other);
        }
    }
    all.retain(|members| members.len() > 1 && members[0] != members[1]);
    all
}

impl Crew {
    /// Makes the conversations. `run` tells them from those of other runs.
    ///
    /// # Errors
    /// A conversation could not be made.
    pub fn gather(
        target: &Target,
        logins: Vec<Login>,
        arrangement: &[Vec<usize>],
        run: u32,
        recorder: &Recorder,
    ) -> Result<Self, ApiError> {
        let ids = in_threads(target, arrangement.len(), |api, number| {
            let members = &arrangement[number];
            let owner = &logins[members[0]];
            let others: Vec<&str> = members[1..].iter().map(|member| &*logins[*member].user).collect();
            let key = format!("load-{run:x}-{number}");
            until_definite(|| api.create(&owner.token(), members.len() > 2, &others, &key))
        })?;
        let mut recorder = recorder.clone();
        let mut conversations = Vec::new();
        for (members, id) in arrangement.iter().zip(ids) {
            for member in members {
                let user = (&*logins[*member].user).into();
                recorder.record(&Event::Joined { conversation: id, user, seq: Seq(1) });
            }
            conversations.push(Conversation {
                id,
                group: members.len() > 2,
                members: Mutex::new(members.iter().copied().collect()),
                owner: members[0],
                newest: AtomicU64::new(0),
            });
        }
        Ok(Self { target: target.clone(), logins, conversations })
    }

    /// The users with the conversations they are in.
    pub fn users(&self) -> Vec<(Login, Vec<ConversationId>)> {
        let mut users: Vec<_> = self.logins.iter().map(|login| (login.clone(), Vec::new())).collect();
        for conversation in &self.conversations {
            for member in lock(&conversation.members).iter() {
                users[*member].1.push(conversation.id);
            }
        }
        users
    }

    /// Reads of history by random members, `rate` a second, until `stop`.
    pub fn read_history(
        &self,
        rate: f64,
        seed: u64,
        mut recorder: Recorder,
        orders: &Orders,
        counts: &SideCounts,
        stop: &AtomicBool,
    ) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut api = Api::new(self.target.clone());
        at_rate(rate, stop, || {
            let conversation = &self.conversations[dice.usize(0..self.conversations.len())];
            let members: Vec<usize> = lock(&conversation.members).iter().copied().collect();
            let login = &self.logins[members[dice.usize(0..members.len())]];
            let read = orders.next_number();
            recorder.record(&Event::HistoryInvoked {
                read,
                user: (&*login.user).into(),
                device: device_name(&login.user).into(),
                conversation: conversation.id,
            });
            let limit = dice.u32(1..=PAGE_ENTRIES_MAX);
            let page = if dice.bool() {
                api.newest(&login.token(), conversation.id, limit)
            } else {
                let after = dice.u64(0..=conversation.newest.load(Ordering::Relaxed));
                api.after(&login.token(), conversation.id, Seq(after), limit)
            };
            match page {
                Ok(page) => {
                    self.record_read(&mut recorder, login, conversation, read, &page);
                    counts.reads.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    count_error(&error, counts);
                    std::thread::sleep(PAUSE);
                }
            }
            recorder.flush();
        });
    }

    fn record_read(
        &self,
        recorder: &mut Recorder,
        login: &Login,
        conversation: &Conversation,
        read: u64,
        page: &HistoryPage,
    ) {
        for item in &page.items {
            let (entry, _) = seen::entry(item, conversation.id);
            conversation.newest.fetch_max(entry.seq.0, Ordering::Relaxed);
            recorder.record(&Event::Received {
                user: (&*login.user).into(),
                device: device_name(&login.user).into(),
                connection: read,
                via: Via::History,
                entry,
            });
        }
        let (low, high) = (page.range.low, page.range.high);
        recorder.record(&Event::HistoryReturned { read, low, high });
    }

    /// Members of groups leave and join, `rate` a second, until `stop`.
    pub fn change_members(
        &self,
        rate: f64,
        seed: u64,
        mut recorder: Recorder,
        counts: &SideCounts,
        stop: &AtomicBool,
    ) {
        let groups: Vec<&Conversation> =
            self.conversations.iter().filter(|conversation| conversation.group).collect();
        if groups.is_empty() {
            return;
        }
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut api = Api::new(self.target.clone());
        at_rate(rate, stop, || {
            let group = groups[dice.usize(0..groups.len())];
            let mut members = lock(&group.members).clone();
            let leaves = dice.bool();
            let candidates: Vec<usize> = (0..self.logins.len())
                .filter(|user| *user != group.owner && members.contains(user) == leaves)
                .collect();
            let Some(user) = candidates.get(dice.usize(0..candidates.len().max(1))).copied() else { return };
            let (owner, name) = (&self.logins[group.owner], &self.logins[user].user);
            let changed = until_definite(|| {
                let changed = if leaves {
                    api.remove_member(&owner.token(), group.id, name)
                } else {
                    api.add_member(&owner.token(), group.id, name)
                };
                if let Err(error) = &changed {
                    count_error(error, counts);
                }
                changed
            });
            let Ok(changed) = changed else { return };
            counts.changes.fetch_add(1, Ordering::Relaxed);
            let (conversation, user_name) = (group.id, (&**name).into());
            // A try without an answer may have made the change; then its place is not told.
            let seq = changed.seq.unwrap_or(Seq(0));
            if leaves {
                members.remove(&user);
                recorder.record(&Event::Left { conversation, user: user_name, seq });
            } else {
                members.insert(user);
                recorder.record(&Event::Joined { conversation, user: user_name, seq });
            }
            *lock(&group.members) = members;
            recorder.flush();
        });
    }

    /// Reads every conversation whole, and tells what there is to have.
    ///
    /// # Errors
    /// A conversation could not be read.
    pub fn read_all(&self, recorder: &Recorder, orders: &Orders) -> Result<Expected, ApiError> {
        let recorder = Mutex::new(recorder.clone());
        let read = in_threads(&self.target, self.conversations.len(), |api, number| {
            let conversation = &self.conversations[number];
            let owner = &self.logins[conversation.owner];
            let mut members: HashSet<Arc<str>> = HashSet::new();
            let (mut last, mut rows) = (Seq(0), 0);
            let read = orders.next_number();
            loop {
                let page = match until_definite(|| {
                    api.after(&owner.token(), conversation.id, last, PAGE_ENTRIES_MAX)
                }) {
                    // A conversation that is gone has nothing: the checker is to see that, and what was acked.
                    Err(ApiError::Refused { status: 404, .. }) => {
                        let gone = Event::FinalReturned { read, conversation: conversation.id, rows };
                        lock(&recorder).record(&gone);
                        break;
                    }
                    page => page?,
                };
                let mut recorder = lock(&recorder);
                for item in &page.items {
                    let (entry, _) = seen::entry(item, conversation.id);
                    last = last.max(entry.seq);
                    rows += 1;
                    recorder.record(&Event::Final { read, entry });
                    follow(&mut members, item);
                }
                if !page.more || page.items.is_empty() {
                    recorder.record(&Event::FinalReturned { read, conversation: conversation.id, rows });
                    break;
                }
            }
            Ok((conversation.id, (last.0, members)))
        })?;
        Ok(read.into_iter().collect())
    }

    /// How many members of each conversation get a message of another.
    pub fn recipients(&self) -> Vec<(ConversationId, u32)> {
        let others = |conversation: &Conversation| lock(&conversation.members).len() as u32 - 1;
        self.conversations.iter().map(|conversation| (conversation.id, others(conversation))).collect()
    }

    /// How many conversations there are.
    pub fn conversation_count(&self) -> usize {
        self.conversations.len()
    }
}

/// Applies a change to the members.
fn follow(members: &mut HashSet<Arc<str>>, item: &LogItem) {
    let LogItem::Change(change) = item else { return };
    match &change.change {
        Change::Created { members: first, .. } => {
            members.extend(first.iter().map(|(user, _)| Arc::from(user.sub())));
        }
        Change::MemberAdded { user, .. } => {
            members.insert(user.sub().into());
        }
        Change::MemberRemoved { user } => {
            members.remove(user.sub());
        }
        Change::Renamed { .. } | Change::Deleted => {}
    }
}

fn count_error(error: &ApiError, counts: &SideCounts) {
    let counter = match error {
        ApiError::Refused { .. } | ApiError::Unreadable { .. } => &counts.refused,
        ApiError::Http(_) | ApiError::Temporary { .. } => &counts.repeated,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Repeats a call until its outcome is known. Only for calls that may be repeated.
fn until_definite<T>(mut call: impl FnMut() -> Result<T, ApiError>) -> Result<T, ApiError> {
    let until = clock::now() + PATIENCE;
    loop {
        match call() {
            Err(ApiError::Http(_) | ApiError::Temporary { .. }) if clock::now() < until => {
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Does something for each number below `count`, in a few threads with a connection each.
fn in_threads<T: Send>(
    target: &Target,
    count: usize,
    work: impl Fn(&mut Api, usize) -> Result<T, ApiError> + Sync,
) -> Result<Vec<T>, ApiError> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS.min(count))
            .map(|_| {
                scope.spawn(|| {
                    let mut api = Api::new(target.clone());
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return Ok::<(), ApiError>(());
                        }
                        *lock(&results[number]) = Some(work(&mut api, number)?);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let results =
        results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(results.collect())
}

/// Does something `rate` times a second until `stop`, catching up when it was slow.
fn at_rate(rate: f64, stop: &AtomicBool, mut work: impl FnMut()) {
    if rate <= 0.0 {
        return;
    }
    let gap = (SECOND as f64 / rate) as u64;
    let mut next = clock::now() + gap;
    while !stop.load(Ordering::Acquire) {
        let now = clock::now();
        if now < next {
            std::thread::sleep(Duration::from_nanos((next - now).min(SECOND / 20)));
            continue;
        }
        work();
        next = (next + gap).max(now.saturating_sub(SECOND));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_are_in_groups_and_nobody_is_alone() {
        let all = arrange(1000, 0.5, 50);
        assert_eq!(all.iter().filter(|members| members.len() == 50).count(), 10);
        assert_eq!(all.iter().filter(|members| members.len() == 2).count(), 250);
        for (users, fraction) in [(2, 0.0), (3, 0.0), (51, 1.0), (7, 0.5), (101, 0.5)] {
            let all = arrange(users, fraction, 50);
            let placed: HashSet<usize> = all.iter().flatten().copied().collect();
            assert_eq!(placed.len(), users, "{all:?}");
            assert!(all.iter().all(|members| members.len() > 1), "{all:?}");
        }
    }
}
