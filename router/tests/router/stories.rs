//! What a worker does, told story by story.

use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Seq, Timestamp};
use ringway_protocol::limits::GROUP_MEMBERS_MAX;
use ringway_protocol::trunk::{Operation, Outcome, Refusal, Target};
use ringway_protocol::user::UserId;
use ringway_router::shard::WorkerSettings;
use ringway_store_writer::store::{Query, StoreError};

use crate::stage::{Call, Said, Stage, key, settings, text, user};

fn page(outcome: Option<Result<Outcome, Refusal>>) -> (usize, bool) {
    match outcome {
        Some(Ok(Outcome::Page { entries, more, .. })) => (entries.len(), more),
        other => panic!("not a page: {other:?}"),
    }
}

#[test]
fn nobody_is_told_before_the_message_is_durable_and_the_sender_gets_the_ack_instead_of_it() {
    let mut stage = Stage::new(settings());
    for (slot, name) in [(1, "alice"), (2, "alice"), (11, "bob"), (3, "eve")] {
        stage.attach(slot, name);
    }
    let group = stage.group(&["alice", "bob"]);
    for slot in [1, 2, 11] {
        assert_eq!(stage.live(slot), [1]);
    }
    let request = stage.send(1, "alice", group, "a", "hello");
    stage.pass();
    assert_eq!(stage.answer_of(request), None);
    assert!(stage.live(11).is_empty());
    stage.answer_next();
    assert!(matches!(
        stage.heard(1)[..],
        [Said::Reply(_, Ok(Outcome::Sent { seq: Seq(2), duplicate: false, .. }))]
    ));
    assert_eq!(stage.live(2), [2]);
    assert_eq!(stage.live(11), [2]);
    assert!(stage.live(3).is_empty());
    assert_eq!(stage.committed, [(group, Seq(1)), (group, Seq(2))]);
}

#[test]
fn while_a_flush_is_under_way_the_next_one_gathers() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice"]);
    let first = stage.send(1, "alice", group, "0", "x");
    stage.pass();
    let rest: Vec<_> = (1..20).map(|i| stage.send(1, "alice", group, &i.to_string(), "x")).collect();
    stage.pass();
    assert_eq!(stage.calls.len(), 1);
    stage.answer_next();
    assert_eq!(stage.acked(first), Some(2));
    stage.pass();
    assert!(matches!(&stage.calls[0], Call::Flush(_, flush) if flush.appends.len() == 19));
    stage.answer_next();
    let seqs: Vec<_> = rest.into_iter().map(|request| stage.acked(request)).collect();
    assert_eq!(seqs, (3..22).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_retry_gets_the_first_answer_and_another_body_a_conflict() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice", "bob"]);
    let first = stage.send(1, "alice", group, "a", "hello");
    let retry = stage.send(2, "alice", group, "a", "hello");
    let other = stage.send(1, "alice", group, "a", "bye");
    assert_eq!(stage.answer_of(retry), None, "the entry is on its way: the retry waits for it");
    assert_eq!(stage.answer_of(other), None, "so does the conflict");
    stage.settle();
    let later = stage.send(1, "alice", group, "a", "hello");
    let bobs = stage.send(11, "bob", group, "a", "hello");
    stage.settle();
    let (Some(Ok(Outcome::Sent { message, duplicate: false, .. })), Some(Ok(again))) =
        (stage.answer_of(first), stage.answer_of(later))
    else {
        panic!("both are sent")
    };
    assert!(
        matches!(again, Outcome::Sent { message: same, seq: Seq(2), duplicate: true, .. } if same == message)
    );
    assert_eq!(stage.acked(retry), Some(2));
    assert_eq!(stage.answer_of(other), Some(Err(Refusal::DuplicateConflict)));
    assert_eq!(stage.acked(bobs), Some(3), "a key belongs to its sender");
}

