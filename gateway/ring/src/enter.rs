//! io_uring_enter(2) by the ring's registered number.
//!
//! A registered ring saves the kernel the look-up of its descriptor, which in a process of many threads is
//! a shared atomic a call. The io-uring crate remembers the number only inside a `Submitter`, which
//! borrows the ring; so the two calls are made here.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::driver::Wait;

/// How enters name the ring: by its registered number, or by its descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingHandle {
    number: RawFd,
    registered: bool,
}

const REGISTER_RING_FDS: libc::c_uint = 20;
pub(crate) const UNREGISTER_RING_FDS: libc::c_uint = 21;
const ENTER_GETEVENTS: libc::c_uint = 1;
const ENTER_EXT_ARG: libc::c_uint = 1 << 3;
const ENTER_REGISTERED_RING: libc::c_uint = 1 << 4;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArgument {
    signal_mask: u64,
    signal_mask_size: u32,
    wait_min_microseconds: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTime {
    seconds: i64,
    nanoseconds: i64,
}

impl RingHandle {
    /// Registers the ring for the calling thread; without that (before Linux 5.18), its descriptor serves.
    pub(crate) fn new(descriptor: RawFd) -> Self {
        let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: descriptor as u64 };
        // SAFETY: the argument is one `struct io_uring_rsrc_update`, alive through the call, which writes
        // the number given into its offset.
        let registered = unsafe {
            libc::syscall(libc::SYS_io_uring_register, descriptor, REGISTER_RING_FDS, &raw mut update, 1)
        };
        if registered == 1 {
            Self { number: update.offset as RawFd, registered: true }
        } else {
            Self { number: descriptor, registered: false }
        }
    }

    /// Undoes the registration. The thread's registration is a reference: without this the ring, and
    /// every socket in its table, would live until the thread ends.
    pub(crate) fn unregister(self, descriptor: RawFd) {
        if self.registered {
            let mut update = ResourceUpdate { offset: self.number as u32, reserved: 0, data: 0 };
            // SAFETY: as in `new`.
            unsafe {
                libc::syscall(
                    libc::SYS_io_uring_register,
                    descriptor,
                    UNREGISTER_RING_FDS,
                    &raw mut update,
                    1,
                );
            }
        }
    }

    pub(crate) fn is_registered(self) -> bool {
        self.registered
    }

    /// Submits `count` entries, and runs and waits for completions as `wait` says.
    pub(crate) fn enter(self, count: u32, wait: Wait) -> io::Result<()> {
        let registered = if self.registered { ENTER_REGISTERED_RING } else { 0 };
        let flags = ENTER_GETEVENTS | registered;
        let want = u32::from(wait != Wait::No);
        if let Wait::AtMost(duration) = wait {
            let time = KernelTime::from(duration);
            let argument = GetEventsArgument {
                signal_mask: 0,
                signal_mask_size: 0,
                wait_min_microseconds: 0,
                timeout: &raw const time as u64,
            };
            let size = size_of::<GetEventsArgument>();
            self.call(count, want, flags | ENTER_EXT_ARG, &raw const argument, size)
        } else {
            self.call(count, want, flags, std::ptr::null(), 0)
        }
    }

    fn call(
        self,
        count: u32,
        want: u32,
        flags: libc::c_uint,
        argument: *const GetEventsArgument,
        size: usize,
    ) -> io::Result<()> {
        // SAFETY: the argument is null with size 0, or with EXT_ARG points to a live argument whose time
        // is live too (`enter` above). What the submitted entries point to is the business of `kernel.rs`,
        // where they are queued.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, self.number, count, want, flags, argument, size)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl From<Duration> for KernelTime {
    fn from(duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { seconds, nanoseconds: i64::from(duration.subsec_nanos()) }
    }
}
