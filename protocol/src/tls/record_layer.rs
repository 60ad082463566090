//! One TLS 1.3 connection behind its handshake, without a socket.
//!
//! Received bytes are opened where they lie; a record that spans two receptions is gathered in memory
//! ([`RecordMemory`]) that goes away with it. What is sealed is sealed at its place in the chunk that will be sent. Answers
//! that the protocol asks for (a key update, the last alert) wait as flags, not as bytes, so a peer cannot
//! make them pile up; [`RecordLayer::seal`] and [`RecordLayer::take_outgoing`] put them into the stream.
//!
//! One owner at a time: it cannot be cloned, and [`freeze`](RecordLayer::freeze) consumes it. Two owners
//! would seal two records with one nonce.

use std::fmt;
use std::ops::Range;

use super::Role;
use super::alert::Alert;
use super::error::{RecordError, SealError, SecretLengthError};
use super::limits::{
    ALERT_RECORD_BYTES, HEADER_BYTES, KEY_UPDATE_RECORD_BYTES, PLAINTEXT_BYTES_MAX, RECORDS_A_KEY_MAX,
    SEAL_OVERHEAD_BYTES, TAG_BYTES,
};
use super::post_handshake::{KeyUpdateDue, Meaning, PostHandshake, key_update};
use super::record::{ContentType, header, read_header, strip_padding};
use super::suite::Suite;
use super::traffic_keys::{KeyPass, OpenError, TrafficKeys};

/// One end of an open TLS 1.3 connection.
pub struct RecordLayer {
    pub(super) transmit: TrafficKeys,
    pub(super) receive: TrafficKeys,
    /// A record that is not whole: nothing, or less than its header says.
    pub(super) gathered: Vec<u8>,
    pub(super) post_handshake: PostHandshake,
    pub(super) role: Role,
    pub(super) reading: Reading,
    pub(super) writing: Writing,
}

// Half a million of these: keys and secrets of a SHA-384 suite take 184 of them.
const _: () = assert!(size_of::<RecordLayer>() <= 248, "a connection's TLS state");

/// What the receiving side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Open,
    /// "Any data received after a closure alert has been received MUST be ignored" (RFC 8446 section 6.1).
    Closed,
    Failed,
}

/// What the sending side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    Open,
    /// This alert goes out, then nothing.
    Ending(Alert),
    Ended,
}

/// What [`RecordLayer::open`] made of received bytes: plaintext in two pieces, first `gathered`, then
/// `in_place`. Both count even if `outcome` is an error: they came whole before it.
#[derive(Debug)]
#[must_use]
pub struct Opened {
    /// What a record said that ended in these bytes and had begun before.
    pub gathered: Vec<u8>,
    /// Where in the received bytes the rest lies, in one piece.
    pub in_place: Range<usize>,
    /// Whether the connection goes on.
    pub outcome: Result<(), RecordError>,
}

impl Opened {
    /// Whether there is no plaintext.
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.in_place.is_empty()
    }
}

/// Where the memory comes from in which a record is gathered that does not arrive at once: an event loop has
/// chunks to use again, others the heap ([`Heap`]).
pub trait RecordMemory {
    /// An empty vector with room for so many bytes.
    fn take(&mut self, bytes: usize) -> Vec<u8>;

    /// One that is no longer used.
    fn put(&mut self, memory: Vec<u8>);
}

/// Memory as the allocator has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

impl RecordMemory for Heap {
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        Vec::with_capacity(bytes)
    }

    fn put(&mut self, memory: Vec<u8>) {
        drop(memory);
    }
}

/// The secret of one direction, and how many records it has had.
#[derive(Clone, Copy)]
pub struct Direction<'a> {
    /// The traffic secret: [`Suite::secret_len`] bytes.
    pub secret: &'a [u8],
    /// The number of the next record.
    pub sequence: u64,
}