#[test]
fn a_key_that_may_be_older_than_memory_is_read_and_sends_keep_their_order_meanwhile() {
    let mut stage = Stage::new(WorkerSettings { conversations_max: 1, ..settings() });
    stage.store = crate::model_store::ModelStore::new(2);
    stage.pass();
    let group = stage.group(&["alice", "bob"]);
    for id in ["a", "b", "c", "d"] {
        stage.send(1, "alice", group, id, id);
    }
    stage.settle();
    stage.group(&["zoe"]); // and the first conversation goes out of memory
    let old = stage.send(1, "alice", group, "a", "a");
    let fresh = stage.send(1, "alice", group, "e", "e");
    let known = stage.send(1, "alice", group, "d", "d");
    stage.answer_next(); // the load, which knows of c and d only
    assert!(matches!(
        (&stage.calls[0], &stage.calls[1], stage.calls.len()),
        (Call::Query(_, Query::Send { .. }), Call::Query(_, Query::Send { .. }), 2)
    ));
    stage.calls.swap(0, 1);
    stage.answer_next(); // e is new, and waits for a
    assert_eq!(stage.answer_of(known), None);
    stage.answer_next();
    stage.settle();
    assert_eq!(stage.acked(old), Some(2));
    assert_eq!(stage.acked(known), Some(5));
    assert_eq!(stage.acked(fresh), Some(6));
}

#[test]
fn a_new_key_is_read_until_twice_the_window_has_passed_since_one_was_forgotten() {
    let mut stage =
        Stage::new(WorkerSettings { conversation_keys_max: 1, dedup_window_seconds: 60, ..settings() });
    let group = stage.group(&["alice"]);
    for id in ["p", "q"] {
        stage.send(1, "alice", group, id, id);
        stage.settle();
    }
    stage.store.key_time = Timestamp(stage.now.wall.0 + 119_000);
    stage.pass();
    stage.send(1, "alice", group, "x", "x");
    assert_eq!(stage.calls.len(), 1, "p was forgotten within the horizon: x may have been as well");
    stage.settle();
    stage.store.key_time = Timestamp(stage.now.wall.0 + 121_000);
    stage.pass();
    let late = stage.send(1, "alice", group, "y", "y");
    assert!(!stage.calls.iter().any(|call| matches!(call, Call::Query(..))), "nothing to ask the store");
    stage.settle();
    assert_eq!(stage.acked(late), Some(5));
}

#[test]
fn a_read_that_began_before_its_key_was_durable_is_not_believed_once_the_key_is_forgotten() {
    let mut stage = Stage::new(WorkerSettings { conversation_keys_max: 1, ..settings() });
    let group = stage.group(&["alice"]);
    for id in ["p", "q"] {
        stage.send(1, "alice", group, id, id);
        stage.settle();
    }
    // p is forgotten, so every new key is read.
    let first = stage.send(1, "alice", group, "x", "x");
    stage.send(1, "alice", group, "y", "y");
    stage.send(1, "alice", group, "z", "z");
    let retry = stage.send(2, "alice", group, "x", "x");
    assert_eq!(stage.calls.len(), 4);
    stage.calls.rotate_right(1);
    stage.answer_next(); // the retry's read: x is not there yet
    stage.answer_next();
    stage.answer_next(); // x and y have their place, z waits
    let z = stage.calls.pop_front();
    stage.settle(); // x and y are durable, and x is forgotten
    assert_eq!((stage.acked(first), stage.answer_of(retry)), (Some(4), None));
    stage.calls.extend(z);
    stage.settle();
    assert_eq!(stage.acked(retry), Some(4));
}

#[test]
fn who_is_no_member_learns_nothing() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice"]);
    let nowhere = ConversationId(12345);
    let foreign = UserId::new("acme", "alice").unwrap();
    for conversation in [group, nowhere] {
        let requests = [
            stage.send(3, "eve", conversation, "a", "hi"),
            stage.add("eve", conversation, "eve", Role::Member),
            stage.remove("eve", conversation, "alice"),
            stage.page(3, "eve", conversation, 0),
            stage.page(3, "eve", conversation, 7),
            stage.ask(3, "eve", Operation::Rename { conversation, name: "x".to_owned() }),
            stage.ask(3, "eve", Operation::Delete { conversation }),
        ];
        stage.settle();
        for request in requests {
            assert_eq!(stage.answer_of(request), Some(Err(Refusal::NotFound)));
        }
    }
    let target = Target::User(foreign.clone());
    let send = Operation::Send { target, client_message_id: key("a"), message: text("hi") };
    let send = stage.ask(1, "alice", send);
    let add = stage.ask(
        1,
        "alice",
        Operation::AddMember { conversation: group, user: foreign, role: Role::Member },
    );
    assert_eq!(stage.answer_of(send), Some(Err(Refusal::NotFound)));
    assert_eq!(stage.answer_of(add), Some(Err(Refusal::NotFound)));
}

