//! Groups: what becomes durable together, in which order it shows, and what is refused.

mod common;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use common::*;
use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Epoch, Position, Seq, Timestamp};
use ringway_protocol::user::UserId;
use ringway_store_writer::store::{
    Answer, ClaimKey, Flush, IndexChange, Query, RECENT_SENDS_MAX, Store, StoreError,
};
use ringway_store_writer::{EmbeddedStore, GroupStage, OpenError, StoreSettings, WallClock};

const ROOM: ConversationId = ConversationId(1);

/// Holds groups at a stage until the gate opens.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    waiting: AtomicUsize,
}

impl Gate {
    fn settings(self: &Arc<Self>, at: GroupStage) -> StoreSettings {
        let gate = Arc::clone(self);
        let hook = move |stage| {
            if stage == at {
                gate.waiting.fetch_add(1, Ordering::SeqCst);
                while gate.closed.load(Ordering::SeqCst) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                gate.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(())
        };
        StoreSettings { group_hook: Some(Arc::new(hook)), ..settings() }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn until_reached(&self) {
        until("a group at the gate", || self.waiting.load(Ordering::SeqCst) == 1);
    }

    fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}

#[test]
fn nobody_sees_a_group_before_it_is_durable_and_all_see_it_after() {
    let folder = quick_folder();
    let gate = Arc::new(Gate::default());
    let store = open_with(folder.path(), gate.settings(GroupStage::Synced));
    let (alice, mut log) = (user("alice"), Log::default());
    flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
    for round in 2..20 {
        gate.close();
        let before = store.status().position;
        let sent = log.message(ROOM, &alice, Some(&format!("k{round}")));
        let pending = start_flush(&store, Flush { epoch: store.status().epoch, appends: vec![sent] });
        gate.until_reached();
        assert_eq!(history(&store, ROOM, &alice).len(), round - 1, "shown before it was durable");
        assert_eq!(store.status().position, before);
        gate.open();
        assert_eq!(pending.wait(), Ok(Position(before.0 + 1)));
        assert_eq!(history(&store, ROOM, &alice).len(), round, "not shown to who has the answer");
        assert_eq!(store.status().position, Position(before.0 + 1));
    }
}

#[test]
fn what_comes_during_an_fsync_is_one_group() {
    let folder = quick_folder();
    let gate = Arc::new(Gate::default());
    let store = open_with(folder.path(), gate.settings(GroupStage::Formed));
    let (alice, mut log) = (user("alice"), Log::default());
    gate.close();
    let epoch = store.status().epoch;
    let first = start_flush(&store, Flush { epoch, appends: vec![log.create(ROOM, &[&alice])] });
    gate.until_reached();
    let others: Vec<_> = (0..100)
        .map(|_| start_flush(&store, Flush { epoch, appends: vec![log.message(ROOM, &alice, None)] }))
        .collect();
    gate.open();
    assert_eq!(first.wait(), Ok(Position(1)));
    for (index, other) in others.into_iter().enumerate() {
        assert_eq!(other.wait(), Ok(Position(index as u64 + 2)), "each flush has a position of its own");
    }
    assert_eq!(store.metrics().groups.get(), 2);
    assert_eq!(store.metrics().entries.get(), 101);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let folder = quick_folder();
    let gate = Arc::new(Gate::default());
    let mut settings = gate.settings(GroupStage::Formed);
    settings.writer_queue = 4;
    let store = open_with(folder.path(), settings);
    let (alice, mut log) = (user("alice"), Log::default());
    gate.close();
    let epoch = store.status().epoch;
    let mut pending = vec![start_flush(&store, Flush { epoch, appends: vec![log.create(ROOM, &[&alice])] })];
    gate.until_reached();
    for _ in 0..4 {
        pending.push(start_flush(&store, Flush { epoch, appends: vec![log.message(ROOM, &alice, None)] }));
    }
    let refused = start_flush(&store, Flush { epoch, appends: vec![log.message(ROOM, &alice, None)] });
    assert!(matches!(refused.wait(), Err(StoreError::Unavailable(_))), "while the writer is held");
    gate.open();
    for flush in pending {
        flush.wait().unwrap();
    }
}

#[test]
fn an_entry_that_does_not_follow_is_refused_and_begins_an_epoch() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (alice, mut log) = (user("alice"), Log::default());
    flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
    let epoch = store.status().epoch;
    let (second, third) = (log.message(ROOM, &alice, None), log.message(ROOM, &alice, None));
    assert!(matches!(flush(&store, vec![third]), Err(StoreError::Unavailable(_))), "a hole");
    until("an epoch", || store.status().epoch == Epoch(epoch.0 + 1));
    let old = start_flush(&store, Flush { epoch, appends: vec![second.clone()] });
    assert!(matches!(old.wait(), Err(StoreError::Unavailable(_))), "an epoch that is over");
    flush(&store, vec![second.clone()]).unwrap();
    assert!(flush(&store, vec![second]).is_err(), "a second entry at a place");
    let orphan = Log::default().message(ConversationId(2), &alice, None);
    assert!(flush(&store, vec![orphan]).is_err(), "a conversation that was not created");
    assert_eq!(history(&store, ROOM, &alice).len(), 2);
    assert!(matches!(read(&store, Query::Conversation(ConversationId(2))), Answer::Conversation(None)));
}

#[test]
fn of_many_who_claim_a_key_one_has_it() {
    let folder = quick_folder();
    let store = open(folder.path());
    let pair = || ClaimKey::DirectPair(user("alice"), user("bob"));
    let claims: Vec<_> = (1..50).map(|id| start_claim(&store, pair(), ConversationId(id))).collect();
    for claim in claims {
        assert_eq!(claim.wait(), Ok(ConversationId(1)));
    }
    let creation = ClaimKey::Creation(user("alice"), key("bob"));
    assert_eq!(start_claim(&store, creation, ConversationId(9)).wait(), Ok(ConversationId(9)));
    drop(store);
    let store = open(folder.path());
    assert_eq!(start_claim(&store, pair(), ConversationId(77)).wait(), Ok(ConversationId(1)));
}

#[test]
fn each_opening_is_an_epoch_and_the_position_goes_on() {
    let folder = quick_folder();
    let (alice, mut log) = (user("alice"), Log::default());
    let mut newest = Timestamp(0);
    for opening in 1..5 {
        let store = open(folder.path());
        let status = store.status();
        assert!(status.accepts);
        assert_eq!(status.epoch, Epoch(opening));
        assert_eq!(status.position, Position(opening - 1));
        assert_eq!(status.newest, newest, "ids of earlier epochs are no later");
        let append = if opening == 1 { log.create(ROOM, &[&alice]) } else { log.message(ROOM, &alice, None) };
        newest = append.server_ts;
        assert_eq!(flush(&store, vec![append]), Ok(Position(opening)));
        assert_eq!(flush(&store, Vec::new()), Ok(Position(opening)), "nothing is no position");
    }
}

#[test]
fn no_later_epoch_begins_at_or_before_the_time_of_a_conversations_id() {
    let folder = quick_folder();
    let (alice, mut log) = (user("alice"), Log::default());
    let ahead = now().0 + 3_600_000;
    let id = |time: u64| ConversationId(time << 22 | 5);
    // Made by a worker whose clock is an hour ahead, written by one whose clock is not.
    let store = open(folder.path());
    assert!(flush(&store, vec![log.create(id(ahead), &[&alice])]).is_ok());
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.status().newest, Timestamp(ahead));
    // Given to a pair, and the process ends before anything is said in it.
    let claim = ClaimKey::DirectPair(alice, user("bob"));
    assert_eq!(start_claim(&store, claim, id(ahead + 7)).wait(), Ok(id(ahead + 7)));
    drop(store);
    assert_eq!(open(folder.path()).status().newest, Timestamp(ahead + 7));
}

