//! io_uring for the socket plane, and epoll where it is refused: an API that no caller can make unsound, over a
//! kernel or a fake one.
//!
//! - `ring.rs`: sockets by token, completions that mean one thing each, the rules of io_uring.
//! - `driver.rs`: what that needs of a kernel; `kernel.rs`, `buffers.rs` and `enter.rs` are io_uring.
//! - `epoll/`: the same of epoll(7), with system calls in io_uring's place.
//! - `chunk.rs`: what a send sends; `chunks.rs`: those that are being sent.
//! - `fake.rs`: a kernel for tests, with bad manners on a seed.
//! - `user_data.rs`: slot, generation and kind in 64 bits.
//! - `restrictions.rs`: what the kernel lets a ring of ours do, and nothing else.
//! - `probe.rs`: what this machine's kernel gives, and why it refuses.
//!
//! The only crate with `unsafe`, all of it in `kernel.rs`, `buffers.rs`, `enter.rs` and `prefetch.rs`.

mod buffers;
mod chunk;
mod chunks;
mod driver;
mod enter;
mod epoll;
pub mod fake;
mod kernel;
mod prefetch;
mod probe;
mod restrictions;
mod ring;
mod user_data;

pub use chunk::Chunk;
pub use driver::{Driver, Operation, RawCompletion, RingError, Wait};
pub use epoll::EpollDriver;
pub use kernel::{KernelDriver, KernelSettings, RingFeatures};
pub use prefetch::prefetch;
pub use probe::{KernelReport, descriptors_max, probe, raise_descriptor_limit, release};
pub use ring::{Completion, ListenerId, ReceivedBuffer, Ring, RingCounters, SLOT_BYTES};
pub use user_data::{Kind, SLOTS_MAX, Token, UserData};
