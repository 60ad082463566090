//! The driver that is io_uring.
//!
//! Owns the kernel's ring and every byte it may touch. Set up for one thread that submits, waits and
//! handles (SINGLE_ISSUER, DEFER_TASKRUN): completions appear only inside an enter, which therefore always
//! asks for them (GETEVENTS), also when it does not wait.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::buffers::{Buffers, GROUP};
use crate::chunk::Chunk;
use crate::chunks::Chunks;
use crate::driver::{Driver, Operation, RawCompletion, RingError, Wait};
use crate::enter::RingHandle;
use crate::probe;
use crate::restrictions;
use crate::user_data::{Kind, Token, UserData};

/// Sizes of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// Sockets: slots of the direct-descriptor table. At most RLIMIT_NOFILE.
    pub slots: u32,
    /// Operations queued before an enter is forced, a power of two.
    pub submissions: u32,
    /// Completions that may wait, a power of two, at least four times the buffers.
    pub completions: u32,
    /// Provided buffers, a power of two.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: u32,
}

impl Default for KernelSettings {
    /// 4 MiB of buffers: a thousand sockets may speak in one pass, and each may say 4 KiB.
    fn default() -> Self {
        Self { slots: 16_384, submissions: 4_096, completions: 16_384, buffers: 1_024, buffer_bytes: 4_096 }
    }
}

/// What the kernel agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// One thread submits; completions are prepared inside its enters.
    pub deferred: bool,
    /// Enters name the ring by a registered number.
    pub registered_ring: bool,
    /// Completions are kept when their queue is full.
    pub no_drop: bool,
    /// The kernel refuses every operation that this driver does not use.
    pub restricted: bool,
    /// Completions that fit in the queue.
    pub completions: u32,
}

/// One io_uring. Made on the thread that uses it.
pub struct KernelDriver {
    /// `None` only while dropping.
    ring: Option<IoUring>,
    handle: RingHandle,
    features: RingFeatures,
    slots: u32,
    buffers: Option<Buffers>,
    /// Submissions that found the queue full, oldest first.
    waiting: VecDeque<squeue::Entry>,
    chunks: Chunks,
    names: HashMap<u32, Box<RawName>>,
    /// With the length of an address of its family; `None` once closed.
    listeners: Vec<(Option<TcpListener>, libc::socklen_t)>,
    event: Option<OwnedFd>,
    event_count: Box<u64>,
    /// Operations whose last completion has not come.
    in_flight: u64,
    enters: u64,
    overflows: u64,
    began: Instant,
}

/// Where the kernel writes a peer's address: room for the longer family.
#[derive(Default)]
#[repr(C, align(8))]
struct RawName([u8; size_of::<libc::sockaddr_in6>()]);

impl KernelDriver {
    /// Sets up a ring for the calling thread.
    ///
    /// # Errors
    /// [`RingError::Refused`] if io_uring is not allowed here, [`RingError::TooFewDescriptors`] and
    /// [`RingError::Registration`] if the sizes do not fit.
    pub fn new(settings: KernelSettings) -> Result<Self, RingError> {
        let (ring, deferred) = build(settings)?;
        let handle = RingHandle::new(ring.as_raw_fd());
        let mut features = RingFeatures {
            deferred,
            registered_ring: handle.is_registered(),
            no_drop: ring.params().is_feature_nodrop(),
            restricted: false,
            completions: ring.params().cq_entries(),
        };
        let submitter = ring.submitter();
        if let Err(source) = submitter.register_files_sparse(settings.slots) {
            let limit = probe::descriptors_max();
            if source.raw_os_error() == Some(libc::EMFILE) {
                return Err(RingError::TooFewDescriptors { slots: settings.slots, limit });
            }
            return Err(registration("a table of direct descriptors", source));
        }
        let buffers = Buffers::new(settings.buffers, settings.buffer_bytes);
        buffers.register(&submitter).map_err(|source| registration("a ring of provided buffers", source))?;
        // Only shutdowns go to the kernel's worker threads. Failing to bound them costs threads, no more.
        let _ = submitter.register_iowq_max_workers(&mut [1, 2]);
        features.restricted = restrictions::register(&submitter);
        restrictions::enable(&submitter).map_err(|source| registration("an enabled ring", source))?;
        Ok(Self {
            ring: Some(ring),
            handle,
            features,
            slots: settings.slots,
            buffers: Some(buffers),
            waiting: VecDeque::new(),
            chunks: Chunks::default(),
            names: HashMap::new(),
            listeners: Vec::new(),
            event: None,
            event_count: Box::new(0),
            in_flight: 0,
            enters: 0,
            overflows: 0,
            began: Instant::now(),
        })
    }

