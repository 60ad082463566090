//! Makes fjall's journals end at their last whole batch, and be on the disk, before fjall opens them.
//!
//! Two things that fjall 3.1 leaves open:
//!
//! 1. **A torn tail with a hole.** fjall cuts off a batch without its end marker. But when the power fails
//!    during an fsync, a later page of the batch may be on the disk and an earlier one not. Then the markers
//!    are there, the checksum is wrong, and fjall refuses to open for ever. Nothing of that batch was
//!    acknowledged, so it is cut off here.
//! 2. **A failed fsync.** After one, Linux counts the pages as clean although they never reached the disk. A
//!    new process, or the same one after a reopen, still reads them from memory, believes them, and goes on
//!    behind a hole that the next power cut lays open. So each journal is copied, fsynced, and put in the
//!    place of the old one: what was read is what is on the disk.
//!
//! **Damage is not a torn tail.** The writer has at most one batch that is not fsynced yet, and each batch
//! holds the store's random id once (`rows.rs`, `meta`). If more than one id lies behind the last whole
//! batch, something acknowledged was damaged, and the store does not open: silence would lose it.
//!
//! Format of a journal (fjall 3.1, little endian): start `1`, items 4, seqno 8; item `2`, kind 1,
//! compression 1, table 8, key length 2, value length 4, stored length 4, key, value; or clear `4`, table 8;
//! end `3`, XXH3-64 of the items 8, `FJL\x03`.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::folder::fsync_folder;
use super::rows::StoreId;

/// End of the end marker.
const MAGIC: &[u8; 4] = b"FJL\x03";

/// Where a journal is copied to; not a name that fjall takes for a journal.
const COPY: &str = "journal.copy";

/// Why the journals cannot be relied on.
#[derive(Debug)]
pub(super) enum TailError {
    /// Reading or writing failed.
    Io(io::Error),
    /// Something acknowledged is damaged.
    Damaged(String),
}

impl From<io::Error> for TailError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Secures all journals in fjall's folder. Answers how many bytes of a torn batch were cut off.
pub(super) fn secure(database: &Path, store: StoreId) -> Result<u64, TailError> {
    let mut torn_bytes = 0;
    for path in journals(database)? {
        let scan = scan(&path, store)?;
        let goes_on = scan.whole_bytes > 0 || scan.ids_behind > 0;
        if scan.ids_behind > 1 || torn_bytes > 0 && goes_on {
            return Err(TailError::Damaged(format!(
                "journal {} is broken at byte {} and goes on behind it",
                path.display(),
                scan.whole_bytes
            )));
        }
        torn_bytes += scan.torn_bytes;
        replace_by_copy(database, &path, scan.whole_bytes)?;
    }
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "cut off a batch that was being written when the power or process ended");
    }
    Ok(torn_bytes)
}

/// Bytes of disk that [`secure`] needs at most.
pub(super) fn copy_bytes(database: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut most = 0;
    for path in journals(database)? {
        most = most.max(fs::metadata(path)?.blocks() * 512);
    }
    Ok(most)
}

/// The journals, oldest first.
fn journals(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut numbered = Vec::new();
    for item in fs::read_dir(database)? {
        let path = item?.path();
        let number =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            numbered.push((number, path));
        }
    }
    numbered.sort_unstable();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

struct Scan {
    /// Up to here, all batches are whole.
    whole_bytes: u64,
    /// From there to the last byte that is not zero: fjall makes a journal's file 64 MiB of zeros.
    torn_bytes: u64,
    /// How often the store's id is found there.
    ids_behind: u32,
}

