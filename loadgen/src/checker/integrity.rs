//! I13: every body proves the frame it came in, and is the body that was sent. I16: ids are unique over all
//! conversations, and rise within one.

use super::dataset::{Dataset, NO_KEY, Step};
use super::interner::QuickMap;
use super::verdict::{Invariant, Verdict};

pub(super) fn check(data: &Dataset, verdict: &mut Verdict) {
    bodies_prove_their_origin(data, verdict);
    ids_are_unique(data, verdict);
    ids_rise(data, verdict);
}

fn bodies_prove_their_origin(data: &Dataset, verdict: &mut Verdict) {
    // The bodies that were sent under a key. Nearly always one; a second is a deliberate conflict.
    let mut sent: Vec<Option<u64>> = vec![None; data.key_count()];
    let mut more: QuickMap<u32, Vec<u64>> = QuickMap::default();
    for send in data.sends.iter().filter(|send| send.step == Step::Invoked) {
        match &mut sent[send.key as usize] {
            empty @ None => *empty = Some(send.hash),
            Some(hash) if *hash != send.hash => more.entry(send.key).or_default().push(send.hash),
            Some(_) => {}
        }
    }
    let seen = data.deliveries.iter().chain(&data.history_rows);
    let rows = (data.finals.iter().map(|row| (row.key, row.hash, row.forgery, row.conversation, row.seq)))
        .chain(seen.map(|row| (row.key, row.hash, row.forgery, row.conversation, row.seq)));
    for (key, hash, forgery, conversation, seq) in rows {
        let place = || format!("{} seq {seq}", data.conversation_name(conversation));
        if forgery != 0 {
            verdict.violated(Invariant::I13, || {
                format!("{}: the body does not prove its {}", place(), data.forgery_name(forgery))
            });
        }
        if key == NO_KEY {
            continue;
        }
        verdict.checked(Invariant::I13, 1);
        match sent[key as usize] {
            None => verdict
                .violated(Invariant::I13, || format!("{}: {} was never sent", place(), data.key_name(key))),
            Some(one) if one == hash => {}
            Some(_) if more.get(&key).is_some_and(|hashes| hashes.contains(&hash)) => {}
            Some(one) => verdict.violated(Invariant::I13, || {
                format!("{}: {} was sent as {one:x} and came as {hash:x}", place(), data.key_name(key))
            }),
        }
    }
}

/// One id, one place. An id of 0 was not told.
fn ids_are_unique(data: &Dataset, verdict: &mut Verdict) {
    let acks = data.sends.iter().filter_map(|send| match send.step {
        Step::Acknowledged { message, seq } => Some((message, send.conversation, seq)),
        _ => None,
    });
    let seen = data.deliveries.iter().chain(&data.history_rows);
    let rows = (data.finals.iter().map(|row| (row.message, row.conversation, row.seq)))
        .chain(acks)
        .chain(seen.map(|row| (row.message, row.conversation, row.seq)));
    let mut places: QuickMap<u64, (u32, u64)> = QuickMap::default();
    for (message, conversation, seq) in rows {
        if message == 0 {
            continue;
        }
        let place = *places.entry(message).or_insert((conversation, seq));
        if place != (conversation, seq) {
            verdict.violated(Invariant::I16, || {
                format!(
                    "id {message} is at {} seq {} and at {} seq {seq}",
                    data.conversation_name(place.0),
                    place.1,
                    data.conversation_name(conversation)
                )
            });
        }
    }
    verdict.checked(Invariant::I16, places.len() as u64);
}

fn ids_rise(data: &Dataset, verdict: &mut Verdict) {
    for pair in data.truth.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        if one.conversation == next.conversation && next.message != 0 && one.message > next.message {
            verdict.violated(Invariant::I16, || {
                format!(
                    "{}: seq {} has id {}, and seq {} the smaller id {}",
                    data.conversation_name(one.conversation),
                    one.seq,
                    one.message,
                    next.seq,
                    next.message
                )
            });
        }
    }
}
