//! The memory that sends are made in: chunks of one size, used again, the warmest first.
//!
//! A chunk is filled with all that a pass has for a socket, goes into the ring with the send, and comes
//! back with its completion. A socket has at most one, so the number of sockets bounds them; a socket
//! that is idle has none. Free chunks beyond [`SEND_CHUNKS_KEPT`] go back to the allocator.

use crate::limits::{SEND_CHUNK_BYTES, SEND_CHUNKS_KEPT};

#[derive(Default)]
pub(crate) struct SendChunks {
    free: Vec<Vec<u8>>,
}

impl SendChunks {
    /// An empty chunk with room for [`SEND_CHUNK_BYTES`].
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(SEND_CHUNK_BYTES))
    }

    /// A chunk that is no longer used.
    pub(crate) fn put(&mut self, mut chunk: Vec<u8>) {
        // One that grew, or was never ours, is not kept: the pool's memory is its count.
        if self.free.len() < SEND_CHUNKS_KEPT && chunk.capacity() == SEND_CHUNK_BYTES {
            chunk.clear();
            self.free.push(chunk);
        }
    }

    /// Frees half of what is free: called when a core is idle, so that a burst's memory goes back.
    pub(crate) fn shrink(&mut self) {
        self.free.truncate(self.free.len() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_empty_and_no_more_than_the_bound_are_kept() {
        let mut chunks = SendChunks::default();
        let mut chunk = chunks.take();
        chunk.extend_from_slice(b"for somebody else");
        let memory = chunk.as_ptr();
        chunks.put(chunk);
        let again = chunks.take();
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), memory, "the warmest first");
        for _ in 0..SEND_CHUNKS_KEPT + 10 {
            chunks.put(Vec::with_capacity(SEND_CHUNK_BYTES));
        }
        assert_eq!(chunks.free.len(), SEND_CHUNKS_KEPT);
        chunks.put(Vec::new());
        chunks.shrink();
        assert_eq!(chunks.free.len(), SEND_CHUNKS_KEPT / 2);
    }
}