#[test]
fn a_pair_has_one_conversation_from_whichever_side() {
    let mut stage = Stage::new(settings());
    stage.attach(1, "alice");
    stage.attach(11, "bob");
    let to = |name: &str, id: &str| Operation::Send {
        target: Target::User(user(name)),
        client_message_id: key(id),
        message: text(id),
    };
    let requests = [
        stage.ask(1, "alice", to("bob", "a")),
        stage.ask(11, "bob", to("alice", "b")),
        stage.ask(1, "alice", to("bob", "c")),
    ];
    stage.settle();
    assert_eq!(requests.map(|request| stage.acked(request).unwrap()), [2, 3, 4]);
    assert_eq!(stage.live(1), [1, 3]);
    assert_eq!(stage.live(11), [1, 2, 4]);
    assert_eq!(stage.store.logs.len(), 1);
    let members = Vec::from([user("alice")]);
    let kind = ConversationKind::Direct;
    let create = Operation::Create { kind, name: String::new(), members, idempotency_key: None };
    let request = stage.ask(11, "bob", create);
    stage.settle();
    assert!(matches!(
        stage.answer_of(request),
        Some(Ok(Outcome::Created { created: false, seq: Seq(4), .. }))
    ));
    let myself = stage.ask(1, "alice", to("alice", "note"));
    stage.settle();
    assert_eq!(stage.acked(myself), Some(2));
    assert_eq!(stage.store.logs.len(), 2);
    let direct = *stage.store.logs.keys().next().unwrap();
    let add = stage.add("alice", direct, "zoe", Role::Member);
    stage.settle();
    assert!(matches!(stage.answer_of(add), Some(Err(Refusal::Invalid(_)))));
}

#[test]
fn the_same_idempotency_key_makes_one_group() {
    let mut stage = Stage::new(settings());
    let create = || Operation::Create {
        kind: ConversationKind::Group,
        name: "us".to_owned(),
        members: vec![user("bob"), user("alice"), user("bob")],
        idempotency_key: Some(key("k")),
    };
    let one = stage.ask(99, "alice", create());
    let two = stage.ask(99, "alice", create());
    let other = stage.ask(99, "bob", create());
    stage.settle();
    let id = |request| match stage.answer_of(request) {
        Some(Ok(Outcome::Created { conversation, created, .. })) => (conversation, created),
        other => panic!("not created: {other:?}"),
    };
    assert_eq!((id(one).0, true, false), (id(two).0, id(one).1, id(two).1));
    assert_ne!(id(one).0, id(other).0);
    let log = &stage.store.logs[&id(one).0];
    assert_eq!(log.members_at(Seq(1)), [(user("alice"), Role::Owner), (user("bob"), Role::Member)]);
}

#[test]
fn membership_is_exact_at_the_seq_with_everything_in_one_flush() {
    let mut stage = Stage::new(settings());
    for (slot, name) in [(1, "alice"), (2, "bob"), (3, "zoe")] {
        stage.attach(slot, name);
    }
    let group = stage.group(&["alice", "bob"]);
    for slot in 1..=3 {
        stage.heard(slot);
    }
    stage.send(99, "alice", group, "2", "x");
    stage.add("alice", group, "zoe", Role::Admin); // 3
    stage.send(99, "zoe", group, "4", "x");
    stage.remove("zoe", group, "bob"); // 5
    let late = stage.send(2, "bob", group, "6", "x");
    stage.send(99, "alice", group, "6", "x");
    stage.add("alice", group, "bob", Role::Member); // 7
    stage.settle();
    assert_eq!(stage.live(1), [2, 3, 4, 5, 6, 7]);
    assert_eq!(stage.answer_of(late), Some(Err(Refusal::NotFound)));
    assert_eq!(stage.live(2), [2, 3, 4, 5, 7]);
    assert_eq!(stage.live(3), [3, 4, 5, 6, 7]);
}