#[test]
fn when_the_owner_leaves_the_member_who_was_in_longest_is_shown_as_the_owner() {
    let folder = quick_folder();
    let (mut store, mut log) = (open(folder.path()), Log::default());
    let [zoe, mia, adam, bob] = ["zoe", "mia", "adam", "bob"].map(user);
    let members = vec![(zoe.clone(), Role::Owner), (mia.clone(), Role::Member)];
    let created = IndexChange::Created { kind: ConversationKind::Group, name: String::new(), members };
    let add = |user: &UserId| IndexChange::MemberAdded { user: user.clone(), role: Role::Admin };
    let remove = |user: &UserId| IndexChange::MemberRemoved { user: user.clone() };
    // In the flush that made the group, then in later ones, with the store opened anew in between.
    let flushes =
        [vec![created, add(&adam), remove(&zoe)], vec![add(&bob), remove(&mia)], vec![remove(&adam)]];
    for (changes, owner) in flushes.into_iter().zip([&mia, &adam, &bob]) {
        let appends = changes.into_iter().map(|change| log.change(ROOM, &zoe, change)).collect();
        assert!(flush(&store, appends).is_ok());
        drop(store);
        store = open(folder.path());
        let query = Query::Summary { conversation: ROOM, user: owner.clone() };
        let Answer::Summary(Some(summary)) = read(&store, query) else { panic!("{owner:?} is in") };
        assert_eq!(summary.role, Role::Owner, "{owner:?}");
        let owners = summary.members.iter().filter(|(_, role)| *role == Role::Owner);
        assert_eq!(owners.map(|(user, _)| user).collect::<Vec<_>>(), [owner]);
    }
}

