//! I3: seqs are dense, in the log and on each socket, and a hole is closed within five seconds. I4: all see
//! one order. I5: what was acked before something else was sent has the smaller seq.

use crate::clock::SECOND;
use crate::history::Via;

use super::dataset::{Dataset, Delivery, Step, View, seconds};
use super::interner::QuickMap;
use super::members::{Members, Stay};
use super::verdict::{Invariant, Verdict};

/// From the delivery above a hole to the delivery that closes it.
const HOLE_MAX: u64 = 5 * SECOND;

pub(super) fn check(data: &Dataset, members: &Members, verdict: &mut Verdict) {
    for conversation in 0..data.conversation_count() {
        log_is_dense(data, conversation, verdict);
    }
    all_see_the_same(data, verdict);
    for view in &data.views {
        let stays = members.stays(view.conversation, data.user_of(view.device));
        sockets_leave_no_hole(data, view, stays, verdict);
        holes_are_closed(data, view, verdict);
    }
    real_time_order(data, verdict);
}

fn log_is_dense(data: &Dataset, conversation: u32, verdict: &mut Verdict) {
    let mut next = 1;
    for row in data.truth_of(conversation) {
        verdict.checked(Invariant::I3, 1);
        if row.seq != next {
            verdict.violated(Invariant::I3, || {
                format!("{}: after seq {} comes {}", data.conversation_name(conversation), next - 1, row.seq)
            });
        }
        next = row.seq + 1;
    }
}

/// Every place that anybody saw holds what the full read has there; without a full read, what the first
/// one saw.
fn all_see_the_same(data: &Dataset, verdict: &mut Verdict) {
    let mut first: QuickMap<(u32, u64), (u64, u64)> = QuickMap::default();
    for row in data.deliveries.iter().chain(&data.history_rows) {
        verdict.checked(Invariant::I4, 1);
        let place = || {
            format!(
                "{} seq {} came to {} ({}) as id {} hash {:x}",
                data.conversation_name(row.conversation),
                row.seq,
                data.device_name(row.device),
                row.via.as_str(),
                row.message,
                row.hash
            )
        };
        let (message, hash) = if data.truth_of(row.conversation).is_empty() {
            *first.entry((row.conversation, row.seq)).or_insert((row.message, row.hash))
        } else if let Some(truth) = data.truth_at(row.conversation, row.seq) {
            (truth.message, truth.hash)
        } else {
            verdict.violated(Invariant::I4, || format!("{}, and the full read has no such seq", place()));
            continue;
        };
        // A live change does not tell its id.
        let same_message = row.message == message || row.message == 0 || message == 0;
        if !same_message || row.hash != hash {
            verdict.violated(Invariant::I4, || format!("{}, elsewhere id {message} hash {hash:x}", place()));
        }
    }
}

/// On one socket the live seqs rise, and each follows the last one (of whatever way) or a `gap` comes
/// first. The sender's own messages are known by their acks; what a user may not see is no hole.
fn sockets_leave_no_hole(data: &Dataset, view: &View, stays: &[Stay], verdict: &mut Verdict) {
    let own = data.own_acks(view.device, view.conversation);
    let mut socket = Socket::default();
    for row in &data.deliveries[view.rows.clone()] {
        if socket.connection != Some(row.connection) {
            socket = Socket { connection: Some(row.connection), ..Socket::default() };
        }
        if row.via == Via::Live {
            verdict.checked(Invariant::I3, 1);
            if let Some(last) = socket.live.filter(|last| row.seq <= *last) {
                verdict.violated(Invariant::I4, || {
                    format!(
                        "{} on {}: live seq {} after live seq {last}",
                        data.conversation_name(row.conversation),
                        data.connection_name(row.connection),
                        row.seq
                    )
                });
            }
            let cursor = synced_cursor(data, row);
            if let Some(high) = socket.high.max(cursor) {
                let hole = first_hole(stays, own, high + 1, row.seq);
                if let Some(hole) = hole.filter(|_| !gap_was_told(data, row, socket.time)) {
                    verdict.violated(Invariant::I3, || {
                        format!(
                            "{} on {}: live seq {} at {} and seq {hole} was left out without a gap",
                            data.conversation_name(row.conversation),
                            data.connection_name(row.connection),
                            row.seq,
                            seconds(row.time)
                        )
                    });
                }
            }
            socket.live = Some(row.seq);
        }
        socket.high = socket.high.max(Some(row.seq));
        socket.time = row.time;
    }
}

/// What a socket has shown of a conversation.
#[derive(Default)]
struct Socket {
    connection: Option<u32>,
    /// The highest seq, by whatever way.
    high: Option<u64>,
    /// The last live seq.
    live: Option<u64>,
    /// When the last row came.
    time: u64,
}

/// The highest cursor of a sync that was done, on this socket, before this row: up to it the device had
/// everything, and from it on the seam is promised. The n-th `sync_done` ends the n-th sync.
fn synced_cursor(data: &Dataset, row: &Delivery) -> Option<u64> {
    let syncs = data.syncs.get(&(row.connection, row.conversation))?;
    let dones = data.sync_dones.get(&row.connection)?;
    let before = dones[..dones.partition_point(|time| *time <= row.time)].last()?;
    syncs.iter().filter(|(time, _)| time <= before).map(|(_, after)| *after).max()
}

