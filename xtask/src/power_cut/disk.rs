//! What the disk holds: for each file and folder the state that programs see, and the operations since
//! its last fsync, which a power cut may undo.
//!
//! The rules are POSIX's, not a given file system's: fsync of a file makes its bytes durable and says
//! nothing of its name; a name (created, removed, renamed) is durable after an fsync of its folder.
//! File systems of today keep more than that; a store that is safe here is safe on them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// The folder at the top (the number that FUSE gives it).
pub(crate) const ROOT: u64 = 1;

/// How much of what was not synced a power cut takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// All of it.
    Everything,
    /// Each unsynced operation by the toss of a coin, writes torn at sectors of 512 bytes: a drive's cache
    /// that was written back in no order. Drawn from this seed.
    Random(u64),
}

/// A file or a folder.
pub(crate) enum Node {
    File(File),
    Folder(Folder),
}

#[derive(Default)]
pub(crate) struct File {
    pub(crate) seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<FileOperation>,
}

enum FileOperation {
    Write { offset: usize, bytes: Vec<u8> },
    SetLength(usize),
}

#[derive(Default)]
pub(crate) struct Folder {
    pub(crate) seen: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    unsynced: Vec<FolderOperation>,
}

#[derive(Clone)]
enum FolderOperation {
    Put(OsString, u64),
    Remove(OsString),
    /// Within one folder: both names change or neither (rename(2)).
    Rename(OsString, OsString, u64),
}

/// The disk.
pub(crate) struct Disk {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Bytes that files may hold together; a write past it fails with ENOSPC.
    pub(crate) capacity: u64,
    /// While true every fsync fails with EIO, and what was unsynced stays so.
    pub(crate) fsync_fails: bool,
    pub(crate) fsyncs: u64,
    used: u64,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]);
        Self { nodes, next: ROOT + 1, capacity: u64::MAX, fsync_fails: false, fsyncs: 0, used: 0 }
    }

    pub(crate) fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(crate) fn folder(&self, id: u64) -> Option<&Folder> {
        match self.nodes.get(&id) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    pub(crate) fn child(&self, folder: u64, name: &OsStr) -> Option<u64> {
        self.folder(folder)?.seen.get(name).copied()
    }

    /// Bytes that all files hold.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    fn file_mut(&mut self, id: u64) -> Option<&mut File> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn folder_mut(&mut self, id: u64) -> Option<&mut Folder> {
        match self.nodes.get_mut(&id) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    /// A new file or folder under that name.
    pub(crate) fn create(&mut self, folder: u64, name: &OsStr, node: Node) -> Option<u64> {
        let id = self.next;
        self.folder_mut(folder)?.put(name.to_owned(), id);
        self.next += 1;
        self.nodes.insert(id, node);
        Some(id)
    }

    /// Takes a name away; the file lives on for who has it open.
    pub(crate) fn remove(&mut self, folder: u64, name: &OsStr) -> Option<()> {
        let id = self.child(folder, name)?;
        self.folder_mut(folder)?.remove(name);
        if let Some(Node::File(file)) = self.nodes.get(&id) {
            self.used = self.used.saturating_sub(file.seen.len() as u64);
        }
        Some(())
    }

    pub(crate) fn rename(&mut self, from: u64, name: &OsStr, to: u64, new_name: &OsStr) -> Option<()> {
        let id = self.child(from, name)?;
        if let Some(Node::File(replaced)) = self.child(to, new_name).and_then(|id| self.nodes.get(&id)) {
            self.used = self.used.saturating_sub(replaced.seen.len() as u64);
        }
        if from == to {
            self.folder_mut(from)?.rename(name, new_name, id);
        } else {
            self.folder_mut(from)?.remove(name);
            self.folder_mut(to)?.put(new_name.to_owned(), id);
        }
        Some(())
    }

    /// False if the disk is full.
    pub(crate) fn write(&mut self, id: u64, offset: u64, bytes: &[u8]) -> Option<bool> {
        let (capacity, used) = (self.capacity, self.used);
        let file = self.file_mut(id)?;
        let end = offset as usize + bytes.len();
        let grown = end.saturating_sub(file.seen.len()) as u64;
        if grown > 0 && used + grown > capacity {
            return Some(false);
        }
        let operation = FileOperation::Write { offset: offset as usize, bytes: bytes.to_vec() };
        operation.apply(&mut file.seen);
        file.unsynced.push(operation);
        self.used += grown;
        Some(true)
    }

    /// False if the disk is full.
    pub(crate) fn set_length(&mut self, id: u64, length: u64) -> Option<bool> {
        let (capacity, used) = (self.capacity, self.used);
        let file = self.file_mut(id)?;
        let before = file.seen.len() as u64;
        if length > before && used + length - before > capacity {
            return Some(false);
        }
        let operation = FileOperation::SetLength(length as usize);
        operation.apply(&mut file.seen);
        file.unsynced.push(operation);
        self.used = used + length - before;
        Some(true)
    }

    /// Makes a file's bytes durable. False if this disk's fsyncs fail now.
    pub(crate) fn sync_file(&mut self, id: u64) -> Option<bool> {
        if self.fsync_fails {
            return Some(false);
        }
        self.fsyncs += 1;
        let file = self.file_mut(id)?;
        for operation in file.unsynced.drain(..) {
            operation.apply(&mut file.durable);
        }
        Some(true)
    }

    /// Makes a folder's names durable. False if this disk's fsyncs fail now.
    pub(crate) fn sync_folder(&mut self, id: u64) -> Option<bool> {
        if self.fsync_fails {
            return Some(false);
        }
        self.fsyncs += 1;
        let folder = self.folder_mut(id)?;
        folder.unsynced.clear();
        folder.durable = folder.seen.clone();
        Some(true)
    }

    /// The power goes and comes back: every file and folder is what was durable, with what `loss` leaves.
    pub(crate) fn cut_power(&mut self, loss: Loss) {
        let mut coin = Coin(match loss {
            Loss::Everything => None,
            Loss::Random(seed) => Some(seed),
        });
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.cut_power(&mut coin),
                Node::Folder(folder) => folder.cut_power(&mut coin),
            }
        }
        self.forget_unreachable();
    }

    fn forget_unreachable(&mut self) {
        let mut reached = BTreeMap::new();
        let mut next = vec![ROOT];
        while let Some(id) = next.pop() {
            let Some(node) = self.nodes.remove(&id) else { continue };
            if let Node::Folder(folder) = &node {
                next.extend(folder.seen.values());
            }
            reached.insert(id, node);
        }
        self.nodes = reached;
        self.used = self
            .nodes
            .values()
            .map(|node| if let Node::File(file) = node { file.seen.len() as u64 } else { 0 })
            .sum();
    }
}

