//! Messages to frames: one unfragmented frame each, appended to what is to be sent, or as shared bytes.
//!
//! A server's frames are not masked (RFC 6455 section 5.1), so one encoding serves all recipients:
//! [`shared_frame`] makes it once. [`append_masked_frame`] is for clients: the load generator and tests.

use bytes::Bytes;

use super::close_code::CloseCode;
use super::frame::{CONTROL_PAYLOAD_BYTES_MAX, FrameHeader, Opcode, encode_frame_header};
use super::mask::apply_mask;

/// Appends a whole server frame.
pub fn append_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    append_header(out, opcode, None, payload.len());
    out.extend_from_slice(payload);
}

/// A whole server frame for any number of recipients, in memory of its size.
pub fn shared_frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let header = FrameHeader { fin: true, opcode, mask: None, payload_len: payload.len() as u64 };
    let header = encode_frame_header(&header);
    let header = header.as_slice();
    let mut frame = Vec::with_capacity(header.len() + payload.len());
    frame.extend_from_slice(header);
    frame.extend_from_slice(payload);
    Bytes::from(frame)
}

/// Appends a server's Close frame. A reason longer than fits is cut at a character.
pub fn append_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    append_frame(out, Opcode::Close, &close_payload(Some(code), reason));
}

/// Appends a server's answer to a peer's Close: the same code, or none if it gave none (RFC 6455 section
/// 5.5.1: "the endpoint typically echos the status code it received").
pub fn append_close_answer(out: &mut Vec<u8>, code: Option<CloseCode>) {
    append_frame(out, Opcode::Close, &close_payload(code, ""));
}

/// Appends a whole client frame. `key` must not be predictable in a browser (RFC 6455 section 10.3);
/// elsewhere any will do.
pub fn append_masked_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    append_header(out, opcode, Some(key), payload.len());
    let start = out.len();
    out.extend_from_slice(payload);
    let _ = apply_mask(key, &mut out[start..]);
}

/// Appends a client's Close frame.
pub fn append_masked_close(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str, key: [u8; 4]) {
    append_masked_frame(out, Opcode::Close, &close_payload(code, reason), key);
}

fn append_header(out: &mut Vec<u8>, opcode: Opcode, mask: Option<[u8; 4]>, payload_len: usize) {
    debug_assert!(!opcode.is_control() || payload_len <= CONTROL_PAYLOAD_BYTES_MAX);
    let header = FrameHeader { fin: true, opcode, mask, payload_len: payload_len as u64 };
    out.reserve(super::frame::HEADER_BYTES_MAX + payload_len);
    out.extend_from_slice(encode_frame_header(&header).as_slice());
}

fn close_payload(code: Option<CloseCode>, reason: &str) -> Vec<u8> {
    let Some(code) = code else { return Vec::new() };
    let reason = &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_BYTES_MAX - 2)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.0.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use super::super::frame::Role;
    use super::super::reader::{Event, FrameReader};
    use super::*;

    #[test]
    fn a_frame_is_the_same_both_ways_at_every_length_of_header() {
        for len in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
            let payload = vec![b'x'; len];
            let mut appended = Vec::new();
            append_frame(&mut appended, Opcode::Binary, &payload);
            assert_eq!(shared_frame(Opcode::Binary, &payload), appended);
            let mut reader = FrameReader::new(Role::Client, 70000);
            assert_eq!(reader.next(&mut &mut appended[..]), Ok(Some(Event::Binary(&payload))));
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        append_close(&mut out, CloseCode::DRAIN, &"ü".repeat(100));
        let mut reader = FrameReader::new(Role::Client, 0);
        let reason = "ü".repeat(61);
        let expected = Event::Close { code: Some(CloseCode::DRAIN), reason: &reason };
        assert_eq!(reader.next(&mut &mut out[..]), Ok(Some(expected)));
    }
}