    /// What the kernel agreed to.
    pub fn features(&self) -> RingFeatures {
        self.features
    }

    fn ring(&mut self) -> &mut IoUring {
        self.ring.as_mut().expect("the ring lives as long as its driver")
    }

    fn entry(&mut self, operation: Operation) -> squeue::Entry {
        match operation {
            Operation::Accept { listener } => {
                let socket = self.listeners[usize::from(listener)].0.as_ref();
                let descriptor = socket.expect("a closed listener accepts no more").as_raw_fd();
                opcode::AcceptMulti::new(Fd(descriptor)).allocate_file_index(true).build()
            }
            Operation::PeerName { slot, listener } => {
                let length = self.listeners[usize::from(listener)].1;
                let name = self.names.entry(slot).or_default().0.as_mut_ptr();
                opcode::GetSockOpt::new(
                    Fixed(slot),
                    libc::SOL_SOCKET as u32,
                    libc::SO_PEERNAME as u32,
                    name.cast(),
                    // The kernel refuses a length above its own: so the family's exact one.
                    length,
                )
                .build()
            }
            Operation::Receive { slot } => opcode::RecvMulti::new(Fixed(slot), GROUP).build(),
            Operation::Send { slot } => {
                let rest = self.chunks.start(slot);
                opcode::Send::new(Fixed(slot), rest.as_ptr(), rest.len() as u32)
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
            }
            Operation::Cancel { target } => opcode::AsyncCancel::new(target.bits()).build(),
            Operation::CancelAll { slot } => {
                opcode::AsyncCancel2::new(CancelBuilder::fd(Fixed(slot)).all()).build()
            }
            Operation::Shutdown { slot } => opcode::Shutdown::new(Fixed(slot), libc::SHUT_WR).build(),
            Operation::Close { slot } => opcode::Close::new(Fixed(slot)).build(),
            Operation::Event => {
                let event = self.event.as_ref().expect("an event was set").as_raw_fd();
                opcode::Read::new(Fd(event), (&raw mut *self.event_count).cast(), 8).build()
            }
        }
    }

    /// Puts a submission into the queue. False if it is full.
    fn queue(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what an entry points to outlives its operation. Receives and accepts point to no
        // memory but the registered buffers; a send points into a chunk that `Chunks` holds until the
        // send's completion; a peer's name and the event's count are boxes of this driver, the name's
        // kept until its completion; `Drop` waits for the last completion, or leaks all of these.
        unsafe { self.ring().submission().push(entry) }.is_ok()
    }

    /// Moves waiting submissions into the queue as far as they fit.
    fn queue_waiting(&mut self) {
        while let Some(entry) = self.waiting.pop_front() {
            if !self.queue(&entry) {
                self.waiting.push_front(entry);
                break;
            }
        }
    }

    fn raw_enter(&mut self, wait: Wait) -> io::Result<()> {
        self.enters += 1;
        self.handle.enter(self.queued(), wait)
    }

    fn queued(&self) -> u32 {
        let ring = self.ring.as_ref().expect("the ring lives as long as its driver");
        // SAFETY: no other borrow of the submission queue is alive: each lives inside one call of ours.
        unsafe { ring.submission_shared() }.len() as u32
    }