impl RecordLayer {
    /// A connection whose handshake is done. Nobody else may go on with these secrets.
    ///
    /// # Errors
    /// [`SecretLengthError`] for secrets of another suite.
    pub fn new(
        role: Role,
        suite: Suite,
        transmit: Direction<'_>,
        receive: Direction<'_>,
    ) -> Result<Self, SecretLengthError> {
        Ok(Self {
            transmit: TrafficKeys::new(suite, transmit.secret, transmit.sequence)?,
            receive: TrafficKeys::new(suite, receive.secret, receive.sequence)?,
            gathered: Vec::new(),
            post_handshake: PostHandshake::default(),
            role,
            reading: Reading::Open,
            writing: Writing::Open,
        })
    }

    /// The suite that was agreed on.
    pub fn suite(&self) -> Suite {
        self.transmit.suite()
    }

    /// Whether the peer said that it sends nothing more. We still may.
    pub fn peer_has_closed(&self) -> bool {
        self.reading == Reading::Closed
    }

    /// Whether nothing can be sealed any more.
    pub fn is_closed(&self) -> bool {
        self.writing != Writing::Open
    }

    /// Bytes on the heap: those of a record that is not whole.
    pub fn heap_bytes(&self) -> usize {
        self.gathered.capacity()
    }

    /// Opens what arrived, in place. Afterwards look at [`has_outgoing`](Self::has_outgoing).
    ///
    /// When it fails, the alert that is due is queued, nothing more is read and nothing more is sealed.
    pub fn open(&mut self, received: &mut [u8]) -> Opened {
        self.open_with(received, &mut Heap)
    }

    /// The same with memory of the caller's, who gives [`Opened::gathered`] back to it if it is not empty.
    pub fn open_with(&mut self, received: &mut [u8], memory: &mut impl RecordMemory) -> Opened {
        self.open_bounded(received, memory, RECORDS_A_KEY_MAX)
    }

    fn open_bounded(
        &mut self,
        received: &mut [u8],
        memory: &mut impl RecordMemory,
        records_a_key: u64,
    ) -> Opened {
        let mut opened = Opened { gathered: Vec::new(), in_place: 0..0, outcome: Ok(()) };
        opened.outcome = match self.reading {
            Reading::Open => self.open_records(received, memory, &mut opened.gathered, &mut opened.in_place),
            Reading::Closed => Ok(()),
            Reading::Failed => Err(RecordError::Over),
        };
        if let Err(error) = opened.outcome {
            self.fail(error);
        }
        // The peer's key covers our users' words too.
        if self.receive.sequence() >= records_a_key
            && !self.post_handshake.key_update_asked
            && self.writing == Writing::Open
        {
            self.post_handshake.key_update_asked = true;
            self.post_handshake.key_update_due = KeyUpdateDue::Both;
        }
        opened
    }

    /// Changes our key before the next data, and if `peer_too` asks the peer to change its own.
    pub fn refresh_keys(&mut self, peer_too: bool) {
        if peer_too {
            self.post_handshake.key_update_asked = true;
            self.post_handshake.key_update_due = KeyUpdateDue::Both;
        } else if self.post_handshake.key_update_due == KeyUpdateDue::No {
            self.post_handshake.key_update_due = KeyUpdateDue::Ours;
        }
    }

