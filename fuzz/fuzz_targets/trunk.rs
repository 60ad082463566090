//! A trunk frame: no panic, and a message that was read comes back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::trunk(data));
