//! The names of things. Each is a type of its own, so that two of them are never swapped in a call.
//!
//! `user.rs` has the names that people and devices bring; here are the numbers that we give.

use std::fmt;
use std::str::FromStr;

/// Virtual shards that conversations and users are spread over. Fixed for the life of a fleet: a shard
/// number is part of what the store keeps.
pub const SHARD_COUNT: u16 = 4096;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

number!(
    /// A conversation, named once by a router and never reused. A 64-bit Snowflake (`snowflake.rs` in the
    /// router); a decimal string in JSON, because JavaScript loses numbers past 2^53.
    ConversationId(u64)
);
number!(
    /// A log entry of any conversation, unique over all of them. A 64-bit Snowflake that rises within its
    /// conversation.
    MessageId(u64)
);
number!(
    /// A place in a conversation: 1, 2, 3 …, dense. 0 stands for "before the first".
    Seq(u64)
);
number!(
    /// One of the [`SHARD_COUNT`] virtual shards.
    ShardId(u16)
);
number!(
    /// How many times a shard has changed hands. A log entry carries the epoch that wrote it.
    Epoch(u64)
);
number!(
    /// Milliseconds since 1970, UTC, by the server's clock.
    Timestamp(u64)
);
number!(
    /// How far the store's durable log had come, in flushes; rises for the life of a data folder. A
    /// client's resume cursor names one.
    Position(u64)
);
number!(
    /// A request on the trunk, numbered by who asks, unique while its answer is outstanding.
    RequestId(u64)
);
number!(
    /// One end of the trunk that is not a router: a gateway core, or the HTTP API. Counted from 0.
    EndpointId(u16)
);
number!(
    /// A session: one `welcome`. Random, so that a log line finds its connection.
    SessionId(u64)
);

impl ConversationId {
    /// The virtual shard that owns this conversation.
    pub fn shard(self) -> ShardId {
        ShardId::of_hash(mix(self.0))
    }
}

impl Seq {
    /// The place after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl ShardId {
    /// Places a well-mixed 64-bit hash.
    pub fn of_hash(hash: u64) -> ShardId {
        ShardId((hash >> 52) as u16)
    }

    /// Which of `worker_count` router workers runs this shard: contiguous ranges, as even as they divide.
    pub fn worker(self, worker_count: usize) -> usize {
        usize::from(self.0) * worker_count / usize::from(SHARD_COUNT)
    }
}

/// A client's connection: the same number for as long as it lives, also when it moves to another core or
/// process.
///
/// Layout, from the high bit: 12 bits of [`EndpointId`] (where it was accepted), 24 bits of slot,
/// 28 bits of generation. The slot is reused; the generation tells a late notice from a current one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// Slots an endpoint may have.
    pub const SLOTS_MAX: u32 = 1 << 24;

    /// Joins the three parts; the generation keeps its low 28 bits.
    pub fn new(endpoint: EndpointId, slot: u32, generation: u32) -> Self {
        assert!(endpoint.0 < 1 << 12, "12 bits of endpoint");
        assert!(slot < Self::SLOTS_MAX, "24 bits of slot");
        Self(u64::from(endpoint.0) << 52 | u64::from(slot) << 28 | u64::from(generation) & 0x0fff_ffff)
    }

    /// Where it was accepted, and so whose inbox its notices go to.
    pub fn endpoint(self) -> EndpointId {
        EndpointId((self.0 >> 52) as u16)
    }

    /// Its place in that endpoint's table.
    pub fn slot(self) -> u32 {
        (self.0 >> 28) as u32 & 0x00ff_ffff
    }

    /// The use of that place, low 28 bits.
    pub fn generation(self) -> u32 {
        self.0 as u32 & 0x0fff_ffff
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.endpoint(), self.slot(), self.generation())
    }
}

/// Spreads the bits of a number evenly (the finaliser of SplitMix64, Steele et al., OOPSLA 2014). Part of
/// the placement of shards: it never changes.
pub fn mix(mut value: u64) -> u64 {
    value ^= value >> 30;
    value = value.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^= value >> 27;
    value = value.wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Hashes bytes for placement (FNV-1a, then [`mix`]). Part of the placement of shards: it never changes.
pub fn placement_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_gives_back_its_parts() {
        let id = ConnectionId::new(EndpointId(4095), ConnectionId::SLOTS_MAX - 1, 0xffff_ffff);
        assert_eq!(id.endpoint(), EndpointId(4095));
        assert_eq!(id.slot(), ConnectionId::SLOTS_MAX - 1);
        assert_eq!(id.generation(), 0x0fff_ffff);
    }

    #[test]
    fn shards_are_spread_evenly_over_workers() {
        for workers in 1..=7 {
            let mut counts = vec![0u32; workers];
            for shard in 0..SHARD_COUNT {
                counts[ShardId(shard).worker(workers)] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{counts:?}");
        }
    }

    #[test]
    fn the_placement_never_changes() {
        assert_eq!(ConversationId(1).shard(), ShardId::of_hash(mix(1)));
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
        assert_eq!(placement_hash(b"alice"), placement_hash(b"alice"));
    }
}
