//! Whole conversations with one connection, in one thread and in virtual time. `pair.rs` carries the detail,
//! the other files are the stories.
#![allow(unreachable_pub, reason = "the helpers of one test binary")]

mod echo;
mod pair;
mod session;
mod slow_reader;
mod splits;
mod tls;
mod upgrade;