#[test]
fn roles_decide_who_changes_what() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["owner", "member", "other"]);
    let rename = |name: &str| Operation::Rename { conversation: group, name: name.to_owned() };
    let add = stage.add("owner", group, "admin", Role::Admin);
    stage.settle();
    assert_eq!(stage.answer_of(add), Some(Ok(Outcome::Changed { seq: Some(Seq(2)) })));
    let refused = [
        stage.add("member", group, "zoe", Role::Member),
        stage.remove("member", group, "other"),
        stage.remove("admin", group, "owner"),
        stage.ask(99, "admin", rename("new")),
        stage.ask(99, "member", Operation::Delete { conversation: group }),
    ];
    let nothing = [
        stage.add("admin", group, "member", Role::Member),
        stage.remove("owner", group, "nobody"),
        stage.ask(99, "owner", rename("us")),
    ];
    let second_owner = stage.add("owner", group, "zoe", Role::Owner);
    stage.settle();
    for request in refused {
        assert_eq!(stage.answer_of(request), Some(Err(Refusal::Forbidden)));
    }
    for request in nothing {
        assert_eq!(stage.answer_of(request), Some(Ok(Outcome::Changed { seq: None })));
    }
    assert!(matches!(stage.answer_of(second_owner), Some(Err(Refusal::Invalid(_)))));
    let leave = stage.remove("owner", group, "owner");
    let heir = stage.ask(99, "member", rename("ours"));
    let delete = stage.ask(99, "member", Operation::Delete { conversation: group });
    let late = stage.send(1, "admin", group, "a", "x");
    stage.settle();
    assert_eq!(stage.answer_of(leave), Some(Ok(Outcome::Changed { seq: Some(Seq(3)) })));
    assert_eq!(stage.answer_of(heir), Some(Ok(Outcome::Changed { seq: Some(Seq(4)) })));
    assert_eq!(stage.answer_of(delete), Some(Ok(Outcome::Changed { seq: Some(Seq(5)) })));
    assert!(matches!(stage.answer_of(late), Some(Err(Refusal::Invalid(_)))));
}

#[test]
fn the_heir_of_a_group_is_the_same_after_a_reload() {
    for reload in [false, true] {
        let mut stage = Stage::new(WorkerSettings { conversations_max: 1, ..settings() });
        let group = stage.group(&["owner", "zoe", "mia"]);
        stage.add("owner", group, "adam", Role::Admin);
        stage.remove("owner", group, "owner");
        stage.settle();
        if reload {
            stage.group(&["other"]);
        }
        let heir = stage.ask(99, "mia", Operation::Rename { conversation: group, name: "x".to_owned() });
        let other = stage.ask(99, "adam", Operation::Rename { conversation: group, name: "y".to_owned() });
        stage.settle();
        assert!(matches!(stage.answer_of(heir), Some(Ok(Outcome::Changed { seq: Some(_) }))));
        assert_eq!(stage.answer_of(other), Some(Err(Refusal::Forbidden)));
    }
}

