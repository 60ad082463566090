//! Where measurements live: `RESULTS.md` says what was measured, by which command, on which commit;
//! `rows.ndjson` has the long runs of `cargo xtask`; `benches/` are the pieces of a message's way that can
//! be measured alone (`cargo bench --package ringway-bench`); `src/bin/` are the clients and servers of
//! `cargo xtask bench`. This library is what these share.
#![forbid(unsafe_code)]

pub mod processor_time;
pub mod tls_client;
