//! Reads numbers and byte strings off the front of a slice, for the formats of ours that move between
//! processes: frozen connections and trunk frames.
//!
//! Little-endian throughout. Nothing is allocated for a length before that many bytes are known to be
//! there. Writing needs no counterpart: `bytes::BufMut` puts the same numbers into a `Vec<u8>`;
//! [`put_bytes`] puts a byte string.

use bytes::BufMut;

/// What is left to read.
#[derive(Clone, Debug)]
pub struct ByteCursor<'a> {
    left: &'a [u8],
}

/// The bytes end before what should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes end too early: {wanted} more are needed and {left} are left")]
pub struct Truncated {
    /// Bytes that the next item needs.
    pub wanted: usize,
    /// Bytes that are there.
    pub left: usize,
}

impl<'a> ByteCursor<'a> {
    /// Starts at the front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.left
    }

    /// Whether all has been read.
    pub fn is_at_end(&self) -> bool {
        self.left.is_empty()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Truncated`] if fewer are left; nothing is consumed then. So do all methods below.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let Some((front, rest)) = self.left.split_at_checked(count) else {
            return Err(Truncated { wanted: count, left: self.left.len() });
        };
        self.left = rest;
        Ok(front)
    }

    /// A fixed number of bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A byte string as [`put_bytes`] writes it.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let len = self.u32()? as usize;
        self.take(len)
    }
}

/// Appends four bytes of length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("no byte string of ours reaches 4 GiB");
    out.put_u32_le(len);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_read_and_a_cut_is_told() {
        let mut out = Vec::new();
        out.put_u16_le(0x0102);
        put_bytes(&mut out, b"ringway");
        out.put_u64_le(u64::MAX);
        let mut cursor = ByteCursor::new(&out);
        assert_eq!(cursor.u16(), Ok(0x0102));
        assert_eq!(cursor.bytes(), Ok(&b"ringway"[..]));
        assert_eq!(cursor.u64(), Ok(u64::MAX));
        assert!(cursor.is_at_end());
        assert_eq!(cursor.u8(), Err(Truncated { wanted: 1, left: 0 }));
    }

    #[test]
    fn an_announced_length_is_not_believed() {
        let mut cursor = ByteCursor::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(cursor.bytes(), Err(Truncated { wanted: 0xffff_ffff, left: 1 }));
    }
}
