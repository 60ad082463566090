//! Bytes on their way to a socket: memory of the socket's own, or a frame that many sockets are sent at once.
//!
//! A chunk goes into the ring with its send and comes back with the completion. What is shared is only counted, so
//! that a frame to ten thousand sockets lies in memory once, and in the caches.

use bytes::Bytes;

/// What one send sends.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes of this send alone; the memory is used again when it comes back.
    Owned(Vec<u8>),
    /// Bytes that others send or hold too.
    Shared(Bytes),
}

impl Chunk {
    /// The bytes. They stay where they are while the chunk is moved.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Owned(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Chunk {
    /// Nothing, without memory.
    fn default() -> Self {
        Chunk::Owned(Vec::new())
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Chunk::Owned(bytes)
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Chunk::Shared(bytes)
    }
}