#[test]
fn a_folder_in_use_is_refused_with_its_holder() {
    let folder = quick_folder();
    let _store = open(folder.path());
    match EmbeddedStore::open(folder.path(), settings()) {
        Err(error @ OpenError::InUse { .. }) => {
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        }
        _ => panic!("two stores in one folder"),
    }
}

#[test]
fn closing_answers_everything() {
    let folder = quick_folder();
    let gate = Arc::new(Gate::default());
    let store = Arc::new(open_with(folder.path(), gate.settings(GroupStage::Formed)));
    let (alice, mut log) = (user("alice"), Log::default());
    gate.close();
    let epoch = store.status().epoch;
    let mut pending = vec![start_flush(&*store, Flush { epoch, appends: vec![log.create(ROOM, &[&alice])] })];
    gate.until_reached();
    for _ in 0..10 {
        pending.push(start_flush(&*store, Flush { epoch, appends: vec![log.message(ROOM, &alice, None)] }));
    }
    let closing = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || store.close())
    };
    gate.open();
    closing.join().unwrap();
    for flush in pending {
        flush.wait().unwrap();
    }
    assert!(matches!(flush(&*store, vec![log.message(ROOM, &alice, None)]), Err(StoreError::Unavailable(_))));
    assert!(matches!(try_read(&*store, Query::Conversation(ROOM)), Err(StoreError::Unavailable(_))));
    drop(store);
    assert_eq!(history(&open(folder.path()), ROOM, &alice).len(), 11);
}

/// Fails or panics at a stage, as often as it is told.
fn faulty(at: GroupStage, what: &'static str) -> (Arc<AtomicUsize>, StoreSettings) {
    let times = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&times);
    let hook = move |stage| {
        if stage == at && left.load(Ordering::SeqCst) > 0 {
            left.fetch_sub(1, Ordering::SeqCst);
            match what {
                "panic" => panic!("on purpose"),
                _ => return Err(io::Error::from_raw_os_error(5)),
            }
        }
        Ok(())
    };
    (times, StoreSettings { group_hook: Some(Arc::new(hook)), ..settings() })
}

