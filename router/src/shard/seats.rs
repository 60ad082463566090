//! The directory's seats, one a connection, each with the next one of its user.
//!
//! They lie in chunks that never move, so that a crowd of half a million is let in without once being copied
//! to a larger place, and a free seat names the next free one. Which list a seat is in is `directory.rs`.

use std::num::NonZeroU32;

use ringway_protocol::ids::ConnectionId;
use ringway_protocol::user::{DeviceId, UserId};

/// Seats of a chunk, 32 KiB of them.
const CHUNK_SEATS: usize = 1_024;

/// Where a seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeatIndex(u32);

/// One connection of a user.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) connection: ConnectionId,
    /// The user's next one.
    pub(super) next: Option<NextSeat>,
    /// It was told to close, and is no longer counted.
    pub(super) closing: bool,
}

/// A [`SeatIndex`] that leaves room for there being none: one more than the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextSeat(NonZeroU32);

#[derive(Debug)]
enum Place {
    Taken(Seat),
    Free { next: Option<NextSeat> },
}

// Every worker has one for every connection.
const _: () = assert!(size_of::<Place>() == 32, "two seats to a line of the cache");

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Seats {
    chunks: Vec<Vec<Place>>,
    free: Option<NextSeat>,
}

impl From<SeatIndex> for NextSeat {
    fn from(index: SeatIndex) -> Self {
        NextSeat(NonZeroU32::MIN.saturating_add(index.0))
    }
}

impl From<NextSeat> for SeatIndex {
    fn from(next: NextSeat) -> Self {
        SeatIndex(next.0.get() - 1)
    }
}

impl Seats {
    /// Takes a free seat.
    pub(super) fn insert(&mut self, seat: Seat) -> SeatIndex {
        if let Some(free) = self.free {
            let index = SeatIndex::from(free);
            let place = self.place(index);
            let Place::Free { next } = *place else { unreachable!("{index:?} is in the list of the free") };
            *place = Place::Taken(seat);
            self.free = next;
            return index;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_SEATS) {
            self.chunks.push(Vec::with_capacity(CHUNK_SEATS));
        }
        let before = (self.chunks.len() - 1) * CHUNK_SEATS;
        let chunk = self.chunks.last_mut().expect("one was there or was just pushed");
        chunk.push(Place::Taken(seat));
        SeatIndex((before + chunk.len() - 1) as u32)
    }

    /// Frees a seat.
    pub(super) fn remove(&mut self, index: SeatIndex) -> Seat {
        let next = self.free.replace(index.into());
        match std::mem::replace(self.place(index), Place::Free { next }) {
            Place::Taken(seat) => seat,
            Place::Free { .. } => panic!("{index:?} is freed twice"),
        }
    }

    /// A taken seat.
    pub(super) fn get(&self, index: SeatIndex) -> &Seat {
        match &self.chunks[index.0 as usize / CHUNK_SEATS][index.0 as usize % CHUNK_SEATS] {
            Place::Taken(seat) => seat,
            Place::Free { .. } => panic!("{index:?} is free"),
        }
    }

    /// A taken seat, to be changed.
    pub(super) fn get_mut(&mut self, index: SeatIndex) -> &mut Seat {
        match self.place(index) {
            Place::Taken(seat) => seat,
            Place::Free { .. } => panic!("{index:?} is free"),
        }
    }

    /// The seats of a user whose first one is this, in the order in which they came.
    pub(super) fn list(&self, first: Option<SeatIndex>) -> impl Iterator<Item = (SeatIndex, &Seat)> + '_ {
        std::iter::successors(first, |index| self.get(*index).next.map(SeatIndex::from))
            .map(|index| (index, self.get(index)))
    }

    /// Places that were ever taken.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    fn place(&mut self, index: SeatIndex) -> &mut Place {
        &mut self.chunks[index.0 as usize / CHUNK_SEATS][index.0 as usize % CHUNK_SEATS]
    }
}
