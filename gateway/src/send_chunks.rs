//! The memory that sends are made in, and TLS records that come in parts: chunks of two sizes, used again, the warmest first.
//!
//! A chunk is filled with all that a pass has for a socket, goes into the ring with the send, and comes
//! back with its completion. A connection that has nothing to say has none. Most of what is said is short: the
//! small size keeps the chunks of a thousand sockets in the caches. Free chunks beyond those that are kept go
//! back to the allocator.

use ringway_protocol::tls::RecordMemory;
use ringway_ring::Chunk;

use crate::limits::{SEND_CHUNK_BYTES, SEND_CHUNKS_KEPT, SMALL_CHUNK_BYTES, SMALL_CHUNKS_KEPT};

#[derive(Default)]
pub(crate) struct SendChunks {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl SendChunks {
    /// An empty chunk with room for so many bytes: of one of the two sizes, if they fit.
    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let (free, size) = if bytes <= SMALL_CHUNK_BYTES {
            (&mut self.small, SMALL_CHUNK_BYTES)
        } else {
            (&mut self.large, SEND_CHUNK_BYTES)
        };
        match free.pop() {
            Some(chunk) if bytes <= size => chunk,
            Some(chunk) => {
                free.push(chunk);
                Vec::with_capacity(bytes)
            }
            None => Vec::with_capacity(bytes.max(size)),
        }
    }

    /// A chunk that is no longer used.
    pub(crate) fn put(&mut self, mut chunk: Vec<u8>) {
        let (free, kept) = match chunk.capacity() {
            SMALL_CHUNK_BYTES => (&mut self.small, SMALL_CHUNKS_KEPT),
            SEND_CHUNK_BYTES => (&mut self.large, SEND_CHUNKS_KEPT),
            // One that grew, or was never ours, is not kept: the pool's memory is its count.
            _ => return,
        };
        if free.len() < kept {
            chunk.clear();
            free.push(chunk);
        }
    }

    /// What a send was made of, when it is over.
    pub(crate) fn take_back(&mut self, chunk: Chunk) {
        if let Chunk::Owned(chunk) = chunk {
            self.put(chunk);
        }
    }

    /// Frees half of what is free: called when a core is idle, so that a burst's memory goes back.
    pub(crate) fn shrink(&mut self) {
        self.small.truncate(self.small.len() / 2);
        self.large.truncate(self.large.len() / 2);
    }
}

/// Also what arrives in a TLS record that does not come at once is gathered in them.
impl RecordMemory for SendChunks {
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        SendChunks::take(self, bytes)
    }

    fn put(&mut self, memory: Vec<u8>) {
        SendChunks::put(self, memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_empty_and_no_more_than_the_bound_are_kept() {
        let mut chunks = SendChunks::default();
        for (bytes, size) in [(1, SMALL_CHUNK_BYTES), (SMALL_CHUNK_BYTES + 1, SEND_CHUNK_BYTES)] {
            let mut chunk = chunks.take(bytes);
            assert_eq!(chunk.capacity(), size);
            chunk.extend_from_slice(b"for somebody else");
            let memory = chunk.as_ptr();
            chunks.put(chunk);
            let again = chunks.take(size);
            assert!(again.is_empty());
            assert_eq!(again.as_ptr(), memory, "the warmest first");
        }
        for _ in 0..SEND_CHUNKS_KEPT + 10 {
            chunks.put(Vec::with_capacity(SEND_CHUNK_BYTES));
        }
        assert_eq!(chunks.large.len(), SEND_CHUNKS_KEPT);
        chunks.put(Vec::new());
        chunks.shrink();
        assert_eq!(chunks.large.len(), SEND_CHUNKS_KEPT / 2);
    }

    #[test]
    fn what_fits_no_size_has_its_own_memory_and_is_not_kept() {
        let mut chunks = SendChunks::default();
        chunks.put(Vec::with_capacity(SEND_CHUNK_BYTES));
        let huge = chunks.take(SEND_CHUNK_BYTES + 1);
        assert!(huge.capacity() > SEND_CHUNK_BYTES);
        chunks.put(huge);
        assert_eq!((chunks.large.len(), chunks.small.len()), (1, 0));
    }
}
