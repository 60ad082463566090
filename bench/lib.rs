//! Where measurements live: `RESULTS.md` says what was measured, by which command, on which commit;
//! `rows.ndjson` has the long runs of `cargo xtask`; `benches/` are the pieces of a message's way that can
//! be measured alone (`cargo bench --package ringway-bench`). This library is empty: it gives the benches
//! a package.
#![forbid(unsafe_code)]
