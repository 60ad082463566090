//! What clients and server say on the socket: `protocol.md` section 1 as Rust types, and their two
//! encodings.
//!
//! `client_frame.rs` and `server_frame.rs` are the frames; `json_reader.rs`, `json_writer.rs` and
//! `protobuf.rs` read and write them; `error_code.rs` and `decode_error.rs` say what went wrong.
//! `json_server_reader.rs` is the way back, for clients written in Rust. `names.rs` has the words of the
//! wire.

mod body_memory;
mod client_frame;
mod decode_error;
mod encoding;
mod error_code;
mod json_reader;
mod json_server_reader;
mod json_writer;
mod names;
mod protobuf;
mod server_frame;

use crate::live_message::LiveMessage;

pub use body_memory::BodyMemory;
pub use client_frame::{ClientFrame, Destination, Hello, Nonce, Send, SendFields, Sync};
pub use decode_error::{DecodeCause, DecodeError, cut_client_message_id};
pub use encoding::Encoding;
pub use error_code::ErrorCode;
pub use json_reader::lines;
pub use json_writer::encode_item;
pub use server_frame::{
    Ack, ChangeItem, ErrorFrame, Gap, Heads, Limits, LogItem, MessageItem, Messages, Placement, Pong,
    Reconnect, ServerFrame, Welcome,
};

/// Reads a client's frame: one object of JSON, or one protobuf message.
///
/// # Errors
/// [`DecodeError`], whose [`to_frame`](DecodeError::to_frame) is the answer.
pub fn decode(encoding: Encoding, payload: &[u8]) -> Result<ClientFrame, DecodeError> {
    decode_into(encoding, payload, &mut BodyMemory::default())
}

/// The same for who reads many: the body of a send is put into `bodies`.
///
/// # Errors
/// As [`decode`].
pub fn decode_into(
    encoding: Encoding,
    payload: &[u8],
    bodies: &mut BodyMemory,
) -> Result<ClientFrame, DecodeError> {
    match encoding {
        Encoding::Json => json_reader::decode(payload, bodies),
        Encoding::Protobuf => protobuf::decode(payload, bodies),
    }
}

/// Appends a server's frame, without a line break. [`crate::websocket::shared_frame`] puts it into a
/// WebSocket frame.
pub fn encode(encoding: Encoding, frame: &ServerFrame, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json_writer::encode(frame, out),
        Encoding::Protobuf => protobuf::encode(frame, out),
    }
}

/// Appends the frame of a live message: the bytes that [`encode`] gives for its entry. `for_sender` as in
/// [`LogItem::from_entry`].
pub fn encode_live(encoding: Encoding, live: &LiveMessage<'_>, for_sender: bool, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json_writer::encode_live(live, for_sender, out),
        Encoding::Protobuf => protobuf::encode_live(live, for_sender, out),
    }
}

/// Reads a server's frame, as a client.
///
/// # Errors
/// [`DecodeError`]; a frame of an unknown type is to be passed over.
pub fn decode_server(encoding: Encoding, payload: &[u8]) -> Result<ServerFrame, DecodeError> {
    match encoding {
        Encoding::Json => json_server_reader::decode_server(payload),
        Encoding::Protobuf => protobuf::decode_server(payload),
    }
}

/// Appends a client's frame, as a client.
pub fn encode_client(encoding: Encoding, frame: &ClientFrame, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json_writer::encode_client(frame, out),
        Encoding::Protobuf => protobuf::encode_client(frame, out),
    }
}