impl File {
    fn cut_power(&mut self, coin: &mut Coin) {
        for operation in self.unsynced.drain(..) {
            match operation {
                FileOperation::Write { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector = (512 - (offset + at) % 512).min(bytes.len() - at);
                        if coin.keeps() {
                            let bytes = bytes[at..at + sector].to_vec();
                            FileOperation::Write { offset: offset + at, bytes }.apply(&mut self.durable);
                        }
                        at += sector;
                    }
                }
                FileOperation::SetLength(length) => {
                    if coin.keeps() {
                        FileOperation::SetLength(length).apply(&mut self.durable);
                    }
                }
            }
        }
        self.seen = self.durable.clone();
    }
}

impl FileOperation {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            FileOperation::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            FileOperation::SetLength(length) => content.resize(*length, 0),
        }
    }
}

impl Folder {
    fn put(&mut self, name: OsString, id: u64) {
        self.seen.insert(name.clone(), id);
        self.unsynced.push(FolderOperation::Put(name, id));
    }

    fn remove(&mut self, name: &OsStr) {
        self.seen.remove(name);
        self.unsynced.push(FolderOperation::Remove(name.to_owned()));
    }

    fn rename(&mut self, name: &OsStr, new_name: &OsStr, id: u64) {
        self.seen.remove(name);
        self.seen.insert(new_name.to_owned(), id);
        self.unsynced.push(FolderOperation::Rename(name.to_owned(), new_name.to_owned(), id));
    }

    fn cut_power(&mut self, coin: &mut Coin) {
        // Names are kept or lost in order: file systems journal them, so a later one implies the earlier.
        for operation in self.unsynced.drain(..) {
            if !coin.keeps() {
                break;
            }
            match operation {
                FolderOperation::Put(name, id) => self.durable.insert(name, id),
                FolderOperation::Remove(name) => self.durable.remove(&name),
                FolderOperation::Rename(name, new_name, id) => {
                    self.durable.remove(&name);
                    self.durable.insert(new_name, id)
                }
            };
        }
        self.unsynced.clear();
        self.seen = self.durable.clone();
    }
}

/// SplitMix64 (Steele et al., OOPSLA 2014), a bit at a time; without a seed it always says no.
struct Coin(Option<u64>);

impl Coin {
    fn keeps(&mut self) -> bool {
        let Some(state) = &mut self.0 else { return false };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = *state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content<'a>(disk: &'a Disk, name: &str) -> Option<&'a [u8]> {
        match disk.node(disk.child(ROOT, OsStr::new(name))?)? {
            Node::File(file) => Some(&file.seen),
            Node::Folder(_) => None,
        }
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_no_more() {
        let mut disk = Disk::new();
        let log = disk.create(ROOT, OsStr::new("log"), Node::File(File::default())).unwrap();
        disk.write(log, 0, b"synced").unwrap();
        disk.sync_file(log).unwrap();
        disk.sync_folder(ROOT).unwrap();
        disk.write(log, 6, b" and not").unwrap();
        assert_eq!(content(&disk, "log"), Some(&b"synced and not"[..]));
        disk.cut_power(Loss::Everything);
        assert_eq!(content(&disk, "log"), Some(&b"synced"[..]));
    }

    #[test]
    fn a_name_is_lost_unless_its_folder_was_synced() {
        let mut disk = Disk::new();
        let log = disk.create(ROOT, OsStr::new("new"), Node::File(File::default())).unwrap();
        disk.write(log, 0, b"bytes").unwrap();
        disk.sync_file(log).unwrap();
        disk.cut_power(Loss::Everything);
        assert_eq!(content(&disk, "new"), None);
    }

    #[test]
    fn a_full_disk_refuses_and_a_failed_fsync_keeps_nothing() {
        let mut disk = Disk::new();
        let log = disk.create(ROOT, OsStr::new("log"), Node::File(File::default())).unwrap();
        disk.sync_folder(ROOT).unwrap();
        disk.capacity = 4;
        assert_eq!(disk.write(log, 0, b"12345"), Some(false));
        assert_eq!(disk.write(log, 0, b"1234"), Some(true));
        disk.fsync_fails = true;
        assert_eq!(disk.sync_file(log), Some(false));
        disk.cut_power(Loss::Everything);
        assert_eq!(content(&disk, "log"), Some(&b""[..]));
    }
}
