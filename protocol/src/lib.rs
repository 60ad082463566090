//! What Ringway's parts and clients say to each other, without saying it: no I/O, no clock, no thread.
//!
//! - `ids.rs`, `user.rs`: the names of things, one type each.
//! - `entry.rs`: a place in a conversation's log: a message or a change. One encoding serves the store,
//!   the trunk and history (`entry_codec.rs`).
//! - `live_message.rs`: a message borrowed from its entry's bytes, for who only passes it on
//!   (`protobuf_fields.rs`).
//! - `trunk/`: what gateways, API and router tell each other, and its bytes between machines.
//! - `tls/`: TLS 1.3 behind rustls's handshake, for both ends.
//! - `token.rs`: who a client is, proved by a JWT.
//! - `websocket/`: RFC 6455: the upgrade, frames to messages and back.
//! - `client/`: the frames of our own protocol, in JSON and protobuf.
//! - `byte_cursor.rs`: reads the binary formats of ours.
//! - `limits.rs`: every bound that belongs to the protocol, with unit and reason.
//!
//! Absence: nothing here opens a socket, reads a clock, takes a lock or holds `unsafe`.
#![forbid(unsafe_code)]

pub mod byte_cursor;
pub mod client;
pub mod entry;
mod entry_codec;
pub mod ids;
pub mod limits;
pub mod live_message;
mod protobuf_fields;
pub mod tls;
pub mod token;
pub mod trunk;
pub mod user;
pub mod websocket;
