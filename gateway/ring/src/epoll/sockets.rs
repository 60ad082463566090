//! Which descriptor is in which slot, what its socket waits for, and what is known of its readiness.
//!
//! Twelve bytes a slot, up to the highest that was used. A freed slot is used again before a higher one, so that the
//! tables above, which are indexed by it, stay as small as the load was.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;

use crate::user_data::{Kind, Token, UserData};

/// A receive is armed.
pub(super) const RECEIVING: u8 = 1;
/// A send is not over.
pub(super) const SENDING: u8 = 1 << 1;
/// A receive may bring something: an edge came, and no receive has said otherwise since.
pub(super) const READABLE: u8 = 1 << 2;
/// A send may take something.
pub(super) const WRITABLE: u8 = 1 << 3;
/// The peer's end or an error was announced: a short receive is not the last.
pub(super) const HANGING_UP: u8 = 1 << 4;
/// In the list of those to be visited.
pub(super) const QUEUED: u8 = 1 << 5;

/// One accepted socket.
pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    /// Of the use of the slot, as the operations name it.
    pub(super) generation: u32,
    flags: u8,
}

impl Socket {
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    pub(super) fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    /// Whether something is asked of it that its readiness allows.
    pub(super) fn has_work(&self) -> bool {
        self.is(RECEIVING) && self.is(READABLE) || self.is(SENDING) && self.is(WRITABLE)
    }

    /// What a completion of this socket comes back with.
    pub(super) fn user_data(&self, kind: Kind, slot: u32) -> UserData {
        UserData::new(kind, Token { slot, generation: self.generation })
    }
}

/// The table.
pub(super) struct Sockets {
    places: Vec<Option<Socket>>,
    /// Free places below the highest that was used.
    free: BinaryHeap<Reverse<u32>>,
    slots: u32,
}

impl Sockets {
    /// A table of so many slots, without memory for them yet.
    pub(super) fn new(slots: u32) -> Self {
        Self { places: Vec::new(), free: BinaryHeap::new(), slots }
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Where the next socket goes. `None`: the table is full.
    pub(super) fn lowest_free(&self) -> Option<u32> {
        let beyond = self.places.len() as u32;
        self.free.peek().map(|Reverse(slot)| *slot).or((beyond < self.slots).then_some(beyond))
    }

    /// Puts a socket into its place, the lowest that is free.
    pub(super) fn occupy(&mut self, slot: u32, descriptor: OwnedFd) {
        let socket = Socket { descriptor, generation: 0, flags: WRITABLE };
        if self.free.pop().is_some() {
            let place = &mut self.places[slot as usize];
            assert!(place.is_none(), "slot {slot} is in use");
            *place = Some(socket);
        } else {
            assert_eq!(slot as usize, self.places.len(), "slots are used from below");
            self.places.push(Some(socket));
        }
    }

    /// Frees a place; the socket closes with what is returned.
    pub(super) fn vacate(&mut self, slot: u32) -> Socket {
        let socket = self.places[slot as usize].take().expect("a slot is closed once");
        self.free.push(Reverse(slot));
        socket
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Socket> {
        self.places.get_mut(slot as usize)?.as_mut()
    }

    /// The socket that an operation is about, which from now on has the generation that the operation says.
    pub(super) fn named(&mut self, slot: u32, user_data: UserData) -> &mut Socket {
        let token = user_data.token();
        assert_eq!(token.slot, slot, "an operation is named after its slot");
        let socket = self.get_mut(slot).expect("operations are on open sockets");
        socket.generation = token.generation;
        socket
    }

    /// Ends what the flag stands for, and says what its completion comes back with.
    pub(super) fn end(&mut self, slot: u32, flag: u8, kind: Kind) -> UserData {
        let socket = self.get_mut(slot).expect("operations are on open sockets");
        socket.clear(flag);
        socket.user_data(kind, slot)
    }
}

const _: () = assert!(size_of::<Option<Socket>>() == 12, "what a slot costs is said above");

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn the_lowest_free_slot_is_used_first_and_a_full_table_has_none() {
        let mut sockets = Sockets::new(3);
        for slot in 0..3 {
            assert_eq!(sockets.lowest_free(), Some(slot));
            sockets.occupy(slot, descriptor());
        }
        assert_eq!(sockets.lowest_free(), None);
        drop(sockets.vacate(2));
        drop(sockets.vacate(0));
        assert_eq!(sockets.lowest_free(), Some(0));
        sockets.occupy(0, descriptor());
        assert_eq!(sockets.lowest_free(), Some(2));
    }
}
