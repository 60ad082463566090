//! The TLS record layer and rustls talk by any schedule of sends, splits, key updates, moves and closes: each
//! hears what the other said.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::tls_records(data));