    /// Appends `plaintext` to `out`, in as few records as it fits in.
    ///
    /// # Errors
    /// [`SealError`]: nothing more can be sent. `out` ends with a whole record.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let mut left = plaintext;
        self.seal_from(out, usize::MAX, |out, room| {
            let (taken, rest) = left.split_at(left.len().min(room));
            out.extend_from_slice(taken);
            left = rest;
        })
    }

    /// Appends records to `out`, at most `capacity` bytes of them, with the plaintext that `fill` has: it is
    /// given `out` and how many bytes it may append at most, and appends fewer when it has no more.
    ///
    /// # Errors
    /// [`SealError`]: nothing more can be sent. `out` ends with a whole record; `fill` was asked for
    /// nothing if it says [`Closed`](SealError::Closed).
    pub fn seal_from(
        &mut self,
        out: &mut Vec<u8>,
        capacity: usize,
        fill: impl FnMut(&mut Vec<u8>, usize),
    ) -> Result<(), SealError> {
        self.seal_bounded(out, capacity, RECORDS_A_KEY_MAX, fill)
    }

    fn seal_bounded(
        &mut self,
        out: &mut Vec<u8>,
        capacity: usize,
        records_a_key: u64,
        mut fill: impl FnMut(&mut Vec<u8>, usize),
    ) -> Result<(), SealError> {
        if self.writing != Writing::Open {
            return Err(SealError::Closed);
        }
        let end = out.len().saturating_add(capacity);
        let mut keys = KeyPass::new(&mut self.transmit);
        loop {
            if keys.sequence() >= records_a_key && self.post_handshake.key_update_due == KeyUpdateDue::No {
                self.post_handshake.key_update_due = KeyUpdateDue::Ours;
            }
            if self.post_handshake.key_update_due != KeyUpdateDue::No {
                if end - out.len() < KEY_UPDATE_RECORD_BYTES {
                    return Ok(());
                }
                let message = key_update(self.post_handshake.key_update_due == KeyUpdateDue::Both);
                seal_record(&mut keys, ContentType::Handshake, out, |out| out.extend_from_slice(&message))?;
                keys.update();
                self.post_handshake.key_update_due = KeyUpdateDue::No;
            }
            let room = (end - out.len()).saturating_sub(SEAL_OVERHEAD_BYTES).min(PLAINTEXT_BYTES_MAX);
            if room == 0 {
                return Ok(());
            }
            let filled = seal_record(&mut keys, ContentType::ApplicationData, out, |out| fill(out, room))?;
            assert!(filled <= room, "more plaintext than there was room for");
            if filled < room {
                return Ok(());
            }
        }
    }

    /// Queues the alert that we send nothing more. Called any number of times, it says so once.
    pub fn close(&mut self) {
        if self.writing == Writing::Open {
            self.writing = Writing::Ending(Alert::CLOSE_NOTIFY);
        }
    }

    /// Whether a key update or the last alert waits.
    pub fn has_outgoing(&self) -> bool {
        match self.writing {
            Writing::Open => self.post_handshake.key_update_due != KeyUpdateDue::No,
            Writing::Ending(_) => true,
            Writing::Ended => false,
        }
    }

    /// Appends what waits to `out`, at most `capacity` bytes: whole records, up to
    /// [`OUTGOING_BYTES_MAX`](super::limits::OUTGOING_BYTES_MAX) bytes in all. What finds no room waits on.
    ///
    /// # Errors
    /// [`SealError::KeyUsedUp`]: nothing more can be sent.
    pub fn take_outgoing(&mut self, out: &mut Vec<u8>, capacity: usize) -> Result<(), SealError> {
        let end = out.len().saturating_add(capacity);
        match self.writing {
            // A key update is sealed in front of nothing.
            Writing::Open if self.post_handshake.key_update_due != KeyUpdateDue::No => {
                self.seal_from(out, capacity, |_, _| {})
            }
            Writing::Ending(alert) if end - out.len() >= ALERT_RECORD_BYTES => {
                self.writing = Writing::Ended;
                self.post_handshake.key_update_due = KeyUpdateDue::No;
                let mut keys = KeyPass::new(&mut self.transmit);
                let message = [alert.level(), alert.0];
                seal_record(&mut keys, ContentType::Alert, out, |out| out.extend_from_slice(&message))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Opens records off the front of `received` as far as they are whole, and gathers the rest.
    fn open_records(
        &mut self,
        received: &mut [u8],
        memory: &mut impl RecordMemory,
        plaintext: &mut Vec<u8>,
        in_place: &mut Range<usize>,
    ) -> Result<(), RecordError> {
        let mut opening = Opening {
            role: self.role,
            keys: KeyPass::new(&mut self.receive),
            post_handshake: &mut self.post_handshake,
            reading: &mut self.reading,
        };
        let mut used = 0;
        if !self.gathered.is_empty() {
            let Some(taken) = complete(&mut self.gathered, received, memory)? else { return Ok(()) };
            used = taken;
            let mut record = std::mem::take(&mut self.gathered);
            let content = opening.open(&mut record)?;
            if content.is_empty() {
                memory.put(record);
            } else {
                record.copy_within(content.clone(), 0);
                record.truncate(content.len());
                *plaintext = record;
            }
        }
        while used < received.len() && *opening.reading == Reading::Open {
            let left = &mut received[used..];
            let record = match read_header(left)? {
                Some((_, len)) if len <= left.len() => &mut left[..len],
                _ => {
                    self.gathered = memory.take(left.len());
                    self.gathered.extend_from_slice(left);
                    return Ok(());
                }
            };
            let content = opening.open(record)?;
            let (start, len) = (used + content.start, content.len());
            used += record.len();
            if in_place.start == in_place.end {
                *in_place = start..start + len;
            } else {
                received.copy_within(start..start + len, in_place.end);
                in_place.end += len;
            }
        }
        Ok(())
    }

    /// Nothing is read any more; the peer is told why, unless it told us or was told before.
    fn fail(&mut self, error: RecordError) {
        self.reading = Reading::Failed;
        self.gathered = Vec::new();
        if let Writing::Open | Writing::Ending(Alert::CLOSE_NOTIFY) = self.writing {
            self.writing = error.alert().map_or(Writing::Ended, Writing::Ending);
        }
    }
}

impl fmt::Debug for RecordLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RecordLayer")
            .field("role", &self.role)
            .field("suite", &self.suite())
            .field("sent", &self.transmit.sequence())
            .field("received", &self.receive.sequence())
            .field("reading", &self.reading)
            .field("writing", &self.writing)
            .finish_non_exhaustive()
    }
}