#[test]
fn a_failure_makes_the_group_unknown_and_begins_an_epoch_in_process() {
    for (stage, what) in [
        (GroupStage::Formed, "error"),
        (GroupStage::Synced, "error"),
        (GroupStage::Formed, "panic"),
        (GroupStage::Synced, "panic"),
    ] {
        let folder = quick_folder();
        let (fail, settings) = faulty(stage, what);
        let store = open_with(folder.path(), settings);
        let (alice, mut log) = (user("alice"), Log::default());
        flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
        for failure in 1..4 {
            let epoch = store.status().epoch;
            let before = history(&store, ROOM, &alice).len();
            fail.store(1, Ordering::SeqCst);
            let lost = log.message(ROOM, &alice, Some(&format!("k{failure}")));
            let result = flush(&store, vec![lost]);
            assert!(matches!(result, Err(StoreError::Unknown(_))), "{stage:?} {what}: {result:?}");
            until("the store to accept again", || store.status().accepts && store.status().epoch > epoch);
            let old = start_flush(&store, Flush { epoch, appends: Vec::new() });
            assert!(matches!(old.wait(), Err(StoreError::Unavailable(_))), "the old epoch is over");
            // What is true is read in the new epoch.
            let Answer::Conversation(Some(loaded)) = read(&store, Query::Conversation(ROOM)) else {
                panic!("the conversation is gone")
            };
            let expected = before as u64 + u64::from(stage == GroupStage::Synced);
            assert_eq!(loaded.last_seq, Seq(expected), "{stage:?} {what}");
            if loaded.last_seq.0 == before as u64 {
                log.forget(ROOM);
            }
            flush(&store, vec![log.message(ROOM, &alice, None)]).unwrap();
            assert_eq!(store.metrics().reopens.get(), failure);
        }
    }
}

