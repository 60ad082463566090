//! I1: no acked message is lost or changed. I15: an ack implies that everything up to it is durable.
//!
//! I1 joins every ack with the full read after the run. I15 follows the server's trace, where one is given;
//! without it, an acked message that the full read lacks is the evidence that the ack came too early.

use super::dataset::{Dataset, Step, Trace, TraceStep, groups, seconds};
use super::interner::QuickMap;
use super::verdict::{Invariant, Verdict};

pub(super) fn check(data: &Dataset, verdict: &mut Verdict) {
    let mut read = vec![false; data.conversation_count() as usize];
    data.final_reads.iter().for_each(|complete| read[complete.conversation as usize] = true);
    acks_are_in_the_full_read(data, &read, verdict);
    full_reads_agree(data, verdict);
    for range in groups(&data.trace, |trace| trace.conversation) {
        let is_read = read[data.trace[range.start].conversation as usize];
        trace_acks_what_is_durable(data, &data.trace[range], is_read, verdict);
    }
}

fn acks_are_in_the_full_read(data: &Dataset, read: &[bool], verdict: &mut Verdict) {
    for send in &data.sends {
        let Step::Acknowledged { message, seq } = send.step else { continue };
        verdict.checked(Invariant::I1, 1);
        verdict.checked(Invariant::I15, 1);
        let place = || {
            format!("{} acked as seq {seq} id {message} at {}", data.key_name(send.key), seconds(send.time))
        };
        if !read[send.conversation as usize] {
            verdict.violated(Invariant::I1, || format!("{}: no full read of it after the run", place()));
            continue;
        }
        match data.truth_at(send.conversation, seq) {
            None => {
                verdict.violated(Invariant::I1, || format!("{}: not in the full read", place()));
                verdict.violated(Invariant::I15, || format!("{}: acked, and did not survive", place()));
            }
            Some(row) if row.message != message || row.key != send.key || row.hash != send.hash => {
                verdict.violated(Invariant::I1, || {
                    format!(
                        "{}: the full read has there {} id {} (body hash {:x}, sent {:x})",
                        place(),
                        data.key_name(row.key),
                        row.message,
                        row.hash,
                        send.hash
                    )
                });
            }
            Some(_) => {}
        }
    }
}

/// Several full reads of a conversation, at other replicas or by other members, show the same rows.
fn full_reads_agree(data: &Dataset, verdict: &mut Verdict) {
    for range in groups(&data.finals, |row| (row.conversation, row.seq)) {
        let rows = &data.finals[range];
        let first = &rows[0];
        for row in rows {
            if (row.message, row.hash, row.key) != (first.message, first.hash, first.key) {
                verdict.violated(Invariant::I1, || {
                    format!(
                        "{} seq {}: one full read has id {}, another id {}",
                        data.conversation_name(row.conversation),
                        row.seq,
                        first.message,
                        row.message
                    )
                });
            }
        }
    }
    let mut counted: QuickMap<(u32, u32), u64> = QuickMap::default();
    for row in &data.finals {
        *counted.entry((row.read, row.conversation)).or_default() += 1;
    }
    for complete in &data.final_reads {
        let lines = counted.get(&(complete.read, complete.conversation)).copied().unwrap_or(0);
        let all = data.truth_of(complete.conversation).len() as u64;
        if lines != complete.rows || all != complete.rows {
            verdict.violated(Invariant::I1, || {
                format!(
                    "{}: a full read of {} rows has {lines} lines, and all full reads together {all}",
                    data.conversation_name(complete.conversation),
                    complete.rows
                )
            });
        }
    }
}

/// What the store called durable is there in the end.
fn durable_stays(data: &Dataset, row: &Trace, is_read: bool, verdict: &mut Verdict) {
    verdict.checked(Invariant::I15, 1);
    if is_read && data.truth_at(row.conversation, row.seq).is_none() {
        verdict.violated(Invariant::I15, || {
            format!(
                "{} seq {} was durable at {}, and did not survive",
                data.conversation_name(row.conversation),
                row.seq,
                seconds(row.time)
            )
        });
    }
}

/// A place is given once: if two entries became durable there, the first is gone.
fn durable_twice(data: &Dataset, row: &Trace, verdict: &mut Verdict) {
    verdict.violated(Invariant::I15, || {
        format!(
            "{} seq {} became durable again at {}: what was durable there before did not survive",
            data.conversation_name(row.conversation),
            row.seq,
            seconds(row.time)
        )
    });
}

/// Rows of one conversation, in the order of time.
fn trace_acks_what_is_durable(data: &Dataset, trace: &[Trace], is_read: bool, verdict: &mut Verdict) {
    let mut durable: Vec<u64> = Vec::new();
    // All places up to this one are durable. A trace may start in the middle of a conversation's life.
    let first = trace.iter().filter(|row| row.step == TraceStep::Durable).map(|row| row.seq).min();
    let mut prefix = first.unwrap_or(0).saturating_sub(1);
    for row in trace {
        if matches!(row.step, TraceStep::Durable | TraceStep::Loaded) {
            durable_stays(data, row, is_read, verdict);
            match row.step {
                // The store reads only what is durable, and has no holes.
                TraceStep::Loaded => prefix = prefix.max(row.seq),
                _ if row.seq <= prefix || durable.contains(&row.seq) => durable_twice(data, row, verdict),
                _ => durable.push(row.seq),
            }
            while let Some(index) = durable.iter().position(|seq| *seq <= prefix + 1) {
                prefix = prefix.max(durable.swap_remove(index));
            }
            continue;
        }
        verdict.checked(Invariant::I15, 1);
        if row.seq > prefix {
            let what = if row.step == TraceStep::Acked { "acked" } else { "delivered" };
            verdict.violated(Invariant::I15, || {
                format!(
                    "{} seq {} was {what} at {}, when only seqs up to {prefix} were durable",
                    data.conversation_name(row.conversation),
                    row.seq,
                    seconds(row.time)
                )
            });
        }
    }
}
