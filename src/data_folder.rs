//! The data folder: what is where, and the secrets that the first start makes in it.
//!
//! ```text
//!   ringway-data/
//!     store/              the embedded store
//!     tls/dev-cert.pem    the development certificate, and its key beside it (certificate.rs)
//!     dev-signing-key     the secret of development tokens, for this user only
//!     resume-key          what resume cursors are authenticated with
//!     jwks-cache.json     the issuer's keys as last fetched (keys.rs)
//!     run.json            who serves now, and where (run_file.rs)
//! ```
//! A secret is made once, whole before it has its name, readable by its owner only.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// Bytes of each secret.
const SECRET_BYTES: usize = 32;

/// The data folder of one server.
#[derive(Clone, Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    /// Names it, without looking whether it is there.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes it if it is not there.
    ///
    /// # Errors
    /// [`Exit::Store`] if it cannot be made.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let folder = Self::at(path);
        for path in [folder.path.clone(), folder.tls()] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| unusable(&path, &error))?;
        }
        Ok(folder)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The store's folder.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The development certificate's folder.
    pub(crate) fn tls(&self) -> PathBuf {
        self.path.join("tls")
    }

    /// The file that tells who serves.
    pub(crate) fn run_file(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// The issuer's keys as last fetched.
    pub(crate) fn jwks_cache(&self) -> PathBuf {
        self.path.join("jwks-cache.json")
    }

    /// The secret of development tokens.
    pub(crate) fn signing_key(&self) -> PathBuf {
        self.path.join("dev-signing-key")
    }

    /// The secret of resume cursors.
    pub(crate) fn resume_key(&self) -> PathBuf {
        self.path.join("resume-key")
    }
}

/// Reads a secret of 32 bytes, making it first if it is not there.
///
/// # Errors
/// [`Exit::Store`] if it can be neither read nor made, or has another length.
pub(crate) fn secret(path: &Path) -> Result<[u8; SECRET_BYTES], Failure> {
    match std::fs::read(path) {
        Ok(bytes) => bytes.as_slice().try_into().map_err(|_| {
            let length = bytes.len();
            Failure::new(
                Exit::Store,
                format!(
                    "{}: has {length} bytes, not {SECRET_BYTES}; delete it to have a new one made",
                    path.display()
                ),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; SECRET_BYTES];
            fill_random(&mut bytes).map_err(|error| unusable(path, &error))?;
            write_private(path, &bytes).map_err(|error| unusable(path, &error))?;
            Ok(bytes)
        }
        Err(error) => Err(unusable(path, &error)),
    }
}

/// Random bytes fit for a secret.
///
/// # Errors
/// If the machine has no randomness to give.
pub(crate) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(bytes).map_err(|_| io::Error::other("the machine gives no random bytes"))
}

/// Writes a file that only its owner can read; it has its name only when it is whole and synced.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Exit::Store,
        format!("{}: {error}; give a folder that can be written with --data.folder", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::create(&folder.path().join("a/b")).unwrap();
        let first = secret(&data.signing_key()).unwrap();
        assert_eq!(secret(&data.signing_key()).unwrap(), first);
        assert_ne!(secret(&data.resume_key()).unwrap(), first);
        let mode = std::fs::metadata(data.signing_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(data.path()).unwrap().count();
        assert_eq!(files, 3, "two secrets, the folder tls, and no draft");
    }

    #[test]
    fn a_damaged_secret_is_told_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, b"short").unwrap();
        let failure = secret(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Store);
        assert!(failure.message.contains("has 5 bytes, not 32"), "{}", failure.message);
    }
}
