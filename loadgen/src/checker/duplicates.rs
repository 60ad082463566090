//! I2: no duplicate after dedup. I11: a retry finds what the first try did.
//!
//! Both group by the idempotency key (conversation, sender, client message id).

use super::dataset::{Dataset, NO_KEY, Send, Step, groups};
use super::verdict::{Invariant, Verdict};

pub(super) fn check(data: &Dataset, verdict: &mut Verdict) {
    one_message_a_key(data, verdict);
    let mut stored = vec![false; data.key_count()];
    data.truth.iter().filter(|row| row.key != NO_KEY).for_each(|row| stored[row.key as usize] = true);
    for range in groups(&data.sends, |send| send.key) {
        let sends = &data.sends[range];
        retries_agree(data, sends, stored[sends[0].key as usize], verdict);
    }
}

/// A key has one id and one place, in the full read and in all that anybody saw.
fn one_message_a_key(data: &Dataset, verdict: &mut Verdict) {
    let mut known = vec![None::<(u64, u64)>; data.key_count()];
    let seen = data.deliveries.iter().chain(&data.history_rows);
    let rows = (data.truth.iter().map(|row| (row.key, row.seq, row.message)))
        .chain(seen.map(|row| (row.key, row.seq, row.message)));
    for (key, seq, message) in rows {
        if key == NO_KEY {
            continue;
        }
        match &mut known[key as usize] {
            empty @ None => {
                *empty = Some((seq, message));
                verdict.checked(Invariant::I2, 1);
            }
            Some(one) if *one != (seq, message) => {
                let one = *one;
                verdict.violated(Invariant::I2, || {
                    format!(
                        "{} is there as seq {} id {} and as seq {seq} id {message}",
                        data.key_name(key),
                        one.0,
                        one.1
                    )
                });
            }
            Some(_) => {}
        }
    }
}

/// All that happened under one key, in the order of time.
fn retries_agree(data: &Dataset, sends: &[Send], stored: bool, verdict: &mut Verdict) {
    let mut first = None;
    let (mut acks, mut refused, mut unknown) = (0, false, false);
    for send in sends {
        match send.step {
            Step::Acknowledged { message, seq } => {
                acks += 1;
                let (one, hash) = *first.get_or_insert(((seq, message), send.hash));
                if one != (seq, message) {
                    verdict.violated(Invariant::I11, || {
                        format!(
                            "{} was acked as seq {} id {} and as seq {seq} id {message}",
                            data.key_name(send.key),
                            one.0,
                            one.1
                        )
                    });
                }
                if hash != send.hash {
                    verdict.violated(Invariant::I11, || {
                        format!("{} was acked with two different bodies", data.key_name(send.key))
                    });
                }
            }
            Step::Refused => refused = true,
            Step::Unknown => unknown = true,
            Step::Invoked => {}
        }
    }
    let retried = sends.iter().filter(|send| send.step == Step::Invoked).count() > 1;
    verdict.checked(Invariant::I11, u64::from(retried));
    if stored && refused && !unknown && acks == 0 {
        verdict.violated(Invariant::I11, || {
            format!("{} was refused for certain, and is stored", data.key_name(sends[0].key))
        });
    }
}