/// The parts of a layer that opening a record touches, and the AEAD of this pass.
struct Opening<'a> {
    role: Role,
    keys: KeyPass<'a>,
    post_handshake: &'a mut PostHandshake,
    reading: &'a mut Reading,
}

impl Opening<'_> {
    /// Opens one whole record in place; answers where in it its data lies, if it has any.
    fn open(&mut self, record: &mut [u8]) -> Result<Range<usize>, RecordError> {
        let (header, sealed) =
            record.split_first_chunk_mut::<HEADER_BYTES>().expect("a whole record has its header");
        let opened = self.keys.open(*header, sealed).map_err(|error| match error {
            OpenError::Undecryptable => RecordError::Undecryptable,
            OpenError::KeyUsedUp => RecordError::KeyUsedUp,
        })?;
        // Padding counts: "the full encoded TLSInnerPlaintext MUST NOT exceed 2^14 + 1 octets" (RFC 8446
        // section 5.4).
        if opened > PLAINTEXT_BYTES_MAX + 1 {
            return Err(RecordError::PlaintextTooLong);
        }
        let (content_type, len) = strip_padding(&sealed[..opened])?;
        match self.post_handshake.handle(self.role, content_type, &sealed[..len])? {
            Meaning::Nothing => {}
            Meaning::CloseNotify => *self.reading = Reading::Closed,
            Meaning::KeyUpdate => self.keys.update(),
        }
        let is_data = content_type == ContentType::ApplicationData;
        Ok(if is_data { HEADER_BYTES..HEADER_BYTES + len } else { 0..0 })
    }
}

/// Moves bytes off the front of `received` to `gathered` until that is one whole record; answers how many
/// it took, or `None` when they do not suffice and all were taken.
fn complete(
    gathered: &mut Vec<u8>,
    received: &[u8],
    memory: &mut impl RecordMemory,
) -> Result<Option<usize>, RecordError> {
    let mut used = 0;
    loop {
        let wanted = match read_header(gathered)? {
            Some((_, len)) => len,
            None => HEADER_BYTES,
        };
        let missing = wanted.saturating_sub(gathered.len());
        if missing == 0 {
            return Ok(Some(used));
        }
        let taken = missing.min(received.len() - used);
        if gathered.capacity() - gathered.len() < taken {
            // It doubles as vectors do, but no further than the record's end.
            let mut larger = memory.take(gathered.len() + taken.max(gathered.len()).min(missing));
            larger.extend_from_slice(gathered);
            memory.put(std::mem::replace(gathered, larger));
        }
        gathered.extend_from_slice(&received[used..used + taken]);
        used += taken;
        if taken < missing {
            read_header(gathered)?;
            return Ok(None);
        }
    }
}

