//! What a message costs to go from thread to thread through the inbox, alone and in batches, with nobody
//! asleep: the queue's own price, without a wake-up (12 to 28 microseconds by any means on this kind of
//! machine).

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway_trunk::inbox;

fn push_and_pop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inbox");
    for batch in [1u64, 64] {
        let (inbox, outbox) = inbox::<[u64; 4]>(1024).expect("one descriptor for an eventfd");
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("push {batch}, wake, pop {batch}"), |bencher| {
            bencher.iter(|| {
                for number in 0..batch {
                    let _ = outbox.push(black_box([number; 4]));
                }
                outbox.wake();
                while let Some(message) = inbox.pop() {
                    black_box(message);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, push_and_pop);
criterion_main!(benches);
