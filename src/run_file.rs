//! `run.json`: which process serves a data folder, and the addresses it really got.
//!
//! Written when the server is ready, removed when it ends. Tests, tools and load clients read it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::data_folder::write_private;

/// Who serves, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RunFile {
    /// The process.
    pub(crate) pid: u32,
    /// wss and HTTPS, if on.
    pub(crate) wss: Option<SocketAddr>,
    /// ws and HTTP, if on.
    pub(crate) ws: Option<SocketAddr>,
    /// The admin port.
    pub(crate) admin: SocketAddr,
}

impl RunFile {
    /// Writes it until the guard is dropped.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn publish(&self, path: &Path) -> io::Result<Published> {
        let json = serde_json::to_vec(self).expect("plain fields are JSON");
        write_private(path, &json)?;
        Ok(Published { path: path.to_owned() })
    }
}

/// Removes the file when the server ends.
#[derive(Debug)]
pub(crate) struct Published {
    path: PathBuf,
}

impl Drop for Published {
    fn drop(&mut self) {
        // It is gone already if somebody cleaned the folder: nothing is left to do.
        let _ = std::fs::remove_file(&self.path);
    }
}
