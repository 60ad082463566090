//! What the router counts, one set a worker, read by the metrics page.

use std::sync::Arc;

use ringway_metrics::{Counter, Gauge, Histogram, Text, Unit};
use ringway_protocol::trunk::Refusal;

/// The counters of one worker. Its thread writes, anybody reads.
#[derive(Debug, Default)]
pub(crate) struct WorkerMetrics {
    pub(crate) requests: Counter,
    pub(crate) sends: Counter,
    pub(crate) acks: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) refusals: [Counter; 6],
    pub(crate) committed: Counter,
    pub(crate) fan_outs: Counter,
    pub(crate) notices: Counter,
    pub(crate) closes: Counter,
    pub(crate) forwards: Counter,
    pub(crate) flushes_failed: Counter,
    pub(crate) fan_outs_dropped: Gauge,
    pub(crate) endpoint_wakes: Gauge,
    pub(crate) inbox_full: Counter,
    pub(crate) ack_latency: Histogram,
    pub(crate) flush_entries: Histogram,
    pub(crate) flush_latency: Histogram,
    pub(crate) pass_time: Histogram,
    pub(crate) inbox_depth: Gauge,
    pub(crate) conversations: Gauge,
    pub(crate) keys: Gauge,
    pub(crate) open_requests: Gauge,
    pub(crate) open_queries: Gauge,
    pub(crate) users: Gauge,
    pub(crate) watermark: Gauge,
}

/// The names of refusals, in the order of [`refusal_index`].
const REFUSALS: [&str; 6] =
    ["not_found", "forbidden", "duplicate_conflict", "conversation_full", "invalid", "unavailable"];

/// A refusal's place among the counters.
pub(crate) fn refusal_index(refusal: Refusal) -> usize {
    match refusal {
        Refusal::NotFound => 0,
        Refusal::Forbidden => 1,
        Refusal::DuplicateConflict => 2,
        Refusal::ConversationFull => 3,
        Refusal::Invalid(_) => 4,
        Refusal::Unavailable => 5,
    }
}

/// The metrics of all workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RouterMetrics(pub(crate) Arc<[Arc<WorkerMetrics>]>);

impl RouterMetrics {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// Writes them on the metrics page.
    pub fn render(&self, text: &mut Text) {
        self.counter(text, "ringway_router_requests_total", "Requests taken in.", |m| &m.requests);
        self.counter(text, "ringway_router_sends_total", "Sends taken in.", |m| &m.sends);
        self.counter(text, "ringway_router_acks_total", "Sends acknowledged as new.", |m| &m.acks);
        self.counter(text, "ringway_router_duplicates_total", "Sends that were stored before.", |m| {
            &m.duplicates
        });
        self.counter(text, "ringway_router_committed_total", "Entries that became durable.", |m| {
            &m.committed
        });
        self.counter(text, "ringway_router_fan_outs_total", "Bodies handed to endpoints.", |m| &m.fan_outs);
        self.counter(text, "ringway_router_notices_total", "Recipients of these bodies.", |m| &m.notices);
        self.counter(text, "ringway_router_closes_total", "Connections told to close.", |m| &m.closes);
        self.counter(text, "ringway_router_forwards_total", "Requests handed to another worker.", |m| {
            &m.forwards
        });
        self.counter(text, "ringway_router_flushes_failed_total", "Flushes that failed.", |m| {
            &m.flushes_failed
        });
        self.counter(text, "ringway_router_inbox_full_total", "Messages refused by a full inbox.", |m| {
            &m.inbox_full
        });
        let refusals = self.0.iter().enumerate().flat_map(|(worker, metrics)| {
            REFUSALS
                .iter()
                .zip(&metrics.refusals)
                .map(move |(code, counter)| (format!("worker=\"{worker}\",code=\"{code}\""), counter.get()))
        });
        text.counter("ringway_router_refusals_total", "Requests refused, by code.", refusals);
        let dropped = |m: &WorkerMetrics| m.fan_outs_dropped.get();
        text.counter(
            "ringway_router_fan_outs_dropped_total",
            "Bodies dropped for a slow endpoint.",
            self.each(dropped),
        );
        let wakes = |m: &WorkerMetrics| m.endpoint_wakes.get();
        text.counter(
            "ringway_router_endpoint_wakes_total",
            "Wake-ups of gateway cores that slept, a system call each.",
            self.each(wakes),
        );
        self.gauge(text, "ringway_router_inbox_depth", "Messages that waited at the last pass.", |m| {
            &m.inbox_depth
        });
        self.gauge(text, "ringway_router_conversations", "Conversations loaded.", |m| &m.conversations);
        self.gauge(text, "ringway_router_keys", "Idempotency keys in memory.", |m| &m.keys);
        self.gauge(text, "ringway_router_open_requests", "Requests without an answer.", |m| &m.open_requests);
        self.gauge(text, "ringway_router_open_queries", "Questions open at the store.", |m| &m.open_queries);
        self.gauge(text, "ringway_router_users", "Users with a connection.", |m| &m.users);
        self.gauge(text, "ringway_router_watermark", "Handled position of the durable log.", |m| {
            &m.watermark
        });
        let name = "ringway_router_ack_seconds";
        self.histogram(text, name, "From acceptance to the durable ack.", Unit::Seconds, |m| &m.ack_latency);
        let name = "ringway_router_flush_seconds";
        self.histogram(text, name, "From hand-over of a flush to its end.", Unit::Seconds, |m| {
            &m.flush_latency
        });
        let name = "ringway_router_flush_entries";
        self.histogram(text, name, "Entries of a flush.", Unit::Plain, |m| &m.flush_entries);
        let name = "ringway_router_loop_lag_seconds";
        self.histogram(
            text,
            name,
            "Time of a pass: what came meanwhile waited for it.",
            Unit::Seconds,
            |m| &m.pass_time,
        );
    }

    fn each(&self, value: impl Fn(&WorkerMetrics) -> u64) -> Vec<(String, u64)> {
        let label = |(worker, metrics): (usize, &Arc<WorkerMetrics>)| {
            (format!("worker=\"{worker}\""), value(metrics))
        };
        self.0.iter().enumerate().map(label).collect()
    }

    fn counter(&self, text: &mut Text, name: &str, help: &str, of: fn(&WorkerMetrics) -> &Counter) {
        text.counter(name, help, self.each(|metrics| of(metrics).get()));
    }

    fn gauge(&self, text: &mut Text, name: &str, help: &str, of: fn(&WorkerMetrics) -> &Gauge) {
        text.gauge(name, help, self.each(|metrics| of(metrics).get()));
    }

    fn histogram(
        &self,
        text: &mut Text,
        name: &str,
        help: &str,
        unit: Unit,
        of: fn(&WorkerMetrics) -> &Histogram,
    ) {
        let values = self.0.iter().enumerate();
        text.histogram(name, help, unit, values.map(|(worker, m)| (format!("worker=\"{worker}\""), of(m))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_worker() {
        let metrics = RouterMetrics::new(2);
        metrics.0[1].acks.add(7);
        metrics.0[0].refusals[refusal_index(Refusal::Unavailable)].increment();
        let mut text = Text::default();
        metrics.render(&mut text);
        let page = text.finish();
        assert!(page.contains("ringway_router_acks_total{worker=\"1\"} 7\n"), "{page}");
        assert!(page.contains("refusals_total{worker=\"0\",code=\"unavailable\"} 1\n"), "{page}");
    }
}
