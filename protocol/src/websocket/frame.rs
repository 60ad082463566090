//! The header of one frame (RFC 6455 section 5.2): decoded strictly, encoded minimally.
//!
//! ```text
//!  byte 0      FIN RSV1 RSV2 RSV3 opcode(4)
//!  byte 1      MASK payload length(7): 0-125, or 126: 2 bytes follow, or 127: 8 bytes follow
//!  2 or 8      extended payload length, big-endian, the shortest form that holds it
//!  4           masking key, from a client only
//! ```
//!
//! What depends on the frames before this one (a continuation of what?) is `reader.rs`.

use super::close_code::CloseCode;

/// Bytes of the longest header.
pub const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a control frame (section 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of the message begun before.
    Continuation,
    /// A message of UTF-8, or its first fragment.
    Text,
    /// A message of bytes, or its first fragment.
    Binary,
    /// The end of the connection.
    Close,
    /// To be answered by a Pong with the same payload.
    Ping,
    /// The answer to a Ping, or an unasked sign of life.
    Pong,
}

impl Opcode {
    /// Its four bits.
    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xa,
        }
    }

    /// The opcode of these four bits, if one is defined.
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    /// Close, Ping and Pong: short, whole, and allowed between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We read what clients send: masked, always.
    Server,
    /// We read what a server sends: never masked.
    Client,
}

/// One frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The last fragment of its message, or the only one.
    pub fin: bool,
    /// What for.
    pub opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow.
    pub payload_len: u64,
}

/// How a peer broke RFC 6455. Each closes the connection with [`FrameError::close_code`], and the text
/// is fit for the Close frame's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Section 5.2: "MUST be 0 unless an extension is negotiated".
    #[error("a reserved bit is set and no extension was agreed")]
    ReservedBit,
    /// Section 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket
    /// Connection_".
    #[error("opcode {0:#x} is not defined")]
    UnknownOpcode(u8),
    /// Section 5.5: "MUST NOT be fragmented".
    #[error("a control frame must not be fragmented")]
    FragmentedControl,
    /// Section 5.5: "MUST have a payload length of 125 bytes or less".
    #[error("a control frame has at most 125 bytes of payload")]
    LongControl,
    /// Section 5.1: "The server MUST close the connection upon receiving a frame that is not masked".
    #[error("a client's frames must be masked")]
    NotMasked,
    /// Section 5.1: "A client MUST close a connection if it detects a masked frame".
    #[error("a server's frames must not be masked")]
    Masked,
    /// Section 5.2: "the minimal number of bytes MUST be used to encode the length".
    #[error("the payload length is not in its shortest form")]
    LengthNotMinimal,
    /// Section 5.2: "the most significant bit MUST be 0".
    #[error("the top bit of a 64-bit payload length must be 0")]
    LengthTopBit,
    /// Section 5.4: a continuation belongs to a message.
    #[error("a continuation frame with no message begun")]
    NothingToContinue,
    /// Section 5.4: fragments of two messages must not be interleaved.
    #[error("a new message before the last one has ended")]
    MessageNotEnded,
    /// Our limit.
    #[error("a message has at most {0} bytes")]
    MessageTooLong(usize),
    /// Section 8.1: text must be UTF-8.
    #[error("text must be UTF-8")]
    NotUtf8,
    /// Section 5.5.1: a body of a Close frame begins with a 2-byte code.
    #[error("a close frame's payload is empty or begins with a 2-byte code")]
    CloseTooShort,
    /// Section 7.4: this code is not for the wire.
    #[error("close code {0} must not be sent")]
    CloseCodeNotAllowed(u16),
    /// Section 5.5.1: the reason must be UTF-8.
    #[error("a close reason must be UTF-8")]
    CloseReasonNotUtf8,
}

impl FrameError {
    /// The code that the standard names for it.
    pub fn close_code(self) -> CloseCode {
        match self {
            FrameError::MessageTooLong(_) => CloseCode::MESSAGE_TOO_BIG,
            FrameError::NotUtf8 | FrameError::CloseReasonNotUtf8 => CloseCode::INVALID_PAYLOAD,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Reads one frame header off the front of `received`: the header and its length in bytes.
///
/// `Ok(None)` while it is incomplete: an ordinary state of a stream. What is wrong is told as soon as its
/// byte is there, in the order of the bytes, so that the same bytes give the same error however they
/// arrive.
///
/// # Errors
/// The [`FrameError`]s that one header can show.
pub fn decode_frame_header(received: &[u8], role: Role) -> Result<Option<(FrameHeader, usize)>, FrameError> {
    let Some(&first) = received.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBit);
    }
    let fin = first & 0x80 != 0;
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::UnknownOpcode(first & 0x0f))?;
    if opcode.is_control() && !fin {
        return Err(FrameError::FragmentedControl);
    }

