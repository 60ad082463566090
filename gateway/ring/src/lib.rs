//! io_uring for the socket plane: an API that no caller can make unsound, over a kernel or a fake one.
//!
//! - `ring.rs`: sockets by token, completions that mean one thing each, the rules of io_uring.
//! - `driver.rs`: what that needs of a kernel; `kernel.rs`, `buffers.rs` and `enter.rs` are io_uring.
//! - `fake.rs`: a kernel for tests, with bad manners on a seed.
//! - `user_data.rs`: slot, generation and kind in 64 bits.
//! - `restrictions.rs`: what the kernel lets a ring of ours do, and nothing else.
//! - `probe.rs`: what this machine's kernel gives, and why it refuses.
//!
//! The only crate with `unsafe`, all of it in `kernel.rs`, `buffers.rs` and `enter.rs`.

mod buffers;
mod driver;
mod enter;
pub mod fake;
mod kernel;
mod probe;
mod restrictions;
mod ring;
mod user_data;

pub use driver::{Driver, Operation, RawCompletion, RingError, Wait};
pub use kernel::{KernelDriver, KernelSettings, RingFeatures};
pub use probe::{KernelReport, descriptors_max, probe, raise_descriptor_limit};
pub use ring::{Completion, ListenerId, ReceivedBuffer, Ring, RingCounters, SLOT_BYTES};
pub use user_data::{Kind, SLOTS_MAX, Token, UserData};