    fn take_completions(&mut self, completions: &mut VecDeque<RawCompletion>) {
        let Self { ring: Some(ring), buffers: Some(buffers), chunks, in_flight, .. } = self else { return };
        for entry in ring.completion() {
            let Some(user_data) = UserData::from_bits(entry.user_data()) else { continue };
            let more = cqueue::more(entry.flags());
            let buffer = cqueue::buffer_select(entry.flags());
            if let Some(buffer) = buffer {
                buffers.take(buffer);
            }
            if !more {
                *in_flight -= 1;
                if user_data.kind() == Kind::Send {
                    chunks.stop(user_data.token().slot);
                }
            }
            completions.push_back(RawCompletion { user_data, result: entry.result(), more, buffer });
        }
    }
}

impl Driver for KernelDriver {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn buffer_count(&self) -> u16 {
        self.buffers.as_ref().map_or(0, Buffers::count)
    }

    fn now_milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn add_listener(&mut self, listener: TcpListener) -> u8 {
        let is_v4 = listener.local_addr().is_ok_and(|address| address.is_ipv4());
        let length = if is_v4 { size_of::<libc::sockaddr_in>() } else { size_of::<libc::sockaddr_in6>() };
        self.listeners.push((Some(listener), length as libc::socklen_t));
        u8::try_from(self.listeners.len() - 1).expect("a ring has a handful of listeners")
    }

    fn close_listener(&mut self, listener: u8) {
        self.listeners[usize::from(listener)].0 = None;
    }

    fn set_event(&mut self, event: OwnedFd) {
        self.event = Some(event);
    }

    fn push(&mut self, user_data: UserData, operation: Operation) {
        let entry = self.entry(operation).user_data(user_data.bits());
        self.in_flight += 1;
        if self.waiting.is_empty() && self.queue(&entry) {
            return;
        }
        self.waiting.push_back(entry);
        self.queue_waiting();
        if !self.waiting.is_empty() {
            // The queue is full: let the kernel have it. What it refuses now waits for the next enter.
            let _ = self.raw_enter(Wait::No);
            self.queue_waiting();
        }
    }

    fn enter(&mut self, wait: Wait, completions: &mut VecDeque<RawCompletion>) -> Result<(), RingError> {
        self.queue_waiting();
        let wait = if self.waiting.is_empty() { wait } else { Wait::No };
        if self.ring().submission().cq_overflow() {
            self.overflows += 1;
        }
        let entered = self.raw_enter(wait);
        self.take_completions(completions);
        let Err(error) = entered else { return Ok(()) };
        match error.raw_os_error() {
            // A signal, the end of the time, a full completion queue (just emptied), too little memory
            // for a request: the next enter goes on where this one stopped.
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {
                if completions.is_empty() && error.raw_os_error() != Some(libc::ETIME) {
                    std::thread::yield_now();
                }
                Ok(())
            }
            Some(libc::EBADR) => {
                let lost = self.ring().completion().overflow();
                Err(RingError::CompletionsLost(lost))
            }
            _ => Err(RingError::Enter(error)),
        }
    }

    fn peer_name(&mut self, slot: u32) -> Option<SocketAddr> {
        self.names.remove(&slot).and_then(|name| name.address())
    }

    fn put_chunk(&mut self, slot: u32, chunk: Chunk) {
        self.chunks.put(slot, chunk);
    }

    fn advance_chunk(&mut self, slot: u32, count: usize) -> usize {
        self.chunks.advance(slot, count)
    }

    fn take_chunk(&mut self, slot: u32) -> Chunk {
        self.chunks.take(slot)
    }

    fn buffer_mut(&mut self, buffer: u16, length: usize) -> &mut [u8] {
        self.buffers.as_mut().expect("buffers live as long as the driver").bytes_mut(buffer, length)
    }

    fn give_back(&mut self, buffer: u16) {
        self.buffers.as_mut().expect("buffers live as long as the driver").give_back(buffer);
    }

    fn buffers_out(&self) -> u16 {
        self.buffers.as_ref().map_or(0, Buffers::out_count)
    }

    fn enters(&self) -> u64 {
        self.enters
    }

    fn overflows(&self) -> u64 {
        self.overflows
    }
}