/// Seals one record of this type at the end of `out`, with the content that `fill` appends; answers how
/// much that was. Data of no byte makes no record.
fn seal_record(
    keys: &mut KeyPass<'_>,
    content_type: ContentType,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>),
) -> Result<usize, SealError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    fill(out);
    let filled = out.len() - start - HEADER_BYTES;
    if filled == 0 {
        out.truncate(start);
        return Ok(0);
    }
    out.push(content_type.number());
    let header = header(filled + 1 + TAG_BYTES);
    let (front, content) = out[start..].split_at_mut(HEADER_BYTES);
    front.copy_from_slice(&header);
    let Ok(tag) = keys.seal(header, content) else {
        out.truncate(start);
        return Err(SealError::KeyUsedUp);
    };
    out.extend_from_slice(tag.as_ref());
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite::Aes128GcmSha256;

    fn layer(role: Role, transmit: u64, receive: u64) -> RecordLayer {
        let at = |sequence| Direction { secret: &[7; 32], sequence };
        RecordLayer::new(role, SUITE, at(transmit), at(receive)).unwrap()
    }

    fn open(layer: &mut RecordLayer, bound: u64, mut received: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        let opened = layer.open_bounded(&mut received, &mut Heap, bound);
        opened.outcome.map(|()| received[opened.in_place].to_vec())
    }

    fn seal(layer: &mut RecordLayer, bound: u64, data: &[u8]) -> Vec<u8> {
        let (mut out, mut left) = (Vec::new(), data);
        let sealed = layer.seal_bounded(&mut out, usize::MAX, bound, |out, room| {
            let (taken, rest) = left.split_at(left.len().min(room));
            out.extend_from_slice(taken);
            left = rest;
        });
        sealed.unwrap();
        out
    }

    /// A record that holds just this, type and padding and all.
    fn record_of(layer: &mut RecordLayer, inner: &[u8]) -> Vec<u8> {
        let header = header(inner.len() + TAG_BYTES);
        let mut content = inner.to_vec();
        let sealed = KeyPass::new(&mut layer.transmit).seal(header, &mut content);
        let Ok(tag) = sealed else { panic!("a new key") };
        [&header[..], &content, tag.as_ref()].concat()
    }

    #[test]
    fn a_key_changes_by_itself_before_it_has_sealed_too_much() {
        let (mut client, mut server) = (layer(Role::Client, 0, 0), layer(Role::Server, 0, 0));
        let mut updates = 0;
        for round in 0..50 {
            let before = client.transmit.secret().to_vec();
            let sent = seal(&mut client, 3, b"word");
            updates += usize::from(client.transmit.secret() != before);
            assert!(client.transmit.sequence() <= 3, "{round}");
            assert_eq!(open(&mut server, u64::MAX, sent).unwrap(), b"word");
        }
        assert_eq!(updates, 16, "with each fourth record");
        // Within one call too: seven records, and a new key after each third.
        let long = vec![5; 7 * PLAINTEXT_BYTES_MAX];
        let sent = seal(&mut client, 3, &long);
        assert!(sent.len() >= long.len() + 7 * SEAL_OVERHEAD_BYTES + 2 * KEY_UPDATE_RECORD_BYTES);
        assert_eq!(open(&mut server, u64::MAX, sent).unwrap(), long);
    }

    #[test]
    fn a_peer_that_seals_too_much_is_asked_once_for_a_new_key() {
        let (mut client, mut server) = (layer(Role::Client, 0, 0), layer(Role::Server, 0, 0));
        for round in 0..10 {
            let sent = seal(&mut client, u64::MAX, b"word");
            assert_eq!(open(&mut server, 3, sent).unwrap(), b"word");
            assert_eq!(server.has_outgoing(), round >= 2, "{round}");
        }
        let mut asked = Vec::new();
        server.take_outgoing(&mut asked, 64).unwrap();
        let sent = seal(&mut client, u64::MAX, b"on its way");
        assert_eq!(open(&mut server, 3, sent).unwrap(), b"on its way");
        assert!(!server.has_outgoing(), "not again");
        assert_eq!(open(&mut client, u64::MAX, asked).unwrap(), b"");
        let sent = seal(&mut client, u64::MAX, b"new");
        assert_eq!(client.transmit.sequence(), 1);
        assert_eq!(open(&mut server, 3, sent).unwrap(), b"new");
        assert_eq!(server.receive.sequence(), 1);
        assert!(!server.has_outgoing(), "both have changed");
    }

    #[test]
    fn a_count_at_its_end_ends_the_connection() {
        let mut used_up = layer(Role::Server, u64::MAX, u64::MAX);
        assert_eq!(used_up.seal(b"x", &mut Vec::new()), Err(SealError::KeyUsedUp));
        let mut client = layer(Role::Client, 0, 0);
        let sent = seal(&mut client, u64::MAX, b"x");
        assert_eq!(open(&mut used_up, u64::MAX, sent), Err(RecordError::KeyUsedUp));
    }

    #[test]
    fn padding_is_taken_off_and_counts() {
        let mut client = layer(Role::Client, 0, 0);
        let padded = |data: usize, padding: usize| {
            [vec![b'd'; data], vec![ContentType::ApplicationData.number()], vec![0; padding]].concat()
        };
        let mut server = layer(Role::Server, 0, 0);
        for (data, padding) in
            [(0, 0), (1, 0), (0, 300), (5, 255), (PLAINTEXT_BYTES_MAX, 0), (1, PLAINTEXT_BYTES_MAX - 1)]
        {
            let record = record_of(&mut client, &padded(data, padding));
            assert_eq!(open(&mut server, u64::MAX, record).unwrap(), vec![b'd'; data]);
        }
        let cases = [
            (padded(PLAINTEXT_BYTES_MAX, 1), RecordError::PlaintextTooLong),
            (padded(PLAINTEXT_BYTES_MAX + 1, 0), RecordError::PlaintextTooLong),
            (padded(1, PLAINTEXT_BYTES_MAX + 200), RecordError::PlaintextTooLong),
            (vec![0; 20], RecordError::Empty),
            (vec![0], RecordError::Empty),
            (b"x\x14".to_vec(), RecordError::UnexpectedType(20)),
            (b"x\x00\xff\x00".to_vec(), RecordError::UnexpectedType(255)),
        ];
        for (inner, error) in cases {
            let (mut client, mut server) = (layer(Role::Client, 0, 0), layer(Role::Server, 0, 0));
            let record = record_of(&mut client, &inner);
            assert_eq!(open(&mut server, u64::MAX, record), Err(error));
        }
    }

    #[test]
    fn a_key_update_in_pieces_changes_the_key_behind_its_last() {
        let (mut client, mut server) = (layer(Role::Client, 0, 0), layer(Role::Server, 0, 0));
        let mut stream = Vec::new();
        for byte in key_update(true) {
            stream.extend(record_of(&mut client, &[byte, ContentType::Handshake.number()]));
        }
        KeyPass::new(&mut client.transmit).update();
        stream.extend(seal(&mut client, u64::MAX, b"new key"));
        assert_eq!(open(&mut server, u64::MAX, stream).unwrap(), b"new key");
        assert_eq!(server.post_handshake.key_update_due, KeyUpdateDue::Ours);
    }

    #[test]
    fn a_close_that_waits_gives_way_to_the_alert_of_an_error() {
        let mut server = layer(Role::Server, 0, 0);
        server.close();
        assert_eq!(open(&mut server, u64::MAX, vec![99; 5]), Err(RecordError::UnexpectedType(99)));
        assert_eq!(server.writing, Writing::Ending(Alert::UNEXPECTED_MESSAGE));
    }
}