#[test]
fn a_group_has_its_bound() {
    let mut stage = Stage::new(settings());
    let names: Vec<String> = (0..GROUP_MEMBERS_MAX).map(|i| format!("u{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let group = stage.group(&names);
    let add = stage.add("u0", group, "one-more", Role::Member);
    stage.settle();
    assert_eq!(stage.answer_of(add), Some(Err(Refusal::ConversationFull)));
}

#[test]
fn a_refused_flush_acknowledges_nothing_and_leaves_no_hole() {
    let mut stage = Stage::new(settings());
    stage.attach(11, "bob");
    let group = stage.group(&["alice", "bob"]);
    stage.heard(11);
    let lost = stage.send(1, "alice", group, "a", "x");
    stage.pass();
    let behind = stage.send(1, "alice", group, "b", "x");
    let (id, _) = stage.take_flush();
    stage.fail(id, StoreError::Unavailable("the disk is full".to_owned()));
    for request in [lost, behind] {
        assert_eq!(stage.answer_of(request), Some(Err(Refusal::Unavailable)));
    }
    let again = stage.send(1, "alice", group, "a", "x");
    stage.settle();
    assert_eq!(stage.acked(again), Some(2));
    assert_eq!(stage.live(11), [2]);
}

#[test]
fn what_was_unknown_and_turns_out_stored_is_delivered_once_the_next_epoch_reads_it() {
    let mut stage = Stage::new(settings());
    stage.attach(11, "bob");
    stage.attach(1, "alice");
    let group = stage.group(&["alice", "bob"]);
    stage.heard(11);
    stage.heard(1);
    stage.pass();
    let unknown = stage.send(1, "alice", group, "a", "x");
    let retry = stage.send(2, "alice", group, "a", "x");
    stage.pass();
    let gathered = stage.send(1, "alice", group, "b", "x");
    let (id, flush) = stage.take_flush();
    stage.store.apply(&flush).unwrap();
    stage.store.fence();
    stage.now.steady_microseconds += 100_000;
    stage.fail(id, StoreError::Unknown("fsync".to_owned()));
    for request in [unknown, retry, gathered] {
        assert_eq!(stage.answer_of(request), Some(Err(Refusal::Unavailable)));
    }
    stage.pass();
    let early = stage.send(1, "alice", group, "c", "x");
    assert_eq!(stage.calls.len(), 0, "what is true is read in the next epoch");
    let before = stage.watermark;
    assert!(before < stage.store.position);
    stage.store.reopen();
    stage.settle();
    assert_eq!(stage.answer_of(early), Some(Err(Refusal::Unavailable)));
    assert_eq!(stage.live(11), [2]);
    assert_eq!(stage.live(1), [2], "no ack came, so the sender sees it");
    assert_eq!(stage.committed.last(), Some(&(group, Seq(2))));
    stage.now.steady_microseconds += 100_000;
    stage.pass();
    assert_eq!(stage.watermark, stage.store.position);
    let again = stage.send(1, "alice", group, "a", "x");
    let next = stage.send(1, "alice", group, "b", "x");
    stage.settle();
    assert_eq!((stage.acked(again), stage.acked(next)), (Some(2), Some(3)));
}

#[test]
fn a_new_epoch_drops_what_was_loaded_and_what_was_asked() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice"]);
    stage.send(1, "alice", group, "a", "x");
    stage.pass();
    let gathered = stage.send(1, "alice", group, "b", "x");
    stage.store.reopen(); // the flush under way is of the epoch before
    stage.pass();
    assert_eq!(stage.answer_of(gathered), Some(Err(Refusal::Unavailable)));
    let early = stage.send(1, "alice", group, "b", "x");
    let elsewhere = stage.send(1, "alice", ConversationId(7), "a", "x");
    stage.pass();
    assert_eq!(stage.answer_of(elsewhere), Some(Err(Refusal::Unavailable)));
    assert_eq!(stage.calls.len(), 1, "nothing is loaded while an old flush might still land");
    stage.settle();
    assert_eq!(stage.acked(early), Some(2));
}

#[test]
fn the_seam_of_a_sync_has_no_hole_and_no_overlap() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice", "bob"]);
    for id in 2..=12 {
        stage.send(1, "alice", group, &id.to_string(), "x");
    }
    stage.settle();
    stage.attach(11, "bob");
    // Ten entries of twelve: live ones are held back until the rest was read.
    let first = stage.page(11, "bob", group, 0);
    stage.answer_next();
    assert_eq!(page(stage.answer_of(first)), (10, true));
    stage.send(1, "alice", group, "13", "x");
    stage.settle();
    assert!(stage.live(11).is_empty());
    // The read runs while 14 becomes durable, and misses it: another page is needed.
    let second = stage.page(11, "bob", group, 10);
    let Some(Call::Query(id, query)) = stage.calls.pop_front() else { panic!("a read") };
    let result = Ok(stage.store.answer(&query));
    stage.send(1, "alice", group, "14", "x");
    stage.settle();
    stage.step(ringway_router::shard::Event::Answered { id, result });
    assert_eq!(page(stage.answer_of(second)), (3, true));
    // The read sees 15, which the worker does not know to be durable yet: it comes once.
    let third = stage.page(11, "bob", group, 13);
    stage.send(1, "alice", group, "15", "x");
    stage.send(1, "alice", group, "16", "x");
    stage.pass();
    let Some(Call::Query(read, query)) = stage.calls.pop_front() else { panic!("a read") };
    let (flush_id, flush) = stage.take_flush();
    let position = stage.store.apply(&flush).unwrap();
    let result = Ok(stage.store.answer(&query));
    stage.step(ringway_router::shard::Event::Answered { id: read, result });
    stage.step(ringway_router::shard::Event::Flushed { id: flush_id, result: Ok(position) });
    assert_eq!(page(stage.answer_of(third)), (3, false));
    stage.send(1, "alice", group, "17", "x");
    stage.settle();
    assert_eq!(stage.live(11), [17]);
}