#[test]
fn readers_go_on_while_groups_fail() {
    let folder = quick_folder();
    let (fail, settings) = faulty(GroupStage::Formed, "error");
    let store = Arc::new(open_with(folder.path(), settings));
    let (alice, mut log) = (user("alice"), Log::default());
    flush(&*store, vec![log.create(ROOM, &[&alice])]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (shown, seen) = (Arc::new(Mutex::new(1)), mpsc::channel());
    let reader = {
        let (store, stop, shown, alice) =
            (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&shown), alice.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let least = *shown.lock().unwrap();
                let query = Query::Summary { conversation: ROOM, user: alice.clone() };
                match try_read(&*store, query) {
                    Ok(Answer::Summary(Some(summary))) => assert!(summary.last_seq.0 >= least),
                    Err(StoreError::Unavailable(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
            seen.0.send(()).unwrap();
        })
    };
    for _ in 0..10 {
        fail.store(1, Ordering::SeqCst);
        assert!(flush(&*store, vec![log.message(ROOM, &alice, None)]).is_err());
        log.forget(ROOM);
        until("the store to accept again", || store.status().accepts);
        flush(&*store, vec![log.message(ROOM, &alice, None)]).unwrap();
        *shown.lock().unwrap() += 1;
    }
    stop.store(true, Ordering::SeqCst);
    reader.join().unwrap();
    seen.1.recv().unwrap();
}

#[test]
fn old_idempotency_keys_are_swept_and_fresh_ones_stay() {
    let folder = quick_folder();
    let settings = StoreSettings { sweep_interval: std::time::Duration::from_millis(5), ..settings() };
    let store = open_with(folder.path(), settings);
    let (alice, mut log) = (user("alice"), Log::default());
    log.time = now().0 - 8 * 86_400_000;
    let mut appends = vec![log.create(ROOM, &[&alice])];
    appends.extend((0..2500).map(|index| log.message(ROOM, &alice, Some(&format!("old{index}")))));
    log.time = 0;
    appends.push(log.message(ROOM, &alice, Some("fresh")));
    flush(&store, appends).unwrap();
    let query =
        |name: &str| Query::Send { conversation: ROOM, sender: user("alice"), client_message_id: key(name) };
    assert_eq!(read(&store, query("old7")), Answer::Send(None), "past its lifetime, swept or not");
    until("the sweep", || store.metrics().swept.get() == 2500);
    assert!(matches!(read(&store, query("fresh")), Answer::Send(Some(row)) if row.seq == Seq(2502)));
}

#[test]
fn a_wall_clock_that_steps_a_week_ahead_and_back_ages_no_key() {
    let folder = quick_folder();
    let (offset, looks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let settings = || {
        let (offset, looks) = (Arc::clone(&offset), Arc::clone(&looks));
        let clock = move || {
            looks.fetch_add(1, Ordering::SeqCst);
            Timestamp(now().0 + offset.load(Ordering::SeqCst))
        };
        let sweep_interval = std::time::Duration::from_millis(2);
        StoreSettings { sweep_interval, wall_clock: WallClock(Some(Arc::new(clock))), ..common::settings() }
    };
    let mut store = open_with(folder.path(), settings());
    let (alice, mut log) = (user("alice"), Log::default());
    let appends = vec![log.create(ROOM, &[&alice]), log.message(ROOM, &alice, Some("young"))];
    flush(&store, appends).unwrap();
    // Ahead, still ahead after a restart, and with an entry that is stamped so; then back.
    for weeks in [1, 1, 2, 0] {
        let ahead = weeks * 8 * 86_400_000;
        offset.store(ahead, Ordering::SeqCst);
        log.time = now().0 + 2 * 8 * 86_400_000;
        flush(&store, vec![log.message(ROOM, &alice, None)]).unwrap();
        let before = looks.load(Ordering::SeqCst);
        until("the sweep to look often, and to store its time", || {
            looks.load(Ordering::SeqCst) > before + 130
        });
        let key = Query::Send { conversation: ROOM, sender: alice.clone(), client_message_id: key("young") };
        assert!(matches!(read(&store, key), Answer::Send(Some(row)) if row.seq == Seq(2)), "{ahead}");
        assert_eq!(store.metrics().swept.get(), 0);
        assert!(store.status().key_time.0 < now().0 + 60_000, "not a week ahead");
        drop(store);
        store = open_with(folder.path(), settings());
    }
}

#[test]
fn who_comes_and_goes_for_ever_keeps_the_newest_stays() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (alice, bob, mut log) = (user("alice"), user("bob"), Log::default());
    let mut appends = vec![log.create(ROOM, &[&alice])];
    for _ in 0..100 {
        let joins = IndexChange::MemberAdded { user: bob.clone(), role: Role::Member };
        appends.push(log.change(ROOM, &alice, joins));
        appends.push(log.change(ROOM, &alice, IndexChange::MemberRemoved { user: bob.clone() }));
        appends.push(log.message(ROOM, &alice, None));
    }
    flush(&store, appends).unwrap();
    let seen: Vec<u64> = history(&store, ROOM, &bob).iter().map(|entry| seq_of(entry).0).collect();
    let newest: Vec<u64> = (36..100).flat_map(|stay| [3 * stay + 2, 3 * stay + 3]).collect();
    assert_eq!(seen, newest, "64 stays, and nothing of what was said between them");
}

#[test]
fn a_deleted_conversation_gives_its_key_back() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (alice, mut log) = (user("alice"), Log::default());
    let creation = || ClaimKey::Creation(user("alice"), key("once"));
    let second = ConversationId(2);
    assert_eq!(start_claim(&store, creation(), ROOM).wait(), Ok(ROOM));
    flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
    assert_eq!(start_claim(&store, creation(), second).wait(), Ok(ROOM), "a retry");
    flush(&store, vec![log.change(ROOM, &alice, IndexChange::Deleted)]).unwrap();
    assert_eq!(start_claim(&store, creation(), second).wait(), Ok(second));
    flush(&store, vec![log.create(second, &[&alice])]).unwrap();
    drop(store);
    let store = open(folder.path());
    assert_eq!(start_claim(&store, creation(), ConversationId(3)).wait(), Ok(second));
}

#[test]
fn a_load_brings_the_newest_keys_and_says_from_when_they_are_all() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (alice, mut log) = (user("alice"), Log::default());
    log.time = now().0;
    let mut appends = vec![log.create(ROOM, &[&alice])];
    for index in 0..300 {
        log.time += u64::from(index % 3 == 0);
        appends.push(log.message(ROOM, &alice, Some(&format!("k{index}"))));
    }
    let times: Vec<_> = appends.iter().map(|append| append.server_ts).collect();
    flush(&store, appends).unwrap();
    let Answer::Conversation(Some(loaded)) = read(&store, Query::Conversation(ROOM)) else { panic!() };
    assert_eq!(loaded.recent.len(), RECENT_SENDS_MAX);
    assert_eq!(loaded.recent[0].1, key("k44"));
    assert_eq!(loaded.recent[255].1, key("k299"));
    assert_eq!(loaded.last_seq, Seq(301));
    for (index, time) in times.iter().enumerate().skip(1) {
        let named = index > 44;
        assert!(named || *time < loaded.recent_since, "key k{} at {time} is left out", index - 1);
    }
    // Changes without a key don't hide that all keys are there.
    let quiet = ConversationId(2);
    let mut appends = vec![log.create(quiet, &[&alice])];
    appends.push(log.message(quiet, &alice, Some("only")));
    appends.extend((0..100).map(|_| log.message(quiet, &alice, None)));
    flush(&store, appends).unwrap();
    let Answer::Conversation(Some(loaded)) = read(&store, Query::Conversation(quiet)) else { panic!() };
    assert_eq!((loaded.recent.len(), loaded.recent_since), (1, Timestamp(0)));
}

