//! A record layer as bytes: it moves to another core or process while its socket stays open.
//!
//! ```text
//!   1  version, 1           2  suite              1  role: 0 server, 1 client
//!   -- transmit, receive: the traffic secret (32 or 48, by the suite), 8 of sequence number, each
//!   1  reading: 0 open, 1 closed, 2 failed        1  writing: 0 open, 1 ending (1 more: alert), 2 ended
//!   4  bytes to skip of a handshake message       4  the front of one, then 1: bytes of it
//!   1  records without data                       1  key update due: 0 no, 1 ours, 2 both
//!   1  the peer was asked for one
//!   4  bytes gathered of a record, then those
//! ```
//! Integers are little-endian. Keys and IVs are derived again. The bytes carry secrets: whoever holds them
//! zeroes them when they are used.

use bytes::BufMut;

use super::Role;
use super::alert::Alert;
use super::error::ThawError;
use super::post_handshake::{KeyUpdateDue, PostHandshake};
use super::record::read_header;
use super::record_layer::{Direction, Reading, RecordLayer, Writing};
use super::suite::Suite;
use crate::byte_cursor::{ByteCursor, put_bytes};

pub(super) const VERSION: u8 = 1;

/// Bytes of all but the secrets and what is gathered.
const FIXED_BYTES: usize = 40;

impl RecordLayer {
    /// Bytes that [`freeze`](Self::freeze) appends at most: who makes room for them first leaves no copy
    /// of a secret where a vector was that grew.
    pub fn frozen_bytes_max(&self) -> usize {
        FIXED_BYTES + 2 * self.suite().secret_len() + self.gathered.len()
    }

    /// Appends the whole state to `out`. It consumes the layer: who thaws the bytes is its one owner.
    pub fn freeze(mut self, out: &mut Vec<u8>) {
        self.freeze_in_place(out);
    }

    /// The same for who has the layer inside of something: moved out of there it would leave its secrets behind.
    /// What is left is over, and has other keys: it opens nothing and seals nothing.
    pub fn freeze_in_place(&mut self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u16_le(self.suite().number());
        out.put_u8(match self.role {
            Role::Server => 0,
            Role::Client => 1,
        });
        for keys in [&self.transmit, &self.receive] {
            out.put_slice(keys.secret());
            out.put_u64_le(keys.sequence());
        }
        out.put_u8(match self.reading {
            Reading::Open => 0,
            Reading::Closed => 1,
            Reading::Failed => 2,
        });
        match self.writing {
            Writing::Open => out.put_u8(0),
            Writing::Ending(alert) => out.put_slice(&[1, alert.0]),
            Writing::Ended => out.put_u8(2),
        }
        let PostHandshake { skip, front, front_len, fruitless, key_update_due, key_update_asked } =
            self.post_handshake;
        out.put_u32_le(skip);
        out.put_slice(&front);
        out.put_slice(&[front_len, fruitless]);
        out.put_u8(match key_update_due {
            KeyUpdateDue::No => 0,
            KeyUpdateDue::Ours => 1,
            KeyUpdateDue::Both => 2,
        });
        out.put_u8(u8::from(key_update_asked));
        put_bytes(out, &self.gathered);
        self.gathered = Vec::new();
        (self.reading, self.writing) = (Reading::Failed, Writing::Ended);
        self.transmit.wipe();
        self.receive.wipe();
    }

    /// Makes a layer of what [`freeze`](Self::freeze) gave, off the front of `cursor`.
    ///
    /// # Errors
    /// [`ThawError`]: the connection is lost.
    pub fn thaw(cursor: &mut ByteCursor<'_>) -> Result<Self, ThawError> {
        let version = cursor.u8()?;
        if version != VERSION {
            return Err(ThawError::Version(version));
        }
        let suite = Suite::from_number(cursor.u16()?).ok_or(ThawError::Damaged("a suite"))?;
        let role = match cursor.u8()? {
            0 => Role::Server,
            1 => Role::Client,
            _ => return Err(ThawError::Damaged("a role")),
        };
        let transmit = Direction { secret: cursor.take(suite.secret_len())?, sequence: cursor.u64()? };
        let receive = Direction { secret: cursor.take(suite.secret_len())?, sequence: cursor.u64()? };
        let mut layer = Self::new(role, suite, transmit, receive).expect("the lengths are the suite's");
        layer.reading = match cursor.u8()? {
            0 => Reading::Open,
            1 => Reading::Closed,
            2 => Reading::Failed,
            _ => return Err(ThawError::Damaged("a reading side")),
        };
        layer.writing = match cursor.u8()? {
            0 => Writing::Open,
            1 => Writing::Ending(Alert(cursor.u8()?)),
            2 => Writing::Ended,
            _ => return Err(ThawError::Damaged("a writing side")),
        };
        let (skip, front) = (cursor.u32()?, cursor.array()?);
        let [front_len, fruitless] = cursor.array()?;
        let key_update_due = match cursor.u8()? {
            0 => KeyUpdateDue::No,
            1 => KeyUpdateDue::Ours,
            2 => KeyUpdateDue::Both,
            _ => return Err(ThawError::Damaged("a key update")),
        };
        let key_update_asked = match cursor.u8()? {
            flag @ (0 | 1) => flag == 1,
            _ => return Err(ThawError::Damaged("a key update")),
        };
        layer.post_handshake =
            PostHandshake { skip, front, front_len, fruitless, key_update_due, key_update_asked };
        if !layer.post_handshake.is_possible() {
            return Err(ThawError::Damaged("a handshake message"));
        }
        let gathered = cursor.bytes()?;
        match read_header(gathered) {
            Ok(None) => {}
            Ok(Some((_, len))) if len > gathered.len() => {}
            Ok(Some(_)) | Err(_) => return Err(ThawError::Damaged("a record")),
        }
        layer.gathered = gathered.to_vec();
        Ok(layer)
    }
}
