//! The server's trace: what became durable, was acknowledged and was delivered, in the order in which it
//! happened (`diagnostics.trace`).
//!
//! `loadgen check` joins it with what clients saw: invariant I15 (an ack implies durable) cannot be seen from
//! outside. One JSON object a line, appended; times are CLOCK_MONOTONIC in nanoseconds, which every process
//! of the machine reads alike. A line is written by one write(2), which a kill does not cut but where it
//! crosses a page: the next server takes such a piece away. The lines of durability come from around the store, those of acks and deliveries from the router.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use ringway_protocol::ids::{ConversationId, Position, Seq};
use ringway_router::Observer;
use ringway_store_writer::store::{Answer, ClaimKey, Done, Flush, Query, Status, Store, StoreError};
use rustix::time::{ClockId, clock_gettime};

/// Longest line: three numbers of 64 bits and their names.
const LINE_BYTES_MAX: u64 = 256;

/// Where the lines go. Several threads write; the file is opened to append, so each line is whole.
#[derive(Debug)]
pub(crate) struct Trace {
    file: File,
}

impl Trace {
    /// Opens the file, or makes it; earlier lines stay, a piece of a last one goes.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open(path: &Path) -> std::io::Result<Arc<Self>> {
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        let start = file.seek(SeekFrom::Start(length.saturating_sub(LINE_BYTES_MAX)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index as u64 + 1);
        file.set_len(start + whole)?;
        Ok(Arc::new(Self { file }))
    }

    fn line(&self, event: &str, conversation: ConversationId, seq: Seq) {
        let now = clock_gettime(ClockId::Monotonic);
        let nanoseconds = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let line = format!(
            "{{\"t\":{nanoseconds},\"e\":\"{event}\",\"conv\":{},\"seq\":{}}}\n",
            conversation.0, seq.0
        );
        if let Err(error) = (&self.file).write_all(line.as_bytes()) {
            tracing::error!(%error, "a line of the trace is lost: a check of it will blame the server");
        }
    }
}

impl Observer for Trace {
    fn acknowledged(&self, conversation: ConversationId, seq: Seq) {
        self.line("ack", conversation, seq);
    }

    fn delivered(&self, conversation: ConversationId, seq: Seq) {
        self.line("deliver", conversation, seq);
    }
}

/// A store whose every success leaves a line before anyone else hears of it.
pub(crate) struct TracedStore {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) trace: Arc<Trace>,
}

impl Store for TracedStore {
    fn flush(&self, flush: Flush, done: Done<Result<Position, StoreError>>) {
        let trace = Arc::clone(&self.trace);
        let places: Vec<_> = flush.appends.iter().map(|append| (append.conversation, append.seq)).collect();
        self.store.flush(
            flush,
            Box::new(move |result| {
                if result.is_ok() {
                    places
                        .into_iter()
                        .for_each(|(conversation, seq)| trace.line("durable", conversation, seq));
                }
                done(result);
            }),
        );
    }

    fn read(&self, query: Query, done: Done<Result<Answer, StoreError>>) {
        let trace = Arc::clone(&self.trace);
        let loaded = match query {
            Query::Conversation(conversation) => Some(conversation),
            _ => None,
        };
        self.store.read(
            query,
            Box::new(move |result| {
                // A store reads only what is durable: so is everything up to the last entry, whatever
                // became of the answers to its flushes.
                if let (Some(conversation), Ok(Answer::Conversation(Some(found)))) = (loaded, &result) {
                    trace.line("loaded", conversation, found.last_seq);
                }
                done(result);
            }),
        );
    }

    fn claim(&self, key: ClaimKey, proposed: ConversationId, done: Done<Result<ConversationId, StoreError>>) {
        self.store.claim(key, proposed, done);
    }

    fn status(&self) -> Status {
        self.store.status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_a_line_is_taken_away_and_whole_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        for (before, after) in [("", ""), ("{\"t\":1", ""), ("{}\n", "{}\n"), ("{}\n{\"t\":1,\"e", "{}\n")] {
            std::fs::write(&path, before).unwrap();
            let trace = Trace::open(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
            trace.acknowledged(ConversationId(7), Seq(9));
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with(&format!("{after}{{\"t\":")), "{text}");
            assert!(text.ends_with("\"e\":\"ack\",\"conv\":7,\"seq\":9}\n"), "{text}");
        }
    }
}
