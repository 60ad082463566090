//! The memory that bodies are copied to when they leave what was received: one chunk for many of them.
//!
//! A body goes to the router and is let go there as soon as it is in its entry. So two chunks take turns: when one
//! is used up, the bodies in the other are long gone, and it is used again. Were one of them still held, a new
//! chunk takes its place.

use bytes::{Bytes, BytesMut};

/// Bytes of a chunk: some five hundred messages, so that the last are gone when it is their turn again.
const CHUNK_BYTES: usize = 64 * 1024;

/// Longest body that shares a chunk: a longer one costs more to copy than to allocate.
const SHARED_BYTES_MAX: usize = 4 * 1024;

/// Two chunks, made with the first body.
#[derive(Debug, Default)]
pub struct BodyMemory {
    chunk: BytesMut,
    other: BytesMut,
}

impl BodyMemory {
    /// A copy that lives as long as it is held.
    pub(super) fn copy(&mut self, body: &[u8]) -> Bytes {
        if body.len() > SHARED_BYTES_MAX {
            return Bytes::copy_from_slice(body);
        }
        if self.chunk.capacity() < body.len() {
            std::mem::swap(&mut self.chunk, &mut self.other);
            if !self.chunk.try_reclaim(CHUNK_BYTES) {
                self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
            }
        }
        self.chunk.extend_from_slice(body);
        self.chunk.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_take_turns_and_one_that_is_held_is_left_alone() {
        let mut memory = BodyMemory::default();
        let body = [b'x'; 128];
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..10 * CHUNK_BYTES / body.len() {
            places.insert(memory.copy(&body).as_ptr());
        }
        assert_eq!(places.len(), 2 * CHUNK_BYTES / body.len(), "two chunks, used again");

        let held: Vec<Bytes> =
            (0..4 * CHUNK_BYTES / body.len()).map(|round| memory.copy(&[round as u8; 128])).collect();
        for (round, body) in held.iter().enumerate() {
            assert_eq!(body[..], [round as u8; 128]);
        }
        assert_eq!(memory.copy(&[7; SHARED_BYTES_MAX + 1]).len(), SHARED_BYTES_MAX + 1);
        assert_eq!(memory.copy(b""), Bytes::new());
    }
}
