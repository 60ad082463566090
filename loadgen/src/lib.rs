//! Load for a chat server, and the proof that it kept its promises.
//!
//! A run, in the order of its files:
//! - `target.rs`, `logins.rs`, `descriptors.rs`: where to, as whom, and whether this process may.
//! - `crew.rs` with `http/`: conversations are made; history is read and members change meanwhile.
//! - `worker.rs`, `alarm.rs`, `link.rs`: threads of devices on monoio.
//! - `device/`: a virtual device, the client's side of the protocol, without a socket.
//! - `schedule.rs`, `payload.rs`, `latency.rs`: an open loop, bodies that prove their origin, HdrHistograms.
//! - `history/`, `seen.rs`, `clock.rs`: the NDJSON history of what the devices did and saw.
//! - `checker/`: reads histories and says which promises were broken; `specimen/` has its planted bugs.
//! - `run.rs`, `idle.rs`, `server_process.rs`: the whole of it.
//! - `report/`: the document of a run's results, and what is made from it; `knee.rs`: the highest rate that
//!   meets the thresholds; `doctor/`: whether this host can carry a load.
//! - `abuse/`: clients that behave badly, beside a load or alone.
#![forbid(unsafe_code)]

pub mod abuse;
mod alarm;
pub mod checker;
pub mod clock;
pub mod crew;
pub mod descriptors;
pub mod device;
pub mod doctor;
mod engine;
pub mod fleet;
pub mod history;
pub mod http;
pub mod idle;
pub mod knee;
pub mod latency;
mod link;
pub mod logins;
pub mod payload;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod seen;
pub mod server_process;
pub mod specimen;
pub mod target;
pub mod worker;
