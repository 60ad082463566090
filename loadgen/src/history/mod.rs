//! The history of a run: what virtual users did and saw, one NDJSON line an event.
//!
//! - `event.rs`: the events and their lines.
//! - `recorder.rs`: writes them; a thread of its own does the file.
//! - `reading.rs`: reads them back, one by one.
//!
//! The checker reads nothing else, so whatever writes these lines can be checked: a simulation, another
//! client, a server's trace (`durable`, `ack`, `deliver`) in a second file.

pub mod event;
pub mod reading;
pub mod recorder;

pub use event::{Attempt, Entry, Event, Record, Via};
pub use reading::{HistoryError, read_file, read_lines};
pub use recorder::{HistoryWriter, Recorder};