    let Some(&second) = received.get(1) else { return Ok(None) };
    let masked = second & 0x80 != 0;
    match role {
        Role::Server if !masked => return Err(FrameError::NotMasked),
        Role::Client if masked => return Err(FrameError::Masked),
        _ => {}
    }
    let short_len = second & 0x7f;
    if opcode.is_control() && usize::from(short_len) > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(FrameError::LongControl);
    }
    let (payload_len, len_end) = match short_len {
        126 => match received.get(2..4) {
            Some(bytes) => (u64::from(u16::from_be_bytes([bytes[0], bytes[1]])), 4),
            None => return Ok(None),
        },
        127 => match received.get(2..10).and_then(|bytes| bytes.first_chunk::<8>()) {
            Some(bytes) => (u64::from_be_bytes(*bytes), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if payload_len >> 63 != 0 {
        return Err(FrameError::LengthTopBit);
    }
    if (short_len == 126 && payload_len < 126) || (short_len == 127 && payload_len <= 0xffff) {
        return Err(FrameError::LengthNotMinimal);
    }

    if !masked {
        return Ok(Some((FrameHeader { fin, opcode, mask: None, payload_len }, len_end)));
    }
    let Some(mask) = received.get(len_end..).and_then(|bytes| bytes.first_chunk::<4>()) else {
        return Ok(None);
    };
    Ok(Some((FrameHeader { fin, opcode, mask: Some(*mask), payload_len }, len_end + 4)))
}

/// A header ready to be sent: at most [`HEADER_BYTES_MAX`] bytes, kept inline.
#[derive(Clone, Copy, Debug)]
pub struct EncodedHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

impl EncodedHeader {
    /// The bytes to send.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Writes a header with the shortest form of the length.
pub fn encode_frame_header(header: &FrameHeader) -> EncodedHeader {
    let mut bytes = [0; HEADER_BYTES_MAX];
    bytes[0] = header.opcode.bits() | if header.fin { 0x80 } else { 0 };
    let mask_bit = if header.mask.is_some() { 0x80 } else { 0 };
    let mut len = match header.payload_len {
        short @ 0..126 => {
            bytes[1] = mask_bit | short as u8;
            2
        }
        medium @ 126..0x1_0000 => {
            bytes[1] = mask_bit | 126;
            bytes[2..4].copy_from_slice(&(medium as u16).to_be_bytes());
            4
        }
        long => {
            bytes[1] = mask_bit | 127;
            bytes[2..10].copy_from_slice(&long.to_be_bytes());
            10
        }
    };
    if let Some(mask) = header.mask {
        bytes[len..len + 4].copy_from_slice(&mask);
        len += 4;
    }
    EncodedHeader { bytes, len: len as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_opcode() -> impl Strategy<Value = Opcode> {
        prop_oneof![
            Just(Opcode::Continuation),
            Just(Opcode::Text),
            Just(Opcode::Binary),
            Just(Opcode::Close),
            Just(Opcode::Ping),
            Just(Opcode::Pong),
        ]
    }

    proptest! {
        #[test]
        fn a_header_comes_back_and_every_prefix_of_it_is_incomplete(
            fin: bool,
            opcode in any_opcode(),
            mask: Option<[u8; 4]>,
            payload_len in prop_oneof![0u64..130, 65530u64..65540, 0u64..1 << 63],
        ) {
            let control = opcode.is_control();
            let header = FrameHeader {
                fin: fin || control,
                opcode,
                mask,
                payload_len: if control { payload_len % 126 } else { payload_len },
            };
            let role = if mask.is_some() { Role::Server } else { Role::Client };
            let encoded = encode_frame_header(&header);
            let bytes = encoded.as_slice();
            prop_assert_eq!(decode_frame_header(bytes, role), Ok(Some((header, bytes.len()))));
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode_frame_header(&bytes[..cut], role), Ok(None));
            }
        }
    }
}
