//! The frame reader: the same events at any two splittings.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::frame_reader(data));
