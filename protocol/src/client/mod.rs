//! What clients and server say on the socket: `protocol.md` section 1 as Rust types, and their two
//! encodings.

mod encoding;

pub use encoding::Encoding;
