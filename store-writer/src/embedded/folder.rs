//! The store's folder on disk: who holds it, which format it has, and how much room there is.
//!
//! ```text
//!   lock           locked (flock) by the process that has the store; its process id
//!   reserve        disk space held back for recovery
//!   database/      fjall's folder, and in it `ringway-format`: format and store id
//!   database.new/  a creation that did not come to its end; removed
//! ```
//! `database/` comes into being by one rename, after everything in it was fsynced, so that it is there whole
//! or not at all. fjall itself fsyncs neither `keyspaces/` after it made a table's folder in it nor the
//! folder above its own: `fsync_tree` and `create_folders` do.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use super::rows::StoreId;
use super::settings::OpenError;

/// The form of tables and rows (`rows.rs`, `tables.rs`).
const FORMAT: u32 = 1;

/// A store's folder, held by this process while the value lives.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let io = |doing| move |error| OpenError::Io { folder: path.to_owned(), doing, error };
        create_folders(path).map_err(io("making it"))?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("lock"))
            .map_err(io("opening the lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is only helps the reader of the message.
                let _ = lock.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(OpenError::InUse { folder: path.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(io("locking it")(error)),
        }
        // Likewise: a full disk must not keep the store from opening for this.
        let _ = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// fjall's folder.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("database")
    }

    /// Where a database is made before it is one.
    pub(super) fn database_new(&self) -> PathBuf {
        self.path.join("database.new")
    }

    /// Whether there is a database.
    pub(super) fn is_created(&self) -> Result<bool, OpenError> {
        self.database().try_exists().map_err(self.io("looking for the database"))
    }

    /// Removes what an earlier creation left behind.
    pub(super) fn clear_unfinished(&self) -> Result<(), OpenError> {
        match fs::remove_dir_all(self.database_new()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.io("removing an unfinished database")(error))
            }
            _ => Ok(()),
        }
    }

    /// Puts the finished database in its place, durably.
    pub(super) fn finish_creation(&self, store: StoreId) -> Result<(), OpenError> {
        let new = self.database_new();
        let publish = || {
            let id: String = store.0.iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(new.join("ringway-format"), format!("format {FORMAT}\nstore {id}\n"))?;
            fsync_tree(&new)?;
            fs::rename(&new, self.database())?;
            fsync_folder(&self.path)
        };
        publish().map_err(self.io("making the database"))
    }

    /// Checks the format and reads the store's id.
    pub(super) fn read_format(&self) -> Result<StoreId, OpenError> {
        let text = fs::read_to_string(self.database().join("ringway-format"))
            .map_err(self.io("reading the file database/ringway-format"))?;
        let mut lines = text.lines();
        let found = lines.next().unwrap_or_default().trim_start_matches("format ").to_owned();
        if found != FORMAT.to_string() {
            return Err(OpenError::Format { folder: self.path.clone(), found, expected: FORMAT });
        }
        lines.next().and_then(|line| parse_store_id(line.strip_prefix("store ")?)).ok_or_else(|| {
            OpenError::Damaged {
                folder: self.path.clone(),
                what: "the file database/ringway-format names no store".to_owned(),
            }
        })
    }

    /// Free bytes; `None` where the file system doesn't say (one in user space, mostly).
    pub(super) fn space(&self) -> io::Result<Option<u64>> {
        let figures = rustix::fs::statvfs(&self.path)?;
        Ok((figures.f_blocks > 0).then(|| figures.f_bavail * figures.f_frsize))
    }

    /// Whether the reserve file is there.
    pub(super) fn has_reserve(&self) -> bool {
        self.path.join("reserve").exists()
    }

    /// Takes disk space in reserve. Quietly does without where the file system cannot.
    pub(super) fn hold_reserve(&self, bytes: u64) {
        let path = self.path.join("reserve");
        if bytes == 0 {
            let _ = fs::remove_file(path);
            return;
        }
        let hold = || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.set_len(file.metadata()?.len().min(bytes))?;
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            file.sync_all()
        };
        if let Err(error) = hold() {
            tracing::warn!(%error, bytes, "no disk space could be taken in reserve for recovery");
            let _ = fs::remove_file(path);
        }
    }

    /// Gives the reserve back to the disk.
    pub(super) fn release_reserve(&self) {
        match fs::remove_file(self.path.join("reserve")) {
            Ok(()) => tracing::warn!("the disk is nearly full: the store gave its reserve back"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "the store's reserve could not be given back"),
        }
    }

    /// Whether a write and its fsync work here at all, on a file of its own.
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.path.join("probe");
        let mut file = File::create(&path)?;
        file.write_all(&[0x5a; 4096])?;
        file.sync_all()?;
        drop(file);
        fs::remove_file(path)
    }

    /// For `map_err`.
    pub(super) fn io(&self, doing: &'static str) -> impl Fn(io::Error) -> OpenError + use<> {
        let folder = self.path.clone();
        move |error| OpenError::Io { folder: folder.clone(), doing, error }
    }
}

/// 16 random bytes.
pub(super) fn random_store_id() -> io::Result<StoreId> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(StoreId(id))
}

/// Makes the names in a folder durable.
pub(super) fn fsync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a folder and those above it, each durable in the one above.
fn create_folders(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new(""));
    create_folders(above)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    fsync_folder(if above.as_os_str().is_empty() { Path::new(".") } else { above })
}

/// Makes all files and folders below `path` durable, names and contents.
fn fsync_tree(path: &Path) -> io::Result<()> {
    for item in fs::read_dir(path)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            fsync_tree(&item.path())?;
        } else {
            File::open(item.path())?.sync_all()?;
        }
    }
    fsync_folder(path)
}

fn parse_store_id(hex: &str) -> Option<StoreId> {
    let mut id = [0; 16];
    if !hex.is_ascii() || hex.len() != 32 {
        return None;
    }
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(StoreId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let first = Folder::lock(&path).unwrap();
        let refused = Folder::lock(&path).err().expect("two holders").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Folder::lock(&path).unwrap();
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::lock(temporary.path()).unwrap();
        fs::create_dir(folder.database_new()).unwrap();
        folder.finish_creation(StoreId([0xab; 16])).unwrap();
        assert_eq!(folder.read_format().unwrap(), StoreId([0xab; 16]));
        let file = folder.database().join("ringway-format");
        fs::write(&file, "format 99\nstore 00\n").unwrap();
        let refused = folder.read_format().unwrap_err().to_string();
        assert!(refused.contains("format 99"), "{refused}");
        fs::write(&file, "format 1\nstore xyz\n").unwrap();
        assert!(matches!(folder.read_format(), Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn the_reserve_takes_real_blocks_and_gives_them_back() {
        use std::os::unix::fs::MetadataExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::lock(temporary.path()).unwrap();
        folder.hold_reserve(1 << 20);
        let blocks = fs::metadata(temporary.path().join("reserve")).unwrap().blocks();
        assert!(blocks * 512 >= 1 << 20, "{blocks}");
        assert!(folder.has_reserve());
        folder.release_reserve();
        assert!(!folder.has_reserve());
        folder.probe().unwrap();
    }
}
