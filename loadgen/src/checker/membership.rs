//! I6: nobody gets what was said while they were no member. I7: a removed member gets nothing after the
//! entry that removed them, on any device, at any time.
//!
//! The two look at the same rows: a stranger's delivery is I6's, one after a removal is I7's.

use super::dataset::{Dataset, Delivery};
use super::members::{Members, Standing, Stay};
use super::verdict::{Invariant, Verdict};

pub(super) fn check(data: &Dataset, members: &Members, verdict: &mut Verdict) {
    for view in &data.views {
        let user = data.user_of(view.device);
        let stays = members.stays(view.conversation, user);
        for row in &data.deliveries[view.rows.clone()] {
            judge(data, stays, row, user, verdict);
        }
    }
    for row in &data.history_rows {
        let user = data.user_of(row.device);
        judge(data, members.stays(row.conversation, user), row, user, verdict);
    }
}

fn judge(data: &Dataset, stays: &[Stay], row: &Delivery, user: u32, verdict: &mut Verdict) {
    verdict.checked(Invariant::I6, 1);
    let ever_removed = stays.first().is_some_and(|stay| stay.1 != u64::MAX);
    verdict.checked(Invariant::I7, u64::from(ever_removed));
    let what = || {
        format!(
            "{} got {} seq {} ({})",
            data.user_name(user),
            data.conversation_name(row.conversation),
            row.seq,
            row.via.as_str()
        )
    };
    match Members::standing(stays, row.seq) {
        Standing::Member => {}
        Standing::Stranger => verdict.violated(Invariant::I6, || {
            let first = stays.first().map_or("never".into(), |stay| format!("at seq {}", stay.0));
            format!("{}: joined {first}", what())
        }),
        Standing::Removed(at) => {
            verdict.violated(Invariant::I7, || format!("{}: removed at seq {at}", what()));
        }
    }
}
