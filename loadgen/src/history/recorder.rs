//! Writes a history: each thread formats its events into a chunk of its own, and one thread of this file
//! writes the chunks.
//!
//! The queue between them is bounded. When the disk is slower than the load, the load waits: its lateness
//! shows in the latencies, which count from the intended time, and no event is ever dropped, because a
//! checker would take a dropped event for a lost message.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::event::{Event, write_line};
use crate::clock;

/// A chunk is handed over once it has this many bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that may wait for the disk: 16 MiB.
const CHUNKS_WAITING_MAX: usize = 256;

/// The file of a history, and the thread that writes it.
pub struct HistoryWriter {
    chunks: SyncSender<Vec<u8>>,
    thread: JoinHandle<io::Result<u64>>,
}

/// One thread's way to write events. Cheap to use, and to clone.
pub struct Recorder {
    chunk: Vec<u8>,
    last: u64,
    chunks: Option<SyncSender<Vec<u8>>>,
}

impl HistoryWriter {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// The file can't be created, or no thread started.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let (chunks, waiting) = sync_channel(CHUNKS_WAITING_MAX);
        let thread =
            std::thread::Builder::new().name("history".into()).spawn(move || write_chunks(file, &waiting))?;
        Ok(Self { chunks, thread })
    }

    /// A recorder for one more thread.
    pub fn recorder(&self) -> Recorder {
        Recorder { chunk: Vec::new(), last: 0, chunks: Some(self.chunks.clone()) }
    }

    /// Waits until everything is in the file. All recorders must be gone, or flushed. Returns the bytes
    /// written.
    ///
    /// # Errors
    /// What the disk said, at whatever moment.
    pub fn finish(self) -> io::Result<u64> {
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the history's thread panicked")))
    }
}

fn write_chunks(mut file: File, waiting: &Receiver<Vec<u8>>) -> io::Result<u64> {
    let mut bytes = 0;
    // Ends when the last recorder and the writer's own end are gone.
    while let Ok(chunk) = waiting.recv() {
        file.write_all(&chunk)?;
        bytes += chunk.len() as u64;
    }
    Ok(bytes)
}

impl Recorder {
    /// A recorder that forgets everything: for load without a check.
    pub fn forgetful() -> Self {
        Self { chunk: Vec::new(), last: 0, chunks: None }
    }

    /// Writes an event that happens now, and returns when that is.
    pub fn record(&mut self, event: &Event<'_>) -> u64 {
        let time = clock::now();
        self.record_at(time, event);
        time
    }

    /// Writes an event of a moment that was read before.
    ///
    /// Events of one reading of the clock keep their order: each is a nanosecond after the one before. To
    /// write it takes longer than that, so no event is moved past the time at which it is written.
    pub fn record_at(&mut self, time: u64, event: &Event<'_>) {
        if self.chunks.is_none() {
            return;
        }
        self.last = time.max(self.last + 1);
        write_line(self.last, event, &mut self.chunk);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// Hands over what is in the chunk.
    pub fn flush(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES + 1024));
        if let Some(chunks) = &self.chunks {
            // Fails only after the disk did; `finish` tells how.
            let _ = chunks.send(chunk);
        }
    }
}

impl Clone for Recorder {
    fn clone(&self) -> Self {
        Self { chunk: Vec::new(), last: 0, chunks: self.chunks.clone() }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::read_file;
    use ringway_protocol::ids::{ConversationId, Seq};

    #[test]
    fn events_of_one_reading_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ndjson");
        let writer = HistoryWriter::create(&path).unwrap();
        let mut recorder = writer.recorder();
        for (time, seq) in [(10, 1), (10, 2), (10, 3), (11, 4), (20, 5)] {
            recorder.record_at(time, &Event::Durable { conversation: ConversationId(1), seq: Seq(seq) });
        }
        drop(recorder);
        writer.finish().unwrap();
        let mut times = Vec::new();
        read_file(&path, |record| times.push(record.time)).unwrap();
        assert_eq!(times, [10, 11, 12, 13, 20]);
    }

    #[test]
    fn events_of_many_threads_are_all_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ndjson");
        let writer = HistoryWriter::create(&path).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mut recorder = writer.recorder();
                scope.spawn(move || {
                    for seq in 1..=5_000 {
                        recorder
                            .record(&Event::Durable { conversation: ConversationId(thread), seq: Seq(seq) });
                    }
                });
            }
        });
        writer.finish().unwrap();
        let mut next = [0; 4];
        let lines = read_file(&path, |record| {
            let Event::Durable { conversation, seq } = record.event else { panic!("{record:?}") };
            next[conversation.0 as usize] += 1;
            assert_eq!(seq.0, next[conversation.0 as usize]);
        });
        assert_eq!(lines.unwrap(), 20_000);
    }
}
