//! A client's protobuf: no panic, and a frame that was read comes back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::client_protobuf(data));
