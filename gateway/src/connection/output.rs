//! What waits to be sent on one socket, oldest first, in plaintext.
//!
//! Frames made for this connection alone are joined in private pieces; a frame made once for many is a
//! shared piece, of which a connection holds a reference. A piece begins and ends between frames. The
//! bound is the caller's: `session/` leaves bodies out and closes by [`Output::len`]. Empty, it holds no
//! heap at all.

use std::collections::VecDeque;

use bytes::Bytes;
use ringway_protocol::websocket::{Role, decode_frame_header};

/// A private piece grows up to this many bytes before the next one is begun, so that a long queue is
/// given back piece by piece.
const PRIVATE_BYTES: usize = 4 * 1024;

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
    pieces: VecDeque<Piece>,
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

    /// Lets `write` append whole frames to the last private piece. Returns the bytes it appended.
    pub(crate) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let joinable = matches!(self.pieces.back(), Some(Piece::Private(last)) if last.len() < PRIVATE_BYTES);
        if !joinable {
            self.pieces.push_back(Piece::Private(Vec::new()));
        }
        let Some(Piece::Private(last)) = self.pieces.back_mut() else { unreachable!("just pushed") };
        let before = last.len();
        write(last);
        let added = last.len() - before;
        self.len += added;
        if self.len == 0 {
            self.clear();
        }
        added
    }

    /// Appends a frame that others hold too.
    pub(crate) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.len += frame.len();
            self.pieces.push_back(Piece::Shared(frame));
        }
    }

    /// Moves bytes off the front to the end of `chunk`, at most `capacity` of them. Returns how many.
    pub(crate) fn take(&mut self, chunk: &mut Vec<u8>, capacity: usize) -> usize {
        let mut left = capacity;
        while left > 0 {
            let Some(front) = self.pieces.front() else { break };
            let waiting = &front.as_slice()[self.taken..];
            let count = waiting.len().min(left);
            chunk.extend_from_slice(&waiting[..count]);
            left -= count;
            if count == waiting.len() {
                self.pieces.pop_front();
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
        let Some(front) = self.pieces.pop_front() else { return };
        let taken = self.taken;
        self.clear();
        let end = frame_end_at_or_after(front.as_slice(), taken);
        if end > taken {
            let rest = front.as_slice()[taken..end].to_vec();
            self.len = rest.len();
            self.pieces.push_back(Piece::Private(rest));
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
        for piece in &self.pieces {
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
            output.pieces.push_back(Piece::Private(bytes));
        }
        Some(output)
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
