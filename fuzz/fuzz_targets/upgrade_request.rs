//! The upgrade request: the same answer at any splitting, and no panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::upgrade_request(data));
