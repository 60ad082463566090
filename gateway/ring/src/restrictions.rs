//! What a ring may do, told to the kernel before the ring is enabled: nothing else, for as long as it lives.
//!
//! A seccomp filter sees io_uring_enter(2) and not the operations in the ring. So whoever gets to write
//! submissions of ours could open files or connect out in spite of the filter. A ring is therefore made
//! disabled, its buffers and its table are registered, then this list, and only then it is enabled
//! (io_uring_register(2), IORING_REGISTER_RESTRICTIONS). `kernel.rs` submits exactly these operations.

use std::io;

use io_uring::register::Restriction;
use io_uring::{Submitter, opcode, squeue};

use crate::enter::UNREGISTER_RING_FDS;

/// Operations that `kernel.rs` submits.
const OPERATIONS: [u8; 8] = [
    opcode::AcceptMulti::CODE,
    opcode::GetSockOpt::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Shutdown::CODE,
    opcode::Close::CODE,
    opcode::Read::CODE,
];

/// Registers the list. False if the kernel refuses it: then the ring may do everything, as without.
pub(crate) fn register(submitter: &Submitter<'_>) -> bool {
    let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT;
    let mut list: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
    list.push(Restriction::sqe_flags_allowed(flags.bits()));
    // The one registration that is undone before the ring goes.
    list.push(Restriction::register_op(UNREGISTER_RING_FDS as u8));
    submitter.register_restrictions(&mut list).is_ok()
}

/// Lets a ring that was made disabled work, with the calling thread as the only one that submits.
pub(crate) fn enable(submitter: &Submitter<'_>) -> io::Result<()> {
    submitter.register_enable_rings()
}
