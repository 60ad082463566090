//! What the API counts: answers by class, how long they took, connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use ringway_metrics::{Counter, Histogram, Text, Unit};

/// The counters of the API. Its threads share them: HTTP is not the data path.
#[derive(Debug, Default)]
pub(crate) struct ApiMetrics {
    /// Answers by the first digit of their status, 1 to 5.
    answers: [Counter; 5],
    durations: Histogram,
    connections: AtomicU64,
    refused_connections: Counter,
}

impl ApiMetrics {
    /// An answer went out.
    pub(crate) fn answered(&self, status: StatusCode, duration: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answers[class - 1].increment();
        self.durations.record(duration);
    }

    /// A connection was opened.
    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended.
    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection was answered 503 because there are too many.
    pub(crate) fn connection_refused(&self) {
        self.refused_connections.increment();
    }

    /// Writes them; `outstanding` is how many requests wait for the router.
    pub(crate) fn render(&self, text: &mut Text, outstanding: usize) {
        let classes = self.answers.iter().enumerate();
        text.counter(
            "ringway_http_answers_total",
            "HTTP answers by class of status.",
            classes.map(|(index, counter)| (format!("class=\"{}xx\"", index + 1), counter.get())),
        );
        text.histogram(
            "ringway_http_request_seconds",
            "Time from the head of an HTTP request to the head of its answer.",
            Unit::Seconds,
            [(String::new(), &self.durations)],
        );
        let one = |value: u64| [(String::new(), value)];
        text.gauge(
            "ringway_http_connections",
            "Open HTTP connections.",
            one(self.connections.load(Ordering::Relaxed)),
        );
        text.counter(
            "ringway_http_connections_refused_total",
            "HTTP connections answered 503 because there were too many.",
            one(self.refused_connections.get()),
        );
        text.gauge(
            "ringway_http_requests_at_router",
            "HTTP requests that wait for a router worker.",
            one(outstanding as u64),
        );
    }
}