fn scan(path: &Path, store: StoreId) -> io::Result<Scan> {
    let file = File::open(path)?;
    let mut batches = BatchReader {
        left: file.metadata()?.len(),
        reader: BufReader::with_capacity(256 * 1024, file),
        buffer: Vec::new(),
    };
    let mut whole_bytes = 0;
    while let Some(bytes) = batches.next_batch()? {
        whole_bytes += bytes;
    }
    let mut file = batches.reader.into_inner();
    file.seek(SeekFrom::Start(whole_bytes))?;
    let (torn_bytes, ids_behind) = scan_tail(&mut file, store)?;
    Ok(Scan { whole_bytes, torn_bytes, ids_behind })
}

/// Reads on to the end: where the last byte is that is not zero, and how often the id occurs.
fn scan_tail(file: &mut File, store: StoreId) -> io::Result<(u64, u32)> {
    const CHUNK: usize = 64 * 1024;
    let id = &store.0;
    // The last bytes of the chunk before stay in front, so that an id across the seam is found.
    let mut window = vec![0; id.len() - 1 + CHUNK];
    let (mut offset, mut last, mut ids) = (0_u64, 0, 0);
    loop {
        let read = read_full(file, &mut window[id.len() - 1..])?;
        let filled = id.len() - 1 + read;
        if let Some(index) = window[id.len() - 1..filled].iter().rposition(|byte| *byte != 0) {
            last = offset + index as u64 + 1;
        }
        if window[..filled].iter().any(|byte| *byte != 0) {
            ids += window[..filled].windows(id.len()).filter(|part| part == id).count() as u32;
        }
        offset += read as u64;
        if read < CHUNK {
            return Ok((last, ids));
        }
        window.copy_within(filled - (id.len() - 1)..filled, 0);
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads batch by batch and stops at the first that is not whole.
struct BatchReader<R> {
    reader: R,
    /// Bytes that were not read yet: a length beyond them is no length.
    left: u64,
    buffer: Vec<u8>,
}

impl<R: Read> BatchReader<R> {
    /// Length of the next batch; `None` when there is no further whole one.
    fn next_batch(&mut self) -> io::Result<Option<u64>> {
        let before = self.left;
        if self.take(1)? != Some(&[1]) {
            return Ok(None);
        }
        let Some(&[a, b, c, d, ..]) = self.take(12)? else { return Ok(None) };
        let items = u32::from_le_bytes([a, b, c, d]);
        let mut hash = Xxh3::new();
        for _ in 0..items {
            if !self.item(&mut hash)? {
                return Ok(None);
            }
        }
        let Some([3, end @ ..]) = self.take(13)? else { return Ok(None) };
        let whole = end[..8] == hash.digest().to_le_bytes() && end[8..] == *MAGIC;
        Ok(whole.then_some(before - self.left))
    }

    /// Reads an item into the hash; false if it is none.
    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let Some(&[tag]) = self.take(1)? else { return Ok(false) };
        hash.update(&[tag]);
        let head = match tag {
            2 => 20,
            4 => 8,
            _ => return Ok(false),
        };
        let Some(bytes) = self.take(head)? else { return Ok(false) };
        let rest = match bytes {
            &[_, _, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] => {
                u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([v0, v1, v2, v3]))
            }
            _ => 0,
        };
        hash.update(bytes);
        let Some(bytes) = self.take(rest)? else { return Ok(false) };
        hash.update(bytes);
        Ok(true)
    }

    fn take(&mut self, count: u64) -> io::Result<Option<&[u8]>> {
        let Some(left) = self.left.checked_sub(count) else { return Ok(None) };
        self.left = left;
        self.buffer.resize(count as usize, 0);
        // Shorter than its length said: somebody cut it meanwhile. It ends here.
        let whole = read_full(&mut self.reader, &mut self.buffer)? == self.buffer.len();
        Ok(whole.then_some(&self.buffer))
    }
}