#[test]
fn many_memtables_and_journals_go_by_while_all_stays_readable() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (alice, bob, mut log) = (user("alice"), user("bob"), Log::default());
    let rooms: Vec<_> = (1..=20).map(ConversationId).collect();
    for room in &rooms {
        flush(&store, vec![log.create(*room, &[&alice, &bob])]).unwrap();
    }
    // About 160 MB: twenty full memtables of the log, more than two journals.
    for _ in 0..40 {
        let appends = rooms.iter().flat_map(|room| {
            (0..20).map(|_| log.entry(*room, &alice, Some("again"), None, 10_000)).collect::<Vec<_>>()
        });
        flush(&store, appends.collect()).unwrap();
    }
    flush(&store, vec![log.change(rooms[0], &alice, IndexChange::MemberRemoved { user: bob.clone() })])
        .unwrap();
    let journals = || {
        let files = std::fs::read_dir(folder.path().join("database")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "jnl")).count()
    };
    assert!(journals() <= 4, "journals are not given back: {}", journals());
    drop(store);
    let store = open(folder.path());
    for room in &rooms {
        let seen = history(&store, *room, &bob);
        let last = 801 + u64::from(*room == rooms[0]);
        assert_eq!(
            seen.iter().map(|entry| seq_of(entry).0).collect::<Vec<_>>(),
            (1..=last).collect::<Vec<_>>()
        );
    }
    flush(
        &store,
        vec![log.change(rooms[0], &alice, IndexChange::MemberAdded { user: bob, role: Role::Admin })],
    )
    .unwrap();
}

#[test]
fn the_metrics_page_tells_of_groups_reads_and_queues() {
    let folder = quick_folder();
    let store = open(folder.path());
    let (alice, mut log) = (user("alice"), Log::default());
    flush(&store, vec![log.create(ROOM, &[&alice]), log.message(ROOM, &alice, None)]).unwrap();
    assert_eq!(history(&store, ROOM, &alice).len(), 2);
    let mut text = ringway_metrics::Text::default();
    store.metrics().render(&mut text);
    let page = text.finish();
    for line in [
        "ringway_store_accepts 1",
        "ringway_store_groups_total 1",
        "ringway_store_entries_total 2",
        "ringway_store_sync_seconds_count 1",
        "ringway_store_group_entries_sum 2",
        "ringway_store_read_seconds_count 1",
        "ringway_store_queue{queue=\"writer\"} 0",
        "ringway_store_reopens_total 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}
