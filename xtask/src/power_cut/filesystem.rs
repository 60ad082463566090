//! The disk of `disk.rs` mounted by FUSE, and a handle to cut its power.
//!
//! Names and attributes are never cached by the kernel (a time to live of zero), so that after a cut the
//! next look sees the disk as it came back.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::disk::{Disk, File, Folder, Loss, Node};

/// No caching.
const TIME_TO_LIVE: Duration = Duration::ZERO;

/// A mounted disk. Unmounted when dropped.
pub(crate) struct PowerCutDisk {
    disk: Arc<Mutex<Disk>>,
    folder: PathBuf,
    session: Option<BackgroundSession>,
}

impl PowerCutDisk {
    /// Mounts an empty disk on a folder that exists.
    pub(crate) fn mount(folder: &Path) -> io::Result<Self> {
        let disk = Arc::new(Mutex::new(Disk::new()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power-cut".into()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Mounted { disk: Arc::clone(&disk) }, folder, &config)?;
        Ok(Self { disk, folder: folder.to_owned(), session: Some(session) })
    }

    /// The power goes and comes back. Whoever used the disk must have been killed before.
    pub(crate) fn cut_power(&self, loss: Loss) {
        self.lock().cut_power(loss);
    }

    /// Bytes that files may hold together from now on.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// Whether each fsync fails from now on.
    pub(crate) fn set_fsync_fails(&self, fails: bool) {
        self.lock().fsync_fails = fails;
    }

    /// Fsyncs that succeeded, of files and folders.
    pub(crate) fn fsyncs(&self) -> u64 {
        self.lock().fsyncs
    }

    /// Bytes that all files hold now.
    pub(crate) fn used(&self) -> u64 {
        self.lock().used()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no holder of the disk's lock panics")
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("the power-cut disk at {} stays mounted: {error}", self.folder.display());
        }
    }
}

/// What FUSE calls.
struct Mounted {
    disk: Arc<Mutex<Disk>>,
}

impl Mounted {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no holder of the disk's lock panics")
    }
}

fn attributes(id: u64, node: &Node) -> FileAttr {
    let (kind, size, perm) = match node {
        Node::File(file) => (FileType::RegularFile, file.seen.len() as u64, 0o600),
        Node::Folder(_) => (FileType::Directory, 0, 0o700),
    };
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(id),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.lock();
        match disk.child(parent.0, name).and_then(|id| Some((id, disk.node(id)?))) {
            Some((id, node)) => reply.entry(&TIME_TO_LIVE, &attributes(id, node), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.lock().node(ino.0) {
            Some(node) => reply.attr(&TIME_TO_LIVE, &attributes(ino.0, node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.lock();
        if let Some(size) = size {
            match disk.set_length(ino.0, size) {
                Some(true) => {}
                Some(false) => return reply.error(Errno::ENOSPC),
                None => return reply.error(Errno::EISDIR),
            }
        }
        match disk.node(ino.0) {
            Some(node) => reply.attr(&TIME_TO_LIVE, &attributes(ino.0, node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut disk = self.lock();
        match disk.create(parent.0, name, Node::Folder(Folder::default())) {
            Some(id) => {
                let attributes = attributes(id, &Node::Folder(Folder::default()));
                reply.entry(&TIME_TO_LIVE, &attributes, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.lock().remove(parent.0, name) {
            Some(()) => reply.ok(),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut disk = self.lock();
        let folder = disk.child(parent.0, name).and_then(|id| disk.folder(id));
        match folder.map(|folder| folder.seen.is_empty()) {
            Some(true) => {
                disk.remove(parent.0, name);
                reply.ok();
            }
            Some(false) => reply.error(Errno::ENOTEMPTY),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        match self.lock().rename(parent.0, name, new_parent.0, new_name) {
            Some(()) => reply.ok(),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.lock();
        match disk.create(parent.0, name, Node::File(File::default())) {
            Some(id) => {
                let attributes = attributes(id, &Node::File(File::default()));
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&TIME_TO_LIVE, &attributes, Generation(0), FileHandle(0), flags);
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.lock().node(ino.0) {
            Some(Node::File(file)) => {
                let start = (offset as usize).min(file.seen.len());
                let end = (start + size as usize).min(file.seen.len());
                reply.data(&file.seen[start..end]);
            }
            Some(Node::Folder(_)) => reply.error(Errno::EISDIR),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.lock().write(ino.0, offset, data) {
            Some(true) => reply.written(data.len() as u32),
            Some(false) => reply.error(Errno::ENOSPC),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        match self.lock().sync_file(ino.0) {
            Some(true) => reply.ok(),
            Some(false) => reply.error(Errno::EIO),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        match self.lock().sync_folder(ino.0) {
            Some(true) => reply.ok(),
            Some(false) => reply.error(Errno::EIO),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let disk = self.lock();
        let Some(folder) = disk.folder(ino.0) else { return reply.error(Errno::ENOTDIR) };
        for (index, (name, id)) in folder.seen.iter().enumerate().skip(offset as usize) {
            let kind = match disk.node(*id) {
                Some(Node::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(*id), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let disk = self.lock();
        let total = disk.capacity.min(1 << 40) / 4096;
        let free = total.saturating_sub(disk.used().div_ceil(4096));
        reply.statfs(total, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// What a store does to a log, by the system's own calls.
    #[test]
    fn a_mounted_disk_keeps_what_was_synced_through_a_power_cut() {
        let place = tempfile::tempdir().unwrap();
        let disk = PowerCutDisk::mount(place.path()).expect("mounting needs root and /dev/fuse");
        let path = place.path().join("log");
        let mut log = fs::File::create(&path).unwrap();
        log.write_all(b"acknowledged ").unwrap();
        log.sync_data().unwrap();
        fs::File::open(place.path()).unwrap().sync_all().unwrap();
        log.write_all(b"not yet").unwrap();
        fs::write(place.path().join("other"), b"never synced").unwrap();
        drop(log);
        assert_eq!(fs::read(&path).unwrap(), b"acknowledged not yet");

        disk.cut_power(Loss::Everything);

        assert_eq!(fs::read(&path).unwrap(), b"acknowledged ");
        let names: Vec<_> =
            fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["log"]);
    }

    #[test]
    fn a_failing_disk_says_so() {
        let place = tempfile::tempdir().unwrap();
        let disk = PowerCutDisk::mount(place.path()).expect("mounting needs root and /dev/fuse");
        let mut log = fs::File::create(place.path().join("log")).unwrap();
        log.write_all(b"1234").unwrap();
        disk.set_capacity(disk.used());
        assert_eq!(log.write_all(b"5").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_fsync_fails(true);
        assert_eq!(log.sync_all().unwrap_err().raw_os_error(), Some(5));
    }
}
