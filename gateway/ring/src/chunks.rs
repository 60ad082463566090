//! Chunks that sends are made from, by slot, each kept where it is from its start to its completion.
//!
//! A table of four bytes a slot and a list of those that there are: most sockets send nothing now.

use crate::chunk::Chunk;

/// Bytes of a slot in the table.
pub(crate) const SLOT_BYTES: usize = size_of::<u32>();

/// The chunks of a driver's sends.
#[derive(Default)]
pub(crate) struct Chunks {
    /// Position in `held`, plus one; 0 is none. Grows with the highest slot that sent.
    of_slot: Vec<u32>,
    held: Vec<Held>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Held {
    chunk: Chunk,
    sent: usize,
    /// The kernel may read it.
    in_flight: bool,
}

impl Chunks {
    /// Takes a socket's next bytes.
    pub(crate) fn put(&mut self, slot: u32, chunk: Chunk) {
        let slot = slot as usize;
        if self.of_slot.len() <= slot {
            self.of_slot.resize(slot + 1, 0);
        }
        assert_eq!(self.of_slot[slot], 0, "slot {slot} has a chunk already");
        let index = self.free.pop().unwrap_or_else(|| {
            self.held.push(Held::default());
            self.held.len() as u32 - 1
        });
        self.held[index as usize] = Held { chunk, sent: 0, in_flight: false };
        self.of_slot[slot] = index + 1;
    }

    fn held(&mut self, slot: u32) -> &mut Held {
        let index = self.of_slot.get(slot as usize).copied().unwrap_or(0);
        assert_ne!(index, 0, "slot {slot} has no chunk");
        &mut self.held[index as usize - 1]
    }

    /// The rest of the chunk. From now until [`stop`](Self::stop) it stays where it is: moving a `Held` moves no
    /// heap memory, nothing else touches one in flight, and shared bytes are never changed.
    pub(crate) fn start(&mut self, slot: u32) -> &[u8] {
        let held = self.held(slot);
        assert!(!held.in_flight, "slot {slot} sends already");
        held.in_flight = true;
        &held.chunk.as_slice()[held.sent..]
    }

    /// What [`start`](Self::start) gave, while it is in flight.
    pub(crate) fn started(&mut self, slot: u32) -> &[u8] {
        let held = self.held(slot);
        assert!(held.in_flight, "slot {slot} sends nothing");
        &held.chunk.as_slice()[held.sent..]
    }

    /// Its send is completed.
    pub(crate) fn stop(&mut self, slot: u32) {
        self.held(slot).in_flight = false;
    }

    /// So much of it was sent; returns how much is left.
    pub(crate) fn advance(&mut self, slot: u32, count: usize) -> usize {
        let held = self.held(slot);
        assert!(!held.in_flight, "a send in flight has no count yet");
        held.sent += count;
        held.chunk.len().checked_sub(held.sent).expect("the kernel sends what there is, no more")
    }

    /// Gives it back.
    pub(crate) fn take(&mut self, slot: u32) -> Chunk {
        let held = self.held(slot);
        assert!(!held.in_flight, "the kernel may still read the chunk of slot {slot}");
        let chunk = std::mem::take(&mut held.chunk);
        let index = std::mem::take(&mut self.of_slot[slot as usize]) - 1;
        self.free.push(index);
        chunk
    }
}