/// Byte by byte through memory: a file system that shares blocks between copies would share the very
/// blocks that never reached the disk.
fn replace_by_copy(database: &Path, path: &Path, bytes: u64) -> io::Result<()> {
    let copy_path = database.join(COPY);
    let copy = || {
        let mut from = File::open(path)?.take(bytes);
        let mut to = File::create(&copy_path)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = read_full(&mut from, &mut buffer)?;
            if count == 0 {
                break;
            }
            to.write_all(&buffer[..count])?;
        }
        to.sync_all()?;
        fs::rename(&copy_path, path)?;
        fsync_folder(database)
    };
    copy().inspect_err(|_| {
        // The copy takes room that somebody may need now; the next try makes it anew.
        let _ = fs::remove_file(&copy_path);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StoreId = StoreId(*b"0123456789abcdef");

    fn batch(value: &[u8]) -> Vec<u8> {
        let mut item = vec![2, 0, 0];
        item.extend_from_slice(&7_u64.to_le_bytes());
        item.extend_from_slice(&3_u16.to_le_bytes());
        item.extend_from_slice(&(value.len() as u32).to_le_bytes());
        item.extend_from_slice(&(value.len() as u32).to_le_bytes());
        item.extend_from_slice(b"key");
        item.extend_from_slice(value);
        let mut bytes = vec![1];
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&9_u64.to_le_bytes());
        bytes.extend_from_slice(&item);
        let mut hash = Xxh3::new();
        hash.update(&item);
        bytes.push(3);
        bytes.extend_from_slice(&hash.digest().to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        bytes
    }

    fn secured(journals: &[&[u8]]) -> (Result<u64, TailError>, Vec<Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = |index: usize| folder.path().join(format!("{}.jnl", index + 9));
        for (index, bytes) in journals.iter().enumerate() {
            fs::write(path(index), bytes).unwrap();
        }
        let result = secure(folder.path(), ID);
        let left = (0..journals.len()).map(|index| fs::read(path(index)).unwrap()).collect();
        (result, left)
    }

    #[test]
    fn whole_batches_stay_and_zeros_go() {
        let two = [batch(&ID.0), batch(&ID.0)].concat();
        let (result, left) = secured(&[&[two.clone(), vec![0; 200_000]].concat()]);
        assert_eq!(result.unwrap(), 0);
        assert_eq!(left, [two]);
    }

    #[test]
    fn a_batch_torn_at_any_byte_goes_alone() {
        let whole = batch(b"whole");
        let torn = batch(&ID.0);
        for cut in 1..torn.len() {
            let (result, left) = secured(&[&[&whole[..], &torn[..cut]].concat()]);
            assert!(result.unwrap() > 0);
            assert_eq!(left[0], whole, "cut at {cut}");
            // A hole instead of an end, as pages that came out of order leave it.
            let mut holed = [&whole[..], &torn[..]].concat();
            holed[whole.len() + cut - 1] ^= 0x55;
            let (result, left) = secured(&[&holed]);
            match result {
                Ok(_) => assert!(left[0] == whole || left[0] == holed, "hole at {cut}"),
                Err(error) => panic!("hole at {cut}: {error:?}"),
            }
        }
    }

    #[test]
    fn damage_before_what_was_acknowledged_is_told() {
        let mut broken = [batch(&ID.0), batch(&ID.0), batch(&ID.0)].concat();
        broken[20] ^= 1;
        assert!(matches!(secured(&[&broken]).0, Err(TailError::Damaged(_))));
        let mut first = batch(&ID.0);
        first[20] ^= 1;
        assert!(matches!(secured(&[&first, &batch(&ID.0)]).0, Err(TailError::Damaged(_))));
        // With nothing behind it, it is a torn end.
        assert!(secured(&[&first, &[0; 100]]).0.is_ok());
    }

    #[test]
    fn an_id_across_two_chunks_is_found() {
        for start in 65_500..65_560 {
            let mut bytes = vec![9; 140_000];
            bytes[start..start + 16].copy_from_slice(&ID.0);
            bytes[100..116].copy_from_slice(&ID.0);
            assert!(matches!(secured(&[&bytes]).0, Err(TailError::Damaged(_))), "{start}");
        }
    }
}
