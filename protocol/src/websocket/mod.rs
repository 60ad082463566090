//! RFC 6455 without a socket: bytes in, events out; events in, bytes out.
//!
//! Read in this order: `upgrade.rs` (the request that opens a connection, its answers), `frame.rs` (one
//! header), `mask.rs`, `reader.rs` (frames to messages), `writer.rs` (messages to frames),
//! `close_code.rs`; `refusal.rs` is why
//! an upgrade fails. `frozen_reader.rs` is the reader as bytes, for a connection that moves.
//!
//! No extension is offered or accepted; compression beside secrets leaks them, and encrypted bodies do not
//! compress.

mod close_code;
mod frame;
mod frozen_reader;
mod mask;
mod reader;
mod refusal;
pub mod upgrade;
mod writer;

pub use close_code::CloseCode;
pub use frame::{
    CONTROL_PAYLOAD_BYTES_MAX, EncodedHeader, FrameError, FrameHeader, HEADER_BYTES_MAX, Opcode, Role,
    decode_frame_header, encode_frame_header,
};
pub use frozen_reader::ThawError;
pub use mask::apply_mask;
pub use reader::{Event, FrameReader, PartialMemory};
pub use writer::{
    append_close, append_close_answer, append_frame, append_masked_close, append_masked_frame, shared_frame,
};