#[test]
fn a_hold_ends_with_sync_end_with_a_failed_page_and_with_the_connection() {
    let mut stage = Stage::new(settings());
    stage.attach(11, "bob");
    let group = stage.group(&["alice", "bob"]);
    stage.heard(11);
    let open = stage.page(11, "bob", group, 0);
    let end = stage.ask(11, "bob", Operation::SyncEnd { conversation: group });
    assert_eq!(stage.answer_of(end), Some(Ok(Outcome::Done)));
    stage.send(1, "alice", group, "2", "x");
    stage.settle();
    assert!(stage.answer_of(open).is_some());
    assert_eq!(stage.live(11), [2]);

    let failed = stage.page(11, "bob", group, 2);
    let Some(Call::Query(id, _)) = stage.calls.pop_front() else { panic!("a read") };
    let result = Err(StoreError::Unavailable("busy".to_owned()));
    stage.step(ringway_router::shard::Event::Answered { id, result });
    assert_eq!(stage.answer_of(failed), Some(Err(Refusal::Unavailable)));
    stage.send(1, "alice", group, "3", "x");
    stage.settle();
    assert_eq!(stage.live(11), [3]);

    stage.page(11, "bob", group, 3);
    stage.detach(11, "bob");
    stage.attach(11, "bob");
    stage.send(1, "alice", group, "4", "x");
    stage.settle();
    assert_eq!(stage.live(11), [4]);
}

#[test]
fn a_removed_member_syncs_up_to_the_removal() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice", "bob"]);
    stage.remove("alice", group, "bob");
    stage.send(1, "alice", group, "a", "x");
    stage.settle();
    let all = stage.page(11, "bob", group, 0);
    let none = stage.page(11, "bob", group, 2);
    stage.settle();
    assert_eq!(page(stage.answer_of(all)), (2, false));
    assert_eq!(page(stage.answer_of(none)), (0, false));
}

#[test]
fn a_removed_sender_still_learns_that_a_send_was_stored() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice", "bob"]);
    let sent = stage.send(11, "bob", group, "a", "x");
    stage.settle();
    stage.remove("alice", group, "bob");
    stage.settle();
    let retry = stage.send(11, "bob", group, "a", "x");
    let new = stage.send(11, "bob", group, "b", "x");
    stage.settle();
    assert_eq!(stage.acked(retry), stage.acked(sent));
    assert_eq!(stage.answer_of(new), Some(Err(Refusal::NotFound)));
}

#[test]
fn every_request_ends_within_its_time() {
    let mut stage = Stage::new(settings());
    stage.attach(11, "bob");
    let group = stage.group(&["alice", "bob"]);
    stage.heard(11);
    let requests = [
        stage.send(1, "alice", group, "a", "x"),
        stage.page(11, "bob", group, 0),
        stage.ask(11, "bob", Operation::Heads { since: None }),
        stage.send(1, "alice", ConversationId(77), "a", "x"),
    ];
    stage.pass();
    stage.now.steady_microseconds += 8_000_000;
    stage.pass();
    for request in requests {
        assert_eq!(stage.answer_of(request), Some(Err(Refusal::Unavailable)));
    }
    stage.attach(1, "alice");
    stage.settle();
    assert_eq!(stage.live(1), [2], "late, and still delivered: the sender has no ack of it");
    assert_eq!(stage.live(11), [2]);
    assert!(stage.worker.is_idle());
}

#[test]
fn what_is_in_flight_and_what_is_loaded_is_bounded() {
    let mut stage = Stage::new(WorkerSettings {
        conversation_inflight_max: 3,
        inflight_max: 4,
        conversations_max: 2,
        queries_max: 5,
        ..settings()
    });
    let groups: Vec<_> = (0..5).map(|_| stage.group(&["alice"])).collect();
    assert_eq!(stage.worker.conversations_loaded(), 2);
    let hot: Vec<_> = (0..5).map(|i| stage.send(1, "alice", groups[4], &i.to_string(), "x")).collect();
    let other: Vec<_> = (0..2).map(|i| stage.send(1, "alice", groups[3], &i.to_string(), "x")).collect();
    assert_eq!(stage.answer_of(hot[3]), Some(Err(Refusal::ConversationFull)));
    assert_eq!(stage.answer_of(other[1]), Some(Err(Refusal::Unavailable)));
    let loads: Vec<_> = (0..6).map(|i| stage.send(1, "alice", ConversationId(1000 + i), "a", "x")).collect();
    assert_eq!(stage.answer_of(loads[4]), None);
    assert_eq!(stage.answer_of(loads[5]), Some(Err(Refusal::Unavailable)));
    stage.settle();
    assert_eq!(stage.acked(hot[2]), Some(4));
    assert_eq!(stage.acked(other[0]), Some(2));
}

