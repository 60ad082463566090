//! Protobuf by hand, for the few messages that come with every message of a user: read without a copy and
//! written without an allocation. All else is prost's.

use prost::encoding::{WireType, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len};

/// Reads fields in the order of their numbers, each at most once, as every encoder writes them; one that is
/// left out has its default. Who meets another order asks prost.
pub(crate) struct FieldReader<'a>(&'a [u8]);

impl<'a> FieldReader<'a> {
    /// Of the fields of one message.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// Whether every field was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// A `uint64`. `None`: damaged.
    pub(crate) fn varint(&mut self, number: u8) -> Option<u64> {
        if self.has(number, WireType::Varint) { self.take_varint() } else { Some(0) }
    }

    /// A `fixed64`. `None`: damaged.
    pub(crate) fn fixed(&mut self, number: u8) -> Option<u64> {
        Some(self.optional_fixed(number)?.unwrap_or(0))
    }

    /// An `optional fixed64`. `None`: damaged.
    pub(crate) fn optional_fixed(&mut self, number: u8) -> Option<Option<u64>> {
        if !self.has(number, WireType::SixtyFourBit) {
            return Some(None);
        }
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(Some(u64::from_le_bytes(*bytes)))
    }

    /// `bytes`, a `string` unchecked, or a message. `None`: damaged.
    pub(crate) fn bytes(&mut self, number: u8) -> Option<&'a [u8]> {
        Some(self.optional_bytes(number)?.unwrap_or_default())
    }

    /// The same, if it is there. `None`: damaged.
    pub(crate) fn optional_bytes(&mut self, number: u8) -> Option<Option<&'a [u8]>> {
        if !self.has(number, WireType::LengthDelimited) {
            return Some(None);
        }
        let len = usize::try_from(self.take_varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(Some(bytes))
    }

    /// A `string`, if it is there. `None`: damaged.
    pub(crate) fn optional_text(&mut self, number: u8) -> Option<Option<&'a str>> {
        match self.optional_bytes(number)? {
            Some(bytes) => Some(Some(simdutf8::basic::from_utf8(bytes).ok()?)),
            None => Some(None),
        }
    }

    fn has(&mut self, number: u8, wire_type: WireType) -> bool {
        match self.0.split_first() {
            Some((key, rest)) if *key == number << 3 | wire_type as u8 => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn take_varint(&mut self) -> Option<u64> {
        decode_varint(&mut self.0).ok()
    }
}

/// Appends a message as the field `number` of another. `write` is called twice, since the length comes
/// first: it is to write its fields in the order of their numbers.
pub(crate) fn append_message(number: u32, out: &mut Vec<u8>, write: impl Fn(&mut FieldWriter<'_>)) {
    let mut len = 0;
    write(&mut FieldWriter::Counting(&mut len));
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
    out.reserve(len);
    write(&mut FieldWriter::Writing(out));
}

/// Takes the fields of a message.
pub(crate) enum FieldWriter<'a> {
    /// Their bytes are counted.
    Counting(&'a mut usize),
    /// They are written.
    Writing(&'a mut Vec<u8>),
}

impl FieldWriter<'_> {
    /// A `uint64` or `bool`; zero is left out.
    pub(crate) fn varint(&mut self, number: u32, value: u64) {
        match self {
            _ if value == 0 => {}
            FieldWriter::Counting(len) => **len += key_len(number) + encoded_len_varint(value),
            FieldWriter::Writing(out) => {
                encode_key(number, WireType::Varint, out);
                encode_varint(value, out);
            }
        }
    }

    /// A `fixed64`; zero is left out.
    pub(crate) fn fixed(&mut self, number: u32, value: u64) {
        self.optional_fixed(number, Some(value).filter(|value| *value != 0));
    }

    /// An `optional fixed64`.
    pub(crate) fn optional_fixed(&mut self, number: u32, value: Option<u64>) {
        let Some(value) = value else { return };
        match self {
            FieldWriter::Counting(len) => **len += key_len(number) + size_of::<u64>(),
            FieldWriter::Writing(out) => {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// `optional bytes`, or an `optional string`.
    pub(crate) fn bytes(&mut self, number: u32, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        let len_of_value = value.len() as u64;
        match self {
            FieldWriter::Counting(len) => {
                **len += key_len(number) + encoded_len_varint(len_of_value) + value.len();
            }
            FieldWriter::Writing(out) => {
                encode_key(number, WireType::LengthDelimited, out);
                encode_varint(len_of_value, out);
                out.extend_from_slice(value);
            }
        }
    }
}
