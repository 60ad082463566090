//! What waits to be sent on one socket, oldest first, in plaintext.
//!
//! Frames made for this connection alone are joined in private pieces, chunks of the core; a frame made once for
//! many is a shared piece, of which a connection holds a reference. A piece begins and ends between frames. A
//! piece that is all that waits is sent as it is; more than one is copied together, so that they are one send. So
//! a short frame of many that does not wait alone is copied at once: were it a piece, what waits could be many
//! small frames of either kind in turn, each with a chunk or a reference that is larger than itself.
//! The bound is the caller's: `session/` leaves bodies out and closes by [`Output::len`]. Empty, it holds no
//! heap at all.

use std::collections::VecDeque;

use bytes::Bytes;
use ringway_protocol::websocket::{HEADER_BYTES_MAX, Opcode, Role, append_frame, decode_frame_header};
use ringway_ring::Chunk;

use crate::limits::{SEND_CHUNK_BYTES, SMALL_CHUNK_BYTES};
use crate::send_chunks::SendChunks;

/// The longest shared frames that are copied to join others, in bytes: what a short send holds.
const JOINED_BYTES_MAX: usize = SMALL_CHUNK_BYTES;

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Private(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    fn as_slice(&self) -> &[u8] {
        match self {
            Piece::Private(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// The queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    front: Option<Piece>,
    /// What waits behind the front; nothing waits behind none.
    #[expect(clippy::box_collection, reason = "seldom there, and every connection pays for what is inline")]
    rest: Option<Box<VecDeque<Piece>>>,
    /// Bytes of the first piece that were taken already.
    taken: usize,
    /// Bytes that wait, over all pieces.
    len: usize,
}

impl Output {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a frame for this connection alone. Returns its bytes.
    pub(crate) fn append_frame(&mut self, chunks: &mut SendChunks, opcode: Opcode, payload: &[u8]) -> usize {
        self.append(chunks, HEADER_BYTES_MAX + payload.len(), |out| append_frame(out, opcode, payload))
    }

    /// Appends whole frames for this connection alone.
    pub(crate) fn append_bytes(&mut self, chunks: &mut SendChunks, frames: &[u8]) {
        self.append(chunks, frames.len(), |out| out.extend_from_slice(frames));
    }

    /// Lets `write` append whole frames, of at most so many bytes, to the last private piece. Returns the
    /// bytes it appended.
    pub(crate) fn append(
        &mut self,
        chunks: &mut SendChunks,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let piece = self.private_piece(chunks, bytes_max);
        let before = piece.len();
        write(piece);
        let added = piece.len() - before;
        self.len += added;
        if self.len == 0 {
            self.clear();
        }
        added
    }

    /// Appends whole frames that others hold too.
    pub(crate) fn push(&mut self, chunks: &mut SendChunks, frames: Bytes) {
        if frames.is_empty() {
            return;
        }
        if self.front.is_some() && frames.len() <= JOINED_BYTES_MAX {
            return self.append_bytes(chunks, &frames);
        }
        self.len += frames.len();
        self.push_piece(Piece::Shared(frames));
    }

    /// Takes all that waits as it is, if it is one piece of which nothing was taken.
    pub(crate) fn take_whole(&mut self) -> Option<Chunk> {
        if self.taken > 0 || self.rest.is_some() {
            return None;
        }
        self.len = 0;
        Some(match self.front.take()? {
            Piece::Private(bytes) => Chunk::Owned(bytes),
            Piece::Shared(bytes) => Chunk::Shared(bytes),
        })
    }

    /// Moves bytes off the front to the end of `chunk`, at most `capacity` of them. Returns how many.
    pub(crate) fn take(&mut self, chunks: &mut SendChunks, chunk: &mut Vec<u8>, capacity: usize) -> usize {
        let mut left = capacity;
        while left > 0 {
            let Some(front) = &self.front else { break };
            let waiting = &front.as_slice()[self.taken..];
            let count = waiting.len().min(left);
            chunk.extend_from_slice(&waiting[..count]);
            left -= count;
            if count == waiting.len() {
                if let Some(Piece::Private(piece)) = self.pop_piece() {
                    chunks.put(piece);
                }
                self.taken = 0;
            } else {
                self.taken += count;
            }
        }
        let moved = capacity - left;
        self.len -= moved;
        if self.len == 0 {
            self.clear();
        }
        moved
    }

    /// Drops every frame of which no byte was taken. What is left is at most the rest of one frame, so
    /// that a Close frame may follow.
    pub(crate) fn drop_untouched(&mut self) {
        let Some(front) = self.front.take() else { return };
        let taken = self.taken;
        self.clear();
        let end = frame_end_at_or_after(front.as_slice(), taken);
        if end > taken {
            let rest = front.as_slice()[taken..end].to_vec();
            self.len = rest.len();
            self.front = Some(Piece::Private(rest));
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All that waits, from the beginning of the frame that the socket is in, and how many bytes of that
    /// were taken: for a frozen connection.
    pub(crate) fn freeze(&self) -> (Vec<u8>, usize) {
        let mut bytes = Vec::with_capacity(self.taken + self.len);
        for piece in self.front.iter().chain(self.rest.iter().flat_map(|rest| rest.iter())) {
            bytes.extend_from_slice(piece.as_slice());
        }
        (bytes, self.taken)
    }

    /// The counterpart of [`freeze`](Self::freeze). `None` if more was taken than there is.
    pub(crate) fn thaw(bytes: Vec<u8>, taken: usize) -> Option<Self> {
        let len = bytes.len().checked_sub(taken)?;
        let mut output = Self::default();
        if len > 0 {
            output.len = len;
            output.taken = taken;
            output.front = Some(Piece::Private(bytes));
        }
        Some(output)
    }

    fn push_piece(&mut self, piece: Piece) {
        if self.front.is_none() {
            self.front = Some(piece);
        } else {
            self.rest.get_or_insert_default().push_back(piece);
        }
    }

    fn pop_piece(&mut self) -> Option<Piece> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
        std::mem::replace(&mut self.front, next)
    }

    fn last_piece(&mut self) -> Option<&mut Piece> {
        match &mut self.rest {
            Some(rest) => rest.back_mut(),
            None => self.front.as_mut(),
        }
    }

    /// The last piece, made private and with room for so many bytes more.
    fn private_piece(&mut self, chunks: &mut SendChunks, bytes: usize) -> &mut Vec<u8> {
        let joins = match self.last_piece() {
            Some(Piece::Private(piece)) if piece.capacity() - piece.len() >= bytes => true,
            // A small piece grows into a large one; a large one that is full stays as it is.
            Some(Piece::Private(piece)) if piece.len() + bytes <= SEND_CHUNK_BYTES => {
                let mut larger = chunks.take(piece.len() + bytes);
                larger.extend_from_slice(piece);
                chunks.put(std::mem::replace(piece, larger));
                true
            }
            Some(Piece::Shared(short)) if short.len() <= JOINED_BYTES_MAX && bytes <= JOINED_BYTES_MAX => {
                let mut private = chunks.take(short.len() + bytes);
                private.extend_from_slice(short);
                if let Some(last) = self.last_piece() {
                    *last = Piece::Private(private);
                }
                true
            }
            _ => false,
        };
        if !joins {
            self.push_piece(Piece::Private(chunks.take(bytes)));
        }
        match self.last_piece() {
            Some(Piece::Private(piece)) => piece,
            _ => unreachable!("the last piece was found or made private"),
        }
    }
}

/// Where the frame ends that byte `taken` lies in, or `taken` itself where a frame ends there. `piece`
/// begins with a frame.
fn frame_end_at_or_after(piece: &[u8], taken: usize) -> usize {
    let mut end = 0;
    while end < taken {
        match decode_frame_header(&piece[end..], Role::Client) {
            Ok(Some((header, header_len))) => end += header_len + header.payload_len as usize,
            // Not frames (a handshake's answer is the first piece of a connection): all of it goes.
            _ => return piece.len(),
        }
    }
    end.min(piece.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SMALL_CHUNK_BYTES;

    fn taken(output: &mut Output, chunks: &mut SendChunks, capacity: usize) -> Vec<u8> {
        let mut chunk = Vec::new();
        output.take(chunks, &mut chunk, capacity);
        chunk
    }

    #[test]
    fn one_piece_is_sent_as_it_is_and_several_are_copied_together() {
        let (mut chunks, mut output) = (SendChunks::default(), Output::default());
        let frame = Bytes::from(vec![b's'; JOINED_BYTES_MAX + 1]);
        output.push(&mut chunks, frame.clone());
        let Some(Chunk::Shared(whole)) = output.take_whole() else { panic!("a shared chunk") };
        assert_eq!(whole.as_ptr(), frame.as_ptr(), "not copied");

        output.append_bytes(&mut chunks, b"one ");
        output.append_bytes(&mut chunks, b"two");
        let Some(Chunk::Owned(whole)) = output.take_whole() else { panic!("an owned chunk") };
        assert_eq!(whole, b"one two");

        output.append_bytes(&mut chunks, b"a ");
        output.push(&mut chunks, frame.clone());
        output.append_bytes(&mut chunks, b" b");
        assert!(output.take_whole().is_none());
        assert_eq!(taken(&mut output, &mut chunks, 3), b"a s");
        assert!(output.take_whole().is_none(), "a piece that was begun is no whole one");
        assert_eq!(taken(&mut output, &mut chunks, usize::MAX), [&frame[1..], b" b"].concat());
        assert_eq!(output, Output::default());
    }

    #[test]
    fn short_frames_of_many_that_meet_others_are_one_piece_with_them() {
        let (mut chunks, mut output) = (SendChunks::default(), Output::default());
        let frame = Bytes::from_static(b"\x81\x06shared");
        output.push(&mut chunks, frame.clone());
        output.push(&mut chunks, frame.clone());
        output.append_bytes(&mut chunks, b"\x81\x05alone");
        output.push(&mut chunks, frame.clone());
        let Some(Chunk::Owned(whole)) = output.take_whole() else { panic!("one chunk") };
        assert_eq!(whole, [&frame[..], &frame, b"\x81\x05alone", &frame].concat());
        assert_eq!(whole.capacity(), SMALL_CHUNK_BYTES);

        // Also when the socket is in the middle of the first.
        output.push(&mut chunks, frame.clone());
        assert_eq!(taken(&mut output, &mut chunks, 3), frame[..3]);
        output.append_bytes(&mut chunks, b"\x81\x05alone");
        assert_eq!(output.len(), 5 + 7);
        output.drop_untouched();
        assert_eq!(taken(&mut output, &mut chunks, 99), frame[3..]);
    }

    #[test]
    fn what_waits_takes_little_more_memory_than_it_is_long() {
        let (mut chunks, mut output) = (SendChunks::default(), Output::default());
        while output.len() < 256 * 1024 {
            output.push(&mut chunks, Bytes::from(vec![b'd'; 100]));
            output.append_bytes(&mut chunks, &[b'p'; 20]);
        }
        let pieces = output.front.iter().chain(output.rest.iter().flat_map(|rest| rest.iter()));
        let memory: usize = pieces
            .map(|piece| match piece {
                Piece::Private(bytes) => bytes.capacity() + size_of::<Piece>(),
                Piece::Shared(bytes) => bytes.len() + size_of::<Piece>(),
            })
            .sum();
        assert!(memory <= output.len() * 5 / 4, "{memory} bytes for {}", output.len());
    }

    #[test]
    fn a_private_piece_grows_once_and_a_full_one_is_followed_by_another() {
        let (mut chunks, mut output) = (SendChunks::default(), Output::default());
        let frame = [7; 400];
        let mut said = 0;
        while output.rest.is_none() {
            output.append_bytes(&mut chunks, &frame);
            said += frame.len();
            assert!(said <= 2 * SEND_CHUNK_BYTES);
        }
        assert_eq!(output.len(), said);
        assert!(said > SMALL_CHUNK_BYTES);
        assert_eq!(taken(&mut output, &mut chunks, usize::MAX).len(), said);
        assert_eq!(output.append_frame(&mut chunks, Opcode::Text, &[b'x'; 64 << 10]), (64 << 10) + 10);
        assert_eq!(output.take_whole().map(|chunk| chunk.len()), Some((64 << 10) + 10));
    }
}
