//! rustls at the other end: what either says, the other understands, through changes of keys and closes.

use proptest::prelude::*;
use ringway_protocol::tls::{Role, Suite, limits};
use rustls::Connection;
use std::io::Write;

use crate::pair::{Pair, SUITES, open_all, read, written};

const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// So much that it takes several records.
fn speech(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[test]
fn every_suite_and_role_understands_rustls_and_is_understood() {
    for (role, suite) in ROLES.into_iter().flat_map(|role| SUITES.map(|suite| (role, suite))) {
        let mut pair = Pair::new(role, suite);
        for len in [1, 128, 16_383, 16_384, 16_385, 60_000] {
            let speech = speech(len);
            assert_eq!(pair.send(&speech), speech);
            pair.theirs.writer().write_all(&speech).unwrap();
            assert_eq!(pair.receive(2048).unwrap(), speech, "{role:?} {suite:?} {len}");
        }
    }
}

#[test]
fn what_comes_behind_the_handshake_in_one_reception_is_not_lost() {
    for role in ROLES {
        for tickets in [0, 1, 4] {
            for piece in [1, 2, 7, 100, 1_000, usize::MAX] {
                let mut pair =
                    Pair::with_pieces(role, Suite::Aes256GcmSha384, tickets, piece, b"GET / HTTP/1.1");
                assert_eq!(pair.send(b"and we go on"), b"and we go on");
            }
        }
    }
}

#[test]
fn plaintext_of_many_records_lies_in_one_piece_where_it_arrived() {
    let mut pair = Pair::new(Role::Server, Suite::Aes128GcmSha256);
    for word in ["one", "two", "", "three"] {
        pair.theirs.writer().write_all(word.as_bytes()).unwrap();
    }
    let mut received = written(&mut pair.theirs);
    let opened = pair.ours.open(&mut received);
    assert_eq!(opened.outcome, Ok(()));
    assert!(opened.gathered.is_empty());
    assert_eq!(received[opened.in_place], *b"onetwothree");
}

#[test]
fn keys_change_on_either_sides_wish() {
    for (role, suite) in ROLES.into_iter().flat_map(|role| SUITES.map(|suite| (role, suite))) {
        let mut pair = Pair::new(role, suite);
        for round in 0..3 {
            // Ours, alone and with the peer's.
            pair.ours.refresh_keys(round == 1);
            assert!(pair.ours.has_outgoing());
            assert_eq!(pair.send(b"with a new key"), b"with a new key");
            assert!(!pair.ours.has_outgoing());
            pair.theirs.writer().write_all(b"theirs").unwrap();
            assert_eq!(pair.receive(3).unwrap(), b"theirs");
            // Theirs, which always asks for ours.
            pair.theirs.refresh_traffic_keys().unwrap();
            pair.theirs.writer().write_all(b"new too").unwrap();
            assert_eq!(pair.receive(3).unwrap(), b"new too");
            let answer = pair.outgoing();
            assert_eq!(answer.len(), 27, "one KeyUpdate");
            assert_eq!(read(&mut pair.theirs, &answer).unwrap(), b"");
            assert_eq!(pair.send(b"again"), b"again");
        }
    }
}

#[test]
fn many_asked_changes_are_answered_once() {
    let mut pair = Pair::new(Role::Server, Suite::Aes128GcmSha256);
    for _ in 0..10 {
        pair.theirs.refresh_traffic_keys().unwrap();
        assert_eq!(pair.receive(usize::MAX).unwrap(), b"");
    }
    assert_eq!(pair.outgoing().len(), 27);
    assert_eq!(pair.outgoing(), b"");
    let mut pair = Pair::new(Role::Server, Suite::Aes128GcmSha256);
    pair.theirs.refresh_traffic_keys().unwrap();
    pair.receive(usize::MAX).unwrap();
    // Where there is something to say, the answer goes before it.
    assert_eq!(pair.sealed(b"x").len(), 27 + 1 + limits::SEAL_OVERHEAD_BYTES);
}

#[test]
fn a_close_of_theirs_leaves_our_side_open() {
    for role in ROLES {
        let mut pair = Pair::new(role, Suite::Chacha20Poly1305Sha256);
        pair.theirs.writer().write_all(b"last words").unwrap();
        pair.theirs.send_close_notify();
        assert_eq!(pair.receive(5).unwrap(), b"last words");
        assert!(pair.ours.peer_has_closed());
        assert!(!pair.ours.has_outgoing());
        assert_eq!(pair.send(b"one thing more"), b"one thing more");
        assert_eq!(open_all(&mut pair.ours, b"what comes now is not looked at"), Ok(Vec::new()));
        pair.ours.close();
        pair.ours.close();
        let goodbye = pair.outgoing();
        assert_eq!(goodbye.len(), 24);
        read(&mut pair.theirs, &goodbye).unwrap();
        assert_eq!(pair.outgoing(), b"", "once");
        assert!(pair.ours.seal(b"x", &mut Vec::new()).is_err(), "nothing behind it");
    }
}

#[test]
fn our_close_is_understood_and_we_listen_on() {
    let mut pair = Pair::new(Role::Client, Suite::Aes256GcmSha384);
    pair.ours.close();
    let goodbye = pair.outgoing();
    read(&mut pair.theirs, &goodbye).unwrap();
    assert!(peer_saw_close(&mut pair.theirs));
    pair.theirs.writer().write_all(b"still here").unwrap();
    assert_eq!(pair.receive(usize::MAX).unwrap(), b"still here");
    // A change of keys that they ask for cannot be answered any more, and need not be.
    pair.theirs.refresh_traffic_keys().unwrap();
    pair.theirs.writer().write_all(b"with a new key").unwrap();
    assert_eq!(pair.receive(usize::MAX).unwrap(), b"with a new key");
    assert!(!pair.ours.has_outgoing());
}

fn peer_saw_close(theirs: &mut Connection) -> bool {
    theirs.process_new_packets().unwrap().peer_has_closed()
}

#[test]
fn a_chunk_is_filled_no_further_than_its_room() {
    let mut pair = Pair::new(Role::Server, Suite::Aes128GcmSha256);
    for capacity in 0..200 {
        for refresh in [false, true] {
            if refresh {
                pair.ours.refresh_keys(false);
            }
            let mut left = 150;
            let mut out = b"before".to_vec();
            pair.ours
                .seal_from(&mut out, capacity, |out, room| {
                    let count = room.min(left);
                    out.resize(out.len() + count, b'x');
                    left -= count;
                })
                .unwrap();
            assert!(out.len() <= 6 + capacity);
            let said = read(&mut pair.theirs, &out[6..]).unwrap();
            assert_eq!(said.len(), 150 - left);
            let usable = capacity.saturating_sub(if refresh { 27 } else { 0 });
            assert_eq!(said.len(), usable.saturating_sub(limits::SEAL_OVERHEAD_BYTES).min(150));
            // A change that found no room.
            let outgoing = pair.outgoing();
            assert_eq!(outgoing.len(), if refresh && capacity < 27 { 27 } else { 0 });
            read(&mut pair.theirs, &outgoing).unwrap();
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    WeSay(usize),
    TheySay(usize),
    WeRefresh(bool),
    TheyRefresh,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1usize..40_000).prop_map(Act::WeSay),
        4 => (1usize..40_000).prop_map(Act::TheySay),
        1 => any::<bool>().prop_map(Act::WeRefresh),
        1 => Just(Act::TheyRefresh),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_talk_in_any_pieces_is_understood(
        server in any::<bool>(),
        suite in 0usize..3,
        acts in prop::collection::vec(act(), 1..20),
        pieces in prop::collection::vec(1usize..20_000, 1..8),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let mut pair = Pair::new(role, SUITES[suite]);
        let mut pieces = pieces.into_iter().cycle();
        for act in acts {
            match act {
                Act::WeSay(len) => {
                    let speech = speech(len);
                    prop_assert_eq!(pair.send(&speech), speech);
                }
                Act::TheySay(len) => {
                    let speech = speech(len);
                    pair.theirs.writer().write_all(&speech).unwrap();
                    prop_assert_eq!(pair.receive(pieces.next().unwrap()).unwrap(), speech);
                }
                Act::WeRefresh(peer_too) => pair.ours.refresh_keys(peer_too),
                Act::TheyRefresh => pair.theirs.refresh_traffic_keys().unwrap(),
            }
            if pair.ours.has_outgoing() {
                let outgoing = pair.outgoing();
                prop_assert_eq!(read(&mut pair.theirs, &outgoing).unwrap(), b"");
            }
        }
    }
}
