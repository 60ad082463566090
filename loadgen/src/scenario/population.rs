//! Who talks to whom: most clients are idle, the others talk in pairs and in groups whose sizes follow
//! Zipf's law.
//!
//! A conversation lies within one worker, so that what its acks promise and what its members got is known
//! in one place, and a delivery is timed by one clock also where workers run on several machines. The
//! clients of a worker are spread over all of the server's cores by the kernel, so the server sees no
//! difference.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::ScenarioError;
use super::file::rule;

/// Who the clients are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// How many, each a user with one device.
    pub clients: usize,
    /// Of all clients, how many only beat their heart.
    #[serde(default)]
    pub idle_share: f64,
    /// Of those who talk, how many do so in groups. The others are in pairs.
    #[serde(default)]
    pub group_share: f64,
    /// Members of the largest group.
    #[serde(default = "largest")]
    pub group_largest: usize,
    /// Members of the smallest.
    #[serde(default = "smallest")]
    pub group_smallest: usize,
    /// Zipf's exponent: the group of rank `r` has the largest's size divided by `r` to this power.
    #[serde(default = "exponent")]
    pub group_exponent: f64,
}

fn largest() -> usize {
    200
}

fn smallest() -> usize {
    3
}

fn exponent() -> f64 {
    1.0
}

/// Who of a worker's clients talks to whom, as numbers from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// The first so many talk; the others are idle.
    pub chatters: usize,
    /// The members of each conversation.
    pub conversations: Vec<Vec<usize>>,
}

impl Population {
    /// All who talk.
    pub fn chatters(&self) -> usize {
        chatters_of(self.clients, self.idle_share)
    }

    pub(super) fn validate(&self) -> Result<(), ScenarioError> {
        let shares =
            [("population.idle_share", self.idle_share), ("population.group_share", self.group_share)];
        rule((1..=50_000_000).contains(&self.clients), "population.clients", "must be 1 to 50,000,000")?;
        for (key, share) in shares {
            rule((0.0..=1.0).contains(&share), key, "must be between 0 and 1")?;
        }
        rule(self.group_smallest >= 3, "population.group_smallest", "must be at least 3: two are a pair")?;
        rule(
            (self.group_smallest..=100_000).contains(&self.group_largest),
            "population.group_largest",
            "must be between population.group_smallest and 100,000",
        )?;
        let exponents = 0.0..=10.0;
        rule(
            exponents.contains(&self.group_exponent),
            "population.group_exponent",
            "must be between 0 and 10",
        )
    }

    /// The arrangement of a worker with so many of the clients.
    pub fn arrange(&self, clients: usize) -> Arrangement {
        let chatters = chatters_of(clients, self.idle_share);
        let in_groups = (chatters as f64 * self.group_share).round() as usize;
        let mut conversations = Vec::new();
        let mut next = 0;
        for rank in 1.. {
            let size = self.group_largest as f64 / f64::from(rank).powf(self.group_exponent);
            let size = (size as usize).clamp(self.group_smallest, self.group_largest);
            let left = in_groups - next;
            if left < self.group_smallest {
                break;
            }
            // A rest that is too small for a group of its own joins the last one.
            let size = if left < size + self.group_smallest { left } else { size };
            conversations.push((next..next + size).collect());
            next += size;
        }
        while chatters - next >= 2 {
            // Three are left: the last two pairs share the one in the middle.
            conversations.push(vec![next, next + 1]);
            next += 2;
        }
        if next < chatters && next > 0 {
            conversations.push(vec![next - 1, next]);
        }
        Arrangement { chatters, conversations }
    }
}

/// Nobody can talk alone, so those who talk are two at least, if anybody does.
fn chatters_of(clients: usize, idle_share: f64) -> usize {
    match (clients as f64 * (1.0 - idle_share)).round() as usize {
        _ if clients < 2 => 0,
        1 => 2,
        chatters => chatters,
    }
}

/// The part of `total` that the worker with this number has, of so many workers. The parts make the whole,
/// and differ by one at most.
pub fn share_of(total: usize, worker: usize, workers: usize) -> Range<usize> {
    let begin = |worker: usize| total * worker / workers;
    begin(worker)..begin(worker + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(clients: usize, idle_share: f64, group_share: f64) -> Population {
        let (group_largest, group_smallest, group_exponent) = (largest(), smallest(), exponent());
        Population { clients, idle_share, group_share, group_largest, group_smallest, group_exponent }
    }

    #[test]
    fn every_chatter_is_in_a_conversation_and_no_idle_one_is() {
        for clients in [1, 2, 3, 7, 100, 1_001] {
            for idle in [0.0, 0.5, 0.95, 1.0] {
                for grouped in [0.0, 0.5, 1.0] {
                    let arrangement = population(clients, idle, grouped).arrange(clients);
                    let chatters = arrangement.chatters;
                    let mut placed = vec![false; clients];
                    for members in &arrangement.conversations {
                        assert!(members.len() >= 2, "{members:?}");
                        members.iter().for_each(|member| placed[*member] = true);
                    }
                    assert!(chatters != 1 && chatters <= clients);
                    let expected: Vec<bool> = (0..clients).map(|client| client < chatters).collect();
                    assert_eq!(placed, expected, "{clients} clients, {idle} idle, {grouped} in groups");
                }
            }
        }
        assert_eq!(population(500_000, 0.95, 0.0).chatters(), 25_000);
    }

    #[test]
    fn group_sizes_fall_as_zipf_says() {
        let arrangement = population(1_000, 0.0, 1.0).arrange(1_000);
        let sizes: Vec<usize> = arrangement.conversations.iter().map(Vec::len).collect();
        assert_eq!(sizes[..4], [200, 100, 66, 50]);
        assert!(sizes.iter().rev().skip(1).is_sorted());
        assert_eq!(sizes.iter().sum::<usize>(), 1_000);
    }

    #[test]
    fn parts_make_the_whole() {
        for (total, workers) in [(500_000, 27), (5, 27), (0, 3), (10, 1)] {
            let parts: Vec<usize> =
                (0..workers).map(|worker| share_of(total, worker, workers).len()).collect();
            assert_eq!(parts.iter().sum::<usize>(), total);
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
        }
        assert_eq!(share_of(10, 1, 3), 3..6);
    }
}
