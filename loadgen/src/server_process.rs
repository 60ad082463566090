//! The server as /proc shows it: processor time and resident memory.

use std::path::PathBuf;

/// A reading of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// User and system time since its start, in microseconds. The kernel counts in ticks of 10,000.
    pub cpu_microseconds: u64,
    /// VmRSS, in bytes.
    pub resident_bytes: u64,
}

/// A process could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}. --server-pid is the process id of a running server of this user", path.display())]
pub struct ProcessError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Reads a process.
///
/// # Errors
/// It is gone, or belongs to somebody else.
pub fn read(process: u32) -> Result<Reading, ProcessError> {
    let file = |name: &str| {
        let path = PathBuf::from(format!("/proc/{process}/{name}"));
        std::fs::read_to_string(&path).map_err(|error| ProcessError { path, reason: error.to_string() })
    };
    let (stat, status) = (file("stat")?, file("status")?);
    let wrong = |name: &str| ProcessError {
        path: PathBuf::from(format!("/proc/{process}/{name}")),
        reason: "not of the form that proc(5) describes".into(),
    };
    Ok(Reading {
        cpu_microseconds: cpu_ticks(&stat).ok_or_else(|| wrong("stat"))? * 1_000_000
            / rustix::param::clock_ticks_per_second(),
        resident_bytes: resident_kilobytes(&status).ok_or_else(|| wrong("status"))? * 1024,
    })
}

/// Fields 14 and 15 of proc(5)'s stat. The name in field 2 may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kilobytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_size_and_its_time_is_read_past_its_name() {
        let reading = read(std::process::id()).unwrap();
        assert!(reading.resident_bytes > 100_000);
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert!(read(u32::MAX).unwrap_err().to_string().contains("--server-pid"));
    }
}
