//! A TLS peer that has the keys and seals anything: the same at any splitting, and no panic; a frozen record
//! layer of any bytes likewise.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::tls_peer(data));