#[test]
fn that_a_conversation_is_full_is_told_to_its_members_only() {
    let mut stage = Stage::new(WorkerSettings { conversation_inflight_max: 3, ..settings() });
    let group = stage.group(&["alice", "bob"]);
    let bobs = stage.send(11, "bob", group, "b", "hello");
    stage.settle();
    stage.remove("alice", group, "bob");
    stage.settle();
    for id in ["0", "1", "2"] {
        stage.send(1, "alice", group, id, "x");
    }
    let strangers = [
        stage.send(3, "eve", group, "e", "x"),
        stage.send(3, "eve", ConversationId(12_345), "e", "x"),
        stage.ask(3, "eve", Operation::Rename { conversation: group, name: "mine".to_owned() }),
        stage.send(11, "bob", group, "new", "x"),
    ];
    let member = stage.send(1, "alice", group, "3", "x");
    let retry = stage.send(11, "bob", group, "b", "hello");
    assert_eq!(stage.answer_of(member), Some(Err(Refusal::ConversationFull)));
    assert_eq!(
        stage.answer_of(retry),
        Some(Err(Refusal::ConversationFull)),
        "it is stored: to be tried again"
    );
    stage.settle();
    for stranger in strangers {
        assert_eq!(stage.answer_of(stranger), Some(Err(Refusal::NotFound)));
    }
    assert_eq!(stage.acked(bobs), Some(2));
}

#[test]
fn a_stranger_sees_no_difference_where_keys_were_forgotten_and_a_conversation_is_full() {
    let mut stage =
        Stage::new(WorkerSettings { conversation_inflight_max: 3, conversation_keys_max: 1, ..settings() });
    let group = stage.group(&["alice"]);
    for id in ["p", "q"] {
        stage.send(1, "alice", group, id, id);
        stage.settle();
    }
    for id in ["0", "1", "2"] {
        stage.send(1, "alice", group, id, "x");
    }
    let there = stage.send(3, "eve", group, "e", "x");
    let nowhere = stage.send(3, "eve", ConversationId(12_345), "e", "x");
    stage.settle();
    assert_eq!(stage.answer_of(there), Some(Err(Refusal::NotFound)));
    assert_eq!(stage.answer_of(nowhere), Some(Err(Refusal::NotFound)));
}

#[test]
fn a_clock_that_steps_ahead_does_not_make_a_key_look_old() {
    let mut stage = Stage::new(WorkerSettings { conversation_keys_max: 1, ..settings() });
    let group = stage.group(&["alice"]);
    for id in ["p", "q"] {
        stage.send(1, "alice", group, id, id);
        stage.settle();
    }
    stage.now.wall.0 += 7 * 86_400_000;
    let retry = stage.send(1, "alice", group, "p", "p");
    stage.settle();
    assert_eq!(stage.acked(retry), Some(2), "p was forgotten a moment ago, whatever the wall clock says");
    assert!(matches!(stage.answer_of(retry), Some(Ok(Outcome::Sent { duplicate: true, .. }))));
}

#[test]
fn a_clock_that_steps_back_breaks_neither_ids_nor_deadlines() {
    let mut stage = Stage::new(settings());
    let group = stage.group(&["alice"]);
    for id in 0..10 {
        stage.now.wall.0 -= 3_600_000.min(stage.now.wall.0);
        let request = stage.send(1, "alice", group, &id.to_string(), "x");
        stage.settle();
        assert_eq!(stage.acked(request), Some(id + 2)); // the model store checks that ids rise
    }
    let waiting = stage.send(1, "alice", group, "late", "x");
    stage.pass();
    stage.now.steady_microseconds += 8_000_000;
    stage.pass();
    assert_eq!(stage.answer_of(waiting), Some(Err(Refusal::Unavailable)));
}

#[test]
fn the_same_device_and_the_one_too_many_are_closed() {
    let mut stage = Stage::new(WorkerSettings { connections_per_user: 2, ..settings() });
    stage.attach(1, "alice");
    stage.attach(2, "alice");
    stage.attach(3, "alice");
    assert_eq!(stage.heard(3), [Said::Close(4029)]);
}
