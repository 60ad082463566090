//! Buffers that receives are made into, as io_uring has them provided: taken by a completion, then given back.
//!
//! The one that was given back last is used next: it is in the caches, and a quiet server touches few of them.

/// All buffers of one ring, in one piece of memory: buffer `id` is at `id` × `bytes`.
pub(super) struct Provided {
    memory: Vec<u8>,
    bytes: usize,
    free: Vec<u16>,
    /// Those that completions named and that were not given back.
    out: Vec<bool>,
}

impl Provided {
    /// `count` buffers of `bytes` each.
    pub(super) fn new(count: u16, bytes: u32) -> Self {
        assert!(count > 0 && bytes > 0, "a receive needs a place");
        let bytes = bytes as usize;
        Self {
            memory: vec![0; usize::from(count) * bytes],
            bytes,
            free: (0..count).rev().collect(),
            out: vec![false; usize::from(count)],
        }
    }

    pub(super) fn count(&self) -> u16 {
        self.out.len() as u16
    }

    pub(super) fn out_count(&self) -> u16 {
        self.count() - self.free.len() as u16
    }

    /// The buffer that the next receive is to use; it stays free until [`take`](Self::take).
    pub(super) fn next(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// The whole of the buffer that is next.
    pub(super) fn memory_mut(&mut self, id: u16) -> &mut [u8] {
        let start = usize::from(id) * self.bytes;
        &mut self.memory[start..start + self.bytes]
    }

    /// A completion names the buffer that was next: it is the caller's until given back.
    pub(super) fn take(&mut self, id: u16) {
        assert_eq!(self.free.pop(), Some(id), "the next buffer is the one that is taken");
        self.out[usize::from(id)] = true;
    }

    pub(super) fn bytes_mut(&mut self, id: u16, length: usize) -> &mut [u8] {
        assert!(self.out[usize::from(id)], "buffer {id} was not handed out");
        assert!(length <= self.bytes, "a completion fits its buffer");
        let start = usize::from(id) * self.bytes;
        &mut self.memory[start..start + length]
    }

    pub(super) fn give_back(&mut self, id: u16) {
        let out = &mut self.out[usize::from(id)];
        assert!(*out, "buffer {id} is given back twice");
        *out = false;
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_handed_out_once_until_it_comes_back() {
        let mut provided = Provided::new(2, 16);
        let first = provided.next().unwrap();
        provided.take(first);
        let second = provided.next().unwrap();
        assert_ne!(first, second);
        provided.take(second);
        assert_eq!((provided.next(), provided.out_count()), (None, 2));
        provided.give_back(first);
        assert_eq!((provided.next(), provided.out_count()), (Some(first), 1));
        assert_eq!(provided.bytes_mut(second, 16).len(), 16);
    }

    #[test]
    #[should_panic = "given back twice"]
    fn giving_back_twice_is_a_fault_of_ours() {
        let mut provided = Provided::new(1, 16);
        provided.take(0);
        provided.give_back(0);
        provided.give_back(0);
    }
}
