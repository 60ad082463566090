//! Frames to messages: what arrived goes in, as it came; text, binary, pings and the close come out.
//!
//! A message that lies whole in what arrived is unmasked where it lies and lent from there: no copy. Only
//! while something is incomplete does the reader own memory, a box that holds what has arrived of it and
//! never grows by what a header announces. An idle reader is 16 bytes.
//!
//! After an error, or after a Close frame, the reader takes everything and gives nothing (RFC 6455
//! sections 5.5.1 and 7.1.7). `frozen_reader.rs` moves a reader to another process, also mid-frame.

use super::close_code::CloseCode;
use super::frame::{
    CONTROL_PAYLOAD_BYTES_MAX, FrameError, FrameHeader, HEADER_BYTES_MAX, Opcode, Role, decode_frame_header,
};
use super::mask::apply_mask;

/// What a peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// To be answered by a Pong with this payload.
    Ping(&'a [u8]),
    /// An answer to a Ping, or an unasked sign of life.
    Pong(&'a [u8]),
    /// The peer closes: answer with a Close frame, unless one was sent before. No event follows.
    Close {
        /// Why, if it said so.
        code: Option<CloseCode>,
        /// A text for people, may be empty.
        reason: &'a str,
    },
}

/// Reads the frames of one connection.
#[derive(Clone, Debug)]
pub struct FrameReader {
    pub(super) role: Role,
    /// An error or a Close frame came: nothing that follows counts.
    pub(super) ended: bool,
    pub(super) message_bytes_max: u32,
    pub(super) partial: Option<Box<Partial>>,
}

/// What is incomplete, or lent until the next call.
#[derive(Clone, Debug, Default)]
pub(super) struct Partial {
    /// The beginning of a frame header; only while no frame is arriving.
    pub(super) header: [u8; HEADER_BYTES_MAX],
    pub(super) header_len: u8,
    /// The frame whose payload is arriving.
    pub(super) frame: Option<ArrivingFrame>,
    /// The message that has begun, with its payload so far.
    pub(super) message: Option<MessageKind>,
    pub(super) payload: Vec<u8>,
    /// How much of a text's payload is known to be whole characters; at most 3 bytes less than there is.
    pub(super) valid_len: usize,
    /// The payload so far of the control frame that is arriving.
    pub(super) control: Vec<u8>,
    pub(super) lent: Lent,
}

/// Memory for what is incomplete, of readers that no longer need it. By default it keeps none.
#[derive(Debug, Default)]
pub struct PartialMemory {
    #[expect(clippy::vec_box, reason = "a reader has it boxed, and moves the box")]
    free: Vec<Box<Partial>>,
    kept_max: usize,
}

/// Longest payload whose memory is kept, in bytes.
const PAYLOAD_KEPT_BYTES_MAX: usize = 4 * 1024;

impl PartialMemory {
    /// Keeps so many at most, of [`bytes_each_max`](Self::bytes_each_max) each.
    pub fn keeping(kept_max: usize) -> Self {
        Self { free: Vec::new(), kept_max }
    }

    /// What one of them takes at most, in bytes.
    pub const fn bytes_each_max() -> usize {
        size_of::<Partial>() + PAYLOAD_KEPT_BYTES_MAX + 2 * CONTROL_PAYLOAD_BYTES_MAX
    }

    fn take(&mut self) -> Box<Partial> {
        self.free.pop().unwrap_or_default()
    }

    fn put(&mut self, mut partial: Box<Partial>) {
        if self.free.len() < self.kept_max && partial.payload.capacity() <= PAYLOAD_KEPT_BYTES_MAX {
            let Partial { mut payload, mut control, .. } = std::mem::take(&mut *partial);
            payload.clear();
            control.clear();
            *partial = Partial { payload, control, ..Partial::default() };
            self.free.push(partial);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArrivingFrame {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// The key, turned to the next byte.
    pub(super) mask: Option<[u8; 4]>,
    /// Bytes that have not arrived.
    pub(super) missing: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Text,
    Binary,
}

/// Which of the buffers the last event pointed into. It is let go when the next event is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lent {
    #[default]
    Nothing,
    Message,
    Control,
}

const _: () = assert!(size_of::<FrameReader>() <= 16, "an idle connection pays for every byte");

impl FrameReader {
    /// A reader at the start of a stream. Messages longer than `message_bytes_max` end it with 1009; past
    /// 4 GiB it counts as that.
    pub fn new(role: Role, message_bytes_max: usize) -> Self {
        let message_bytes_max = u32::try_from(message_bytes_max).unwrap_or(u32::MAX);
        Self { role, ended: false, message_bytes_max, partial: None }
    }

    /// Takes the next event off the front of `received`, unmasking in place.
    ///
    /// Call it until it answers `Ok(None)`: then `received` is empty, and what was incomplete is kept.
    /// The bytes behind an event are left in `received` for the next call. An event points into
    /// `received` or into the reader, until the next call.
    ///
    /// # Errors
    /// [`FrameError`]: send a Close frame with its code, and close. Nothing more comes.
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        received: &mut &'input mut [u8],
    ) -> Result<Option<Event<'a>>, FrameError> {
        self.next_with(received, &mut PartialMemory::default())
    }

    /// The same for who has many readers: the memory of what is incomplete comes from `memory` and goes back there.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_with<'a, 'input: 'a>(
        &'a mut self,
        received: &mut &'input mut [u8],
        memory: &mut PartialMemory,
    ) -> Result<Option<Event<'a>>, FrameError> {
        self.let_go(memory);
        if self.ended {
            *received = &mut [];
            return Ok(None);
        }
        match self.advance(received, memory) {
            Ok(Some(Found::Lent)) => self.lend().map(Some),
            Ok(Some(Found::InPlace(opcode, payload))) => self.event(opcode, payload).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Bytes on the heap: 0 when nothing is incomplete.
    pub fn heap_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.payload.capacity() + partial.control.capacity()
        })
    }

    /// Whether a frame or a message has begun and not ended: a deadline applies.
    pub fn is_mid_message(&self) -> bool {
        !self.ended && self.partial.as_ref().is_some_and(|partial| !partial.is_idle())
    }

    /// Whether an error or a Close frame has ended the stream.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Works through `received` up to the next whole message or control frame.
    fn advance<'input>(
        &mut self,
        received: &mut &'input mut [u8],
        memory: &mut PartialMemory,
    ) -> Result<Option<Found<'input>>, FrameError> {
        while !received.is_empty() {
            if self.partial.as_ref().is_some_and(|partial| partial.frame.is_some()) {
                if self.take_payload(received)? {
                    return Ok(Some(Found::Lent));
                }
                continue;
            }
            let Some(header) = self.take_header(received, memory)? else { return Ok(None) };
            self.check_sequence(&header)?;
            let is_whole = header.payload_len <= received.len() as u64
                && header.fin
                && header.opcode != Opcode::Continuation;
            if is_whole {
                let payload = take_front(received, header.payload_len as usize);
                if let Some(mask) = header.mask {
                    let _ = apply_mask(mask, payload);
                }
                return Ok(Some(Found::InPlace(header.opcode, payload)));
            }
            if self.begin(&header, memory)? {
                return Ok(Some(Found::Lent));
            }
        }
        Ok(None)
    }

    /// The next header, joined with the part of it that came before.
    fn take_header(
        &mut self,
        received: &mut &mut [u8],
        memory: &mut PartialMemory,
    ) -> Result<Option<FrameHeader>, FrameError> {
        let kept = self.partial.as_ref().map_or(0, |partial| usize::from(partial.header_len));
        if kept == 0
            && let Some((header, len)) = decode_frame_header(received, self.role)?
        {
            take_front(received, len);
            return Ok(Some(header));
        }
        let partial = self.partial.get_or_insert_with(|| memory.take());
        let fresh = received.len().min(HEADER_BYTES_MAX - kept);
        partial.header[kept..kept + fresh].copy_from_slice(&received[..fresh]);
        match decode_frame_header(&partial.header[..kept + fresh], self.role)? {
            Some((header, len)) => {
                partial.header_len = 0;
                take_front(received, len - kept);
                self.drop_idle_partial(memory);
                Ok(Some(header))
            }
            None => {
                // A whole header would have been decoded, so this is all that arrived.
                partial.header_len = (kept + fresh) as u8;
                take_front(received, fresh);
                Ok(None)
            }
        }
    }

    /// What a frame may be, after those before it, and how long.
    fn check_sequence(&self, header: &FrameHeader) -> Result<(), FrameError> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let begun = self.partial.as_ref().filter(|partial| partial.message.is_some());
        match (header.opcode, begun) {
            (Opcode::Continuation, None) => return Err(FrameError::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(FrameError::MessageNotEnded),
            _ => {}
        }
        let so_far = begun.map_or(0, |partial| partial.payload.len()) as u64;
        // Neither can overflow: the length has 63 bits, and what is there fits in memory.
        if so_far + header.payload_len > u64::from(self.message_bytes_max) {
            return Err(FrameError::MessageTooLong(self.message_bytes_max as usize));
        }
        Ok(())
    }

    /// Keeps a frame whose payload is not all here, or whose message has other fragments. True if that
    /// is its end already, because it has no payload.
    fn begin(&mut self, header: &FrameHeader, memory: &mut PartialMemory) -> Result<bool, FrameError> {
        let partial = self.partial.get_or_insert_with(|| memory.take());
        match header.opcode {
            Opcode::Text => partial.message = Some(MessageKind::Text),
            Opcode::Binary => partial.message = Some(MessageKind::Binary),
            _ => {}
        }
        partial.frame = Some(ArrivingFrame {
            opcode: header.opcode,
            fin: header.fin,
            mask: header.mask,
            missing: header.payload_len,
        });
        if header.payload_len == 0 { self.end_frame() } else { Ok(false) }
    }

    /// Moves what has arrived of the frame's payload into the reader. True if that ends a message or a
    /// control frame.
    fn take_payload(&mut self, received: &mut &mut [u8]) -> Result<bool, FrameError> {
        let partial = self.partial.as_mut().expect("a frame is arriving");
        let frame = partial.frame.as_mut().expect("a frame is arriving");
        let len = frame.missing.min(received.len() as u64) as usize;
        let payload = take_front(received, len);
        if let Some(mask) = frame.mask.as_mut() {
            *mask = apply_mask(*mask, payload);
        }
        frame.missing -= len as u64;
        let ends = frame.missing == 0;
        if frame.opcode.is_control() {
            partial.control.extend_from_slice(payload);
        } else {
            partial.payload.extend_from_slice(payload);
            if partial.message == Some(MessageKind::Text) {
                partial.check_text()?;
            }
        }
        if ends { self.end_frame() } else { Ok(false) }
    }

    /// All of a frame is here. True if its message, or itself as a control frame, is complete.
    fn end_frame(&mut self) -> Result<bool, FrameError> {
        let partial = self.partial.as_mut().expect("a frame is arriving");
        let frame = partial.frame.take().expect("a frame is arriving");
        if frame.opcode.is_control() {
            // The opcode stays readable for `lend`.
            partial.frame = Some(frame);
            partial.lent = Lent::Control;
            return Ok(true);
        }
        if !frame.fin {
            return Ok(false);
        }
        if partial.message == Some(MessageKind::Text) && partial.valid_len < partial.payload.len() {
            return Err(FrameError::NotUtf8);
        }
        partial.lent = Lent::Message;
        Ok(true)
    }

    /// The event whose payload the reader holds.
    fn lend(&mut self) -> Result<Event<'_>, FrameError> {
        let partial = self.partial.as_deref().expect("something is lent");
        let opcode = match (partial.lent, partial.message, partial.frame) {
            (Lent::Control, _, Some(frame)) => frame.opcode,
            (_, Some(MessageKind::Text), _) => Opcode::Text,
            _ => Opcode::Binary,
        };
        let payload = if partial.lent == Lent::Control { &partial.control } else { &partial.payload };
        match decode_event(opcode, payload) {
            Ok(event) => {
                self.ended |= matches!(event, Event::Close { .. });
                Ok(event)
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    /// The event whose payload lies in what arrived.
    fn event<'input>(&mut self, opcode: Opcode, payload: &'input [u8]) -> Result<Event<'input>, FrameError> {
        let event = decode_event(opcode, payload).map_err(|error| self.fail(error))?;
        if matches!(event, Event::Close { .. }) {
            self.end();
        }
        Ok(event)
    }

    fn fail(&mut self, error: FrameError) -> FrameError {
        self.end();
        error
    }

    fn end(&mut self) {
        self.ended = true;
        self.partial = None;
    }

    /// Forgets what the last event pointed at.
    fn let_go(&mut self, memory: &mut PartialMemory) {
        if self.ended {
            self.partial = None;
            return;
        }
        let Some(partial) = self.partial.as_mut() else { return };
        match std::mem::take(&mut partial.lent) {
            Lent::Nothing => return,
            Lent::Message => {
                partial.message = None;
                partial.payload.clear();
                partial.valid_len = 0;
            }
            Lent::Control => {
                partial.frame = None;
                partial.control.clear();
            }
        }
        self.drop_idle_partial(memory);
    }

    fn drop_idle_partial(&mut self, memory: &mut PartialMemory) {
        if let Some(idle) = self.partial.take_if(|partial| partial.is_idle()) {
            memory.put(idle);
        }
    }
}

