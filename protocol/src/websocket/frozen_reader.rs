//! A frame reader as bytes, so that a connection moves to another core or to the next binary in the middle
//! of a frame.
//!
//! ```text
//!   1  version, 1
//!   1  bit 0: we are the client; bit 1: ended; bit 2: something is incomplete, and this follows:
//!   8  message_bytes_max
//!   -- only with bit 2:
//!   1  bytes of header so far, then those bytes
//!   1  the arriving frame: 0 none, 1 there is one: opcode, FIN, masked?, 4 of key, 8 of missing bytes
//!   1  the message begun: 0 none, 1 text, 2 binary
//!   4  payload so far, then those bytes
//!   4  control payload so far, then those bytes
//! ```
//! What is thawed is checked like what a stranger sent: no bytes make a reader that panics later.

use bytes::BufMut;

use super::frame::{CONTROL_PAYLOAD_BYTES_MAX, HEADER_BYTES_MAX, Opcode, Role, decode_frame_header};
use super::reader::{ArrivingFrame, FrameReader, Lent, MessageKind, Partial};
use crate::byte_cursor::{ByteCursor, Truncated, put_bytes};

const VERSION: u8 = 1;

/// Why bytes are not a frozen reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThawError {
    /// Written by a version that this one does not know.
    #[error("a frozen frame reader of version {0}; this binary reads version {VERSION}")]
    Version(u8),
    /// They end too early.
    #[error("a frozen frame reader is cut: {0}")]
    Truncated(#[from] Truncated),
    /// They say what no reader can be.
    #[error("a frozen frame reader is damaged: {0}")]
    Damaged(&'static str),
}

impl FrameReader {
    /// Appends the reader's state. Call it between events: what the last event lent is not kept.
    pub fn freeze(&self, out: &mut Vec<u8>) {
        let partial = self.partial.as_deref().filter(|partial| !self.ended && !partial.is_idle());
        out.put_u8(VERSION);
        out.put_u8(
            u8::from(self.role == Role::Client)
                | u8::from(self.ended) << 1
                | u8::from(partial.is_some()) << 2,
        );
        out.put_u64_le(u64::from(self.message_bytes_max));
        let Some(partial) = partial else { return };

        out.put_u8(partial.header_len);
        out.put_slice(&partial.header[..usize::from(partial.header_len)]);
        let control_is_lent = partial.lent == Lent::Control;
        match partial.frame.filter(|_| !control_is_lent) {
            None => out.put_u8(0),
            Some(frame) => {
                out.put_u8(1);
                out.put_u8(frame.opcode.bits());
                out.put_u8(u8::from(frame.fin));
                out.put_u8(u8::from(frame.mask.is_some()));
                out.put_slice(&frame.mask.unwrap_or_default());
                out.put_u64_le(frame.missing);
            }
        }
        out.put_u8(match partial.message {
            None => 0,
            Some(MessageKind::Text) => 1,
            Some(MessageKind::Binary) => 2,
        });
        put_bytes(out, &partial.payload);
        put_bytes(out, if control_is_lent { &[] } else { &partial.control });
    }

    /// Takes a frozen reader off the front of `bytes`, and leaves what lies behind it there.
    ///
    /// # Errors
    /// [`ThawError`]; `bytes` is unchanged then.
    pub fn thaw(bytes: &mut &[u8]) -> Result<Self, ThawError> {
        let mut cursor = ByteCursor::new(bytes);
        let version = cursor.u8()?;
        if version != VERSION {
            return Err(ThawError::Version(version));
        }
        let flags = cursor.u8()?;
        if flags & !0b111 != 0 || flags & 0b110 == 0b110 {
            return Err(ThawError::Damaged("flags"));
        }
        let role = if flags & 0b001 != 0 { Role::Client } else { Role::Server };
        let message_bytes_max =
            u32::try_from(cursor.u64()?).map_err(|_| ThawError::Damaged("message_bytes_max"))?;
        let partial = match flags & 0b100 {
            0 => None,
            _ => Some(Box::new(thaw_partial(&mut cursor, role, message_bytes_max)?)),
        };
        *bytes = cursor.rest();
        Ok(Self { role, ended: flags & 0b010 != 0, message_bytes_max, partial })
    }
}

fn thaw_partial(
    cursor: &mut ByteCursor<'_>,
    role: Role,
    message_bytes_max: u32,
) -> Result<Partial, ThawError> {
    let mut partial = Partial { header_len: cursor.u8()?, ..Partial::default() };
    let header_len = usize::from(partial.header_len);
    if header_len >= HEADER_BYTES_MAX {
        return Err(ThawError::Damaged("header length"));
    }
    partial.header[..header_len].copy_from_slice(cursor.take(header_len)?);
    if decode_frame_header(&partial.header[..header_len], role) != Ok(None) {
        return Err(ThawError::Damaged("header"));
    }
    partial.frame = match cursor.u8()? {
        0 => None,
        1 => Some(thaw_frame(cursor)?),
        _ => return Err(ThawError::Damaged("frame")),
    };
    partial.message = match cursor.u8()? {
        0 => None,
        1 => Some(MessageKind::Text),
        2 => Some(MessageKind::Binary),
        _ => return Err(ThawError::Damaged("message kind")),
    };
    partial.payload = cursor.bytes()?.to_vec();
    partial.control = cursor.bytes()?.to_vec();
    if partial.message == Some(MessageKind::Text) {
        partial.check_text().map_err(|_| ThawError::Damaged("text"))?;
    }
    check(&partial, message_bytes_max)?;
    Ok(partial)
}

fn thaw_frame(cursor: &mut ByteCursor<'_>) -> Result<ArrivingFrame, ThawError> {
    let opcode = Opcode::from_bits(cursor.u8()?).ok_or(ThawError::Damaged("opcode"))?;
    let fin = cursor.u8()? != 0;
    let masked = cursor.u8()? != 0;
    let key = cursor.array::<4>()?;
    let missing = cursor.u64()?;
    Ok(ArrivingFrame { opcode, fin, mask: masked.then_some(key), missing })
}

/// What holds between calls of a reader that has something incomplete.
fn check(partial: &Partial, message_bytes_max: u32) -> Result<(), ThawError> {
    let claim = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(ThawError::Damaged(what)) };
    claim(!partial.is_idle(), "nothing is incomplete")?;
    claim(partial.message.is_some() || partial.payload.is_empty(), "a payload of no message")?;
    claim(partial.payload.len() <= message_bytes_max as usize, "the payload is longer than allowed")?;
    let Some(frame) = partial.frame else {
        return claim(partial.control.is_empty(), "a payload of no control frame");
    };
    claim(partial.header_len == 0, "a header inside a frame")?;
    claim(frame.missing > 0, "a frame with nothing missing")?;
    if frame.opcode.is_control() {
        let len = frame.missing.saturating_add(partial.control.len() as u64);
        claim(frame.fin && len <= CONTROL_PAYLOAD_BYTES_MAX as u64, "a control frame too long")
    } else {
        let len = frame.missing.saturating_add(partial.payload.len() as u64);
        claim(partial.message.is_some(), "a data frame of no message")?;
        claim(partial.control.is_empty(), "a payload of no control frame")?;
        claim(len <= u64::from(message_bytes_max), "a message too long")
    }
}
