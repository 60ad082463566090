//! A log entry: no panic, and an entry that was read comes back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::entry(data));
