//! I14: a device that comes back gets all that it missed, in order, with no hole at the seam.
//!
//! Over the whole run: what a device got by pages and live, with the places of its own acks, is every place
//! from its first cursor to the end that its user may see. On one socket: pages go on without a hole from
//! the cursor of a sync.

use crate::history::Via;

use super::dataset::{Dataset, View};
use super::interner::QuickSet;
use super::members::{Members, Stay};
use super::verdict::{Invariant, Verdict};

pub(super) fn check(data: &Dataset, members: &Members, verdict: &mut Verdict) {
    for view in &data.views {
        let stays = members.stays(view.conversation, data.user_of(view.device));
        pages_go_on(data, view, stays, verdict);
    }
    let ended: QuickSet<u32> = data.device_ends.iter().copied().collect();
    for device in ended {
        for conversation in members.conversations_of(data.user_of(device)) {
            device_has_everything(data, members, device, *conversation, verdict);
        }
    }
}

/// Rows of one (device, conversation), in the order of time.
fn pages_go_on(data: &Dataset, view: &View, stays: &[Stay], verdict: &mut Verdict) {
    let mut last: Option<(u32, u64)> = None;
    for row in data.deliveries[view.rows.clone()].iter().filter(|row| row.via == Via::Catchup) {
        verdict.checked(Invariant::I14, 1);
        let follows = |after: u64| Members::visible_from(stays, after + 1) == Some(row.seq);
        let on = last.filter(|(connection, _)| *connection == row.connection);
        let goes_on = on.is_some_and(|(_, seq)| follows(seq));
        let begins = || {
            let syncs = data.syncs.get(&(row.connection, row.conversation)).map_or(&[][..], Vec::as_slice);
            syncs.iter().any(|(time, after)| *time <= row.time && follows(*after))
        };
        if !goes_on && !begins() {
            verdict.violated(Invariant::I14, || {
                format!(
                    "{} on {}: a page goes on with seq {}{}",
                    data.conversation_name(row.conversation),
                    data.connection_name(row.connection),
                    row.seq,
                    on.map_or(String::from(", where no sync began"), |(_, seq)| format!(" after seq {seq}"))
                )
            });
        }
        last = Some((row.connection, row.seq));
    }
}

/// A stay that ended need not be complete (its end may have come while the device was away), but has no
/// hole below what was seen of it.
fn device_has_everything(
    data: &Dataset,
    members: &Members,
    device: u32,
    conversation: u32,
    verdict: &mut Verdict,
) {
    let Some(end) = data.truth_of(conversation).last().map(|row| row.seq) else { return };
    verdict.checked(Invariant::I14, 1);
    let mut have: Vec<u64> = data.view(device, conversation).iter().map(|row| row.seq).collect();
    have.extend(data.own_acks(device, conversation).iter().map(|(seq, _)| *seq));
    have.sort_unstable();
    have.dedup();
    let cursor = data.first_cursor.get(&(device, conversation)).map_or(0, |(_, cursor)| *cursor);
    for (from, to) in members.stays(conversation, data.user_of(device)) {
        let seen = &have[have.partition_point(|seq| seq < from)..have.partition_point(|seq| seq <= to)];
        let until = if *to == u64::MAX { end } else { seen.last().copied().unwrap_or(0) };
        let from = (*from).max(cursor + 1);
        let present = seen.iter().filter(|seq| **seq >= from && **seq <= until).count() as u64;
        let wanted = (until + 1).saturating_sub(from);
        if present < wanted {
            verdict.violated(Invariant::I14, || {
                let missing = (from..=until).find(|seq| seen.binary_search(seq).is_err());
                format!(
                    "{} lacks {} of the seqs {from} to {until} of {}, the first is {}",
                    data.device_name(device),
                    wanted - present,
                    data.conversation_name(conversation),
                    missing.unwrap_or(from)
                )
            });
        }
    }
}
