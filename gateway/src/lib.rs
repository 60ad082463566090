//! The socket plane: one pinned thread a ring, each with its own listeners, sockets and timers.
//!
//! - `gateway.rs`: bind, start, drain, join; `settings.rs`: threads and tables for this machine;
//!   `socket_io.rs`: on io_uring or epoll;
//!   `core_thread.rs`: the life of a core's thread; `core_message.rs`: what others tell a core.
//! - `event_loop.rs`: one pass, from completions to sends. Its parts: `slots.rs`, `timer_wheel.rs`,
//!   `send_chunks.rs`, `admission.rs`, `drain.rs`, `listener.rs`; the system interface is the crate `ring`.
//! - `connection/`: everything inside one connection, without a socket; `session/`: what its chat frames
//!   mean; `tls/`: its records; `context.rs`: what the connections of one core share.
//! - `relay.rs`: `/relay`, the socket plane alone, for measurements.
//! - `http_stream.rs`: a client's bytes, handed to the HTTP server for the life of its connection.
//! - `limits.rs`: every bound of the socket plane, and what they add up to; `metrics.rs`: what a core
//!   counts; `clock.rs`: the time of a pass.
//!
//! Absence: nothing here holds `unsafe` (that is `ring/`), takes a lock on the data path, or lets two
//! cores touch one connection.
#![forbid(unsafe_code)]

mod admission;
pub mod clock;
pub mod connection;
pub mod context;
mod core_message;
mod core_thread;
mod drain;
mod event_loop;
mod gateway;
pub mod http_stream;
pub mod limits;
mod listener;
pub mod metrics;
mod relay;
mod send_chunks;
mod session;
mod settings;
mod slots;
mod socket_io;
mod timer_wheel;
pub mod tls;

pub use admission::Admission;
pub use core_message::{Command, CoreMessage};
pub use event_loop::{EventLoop, EventLoopParts};
pub use gateway::{Addresses, Gateway, GatewayError, RunningGateway, Started};
pub use listener::ListenError;
pub use relay::{Destination, RelayHub, RelayedFrames};
pub use settings::{GatewaySettings, Plan, PlanError};
pub use socket_io::{IoChoice, SocketIo};
