//! Reads a history, one line at a time, in a buffer that is reused: a file may be larger than the memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::event::Record;

/// Longest line that is read: the creation of a group of 1,000 with names of 64 bytes needs 70 KB.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be opened or read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not an event.
    #[error("{} line {line}: {reason}. A history is one JSON object a line, as `loadgen run` writes it", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}

/// Gives each record of a file to `take`, and returns how many there were.
///
/// # Errors
/// [`HistoryError`]; the records before the trouble were given.
pub fn read_file(path: &Path, take: impl FnMut(Record<'_>)) -> Result<u64, HistoryError> {
    let file = File::open(path).map_err(|source| HistoryError::File { path: path.to_path_buf(), source })?;
    read_lines(path, BufReader::with_capacity(1 << 20, file), take)
}

/// As [`read_file`], of any lines; `path` is for the errors.
///
/// # Errors
/// [`HistoryError`]; the records before the trouble were given.
pub fn read_lines(
    path: &Path,
    mut lines: impl BufRead,
    mut take: impl FnMut(Record<'_>),
) -> Result<u64, HistoryError> {
    let mut line = Vec::new();
    let mut count = 0;
    loop {
        line.clear();
        let read = io::Read::take(&mut lines, LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .map_err(|source| HistoryError::File { path: path.to_path_buf(), source })?;
        if read == 0 {
            return Ok(count);
        }
        count += 1;
        let malformed = |reason| HistoryError::Malformed { path: path.to_path_buf(), line: count, reason };
        if line.last() != Some(&b'\n') {
            return Err(malformed("the line does not end: its writer was killed, or it is too long".into()));
        }
        take(Record::read(&line).map_err(malformed)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<u64, HistoryError> {
        read_lines(Path::new("test"), text.as_bytes(), |_| {})
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        let good = "{\"t\":1,\"e\":\"durable\",\"conv\":1,\"seq\":1}\n";
        assert_eq!(read(&good.repeat(3)).unwrap(), 3);
        let error = read(&format!("{good}{{}}\n")).unwrap_err().to_string();
        assert!(error.starts_with("test line 2: "), "{error}");
        let error = read(&good[..good.len() - 1]).unwrap_err().to_string();
        assert!(error.contains("does not end"), "{error}");
    }
}