impl Partial {
    /// Nothing is incomplete.
    pub(super) fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
            || self.lent == Lent::Message
            || (self.lent == Lent::Control && self.message.is_none())
    }

    /// Checks the characters that have come since the last check. A sequence that the payload's end cuts
    /// may still become one; anything else fails at once (RFC 6455 section 8.1).
    pub(super) fn check_text(&mut self) -> Result<(), FrameError> {
        match simdutf8::compat::from_utf8(&self.payload[self.valid_len..]) {
            Ok(_) => self.valid_len = self.payload.len(),
            Err(error) if error.error_len().is_none() => self.valid_len += error.valid_up_to(),
            Err(_) => return Err(FrameError::NotUtf8),
        }
        Ok(())
    }
}

/// Where a whole message was found.
enum Found<'input> {
    /// In what arrived.
    InPlace(Opcode, &'input [u8]),
    /// In the reader, `Partial::lent` says where.
    Lent,
}

/// The first `count` bytes, which the caller has seen to be there.
fn take_front<'input>(received: &mut &'input mut [u8], count: usize) -> &'input mut [u8] {
    let (front, rest) = std::mem::take(received).split_at_mut(count);
    *received = rest;
    front
}

/// Reads a whole payload as what its opcode says.
fn decode_event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, FrameError> {
    Ok(match opcode {
        Opcode::Text => Event::Text(simdutf8::basic::from_utf8(payload).map_err(|_| FrameError::NotUtf8)?),
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => match payload {
            [] => Event::Close { code: None, reason: "" },
            [_] => return Err(FrameError::CloseTooShort),
            [high, low, reason @ ..] => {
                let code = CloseCode(u16::from_be_bytes([*high, *low]));
                if !code.may_be_received() {
                    return Err(FrameError::CloseCodeNotAllowed(code.0));
                }
                let reason =
                    simdutf8::basic::from_utf8(reason).map_err(|_| FrameError::CloseReasonNotUtf8)?;
                Event::Close { code: Some(code), reason }
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn masked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { fin, opcode, mask: Some(KEY), payload_len: payload.len() as u64 };
        let mut bytes = super::super::frame::encode_frame_header(&header).as_slice().to_vec();
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        let _ = apply_mask(KEY, &mut bytes[start..]);
        bytes
    }

    #[test]
    fn a_whole_message_is_lent_from_where_it_lies() {
        let mut reader = FrameReader::new(Role::Server, 1024);
        let mut bytes = masked(true, Opcode::Text, "grüß".as_bytes());
        let range = bytes.as_ptr_range();
        let mut received = &mut bytes[..];
        let Ok(Some(Event::Text(text))) = reader.next(&mut received) else { panic!("a text") };
        assert_eq!(text, "grüß");
        assert!(range.contains(&text.as_ptr()), "not copied");
        assert_eq!(reader.heap_bytes(), 0);
    }

    #[test]
    fn memory_that_is_kept_serves_the_next_message_of_another_and_shows_it_nothing() {
        let mut memory = PartialMemory::keeping(1);
        let mut places = Vec::new();
        for word in ["first words", "then others"] {
            let mut reader = FrameReader::new(Role::Server, 1024);
            let mut bytes = masked(true, Opcode::Text, word.as_bytes());
            let (front, back) = bytes.split_at_mut(9);
            assert_eq!(reader.next_with(&mut &mut front[..], &mut memory), Ok(None));
            assert!(reader.is_mid_message());
            let mut received = back;
            let Ok(Some(Event::Text(text))) = reader.next_with(&mut received, &mut memory) else {
                panic!("a text")
            };
            assert_eq!(text, word);
            places.push(text.as_ptr());
            assert_eq!(reader.next_with(&mut received, &mut memory), Ok(None));
            assert_eq!(reader.heap_bytes(), 0);
        }
        assert_eq!(places[0], places[1]);
    }

    #[test]
    fn memory_follows_what_has_arrived_and_goes_with_the_message() {
        let mut reader = FrameReader::new(Role::Server, 16 << 20);
        let mut bytes = masked(true, Opcode::Binary, &vec![7; 1 << 20]);
        let (front, back) = bytes.split_at_mut(100);
        assert_eq!(reader.next(&mut &mut front[..]), Ok(None));
        assert!(reader.heap_bytes() < 512, "{} bytes for 100 that arrived", reader.heap_bytes());
        assert!(reader.is_mid_message());
        let mut received = back;
        let Ok(Some(Event::Binary(payload))) = reader.next(&mut received) else { panic!("a binary") };
        assert_eq!(payload.len(), 1 << 20);
        assert_eq!(reader.next(&mut received), Ok(None));
        assert_eq!(reader.heap_bytes(), 0);
        assert!(!reader.is_mid_message());
    }
}
