//! The 64 bits that go into the kernel with each operation and come back with its completion.
//!
//! ```text
//!   63      56 55             32 31                              0
//!   | kind    | slot            | generation                      |
//! ```
//! A slot of the direct-descriptor table is used again and again. The generation tells a late completion
//! of the last user from one of the present user, so that it is seen for what it is.

/// One use of one slot of the direct-descriptor table: a socket, from its accept to its close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// Its place in the table.
    pub slot: u32,
    /// How often the place was used before.
    pub generation: u32,
}

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A multishot accept; the slot is the listener's number.
    Accept,
    /// The peer's address.
    PeerName,
    /// A multishot receive into provided buffers.
    Receive,
    /// A send out of the socket's chunk.
    Send,
    /// The cancelling of others.
    Cancel,
    /// The end of what we send.
    Shutdown,
    /// The close of a direct descriptor.
    Close,
    /// The read of the event that other threads wake us by.
    Event,
}

/// What comes back with a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserData(u64);

/// Slots that fit in 24 bits.
pub const SLOTS_MAX: u32 = 1 << 24;

const KINDS: [Kind; 8] = [
    Kind::Accept,
    Kind::PeerName,
    Kind::Receive,
    Kind::Send,
    Kind::Cancel,
    Kind::Shutdown,
    Kind::Close,
    Kind::Event,
];

impl UserData {
    /// Joins the parts.
    pub fn new(kind: Kind, token: Token) -> Self {
        debug_assert!(token.slot < SLOTS_MAX, "24 bits of slot");
        Self((kind as u64) << 56 | u64::from(token.slot) << 32 | u64::from(token.generation))
    }

    /// What the kernel gave back. `None` if it is not one of ours.
    pub fn from_bits(bits: u64) -> Option<Self> {
        ((bits >> 56) < KINDS.len() as u64).then_some(Self(bits))
    }

    /// What the kernel is given.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// What was asked.
    pub fn kind(self) -> Kind {
        KINDS[(self.0 >> 56) as usize]
    }

    /// For which use of which slot.
    pub fn token(self) -> Token {
        Token { slot: (self.0 >> 32) as u32 & (SLOTS_MAX - 1), generation: self.0 as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_the_largest_slot_come_back() {
        for kind in KINDS {
            let token = Token { slot: SLOTS_MAX - 1, generation: u32::MAX };
            let data = UserData::from_bits(UserData::new(kind, token).bits()).unwrap();
            assert_eq!((data.kind(), data.token()), (kind, token));
        }
        assert_eq!(UserData::from_bits(u64::MAX), None);
    }
}
