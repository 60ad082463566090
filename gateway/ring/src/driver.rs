//! What the ring's logic needs of a kernel, in calls that no caller can make unsound.
//!
//! Three drivers keep it: `kernel.rs` is io_uring, `epoll/` does the same with system calls, `fake.rs` is a kernel
//! for tests that delays, reorders, cuts short and refuses on a seed. A driver owns every byte that the kernel may touch: provided buffers until
//! they are completed, chunks until their send is. It decides nothing; the rules of io_uring (what is
//! armed, when a slot is free) are in `ring.rs`, and so are tested by the fake.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::chunk::Chunk;
use crate::user_data::UserData;

/// One operation for the kernel. Slots name direct descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Accepts on this listener until cancelled, each socket into the lowest free slot.
    Accept {
        /// Its number ([`Driver::add_listener`]).
        listener: u8,
    },
    /// Asks for the peer's address; then [`Driver::peer_name`] has it.
    PeerName {
        /// Whose.
        slot: u32,
        /// The family decides how long the answer is.
        listener: u8,
    },
    /// Receives until cancelled, each time into a provided buffer.
    Receive {
        /// From.
        slot: u32,
    },
    /// Sends what is left of the slot's chunk ([`Driver::put_chunk`]).
    Send {
        /// To.
        slot: u32,
    },
    /// Cancels the operation of that name.
    Cancel {
        /// Its name.
        target: UserData,
    },
    /// Cancels everything of a socket.
    CancelAll {
        /// Whose.
        slot: u32,
    },
    /// Ends our direction of the stream.
    Shutdown {
        /// Whose.
        slot: u32,
    },
    /// Closes the descriptor and frees the slot.
    Close {
        /// Which.
        slot: u32,
    },
    /// Waits until another thread wakes this one ([`Driver::set_event`]).
    Event,
}

/// One completion, as the kernel says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawCompletion {
    /// Which operation.
    pub user_data: UserData,
    /// A count, an index, or a negative error number.
    pub result: i32,
    /// Whether the (multishot) operation goes on. If not, this is its last completion, whatever
    /// `result` says.
    pub more: bool,
    /// The provided buffer that was used.
    pub buffer: Option<u16>,
}

/// How long an enter waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all; what is ready is taken.
    No,
    /// At most this long.
    AtMost(Duration),
    /// Until one comes.
    Forever,
}

/// Why a ring cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel or a sandbox refuses io_uring.
    #[error("io_uring is refused: {why}")]
    Refused {
        /// Which setting, and how to change it.
        why: String,
    },
    /// The direct-descriptor table does not fit the limit on open files.
    #[error(
        "a table of {slots} sockets needs a limit of {slots} open files and it is {limit}. \
         Raise it (ulimit -n {slots}), lower gateway.connections_max, or raise gateway.rings_per_core"
    )]
    TooFewDescriptors {
        /// Slots asked for.
        slots: u32,
        /// RLIMIT_NOFILE now.
        limit: u64,
    },
    /// A registration that every kernel since 6.1 knows failed.
    #[error("the kernel ({release}) refuses {what}: {source}. Ringway needs Linux 6.7 or newer")]
    Registration {
        /// What was to be registered.
        what: &'static str,
        /// The kernel's version.
        release: String,
        /// What it said.
        source: std::io::Error,
    },
    /// Entering the ring failed in a way that waiting does not mend.
    #[error("the ring does not work any more: the wait for completions says {0}")]
    Enter(std::io::Error),
    /// epoll itself cannot be had.
    #[error("epoll cannot be set up: {source}. Raise the limit on open files (ulimit -n)")]
    Epoll {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel lost completions for lack of memory: what they said is not known.
    #[error("the kernel dropped {0} completions for lack of memory: the ring's state is not known any more")]
    CompletionsLost(u32),
}

/// A kernel, or what stands for it.
pub trait Driver {
    /// Slots in the direct-descriptor table.
    fn slots(&self) -> u32;

    /// Provided buffers in all.
    fn buffer_count(&self) -> u16;

    /// Milliseconds of the monotonic clock that this driver waits by.
    fn now_milliseconds(&self) -> u64;

    /// Takes a listening socket; numbered from 0.
    fn add_listener(&mut self, listener: TcpListener) -> u8;

    /// Closes a listening socket on which nothing is armed.
    fn close_listener(&mut self, listener: u8);

    /// Takes the event (eventfd(2)) that [`Operation::Event`] reads.
    fn set_event(&mut self, event: OwnedFd);

    /// Queues an operation; it reaches the kernel at the next [`enter`](Self::enter) at the latest.
    fn push(&mut self, user_data: UserData, operation: Operation);

    /// Submits what is queued, waits, and appends all completions to `completions`. May append none: a
    /// signal came, the time is over, or the kernel wants its completions taken first.
    ///
    /// # Errors
    /// [`RingError::Enter`] and [`RingError::CompletionsLost`]: give up this ring.
    fn enter(
        &mut self,
        wait: Wait,
        completions: &mut std::collections::VecDeque<RawCompletion>,
    ) -> Result<(), RingError>;

    /// The address that the last [`Operation::PeerName`] of this slot got.
    fn peer_name(&mut self, slot: u32) -> Option<SocketAddr>;

    /// Gives a socket's next bytes to the driver.
    ///
    /// # Panics
    /// When it holds a chunk for that slot already.
    fn put_chunk(&mut self, slot: u32, chunk: Chunk);

    /// Says that the kernel took so many bytes of the slot's chunk; returns how many are left.
    fn advance_chunk(&mut self, slot: u32, count: usize) -> usize;

    /// Takes a slot's chunk back.
    ///
    /// # Panics
    /// When its send is not completed.
    fn take_chunk(&mut self, slot: u32) -> Chunk;

    /// The first `length` bytes of a provided buffer that a completion named.
    ///
    /// # Panics
    /// When the kernel owns that buffer.
    fn buffer_mut(&mut self, buffer: u16, length: usize) -> &mut [u8];

    /// Provides the buffer to the kernel again.
    ///
    /// # Panics
    /// When the kernel owns it already.
    fn give_back(&mut self, buffer: u16);

    /// Buffers that completions named and that were not given back.
    fn buffers_out(&self) -> u16;

    /// System calls so far.
    fn enters(&self) -> u64;

    /// Enters that found the completion queue overflown.
    fn overflows(&self) -> u64;
}
