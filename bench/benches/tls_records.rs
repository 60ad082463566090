//! What a TLS record costs a core: sealed and opened with keys that are kept and an AEAD that is made for
//! each pass, for one record of a relayed message, for eight in one pass, and for 4 KiB. It leaves out the
//! handshake and the system. The derivation shows why key and IV are kept beside their secret.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ringway_protocol::tls::{Direction, RecordLayer, Role, Suite};

const SUITES: [Suite; 3] = [Suite::Aes128GcmSha256, Suite::Aes256GcmSha384, Suite::Chacha20Poly1305Sha256];

const SECRET: [u8; 48] = [7; 48];

/// A server's frame around 128 bytes.
const MESSAGE_BYTES: usize = 133;

fn layer(role: Role, suite: Suite) -> RecordLayer {
    let end = Direction { secret: &SECRET[..suite.secret_len()], sequence: 0 };
    RecordLayer::new(role, suite, end, end).expect("a secret of the suite's length")
}

fn records(criterion: &mut Criterion) {
    for suite in SUITES {
        let mut sender = layer(Role::Server, suite);
        for (what, len) in [("133 bytes", MESSAGE_BYTES), ("4 KiB", 4096)] {
            let plaintext = vec![b'x'; len];
            let mut chunk = Vec::with_capacity(20 * 1024);
            criterion.bench_function(&format!("seal {what} ({suite:?})"), |bencher| {
                bencher.iter(|| {
                    chunk.clear();
                    sender.seal(black_box(&plaintext), &mut chunk)
                });
            });
        }
        for (what, len, count) in [
            ("133 bytes", MESSAGE_BYTES, 1),
            ("133 bytes, 8 in a pass", MESSAGE_BYTES, 8),
            ("4 KiB", 4096, 1),
        ] {
            let plaintext = vec![b'x'; len];
            let mut chunk = Vec::new();
            let mut sealer = layer(Role::Client, suite);
            for _ in 0..count {
                sealer.seal(&plaintext, &mut chunk).expect("a new key");
            }
            criterion.bench_function(&format!("open {what} ({suite:?})"), |bencher| {
                bencher.iter_batched_ref(
                    || (layer(Role::Server, suite), chunk.clone()),
                    |(receiver, received)| black_box(receiver.open(received).in_place.len()),
                    BatchSize::SmallInput,
                );
            });
        }
        criterion.bench_function(&format!("derive keys of both directions ({suite:?})"), |bencher| {
            bencher.iter(|| black_box(layer(Role::Server, suite)));
        });
    }
}

criterion_group!(benches, records);
criterion_main!(benches);