/// The first place in `from..until` that the user may see and does not know from an own ack.
fn first_hole(stays: &[Stay], own: &[(u64, u64)], from: u64, until: u64) -> Option<u64> {
    let mut place = from;
    while place < until {
        place = Members::visible_from(stays, place).filter(|place| *place < until)?;
        let index = own.partition_point(|(seq, _)| *seq < place);
        if own.get(index).is_none_or(|(seq, _)| *seq != place) {
            return Some(place);
        }
        place += 1;
    }
    None
}

fn gap_was_told(data: &Dataset, row: &Delivery, since: u64) -> bool {
    data.gaps.get(&row.connection).is_some_and(|gaps| {
        gaps.iter().any(|(time, conversation)| {
            *time >= since
                && *time <= row.time
                && conversation.is_none_or(|conversation| conversation == row.conversation)
        })
    })
}

/// A place below a live delivery comes within five seconds, unless that socket closed before.
fn holes_are_closed(data: &Dataset, view: &View, verdict: &mut Verdict) {
    let rows = &data.deliveries[view.rows.clone()];
    if rows.windows(2).all(|pair| pair[0].seq <= pair[1].seq) {
        return;
    }
    // When each place was first known, and for live ones on which socket.
    let mut known: Vec<(u64, u64, Option<u32>)> = rows
        .iter()
        .map(|row| (row.seq, row.time, (row.via == Via::Live).then_some(row.connection)))
        .collect();
    let own = data.own_acks(view.device, view.conversation);
    known.extend(own.iter().map(|(seq, time)| (*seq, *time, None)));
    known.sort_unstable_by_key(|(seq, time, _)| (*seq, *time));
    known.dedup_by_key(|(seq, _, _)| *seq);
    let mut above: Option<(u64, u64, u32)> = None;
    for (seq, time, live) in known.into_iter().rev() {
        if let Some((upper, since, connection)) = above
            && time > since + HOLE_MAX
            && data.lifetimes[connection as usize].1 > since + HOLE_MAX
        {
            verdict.violated(Invariant::I3, || {
                format!(
                    "{} to {}: seq {seq} came {} after seq {upper}",
                    data.conversation_name(view.conversation),
                    data.device_name(view.device),
                    seconds(time - since)
                )
            });
        }
        if let Some(connection) = live
            && above.is_none_or(|(_, since, _)| time < since)
        {
            above = Some((seq, time, connection));
        }
    }
}

/// An operation in real time: from the first attempt to the first ack.
struct Operation {
    conversation: u32,
    key: u32,
    invoked: u64,
    acknowledged: u64,
    seq: u64,
}

/// Per conversation: whatever was acked before an operation began has a smaller seq.
fn real_time_order(data: &Dataset, verdict: &mut Verdict) {
    let mut operations = operations(data);
    operations.sort_unstable_by_key(|operation| (operation.conversation, operation.invoked));
    for range in super::dataset::groups(&operations, |operation| operation.conversation) {
        let by_invocation = &operations[range];
        let mut by_ack: Vec<&Operation> =
            by_invocation.iter().filter(|operation| operation.acknowledged != u64::MAX).collect();
        by_ack.sort_unstable_by_key(|operation| operation.acknowledged);
        let mut acked = by_ack.into_iter().peekable();
        let mut highest: Option<&Operation> = None;
        for operation in by_invocation {
            while let Some(earlier) = acked.next_if(|earlier| earlier.acknowledged < operation.invoked) {
                if highest.is_none_or(|highest| highest.seq < earlier.seq) {
                    highest = Some(earlier);
                }
            }
            verdict.checked(Invariant::I5, 1);
            if let Some(highest) = highest.filter(|highest| highest.seq > operation.seq) {
                verdict.violated(Invariant::I5, || {
                    format!(
                        "{} was acked as seq {} at {}, and {}, sent after that, has seq {}",
                        data.key_name(highest.key),
                        highest.seq,
                        seconds(highest.acknowledged),
                        data.key_name(operation.key),
                        operation.seq
                    )
                });
            }
        }
    }
}

/// One operation a key whose place is known: by its ack, or else by the full read.
fn operations(data: &Dataset) -> Vec<Operation> {
    let mut stored = vec![0; data.key_count()];
    for row in data.truth.iter().filter(|row| row.key != super::dataset::NO_KEY) {
        stored[row.key as usize] = row.seq;
    }
    let mut operations: Vec<Operation> = Vec::new();
    for range in super::dataset::groups(&data.sends, |send| send.key) {
        let sends = &data.sends[range];
        let first = &sends[0];
        if first.step != Step::Invoked {
            continue;
        }
        let ack = sends.iter().find_map(|send| match send.step {
            Step::Acknowledged { seq, .. } => Some((send.time, seq)),
            _ => None,
        });
        let (acknowledged, seq) = ack.unwrap_or((u64::MAX, stored[first.key as usize]));
        if seq > 0 {
            operations.push(Operation {
                conversation: first.conversation,
                key: first.key,
                invoked: first.time,
                acknowledged,
                seq,
            });
        }
    }
    operations
}
