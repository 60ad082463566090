//! What the embedded store counts and how long it takes, for the metrics page.

use ringway_metrics::{Counter, Gauge, Histogram, Text, Unit};

/// Figures of one store.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Groups made durable.
    pub groups: Counter,
    /// Flushes made durable.
    pub flushes: Counter,
    /// Entries made durable.
    pub entries: Counter,
    /// Bytes of entries made durable.
    pub bytes: Counter,
    /// Write and fsync of a group.
    pub sync: Histogram,
    /// Entries in a group.
    pub group_entries: Histogram,
    /// Reads answered, from being asked to the answer.
    pub read: Histogram,
    /// Requests that wait for the writer.
    pub writer_queue: Gauge,
    /// Reads that wait for a reader.
    pub reader_queue: Gauge,
    /// Flushes, claims and reads refused at once because their queue was full.
    pub refused: Counter,
    /// Flushes refused because an entry did not follow the log: a defect of the router.
    pub out_of_order: Counter,
    /// Failures of the disk or the database while writing.
    pub write_errors: Counter,
    /// Failures while reading.
    pub read_errors: Counter,
    /// Times the database was opened again after a failure.
    pub reopens: Counter,
    /// Times the writer waited for the background threads.
    pub stalls: Counter,
    /// Idempotency keys removed because of their age.
    pub swept: Counter,
    /// Whether flushes are taken.
    pub accepts: Gauge,
    /// Free bytes on the disk, where it says so.
    pub free_bytes: Gauge,
}

impl StoreMetrics {
    /// Adds the store's families to the page.
    pub fn render(&self, text: &mut Text) {
        let one = |value: u64| [(String::new(), value)];
        text.gauge("ringway_store_accepts", "Whether writes are taken.", one(self.accepts.get()));
        text.counter("ringway_store_groups_total", "Groups made durable.", one(self.groups.get()));
        text.counter("ringway_store_flushes_total", "Flushes made durable.", one(self.flushes.get()));
        text.counter("ringway_store_entries_total", "Entries made durable.", one(self.entries.get()));
        text.counter(
            "ringway_store_entry_bytes_total",
            "Bytes of entries made durable.",
            one(self.bytes.get()),
        );
        text.histogram(
            "ringway_store_sync_seconds",
            "Write and fsync of a group.",
            Unit::Seconds,
            [(String::new(), &self.sync)],
        );
        text.histogram(
            "ringway_store_group_entries",
            "Entries in a group.",
            Unit::Plain,
            [(String::new(), &self.group_entries)],
        );
        text.histogram(
            "ringway_store_read_seconds",
            "Reads, from being asked to the answer.",
            Unit::Seconds,
            [(String::new(), &self.read)],
        );
        text.gauge(
            "ringway_store_queue",
            "Requests that wait, by queue.",
            [
                ("queue=\"writer\"".to_owned(), self.writer_queue.get()),
                ("queue=\"reader\"".to_owned(), self.reader_queue.get()),
            ],
        );
        text.counter("ringway_store_refused_total", "Requests refused: queue full.", one(self.refused.get()));
        text.counter(
            "ringway_store_out_of_order_total",
            "Flushes refused because an entry did not follow the log.",
            one(self.out_of_order.get()),
        );
        text.counter(
            "ringway_store_errors_total",
            "Failures, by what was tried.",
            [
                ("doing=\"write\"".to_owned(), self.write_errors.get()),
                ("doing=\"read\"".to_owned(), self.read_errors.get()),
            ],
        );
        text.counter("ringway_store_reopens_total", "Opened again after a failure.", one(self.reopens.get()));
        text.counter(
            "ringway_store_stalls_total",
            "Waits of the writer for the background threads.",
            one(self.stalls.get()),
        );
        text.counter("ringway_store_swept_total", "Old idempotency keys removed.", one(self.swept.get()));
        text.gauge("ringway_store_free_bytes", "Free bytes on the disk.", one(self.free_bytes.get()));
    }
}
