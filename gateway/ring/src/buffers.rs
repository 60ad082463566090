//! Memory that the kernel fills: provided buffers in a ring of ours, shared with it.
//!
//! ```text
//!   entries: page-aligned, 16 bytes each: | address 8 | length 4 | id 2 | (entry 0: tail, 2) |
//!   memory:  count × bytes, buffer `id` at id × bytes
//! ```
//! We write entries and raise the tail; the kernel takes from its own head, oldest first. Which side owns
//! a buffer is kept here, so that a buffer is looked at only between its completion and its giving back.
//! The ring is ours (not mapped from the kernel), plain (no bundles, no incremental use): the other kinds
//! had use-after-free and ordering faults in kernels that are still about.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// What the kernel maps at once.
const PAGE_BYTES: usize = 4096;

/// The group's number; a ring has one.
pub(crate) const GROUP: u16 = 0;

pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    bytes: u32,
    /// The next entry to write; the kernel sees it by the shared tail.
    tail: u16,
    /// Buffers that completions named and that were not given back.
    out: Vec<bool>,
    out_count: u16,
}

impl Buffers {
    /// `count` buffers, a power of two, of `bytes` each. The kernel knows nothing of them yet.
    pub(crate) fn new(count: u16, bytes: u32) -> Self {
        assert!(count.is_power_of_two() && count <= 1 << 15, "the kernel's ring is a power of two");
        assert!(bytes > 0, "a buffer holds something");
        let mut buffers = Self {
            entries: allocate(Self::entries_layout(count)).cast(),
            memory: allocate(Self::memory_layout(count, bytes)),
            count,
            bytes,
            tail: 0,
            out: vec![true; usize::from(count)],
            out_count: count,
        };
        buffers.touch();
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers
    }

    /// Has every page there from the start. The kernel takes buffers oldest first, so all of them come into
    /// use in any case: better before the first message than by a page fault in the middle of one.
    fn touch(&mut self) {
        for offset in (0..Self::memory_layout(self.count, self.bytes).size()).step_by(PAGE_BYTES) {
            // SAFETY: the offset is inside the memory, and the kernel knows nothing of it yet. Volatile,
            // because a plain zero over zeroed memory is no write to the compiler.
            unsafe { self.memory.as_ptr().add(offset).write_volatile(0) };
        }
    }

    /// Tells the kernel where they are. `self` must live until the ring is gone: the driver's drop order
    /// sees to it.
    pub(crate) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: the entries are page-aligned, zeroed, of the registered length, and freed only after
        // the kernel's ring is closed (`KernelDriver` closes it first) or never.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, 0) }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn out_count(&self) -> u16 {
        self.out_count
    }

    /// A completion named this buffer: it is ours until given back.
    pub(crate) fn take(&mut self, id: u16) {
        let out = &mut self.out[usize::from(id)];
        assert!(!*out, "the kernel completed into buffer {id}, which is not its own");
        *out = true;
        self.out_count += 1;
    }

    pub(crate) fn bytes_mut(&mut self, id: u16, length: usize) -> &mut [u8] {
        assert!(self.out[usize::from(id)], "buffer {id} is the kernel's");
        assert!(length <= self.bytes as usize, "a completion fits its buffer");
        let offset = usize::from(id) * self.bytes as usize;
        // SAFETY: `id < count` (the index above) and `length <= bytes`, so the range is inside the one
        // allocation; the kernel writes to a buffer only while it is provided, and this one is out; `&mut
        // self` keeps a second reference away. Zeroed at allocation, so always initialised.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(offset), length) }
    }

    pub(crate) fn give_back(&mut self, id: u16) {
        let out = &mut self.out[usize::from(id)];
        assert!(*out, "buffer {id} is given back twice");
        *out = false;
        self.out_count -= 1;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: the offset is inside the memory, as in `bytes_mut`; the entry's index is below `count`.
        // The kernel reads an entry only below the tail, which is raised after the entry is written. The
        // three setters leave the last two bytes alone, which in entry 0 are the tail.
        unsafe {
            let address = self.memory.as_ptr().add(usize::from(id) * self.bytes as usize);
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(address as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is two aligned bytes inside entry 0, shared with the kernel as an atomic; the
        // release makes the entry visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    fn entries_layout(count: u16) -> Layout {
        Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE_BYTES)
            .expect("a small layout")
    }

    fn memory_layout(count: u16, bytes: u32) -> Layout {
        Layout::from_size_align(usize::from(count) * bytes as usize, PAGE_BYTES)
            .expect("buffers fit in memory")
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts; the ring that knew of them is closed.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.bytes));
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layouts above are not of size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_double_return_is_trapped() {
        let mut buffers = Buffers::new(4, 64);
        buffers.take(2);
        buffers.give_back(2);
        buffers.give_back(2);
    }

    #[test]
    #[should_panic(expected = "is the kernel's")]
    fn a_buffer_of_the_kernel_is_not_looked_at() {
        Buffers::new(4, 64).bytes_mut(1, 8);
    }
}
