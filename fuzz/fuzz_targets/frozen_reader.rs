//! A frozen frame reader: what thaws reads on without a panic, and freezes to the same bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::frozen_reader(data));
