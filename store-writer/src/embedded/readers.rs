//! The threads that answer reads. Each takes the newest durable view when it begins a read, so that a read
//! asked after a flush was answered sees it, and lets it go with the answer, so that no old view stays.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, select};
use ringway_protocol::ids::Timestamp;

use super::metrics::StoreMetrics;
use super::published::Published;
use super::queries;
use super::reply::Reply;
use crate::store::{Answer, Query, StoreError};

/// A read that waits.
pub(super) struct Read {
    /// What is asked.
    pub(super) query: Query,
    /// To whom the answer is owed.
    pub(super) reply: Reply<Answer>,
    /// When.
    pub(super) asked: Instant,
}

/// One thread of the pool. Runs until the store closes (`closing` is disconnected) and nothing waits.
pub(super) fn run(
    reads: &Receiver<Read>,
    closing: &Receiver<()>,
    published: &Published,
    metrics: &StoreMetrics,
    send_lifetime: Duration,
) {
    loop {
        let read = select! {
            recv(reads) -> read => read.ok(),
            recv(closing) -> _ => reads.try_recv().ok(),
        };
        let Some(read) = read else { return };
        metrics.reader_queue.set(reads.len() as u64);
        answer(read, published, metrics, send_lifetime);
    }
}

fn answer(
    Read { query, reply, asked }: Read,
    published: &Published,
    metrics: &StoreMetrics,
    send_lifetime: Duration,
) {
    let answered = catch_unwind(AssertUnwindSafe(|| match published.view() {
        Some(view) => queries::answer(&view, &query, horizon(published.key_time(), send_lifetime)),
        None => Err(StoreError::Unavailable("the store opens again".to_owned())),
    }));
    let answer = answered.unwrap_or_else(|_| {
        tracing::error!(?query, "a reader panicked");
        Err(StoreError::Unavailable("the reader panicked".to_owned()))
    });
    if let Err(error) = &answer {
        metrics.read_errors.increment();
        tracing::warn!(%error, "a read failed");
    }
    metrics.read.record(asked.elapsed());
    reply.answer(answer);
}

/// The time at which idempotency keys end, by the time by which they age.
pub(super) fn horizon(key_time: Timestamp, send_lifetime: Duration) -> Timestamp {
    let lifetime = u64::try_from(send_lifetime.as_millis()).unwrap_or(u64::MAX);
    Timestamp(key_time.0.saturating_sub(lifetime))
}
