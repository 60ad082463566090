//! io_uring with nothing of ours on it: a ring, its provided buffers, and completions as they come. Shared by the
//! floor of `relay_floor` and the client of `relay_client`; the socket plane's own ring is the library.
//!
//! Memory that the kernel may touch (buffers, frames to be sent) is leaked on purpose: these programs end when
//! their measurement does.
#![allow(dead_code, reason = "each program uses its part")]

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

/// Room before each provided buffer, for the beginning of a frame whose rest is in it.
pub(crate) const HEADROOM: usize = 256;

pub(crate) struct RawRing {
    ring: IoUring,
    entries: *mut BufRingEntry,
    memory: *mut u8,
    count: u16,
    bytes: u32,
    tail: u16,
    /// Submissions that go to the kernel with the next enter.
    pub(crate) enters: u64,
}

/// One completion.
#[derive(Clone, Copy)]
pub(crate) struct RawCompletion {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) more: bool,
    pub(crate) buffer: Option<u16>,
}

impl RawRing {
    /// With `count` buffers (a power of two) of `bytes` each and a table of `slots` direct descriptors.
    pub(crate) fn new(count: u16, bytes: u32, slots: u32) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(32_768);
        let ring: IoUring = builder.build(4_096)?;
        if slots > 0 {
            ring.submitter().register_files_sparse(slots)?;
        }
        let entries = allocate(usize::from(count) * size_of::<BufRingEntry>()).cast();
        let memory = allocate(usize::from(count) * (HEADROOM + bytes as usize));
        // SAFETY: the entries are page-aligned, zeroed, of the registered length, and never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, count, 0, 0)? };
        let mut raw = Self { ring, entries, memory, count, bytes, tail: 0, enters: 0 };
        for id in 0..count {
            raw.give_back(id);
        }
        Ok(raw)
    }

    /// A buffer, with its headroom in front. It is the caller's from its completion to `give_back`.
    pub(crate) fn buffer(&self, id: u16) -> *mut u8 {
        // SAFETY: the offset is inside the memory.
        unsafe { self.memory.add(usize::from(id) * (HEADROOM + self.bytes as usize)) }
    }

    /// Provides a buffer.
    pub(crate) fn give_back(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: the entry's index is below `count`; the kernel reads an entry only below the tail, which is
        // raised afterwards. The setters leave the tail in entry 0 alone.
        unsafe {
            let address = self.buffer(id).add(HEADROOM);
            let entry = &mut *self.entries.add(index);
            entry.set_addr(address as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Queues an entry.
    ///
    /// # Safety
    /// What it points to outlives its operation.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enters += 1;
            let _ = self.ring.submit();
        }
    }

    /// Submits, waits for `want` completions or so many microseconds, and appends them.
    pub(crate) fn enter(&mut self, want: usize, microseconds: u32, completions: &mut Vec<RawCompletion>) {
        self.enters += 1;
        let time =
            Timespec::new().sec(u64::from(microseconds / 1_000_000)).nsec(microseconds % 1_000_000 * 1_000);
        let arguments = SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(want, &arguments) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
        completions.extend(self.ring.completion().map(|entry| RawCompletion {
            user_data: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        }));
    }
}

fn allocate(bytes: usize) -> *mut u8 {
    let layout = Layout::from_size_align(bytes, 4_096).expect("a small layout");
    // SAFETY: not of size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    assert!(!memory.is_null(), "no memory");
    for offset in (0..bytes).step_by(4_096) {
        // SAFETY: inside the allocation; so that no page is missing when the kernel fills it.
        unsafe { memory.add(offset).write_volatile(0) };
    }
    memory
}