impl Drop for KernelDriver {
    /// Cancels everything and waits for it, so that the kernel touches none of our memory afterwards.
    /// If it is not over within a second, the memory is leaked: better than freed too early.
    fn drop(&mut self) {
        self.waiting.clear();
        let mut completions = VecDeque::new();
        let until = Instant::now() + Duration::from_secs(1);
        let cancelling = UserData::new(Kind::Cancel, Token { slot: 0, generation: u32::MAX });
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(cancelling.bits());
        self.in_flight += 1;
        self.waiting.push_back(entry);
        while self.in_flight > 0 && Instant::now() < until {
            self.queue_waiting();
            let _ = self.raw_enter(Wait::AtMost(Duration::from_millis(50)));
            self.take_completions(&mut completions);
        }
        let quiet = self.in_flight == 0;
        if let Some(ring) = self.ring.take() {
            self.handle.unregister(ring.as_raw_fd());
        }
        if !quiet {
            std::mem::forget(self.buffers.take());
            std::mem::forget(std::mem::take(&mut self.chunks));
            std::mem::forget(std::mem::take(&mut self.names));
            std::mem::forget(std::mem::take(&mut self.event_count));
        }
    }
}

/// Tries the flags we want, then without what older kernels refuse.
fn build(settings: KernelSettings) -> Result<(IoUring, bool), RingError> {
    let mut last = None;
    for deferred in [true, false] {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(settings.completions).setup_submit_all().setup_r_disabled();
        if deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        match builder.build(settings.submissions) {
            Ok(ring) => return Ok((ring, deferred)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(probe::refused(&error)),
        }
    }
    let source = last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
    Err(registration("a ring with these flags and sizes", source))
}

fn registration(what: &'static str, source: io::Error) -> RingError {
    RingError::Registration { what, release: probe::release(), source }
}

impl RawName {
    /// Reads what the kernel wrote: a sockaddr_in or a sockaddr_in6, told apart by their first two bytes.
    fn address(&self) -> Option<SocketAddr> {
        let bytes = &self.0;
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
            libc::AF_INET => {
                let address = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
                Some(SocketAddr::new(IpAddr::V4(address), port))
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = bytes[8..24].try_into().expect("sixteen bytes");
                let address = Ipv6Addr::from(octets);
                let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
                Some(SocketAddr::new(address, port))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> KernelDriver {
        let settings =
            KernelSettings { slots: 8, submissions: 8, completions: 32, buffers: 8, buffer_bytes: 4_096 };
        KernelDriver::new(settings).unwrap()
    }

    /// What the kernel answers to an entry that stands in the queue like the driver's own.
    fn answer(driver: &mut KernelDriver, entry: squeue::Entry) -> i32 {
        let user_data = UserData::new(Kind::Cancel, Token { slot: 0, generation: 1 });
        driver.in_flight += 1;
        driver.waiting.push_back(entry.user_data(user_data.bits()));
        let mut completions = VecDeque::new();
        let until = Instant::now() + Duration::from_secs(10);
        while completions.is_empty() {
            assert!(Instant::now() < until, "no answer");
            driver.enter(Wait::AtMost(Duration::from_millis(100)), &mut completions).unwrap();
        }
        completions[0].result
    }

    #[test]
    fn a_ring_does_nothing_but_what_the_driver_uses() {
        let mut driver = small();
        assert!(driver.features().restricted, "the kernel knows restrictions since Linux 5.10");
        let path = c"/dev/null";
        let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build();
        assert_eq!(answer(&mut driver, open), -libc::EACCES);
        assert_eq!(answer(&mut driver, opcode::Nop::new().build()), -libc::EACCES);
        // An operation of ours, with a flag that is not.
        let close = || opcode::Close::new(Fixed(7)).build();
        assert_eq!(answer(&mut driver, close().flags(squeue::Flags::IO_DRAIN)), -libc::EACCES);
        assert_eq!(answer(&mut driver, close()), -libc::EBADF, "allowed, and nothing is there");
        let error = driver.ring().submitter().unregister_files().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "nor may it be registered anew");
    }
}
