//! I17: every attempt to send ends within ten seconds, and one whose outcome is unknown is resolved by its
//! retry within thirty seconds of the sender's return.

use std::collections::VecDeque;

use crate::clock::SECOND;

use super::dataset::{Dataset, Send, Step, groups, seconds};
use super::verdict::{Invariant, Verdict};

/// From an attempt to its ack, refusal or unknown end.
const ATTEMPT_MAX: u64 = 10 * SECOND;

/// What a client's own timer may add to that.
const TIMER_SLACK: u64 = SECOND / 2;

/// From the sender's return to the resolution of an unknown outcome.
const RESOLUTION_MAX: u64 = 30 * SECOND;

pub(super) fn check(data: &Dataset, verdict: &mut Verdict) {
    for range in groups(&data.sends, |send| send.key) {
        attempts_end(data, &data.sends[range.clone()], verdict);
        unknown_outcomes_are_resolved(data, &data.sends[range], verdict);
    }
}

/// Attempts of one key, in the order of time. Ends match attempts first in, first out.
fn attempts_end(data: &Dataset, sends: &[Send], verdict: &mut Verdict) {
    let mut open: VecDeque<u64> = VecDeque::new();
    for send in sends {
        if send.step == Step::Invoked {
            verdict.checked(Invariant::I17, 1);
            open.push_back(send.time);
            continue;
        }
        let Some(begin) = open.pop_front() else {
            verdict.violated(Invariant::I17, || {
                format!("{} ended at {} and had not begun", data.key_name(send.key), seconds(send.time))
            });
            continue;
        };
        if send.time - begin > ATTEMPT_MAX + TIMER_SLACK {
            verdict.violated(Invariant::I17, || {
                format!("{} took {} to end", data.key_name(send.key), seconds(send.time - begin))
            });
        }
    }
    for begin in open {
        verdict.violated(Invariant::I17, || {
            format!("{}, sent at {}, never ended", data.key_name(sends[0].key), seconds(begin))
        });
    }
}

fn unknown_outcomes_are_resolved(data: &Dataset, sends: &[Send], verdict: &mut Verdict) {
    let mut unknown: Option<&Send> = None;
    for send in sends {
        match send.step {
            Step::Unknown => unknown = unknown.or(Some(send)),
            Step::Acknowledged { .. } | Step::Refused => {
                let Some(begin) = unknown.take() else { continue };
                // The last return before the resolution: what came before it was still the fault.
                let opened = data.opened.get(&send.device).map_or(&[][..], Vec::as_slice);
                let returned = opened[..opened.partition_point(|time| *time <= send.time)].last();
                let since = returned.copied().unwrap_or(0).max(begin.time);
                if send.time - since > RESOLUTION_MAX {
                    verdict.violated(Invariant::I17, || {
                        format!(
                            "{}, unknown at {}, was resolved {} after the sender's return",
                            data.key_name(send.key),
                            seconds(begin.time),
                            seconds(send.time - since)
                        )
                    });
                }
            }
            Step::Invoked => {}
        }
    }
    if let Some(begin) = unknown {
        verdict.violated(Invariant::I17, || {
            format!("{}, unknown at {}, was never resolved", data.key_name(begin.key), seconds(begin.time))
        });
    }
}
