//! The connections of one core, by the slot of their socket.
//!
//! The index is that of the direct descriptor, so the kernel's number finds the connection without a map.
//! A slot is used again and again; the number of the accept in the whole process, which is the generation in
//! a connection's name, tells a late notice for the last user from one for the present user, and the newer of
//! two connections of one device from the older. Entries lie side by side in one reserved
//! range, of which only what was used takes memory.

use ringway_protocol::ids::{ConnectionId, EndpointId};
use ringway_ring::{ListenerId, Token, prefetch};

use crate::admission::AddressKey;
use crate::clock::Tick;
use crate::connection::Connection;

pub(crate) struct Slots {
    endpoint: EndpointId,
    entries: Vec<Entry>,
    /// Slots to settle at the end of the pass, each once.
    touched: Vec<u32>,
}

/// One slot's user.
pub(crate) struct Entry {
    pub(crate) token: Token,
    pub(crate) stage: Stage,
    /// Whom to count out at the close.
    pub(crate) address: Option<AddressKey>,
    /// The ring was told to read.
    pub(crate) reading: bool,
    /// Our direction was ended.
    pub(crate) shut: bool,
    /// In the list of those to settle at the end of the pass.
    pub(crate) touched: bool,
    /// What the timers know; [`Tick::NEVER`] for nothing.
    pub(crate) deadline: Tick,
}

/// How far a socket has come.
pub(crate) enum Stage {
    /// Nobody uses the slot.
    Free,
    /// Accepted, with its number in the process; its address is being asked for.
    Naming { listener: ListenerId, arrival: u32 },
    /// A connection.
    Open(Connection),
    /// Turned away: the answer is being sent, what arrives is dropped.
    Refused,
    /// The ring closes it.
    Closing,
}

impl Slots {
    pub(crate) fn new(endpoint: EndpointId, count: u32) -> Self {
        Self { endpoint, entries: Vec::with_capacity(count as usize), touched: Vec::new() }
    }

    /// The name of the connection on a slot.
    pub(crate) fn id_of(&self, token: Token, arrival: u32) -> ConnectionId {
        ConnectionId::new(self.endpoint, token.slot, arrival)
    }

    /// A slot has a new user.
    pub(crate) fn occupy(&mut self, token: Token, listener: ListenerId, arrival: u32) {
        let index = token.slot as usize;
        while self.entries.len() <= index {
            self.entries.push(Entry::free());
        }
        let entry = &mut self.entries[index];
        assert!(matches!(entry.stage, Stage::Free), "slot {index} has two users");
        *entry = Entry { token, stage: Stage::Naming { listener, arrival }, ..Entry::free() };
    }

    /// The slot has no user any more.
    pub(crate) fn vacate(&mut self, token: Token) -> Entry {
        std::mem::replace(self.entry(token), Entry::free())
    }

    /// The entry of a user that the ring speaks of.
    pub(crate) fn entry(&mut self, token: Token) -> &mut Entry {
        let entry = &mut self.entries[token.slot as usize];
        assert_eq!(entry.token, token, "the ring speaks of present users only");
        entry
    }

    /// The entry in a slot, whoever uses it.
    pub(crate) fn entry_in(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }

    /// The open connection in a slot.
    pub(crate) fn open(&mut self, slot: u32) -> Option<&mut Connection> {
        match &mut self.entries.get_mut(slot as usize)?.stage {
            Stage::Open(connection) => Some(connection),
            _ => None,
        }
    }

    /// Has the caches fetch a slot's entry, for who is about to come to it; once that is there, and it is `near`,
    /// what the entry points to.
    pub(crate) fn prefetch(&self, slot: Option<u32>, near: bool) {
        let Some(entry) = slot.and_then(|slot| self.entries.get(slot as usize)) else { return };
        if !near {
            prefetch(entry);
        } else if let Stage::Open(connection) = &entry.stage {
            connection.prefetch();
        }
    }

    /// Has the slot settled at the end of the pass.
    pub(crate) fn touch(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        if !entry.touched {
            entry.touched = true;
            self.touched.push(slot);
        }
    }

    /// The slots to settle. Clear [`Entry::touched`] of each.
    pub(crate) fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Gives the list of [`take_touched`](Self::take_touched) back, emptied, to be used again.
    pub(crate) fn keep_touched(&mut self, mut touched: Vec<u32>) {
        debug_assert!(self.touched.is_empty(), "nothing is touched while slots are settled");
        touched.clear();
        self.touched = touched;
    }

    /// The open connection of that name, if it is still there.
    pub(crate) fn find(&mut self, id: ConnectionId) -> Option<(u32, &mut Connection)> {
        let slot = id.slot();
        let entry = self.entries.get_mut(slot as usize)?;
        match &mut entry.stage {
            Stage::Open(connection) if connection.id() == id => Some((slot, connection)),
            _ => None,
        }
    }

    /// Slots that were ever used: every user is below.
    pub(crate) fn high_water(&self) -> u32 {
        self.entries.len() as u32
    }
}

impl Entry {
    fn free() -> Self {
        Self {
            token: Token { slot: u32::MAX, generation: u32::MAX },
            stage: Stage::Free,
            address: None,
            reading: false,
            shut: false,
            touched: false,
            deadline: Tick::NEVER,
        }
    }
}

/// Bytes that a connection takes in the table, whether it has something to do or not.
pub(crate) const ENTRY_BYTES: usize = size_of::<Entry>();

const _: () = assert!(ENTRY_BYTES <= 144, "500,000 entries in 72 MB");
